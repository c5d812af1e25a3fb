"""Claims about CMS EnvelopedData: what opens, what is refused, and that failures look alike."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import ber, der, oids
from scep_ra.pki.algorithms import Cipher, Digest, KeyTransport
from scep_ra.pki.certificates import parse_certificate
from scep_ra.pki.enveloped_data import (
    MAX_RECIPIENTS,
    EnvelopedData,
    KeyTransRecipient,
    PasswordRecipient,
    decrypt_content,
    encrypt_content,
    open_envelope,
    parse_enveloped_data,
    seal_envelope,
)
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData
from scep_ra.pki.keys import SoftwareKey, load_private_key
from tests.support import vectors
from tests.support.keys import ec_key, rsa_key
from tests.support.mutations import mutations
from tests.support.openssl import needs_openssl, run_openssl, write_pem
from tests.support.scep_messages import (
    CIPHER_OIDS,
    HASHES,
    KEY_BYTES,
    Envelope,
    algorithm,
    cbc_decrypt,
    cbc_encrypt,
    certificate,
    extension,
    key_trans,
    name,
    oaep_parameters,
    pad,
)

SKI = extension(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(b"key id"))
RA = certificate(rsa_key("RA"), subject=name("RA"), certificate_serial=2**150 + 7, extensions=[SKI])
CA = certificate(rsa_key("CA"), subject=name("CA"), certificate_serial=11)
KEY = SoftwareKey(rsa_key("RA"))
CONTENT = b"a request, or something like it"
BASE = Envelope(content=CONTENT, recipient=RA)
CIPHERS = {
    "des": Cipher.DES,
    "3des": Cipher.TRIPLE_DES,
    "aes128": Cipher.AES128,
    "aes192": Cipher.AES192,
    "aes256": Cipher.AES256,
}


def open_for_ra(octets: bytes) -> bytes:
    envelope = parse_enveloped_data(octets)
    recipient = envelope.recipient_for(RA)
    assert recipient is not None
    return open_envelope(envelope, recipient, KEY, secrets.token_bytes)


# --- what opens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_cipher_opens(cipher: str) -> None:
    """P-11, and DES for those who must."""
    envelope = replace(BASE, cipher=cipher)
    assert open_for_ra(envelope.encode()) == CONTENT


def test_single_des_is_triple_des_with_one_key() -> None:
    """Against the published vector: key 0123456789abcdef, one zero block."""
    key = bytes.fromhex("0123456789abcdef")
    assert cbc_encrypt("des", key, bytes(8), bytes(8)).hex() == "d5d44ff720683d0d"
    assert encrypt_content(Cipher.DES, key, bytes(8), bytes(8))[:8].hex() == "d5d44ff720683d0d"
    assert decrypt_content(Cipher.DES, key, bytes(8), cbc_encrypt("des", key, bytes(8), pad(b"abc", 8))) == b"abc"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17])
def test_padding_is_always_added_and_taken_off(length: int) -> None:
    """RFC 5652 6.3: a whole block of it behind a full block."""
    key, iv, content = bytes(16), bytes(16), secrets.token_bytes(length)
    encrypted = encrypt_content(Cipher.AES128, key, iv, content)
    assert cbc_decrypt("aes128", key, iv, encrypted) == pad(content, 16)
    assert decrypt_content(Cipher.AES128, key, iv, encrypted) == content


@pytest.mark.parametrize(
    ("transport", "parameters"),
    [
        (padding.OAEP(padding.MGF1(HASHES["sha1"]), HASHES["sha1"], None), b""),
        (padding.OAEP(padding.MGF1(HASHES["sha1"]), HASHES["sha1"], None), oaep_parameters("sha1")),
        (padding.OAEP(padding.MGF1(HASHES["sha256"]), HASHES["sha256"], None), oaep_parameters("sha256")),
        (
            padding.OAEP(padding.MGF1(HASHES["sha1"]), HASHES["sha256"], b"label"),
            oaep_parameters("sha256", "sha1", b"label"),
        ),
    ],
)
def test_oaep_envelopes_open(transport: padding.AsymmetricPadding, parameters: bytes) -> None:
    """REP-8, P-15: Windows sends them, with SHA-1 by default or with SHA-256 and a label."""
    key = secrets.token_bytes(16)
    info = key_trans(RA, key, transport=transport, identifier=algorithm(oids.RSAES_OAEP, parameters))
    assert open_for_ra(replace(BASE, content_key=key, recipient_infos=(info,)).encode()) == CONTENT


@pytest.mark.parametrize("segments", [1, 3])
def test_content_constructed_with_definite_length_opens_where_asn1crypto_refuses(segments: int) -> None:
    """P-17, regression: Go's pkcs7 (scepclient 2.1) sends `a0 82 .. 04 82 ..`; if asn1crypto reads it now, say so."""
    octets = replace(BASE, segments=segments).encode()
    assert open_for_ra(octets) == CONTENT
    with pytest.raises(ValueError, match="method should have been primitive"):
        _ = cms.ContentInfo.load(octets, strict=True)["content"]["encrypted_content_info"]["encrypted_content"].native


def test_a_streamed_envelope_of_openssl_opens_after_normalising() -> None:
    """P-16: indefinite lengths and two segments."""
    envelope = parse_enveloped_data(ber.normalise(vectors.read("ber-indefinite-envelopeddata-openssl-stream.ber")))
    pem = load_pem_x509_certificate(vectors.read("ber-recipient.pem"))
    recipient = envelope.recipient_for(parse_certificate(pem.public_bytes(Encoding.DER)))
    assert recipient is not None
    key = load_private_key(vectors.read("ber-recipient-TEST-ONLY.key"))
    assert len(open_envelope(envelope, recipient, key, secrets.token_bytes)) == 360


def test_the_recipient_is_found_among_others_and_by_key_identifier() -> None:
    """MSG-7, P-08, P-09: scepclient encrypts to the CA as well."""
    key = secrets.token_bytes(16)
    for_ca, for_ra = key_trans(CA, key), key_trans(RA, key)
    key_id = der.element(der.context(0, constructed=False), b"key id")
    by_key_id = key_trans(RA, key, recipient_id=key_id)
    for infos in [(for_ca, for_ra), (for_ra, for_ca), (for_ca, by_key_id)]:
        assert open_for_ra(replace(BASE, content_key=key, recipient_infos=infos, version=2).encode()) == CONTENT


def test_an_issuer_name_encoded_in_another_way_is_understood_by_the_serial() -> None:
    """MSG-7: PrintableString for UTF8String, as some clients re-encode what they were given."""
    key = secrets.token_bytes(16)
    common_name = der.sequence(der.oid(oids.COMMON_NAME), der.element(der.PRINTABLE_STRING, b"RA"))
    issuer = der.sequence(der.element(der.SET, common_name))
    info = key_trans(RA, key, recipient_id=der.sequence(issuer, der.integer(RA.certificate_serial)))
    assert open_for_ra(replace(BASE, content_key=key, recipient_infos=(info,)).encode()) == CONTENT


def test_an_exact_name_goes_before_an_equal_serial() -> None:
    """Two recipients with one serial: the one with our issuer is ours."""
    key = secrets.token_bytes(16)
    stranger = key_trans(RA, bytes(16), recipient_id=der.sequence(name("X"), der.integer(RA.certificate_serial)))
    infos = (stranger, key_trans(RA, key))
    assert open_for_ra(replace(BASE, content_key=key, recipient_infos=infos).encode()) == CONTENT


def test_an_envelope_for_others_has_no_recipient_for_us() -> None:
    """N-21: by another serial, another key identifier, key agreement or a password."""
    key = secrets.token_bytes(16)
    key_id = der.element(der.context(0, constructed=False), b"another")
    agreement, password = der.element(der.context(1), der.integer(3)), der.element(der.context(3), der.integer(0))
    infos = (key_trans(CA, key), key_trans(RA, key, recipient_id=key_id), agreement, password)
    envelope = parse_enveloped_data(replace(BASE, recipient_infos=infos).encode())
    assert envelope.recipient_for(RA) is None
    assert [type(item) for item in envelope.recipients] == [KeyTransRecipient, KeyTransRecipient, PasswordRecipient]
    assert envelope.password_recipients == (PasswordRecipient(contents=der.integer(0)),)


def test_originator_and_unprotected_attributes_are_stepped_over() -> None:
    """RFC 5652 6.1: version 2 in the books, ignored here like the version itself."""
    originator = der.explicit(0, der.explicit(0, CA.der))
    envelope = replace(BASE, version=2, originator_info=originator, unprotected_attributes=der.explicit(1, b""))
    assert open_for_ra(envelope.encode()) == CONTENT


# --- what does not open --------------------------------------------------------------------------------------------


def failing_envelopes() -> dict[str, Envelope]:
    # Nothing is random but RSA's: by chance one run in 256 would find good padding.
    known = replace(BASE, content_key=bytes(range(16)), iv=bytes(16))
    return {
        "random encryptedKey": replace(known, recipient_infos=(key_trans(RA, b"", encrypted_key=bytes(range(256))),)),
        "encryptedKey of no length": replace(known, recipient_infos=(key_trans(RA, b"", encrypted_key=b""),)),
        "encryptedKey beyond the modulus": replace(
            known, recipient_infos=(key_trans(RA, b"", encrypted_key=b"\xff" * 256),)
        ),
        "content key of 15 octets": replace(known, recipient_infos=(key_trans(RA, bytes(15)),)),
        "no content key": replace(known, recipient_infos=(key_trans(RA, b""),)),
        "content key of 24 octets": replace(known, recipient_infos=(key_trans(RA, bytes(24)),)),
        "padding of 0": replace(known, padded=bytes(32)),
        "padding of 17": replace(known, padded=b"\x11" * 32),
        "padding not uniform": replace(known, padded=bytes(29) + b"\x02\x03\x03"),
        "half a block": replace(known, encrypted_content=bytes(24)),
        "no ciphertext": replace(known, encrypted_content=b""),
        "no segments": replace(known, segments=0),
    }


@pytest.mark.parametrize("case", failing_envelopes())
def test_whatever_is_wrong_the_failure_is_the_same(case: str) -> None:
    """N-22 to N-24, SEC-3: one exception, without text and without a cause to print."""
    envelope = parse_enveloped_data(failing_envelopes()[case].encode())
    recipient = envelope.recipient_for(RA)
    assert recipient is not None
    with pytest.raises(DecryptionFailed) as caught:
        open_envelope(envelope, recipient, KEY, bytes)
    assert str(caught.value) == ""
    assert caught.value.__cause__ is None


def test_a_content_key_of_the_wrong_length_is_replaced_by_random_octets() -> None:
    """RFC 3218: work goes on, with a key that the sender cannot know; and random octets are drawn in any case."""
    drawn: list[int] = []

    def random(count: int) -> bytes:
        drawn.append(count)
        return b"S" * count

    wrong = replace(BASE, content_key=b"S" * 16, recipient_infos=(key_trans(RA, bytes(15)),))
    envelope = parse_enveloped_data(wrong.encode())
    recipient = envelope.recipient_for(RA)
    assert recipient is not None
    assert open_envelope(envelope, recipient, KEY, random) == CONTENT
    good = parse_enveloped_data(BASE.encode())
    recipient = good.recipient_for(RA)
    assert recipient is not None
    assert open_envelope(good, recipient, KEY, random) == CONTENT
    assert drawn == [16, 16]


def test_a_key_that_cannot_decrypt_fails_like_everything_else() -> None:
    """An EC key behind the Decrypter port."""
    envelope = parse_enveloped_data(BASE.encode())
    recipient = envelope.recipient_for(RA)
    assert recipient is not None
    with pytest.raises(DecryptionFailed):
        open_envelope(envelope, recipient, SoftwareKey(ec_key()), bytes)


# --- what does not parse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "envelope"),
    [
        ("content type", replace(BASE, outer_type=oids.SIGNED_DATA)),
        ("is not id-data", replace(BASE, content_type=oids.ENVELOPED_DATA)),
        ("more than 10 recipients", replace(BASE, recipient_infos=(der.element(0xA1, b""),) * (MAX_RECIPIENTS + 1))),
        ("tag 0x02", replace(BASE, recipient_infos=(der.sequence(der.integer(0), der.integer(1)),))),
        ("missing", replace(BASE, recipient_infos=(der.sequence(),))),
    ],
)
def test_other_structures_are_no_enveloped_data(pattern: str, envelope: Envelope) -> None:
    """MSG-5, N-46."""
    with pytest.raises(MalformedData, match=pattern):
        parse_enveloped_data(envelope.encode())


@pytest.mark.parametrize("encrypted", [b"", der.explicit(0, der.NULL)], ids=["absent", "segments of NULL"])
def test_an_envelope_without_readable_content_is_malformed(encrypted: bytes) -> None:
    """CMS calls encryptedContent OPTIONAL; SCEP never leaves it out."""
    identifier = algorithm(CIPHER_OIDS["aes128"], der.octet_string(bytes(16)))
    content = der.sequence(der.oid(oids.DATA), identifier, encrypted)
    body = der.sequence(der.integer(0), der.element(der.SET, b""), content)
    with pytest.raises(MalformedData):
        parse_enveloped_data(der.sequence(der.oid(oids.ENVELOPED_DATA), der.explicit(0, body)))


# --- sealing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", CIPHERS.values())
@pytest.mark.parametrize(
    "transport",
    [
        None,
        KeyTransport(oaep_digest=Digest.SHA1, mgf_digest=Digest.SHA1),
        KeyTransport(oaep_digest=Digest.SHA256, mgf_digest=Digest.SHA256, label=b"label"),
    ],
    ids=["pkcs1", "oaep", "oaep with label"],
)
def test_what_we_seal_opens(cipher: Cipher, transport: KeyTransport | None) -> None:
    """Every cipher with every key transport."""
    assert open_for_ra(seal_envelope(CONTENT, RA, cipher, secrets.token_bytes, transport)) == CONTENT


def test_a_sealed_envelope_names_its_recipient_with_the_octets_of_the_certificate() -> None:
    """REP-5, REP-8: version 0, one KeyTransRecipientInfo with the raw issuer, rsaEncryption with NULL."""
    octets = seal_envelope(CONTENT, RA, Cipher.AES128, secrets.token_bytes)
    enveloped = cms.ContentInfo.load(octets, strict=True)["content"]
    (recipient,) = enveloped["recipient_infos"]
    assert enveloped["version"].dump() == recipient.chosen["version"].dump() == der.integer(0)
    assert recipient.chosen["rid"].chosen.dump() == der.sequence(RA.issuer, der.integer(RA.certificate_serial))
    assert recipient.chosen["key_encryption_algorithm"].dump().hex() == "300d06092a864886f70d0101010500"
    key = rsa_key("RA").decrypt(recipient.chosen["encrypted_key"].native, padding.PKCS1v15())
    encrypted = enveloped["encrypted_content_info"]
    iv = encrypted["content_encryption_algorithm"]["parameters"].native
    assert len(key) == KEY_BYTES["aes128"]
    assert cbc_decrypt("aes128", key, iv, encrypted["encrypted_content"].native) == pad(CONTENT, 16)


def test_key_and_iv_are_fresh() -> None:
    """Two envelopes of one content share nothing but their form."""
    first, second = (seal_envelope(CONTENT, RA, Cipher.AES128, secrets.token_bytes) for _ in range(2))
    assert parse_enveloped_data(first).encrypted_content != parse_enveloped_data(second).encrypted_content
    assert parse_enveloped_data(first).cipher != parse_enveloped_data(second).cipher


def test_an_ec_certificate_cannot_receive_an_envelope() -> None:
    """RFC 8894 3.1: key agreement is no part of SCEP."""
    with pytest.raises(AlgorithmRefused, match="only an RSA key"):
        seal_envelope(CONTENT, certificate(ec_key()), Cipher.AES128, secrets.token_bytes)


@needs_openssl
@pytest.mark.parametrize("cipher", [Cipher.TRIPLE_DES, Cipher.AES128, Cipher.AES256])
def test_openssl_opens_what_we_seal(tmp_path: Path, cipher: Cipher) -> None:
    """Another implementation as the judge."""
    (tmp_path / "message.der").write_bytes(seal_envelope(CONTENT, RA, cipher, secrets.token_bytes))
    (tmp_path / "ra.key").write_bytes(rsa_key("RA").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate_file = write_pem(tmp_path / "ra.pem", [RA])
    result = run_openssl(
        *("cms", "-decrypt", "-inform", "DER", "-binary", "-recip", certificate_file, "-inkey", tmp_path / "ra.key"),
        *("-in", tmp_path / "message.der", "-out", tmp_path / "content"),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "content").read_bytes() == CONTENT


# --- hostile -------------------------------------------------------------------------------------------------------


def open_or_refuse(octets: bytes) -> None:
    with suppress(MalformedData, AlgorithmRefused, DecryptionFailed):
        envelope: EnvelopedData = parse_enveloped_data(octets)
        recipient = envelope.recipient_for(RA)
        if recipient is not None:
            open_envelope(envelope, recipient, KEY, bytes)


@given(st.binary(max_size=100))
def test_only_documented_errors_leave_for_arbitrary_octets(octets: bytes) -> None:
    """MalformedData from the parser."""
    open_or_refuse(octets)


@given(mutations(BASE.encode()))
def test_only_documented_errors_leave_for_changed_envelopes(octets: bytes) -> None:
    """One octet changed, cut off, or an element said twice."""
    open_or_refuse(octets)
