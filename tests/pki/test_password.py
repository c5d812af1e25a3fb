"""Claims about envelopes that open with a password (RFC 5652 6.2.4, RFC 3211), with openssl as the judge."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import ber, der, oids
from scep_ra.pki.algorithms import Cipher
from scep_ra.pki.enveloped_data import EnvelopedData, PasswordRecipient, parse_enveloped_data
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData
from scep_ra.pki.password import (
    MAX_ITERATIONS,
    check_password_recipient,
    open_password_envelope,
    seal_password_envelope,
)
from tests.support.keys import rsa_key
from tests.support.mutations import mutations
from tests.support.openssl import needs_openssl, run_openssl
from tests.support.scep_messages import CIPHER_OIDS, Envelope, algorithm, cbc_encrypt, pad, stand_in

PASSWORD = b"correct horse"
CONTENT = b"a request, or something like it"
SALT, KEK_IV, CONTENT_KEY = b"saltsalt", bytes(range(16)), bytes(range(50, 66))
PRFS = {
    "sha1": "1.2.840.113549.2.7",
    "sha224": "1.2.840.113549.2.8",
    "sha256": "1.2.840.113549.2.9",
    "sha384": "1.2.840.113549.2.10",
    "sha512": "1.2.840.113549.2.11",
}


def open_with(octets: bytes, *passwords: bytes) -> tuple[bytes, bytes]:
    envelope = parse_enveloped_data(octets)
    (recipient,) = envelope.password_recipients
    check_password_recipient(recipient)
    return open_password_envelope(envelope, recipient, passwords)


def pbkdf2(
    *,
    salt: bytes = SALT,
    iterations: int = 10,
    key_length: bytes = b"",
    prf: bytes | None = None,
    oid: str = oids.PBKDF2,
) -> bytes:
    """Return keyDerivationAlgorithm [0]; `prf` is a DER AlgorithmIdentifier, HMAC with SHA-256 by default."""
    prf = algorithm(PRFS["sha256"]) if prf is None else prf
    parameters = der.sequence(der.octet_string(salt), der.integer(iterations), key_length, prf)
    return der.explicit(0, der.oid(oid) + parameters)


def pwri_kek(cipher: str = "aes128", oid: str = oids.PWRI_KEK, iv: bytes = KEK_IV) -> bytes:
    return algorithm(oid, algorithm(CIPHER_OIDS[cipher], der.octet_string(iv)))


def wrap(
    block: bytes, *, prf: str = "sha256", iterations: int = 10, cipher: str = "aes128", key_bytes: int = 16
) -> bytes:
    """Encrypt an RFC 3211 block twice, the second time under the last block of the first."""
    kek = hashlib.pbkdf2_hmac(prf, PASSWORD, SALT, iterations, key_bytes)
    once = cbc_encrypt(cipher, kek, KEK_IV, block)
    return cbc_encrypt(cipher, kek, once[-16:], once)


def key_block(content_key: bytes = CONTENT_KEY, check: bytes | None = None, length: int | None = None) -> bytes:
    complement = bytes(octet ^ 0xFF for octet in content_key[:3])
    block = bytes([len(content_key) if length is None else length]) + (complement if check is None else check)
    return (block + content_key).ljust(32, b"P")


def recipient_info(
    derivation: bytes | None = None, encryption: bytes | None = None, encrypted_key: bytes | None = None
) -> bytes:
    """Return the contents of a PasswordRecipientInfo."""
    return (
        der.integer(0)
        + (pbkdf2() if derivation is None else derivation)
        + (pwri_kek() if encryption is None else encryption)
        + der.octet_string(wrap(key_block()) if encrypted_key is None else encrypted_key)
    )


def envelope(contents: bytes, **changes: bytes) -> bytes:
    info = der.element(der.context(3), contents)
    sealed = Envelope(
        content=CONTENT,
        recipient=stand_in(rsa_key()),
        content_key=changes.get("content_key", CONTENT_KEY),
        iv=bytes(16),
        encrypted_content=changes.get("encrypted_content"),
        recipient_infos=(info,),
        version=3,
    )
    return sealed.encode()


# --- what opens ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", Cipher)
def test_what_we_seal_opens_with_the_password_among_others(cipher: Cipher) -> None:
    """W-01, W-02: content and the password that fits come back; other passwords do not open it."""
    octets = seal_password_envelope(CONTENT, PASSWORD, cipher, secrets.token_bytes)
    assert open_with(octets, b"wrong", PASSWORD, b"never tried") == (CONTENT, PASSWORD)
    with pytest.raises(DecryptionFailed):
        open_with(octets, b"wrong", b"")


def test_no_password_opens_nothing() -> None:
    """An empty list of candidates is a failure like a wrong one."""
    with pytest.raises(DecryptionFailed):
        open_with(seal_password_envelope(CONTENT, PASSWORD, Cipher.AES128, secrets.token_bytes))


@pytest.mark.parametrize("prf", PRFS)
@pytest.mark.parametrize("key_length", [b"", der.integer(16)], ids=["no keyLength", "keyLength"])
def test_every_hmac_is_understood(prf: str, key_length: bytes) -> None:
    """RFC 8018 A.2: keyLength and prf are optional, each by itself."""
    derivation = pbkdf2(key_length=key_length, prf=algorithm(PRFS[prf]))
    info = recipient_info(derivation, encrypted_key=wrap(key_block(), prf=prf))
    assert open_with(envelope(info), PASSWORD) == (CONTENT, PASSWORD)


@pytest.mark.parametrize("key_length", [b"", der.integer(16)])
def test_the_default_hmac_is_sha1(key_length: bytes) -> None:
    """RFC 8018 A.2: DEFAULT algid-hmacWithSHA1."""
    info = recipient_info(pbkdf2(key_length=key_length, prf=b""), encrypted_key=wrap(key_block(), prf="sha1"))
    assert open_with(envelope(info), PASSWORD) == (CONTENT, PASSWORD)


def test_the_key_encryption_may_be_stronger_than_the_content() -> None:
    """AES-256 around a key for AES-128."""
    info = recipient_info(encryption=pwri_kek("aes256"), encrypted_key=wrap(key_block(), cipher="aes256", key_bytes=32))
    assert open_with(envelope(info), PASSWORD) == (CONTENT, PASSWORD)


@needs_openssl
def test_openssl_opens_what_we_seal(tmp_path: Path) -> None:
    """`openssl cms -decrypt -pwri_password`."""
    (tmp_path / "in").write_bytes(seal_password_envelope(CONTENT, PASSWORD, Cipher.AES256, secrets.token_bytes))
    result = run_openssl(
        *("cms", "-decrypt", "-inform", "DER", "-binary", "-pwri_password", PASSWORD.decode()),
        *("-in", tmp_path / "in", "-out", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out").read_bytes() == CONTENT


@needs_openssl
@pytest.mark.parametrize("cipher", ["-aes-128-cbc", "-aes-256-cbc"])
def test_we_open_what_openssl_seals(tmp_path: Path, cipher: str) -> None:
    """`openssl cms -encrypt -pwri_password`."""
    (tmp_path / "in").write_bytes(CONTENT)
    result = run_openssl(
        *("cms", "-encrypt", "-outform", "DER", "-binary", "-pwri_password", PASSWORD.decode(), cipher),
        *("-in", tmp_path / "in", "-out", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stderr
    octets = ber.normalise((tmp_path / "out").read_bytes())
    assert open_with(octets, b"wrong", PASSWORD) == (CONTENT, PASSWORD)


# --- what does not open --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        envelope(recipient_info(encrypted_key=wrap(key_block(check=b"abc")))),
        envelope(recipient_info(encrypted_key=wrap(key_block(length=255)))),
        envelope(recipient_info(encrypted_key=wrap(key_block(CONTENT_KEY[:15])))),
        envelope(recipient_info(encrypted_key=secrets.token_bytes(32))),
        envelope(recipient_info(), content_key=bytes(16), encrypted_content=bytes(16)),
        envelope(recipient_info(), encrypted_content=bytes(3)),
    ],
    ids=["check octets", "length octet", "short key", "random", "padding", "half a block"],
)
def test_the_right_password_opens_nothing_that_is_broken(octets: bytes) -> None:
    """W-04: whatever is wrong, the failure is the same."""
    with pytest.raises(DecryptionFailed) as caught:
        open_with(octets, PASSWORD)
    assert str(caught.value) == ""


@pytest.mark.parametrize(
    ("pattern", "contents"),
    [
        ("beyond 20000 iterations", recipient_info(pbkdf2(iterations=MAX_ITERATIONS + 1))),
        ("beyond 20000 iterations", recipient_info(pbkdf2(iterations=10**9))),
        ("beyond 20000 iterations", recipient_info(pbkdf2(iterations=0))),
        ("64 octets of salt", recipient_info(pbkdf2(salt=bytes(65)))),
        ("without key derivation", recipient_info(b"")),
        ("is not PBKDF2", recipient_info(pbkdf2(oid="1.2.3.4"))),
        (r"unknown PBKDF2 function 1\.2\.3\.4", recipient_info(pbkdf2(prf=algorithm("1.2.3.4")))),
        ("is not PWRI-KEK", recipient_info(encryption=pwri_kek(oid="1.2.3.4"))),
        ("key encryption with des-ede3", recipient_info(encryption=pwri_kek("3des", iv=bytes(8)))),
        ("unknown content encryption", recipient_info(encryption=algorithm(oids.PWRI_KEK, algorithm("1.2.3.4")))),
    ],
)
def test_costly_and_unknown_algorithms_are_refused_before_any_work(pattern: str, contents: bytes) -> None:
    """W-03: a thousand million iterations are a denial of service in one packet."""
    with pytest.raises(AlgorithmRefused, match=pattern):
        check_password_recipient(PasswordRecipient(contents=contents))


@pytest.mark.parametrize("length", [0, 16, 33, 80])
def test_a_wrapped_key_has_two_to_four_blocks(length: int) -> None:
    """RFC 3211 2.3.1 makes at least two; no key of ours needs more than four."""
    contents = recipient_info(encrypted_key=bytes(length))
    with pytest.raises(MalformedData, match="two to four blocks"):
        check_password_recipient(PasswordRecipient(contents=contents))


# --- hostile -------------------------------------------------------------------------------------------------------

SEALED = envelope(recipient_info())


@given(st.binary(max_size=60))
def test_only_documented_errors_leave_for_arbitrary_octets(octets: bytes) -> None:
    """AlgorithmRefused or MalformedData."""
    with suppress(AlgorithmRefused, MalformedData):
        check_password_recipient(PasswordRecipient(contents=octets))


@given(mutations(SEALED))
def test_only_documented_errors_leave_for_changed_envelopes(octets: bytes) -> None:
    """One octet changed, cut off, or an element said twice; the iteration count stays bounded all the while."""
    with suppress(AlgorithmRefused, MalformedData, DecryptionFailed):
        sealed: EnvelopedData = parse_enveloped_data(octets)
        for recipient in sealed.password_recipients:
            open_password_envelope(sealed, recipient, [PASSWORD])


def test_the_block_of_rfc_3211_is_what_we_think() -> None:
    """The support code of this file, against the shape in the RFC: length, complement, key, padding."""
    assert key_block(b"\x01\x02\x03" + bytes(5)) == b"\x08\xfe\xfd\xfc\x01\x02\x03" + bytes(5) + b"P" * 20
    assert len(pad(b"", 16)) == 16
