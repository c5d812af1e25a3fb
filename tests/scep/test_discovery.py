"""Claims about what a client makes of GetCACaps and GetCACert, and whom it trusts afterwards."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.ca.directory import CAMaterial
from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest, SignatureScheme, signature_identifier
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.errors import AlgorithmRefused, MalformedData
from scep_ra.pki.issuance import assemble_signed, assemble_tbs, encode_extension, signature_algorithm
from scep_ra.pki.keys import SoftwareKey
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile, KeyUsage
from scep_ra.pki.signed_data import build_certs_only
from scep_ra.scep.client import self_signed_certificate
from scep_ra.scep.discovery import (
    CABundle,
    check_fingerprint,
    choose_algorithms,
    is_ca,
    parse_ca_certificates,
    parse_capabilities,
)
from scep_ra.scep.errors import ReplyError
from scep_ra.scep.terms import CA_CERT_TYPE, CA_RA_CERT_TYPE, Capability
from tests.support.pki import NOW, make_ca, make_certificate, make_key, make_ra, sign_tbs
from tests.support.scep_pair import make_server

# --- GetCACaps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"AES\nSHA-256\n", {Capability.AES, Capability.SHA_256}),
        (b"POSTPKIOperation\r\n\r\n  Renewal \r\nSHA-1", {Capability.POST_PKI_OPERATION, Capability.RENEWAL, "SHA-1"}),
        (b"aes\nsha-512\n", {Capability.AES, Capability.SHA_512}),
        (b"Update\nSHA-3\n\xff\n", {"Update", "SHA-3", "\ufffd"}),
        (b"", set()),
    ],
)
def test_capabilities_are_read_as_servers_write_them(body: bytes, expected: set[Capability | str]) -> None:
    """Any line ends, blanks, letter case and words of our time to come."""
    assert parse_capabilities(body) == expected


@pytest.mark.parametrize(
    ("words", "digest"),
    [
        ({"AES", "SHA-1", "SHA-256"}, Digest.SHA256),
        ({"AES", "SHA-256", "SHA-512"}, Digest.SHA512),
        ({"AES", "SHA-384", "SHA-256"}, Digest.SHA384),
        ({"SCEPStandard"}, Digest.SHA256),
    ],
)
def test_the_strongest_digest_and_aes_are_chosen(words: set[str], digest: Digest) -> None:
    """RFC 8894 3.5.2; SCEPStandard stands for AES, POST and SHA-256."""
    chosen = choose_algorithms(parse_capabilities("\n".join(words).encode()))
    assert (chosen.digest, chosen.cipher) == (digest, Cipher.AES128)
    assert chosen.post is ("SCEPStandard" in words)
    assert not chosen.renewal


def test_post_and_renewal_are_used_where_announced() -> None:
    """Otherwise GET and PKCSReq work everywhere."""
    chosen = choose_algorithms(parse_capabilities(b"AES\nSHA-256\nPOSTPKIOperation\nRenewal\n"))
    assert chosen.post
    assert chosen.renewal


@pytest.mark.parametrize(
    ("body", "missing"), [(b"AES\nSHA-1", "SHA-256:"), (b"SHA-256\nDES3", "AES:"), (b"", "SHA-256 and AES:")]
)
def test_less_than_sha256_and_aes_is_refused_unless_allowed(body: bytes, missing: str) -> None:
    """GetCACaps is not authenticated: whoever strikes words out of it must not get DES by that."""
    with pytest.raises(AlgorithmRefused, match=missing):
        choose_algorithms(parse_capabilities(body))
    chosen = choose_algorithms(parse_capabilities(body), allow_weak=True)
    assert Digest.SHA1 is chosen.digest or Cipher.TRIPLE_DES is chosen.cipher


# --- GetCACert -----------------------------------------------------------------------------------------------------


def parse(*certificates: Certificate, weak_digests: bool = False) -> CABundle:
    body = build_certs_only(certificate.der for certificate in certificates)
    return parse_ca_certificates(CA_RA_CERT_TYPE, body, weak_digests=weak_digests)


def ra_of(ca: CAMaterial, *usages: KeyUsage, key: str = "RA", **options: object) -> Certificate:
    profile = CertificateProfile(key_usage=usages, extended_key_usage=())
    spki = make_key(owner=key).spki
    return make_certificate(ca, spki, subject=parse_name(f"CN={key}"), profile=profile, **options)  # type: ignore[arg-type]


def test_the_answer_of_our_server_with_an_ra_is_understood() -> None:
    """One RA certificate signs and decrypts, its issuer issues."""
    ca, ra = make_ca(), make_ra()
    answer = make_server(ca, ra).ca_cert()
    assert answer.content_type == CA_RA_CERT_TYPE
    bundle = parse_ca_certificates(answer.content_type, answer.body)
    assert bundle == CABundle(
        signing=ra.certificate,
        encryption=ra.certificate,
        issuer=ca.chain[0],
        certificates=(ra.certificate, *ca.chain),
    )
    assert bundle.path(bundle.signing) == (ra.certificate, *ca.chain)


def test_the_answer_of_our_server_without_an_ra_is_understood() -> None:
    """A single certificate has all the roles, whatever its usages."""
    ca = make_ca(tiers=1)
    answer = make_server(ca, None).ca_cert()
    assert answer.content_type == CA_CERT_TYPE
    bundle = parse_ca_certificates(answer.content_type, answer.body)
    assert bundle.signing == bundle.encryption == bundle.issuer == ca.chain[0]


def test_an_issuing_ca_is_preferred_to_its_root() -> None:
    """Without an RA, a chain means its lowest CA."""
    ca = make_ca(scep_key_usage=True)
    bundle = parse(*reversed(ca.chain))
    assert bundle.signing == bundle.encryption == bundle.issuer == ca.chain[0]


def test_two_ra_certificates_share_the_work() -> None:
    """One with digitalSignature, one with keyEncipherment, in any order."""
    ca = make_ca()
    signing = ra_of(ca, KeyUsage.DIGITAL_SIGNATURE, key="signing RA")
    encryption = ra_of(ca, KeyUsage.KEY_ENCIPHERMENT, key="encryption RA")
    for order in ((signing, encryption), (encryption, signing)):
        bundle = parse(*order, *ca.chain)
        assert (bundle.signing, bundle.encryption, bundle.issuer) == (signing, encryption, ca.chain[0])


def test_the_newest_ra_certificate_is_used() -> None:
    """During a change of RA certificates both stand in the answer."""
    ca = make_ca()
    usages = (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)
    old = ra_of(ca, *usages, not_before=NOW - timedelta(minutes=30))
    new = ra_of(ca, *usages, not_before=NOW - timedelta(minutes=1), key="next RA")
    assert parse(new, old, *ca.chain).signing == new


def test_an_ec_certificate_cannot_be_encrypted_to() -> None:
    """An EC key, with or without usages, is passed over, and so is a key that cannot be read."""
    ca = make_ca()
    rsa = ra_of(ca, KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)
    ec = _without_extensions(ca, make_key("ec-p256").spki)
    unreadable = _without_extensions(ca, der.sequence(der.sequence(der.oid(oids.EC_PUBLIC_KEY)), der.bit_string(b"")))
    bundle = parse(unreadable, ec, rsa, *ca.chain)
    assert bundle.encryption == rsa


def _without_extensions(ca: CAMaterial, spki: bytes) -> Certificate:
    return sign_tbs(_tbs(ca, spki, signature_algorithm(ca.signer.spki)), ca.signer)


def _tbs(ca: CAMaterial, spki: bytes, algorithm: bytes, extensions: bytes = b"") -> bytes:
    return assemble_tbs(
        certificate_serial=secrets.randbits(64),
        algorithm=algorithm,
        issuer=ca.chain[0].subject,
        not_before=NOW - timedelta(days=1),
        not_after=NOW + timedelta(days=1),
        subject=parse_name("CN=RA"),
        spki=spki,
        extensions=extensions,
    )


def test_ra_certificates_without_a_usage_that_is_needed_are_refused() -> None:
    """Two signers and nobody to encrypt to."""
    ca = make_ca()
    signers = [ra_of(ca, KeyUsage.DIGITAL_SIGNATURE, key=f"RA {number}") for number in range(2)]
    with pytest.raises(ReplyError, match="no RA certificate has the key usage key_encipherment"):
        parse(*signers, *ca.chain)
    other = make_ca(name="other")
    with pytest.raises(ReplyError, match="no CA certificate has the key usage digital_signature"):
        parse(*ca.chain, *other.chain)


def test_an_ra_that_the_ca_of_the_answer_did_not_sign_is_refused() -> None:
    """Neither one of another CA, nor two of different CAs, nor a self-made one beside a true CA."""
    ca, other = make_ca(), make_ca(name="other")
    with pytest.raises(ReplyError, match="not signed by one CA"):
        parse(make_ra().certificate, *other.chain)
    signing = ra_of(ca, KeyUsage.DIGITAL_SIGNATURE, key="signing RA")
    encryption = ra_of(other, KeyUsage.KEY_ENCIPHERMENT, key="encryption RA")
    with pytest.raises(ReplyError, match="not signed by one CA"):
        parse(signing, encryption, *ca.chain, *other.chain)


def test_an_ra_signed_by_an_end_entity_is_refused() -> None:
    """Whoever holds a certificate of the CA must not be able to make an RA."""
    ca, key = make_ca(), make_key(owner="impostor")
    impostor = make_certificate(ca, key.spki, subject=parse_name("CN=impostor"))
    fake = ra_of(CAMaterial(signer=key, chain=(impostor,)), KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)
    with pytest.raises(ReplyError, match="not signed by one CA"):
        parse(fake, *ca.chain)


def test_a_sha1_signature_counts_where_it_is_allowed() -> None:
    """Old CAs sign so."""
    ca = make_ca()
    algorithm = signature_identifier(SignatureScheme.RSA_PKCS1, Digest.SHA1)
    tbs = _tbs(ca, make_key(owner="RA").spki, algorithm)
    signature = ca.signer.sign(tbs, Digest.SHA1)
    ra = parse_certificate(assemble_signed(tbs, algorithm, signature))
    with pytest.raises(ReplyError, match="not signed by one CA"):
        parse(ra, *ca.chain)
    assert parse(ra, *ca.chain, weak_digests=True).signing == ra


@pytest.mark.parametrize("body", [b"<html>Not found</html>", b"", b"\x30\x00", build_certs_only()])
def test_an_answer_without_certificates_names_the_likely_mistake(body: bytes) -> None:
    """The URL is wrong more often than the server."""
    with pytest.raises(ReplyError, match=r"text/html.*check that the URL"):
        parse_ca_certificates("text/html", body)


def test_whether_it_is_a_ca_is_read_from_basic_constraints() -> None:
    """Absent: only a self-signed one counts; unreadable: none does."""
    ca, key = make_ca(), make_key()
    assert is_ca(ca.chain[0])
    assert not is_ca(make_certificate(ca, key.spki))
    assert is_ca(self_signed_certificate(parse_name("CN=old root"), key, NOW, secrets.token_bytes))
    constraints = encode_extension(oids.BASIC_CONSTRAINTS, der.integer(1))
    broken = _tbs(ca, key.spki, signature_algorithm(ca.signer.spki), constraints)
    assert not is_ca(sign_tbs(broken, ca.signer))


@given(body=st.binary(max_size=300))
def test_arbitrary_octets_raise_reply_error_only(body: bytes) -> None:
    """Nothing else leaves `parse_ca_certificates`."""
    with pytest.raises(ReplyError):
        parse_ca_certificates("", body)


# --- trust ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle() -> CABundle:
    answer = make_server(make_ca(), make_ra()).ca_cert()
    return parse_ca_certificates(answer.content_type, answer.body)


def test_a_fingerprint_may_be_of_any_certificate_on_the_path(bundle: CABundle) -> None:
    """RA, issuing CA or root, SHA-256 or SHA-1, as tools print them."""
    for certificate in bundle.certificates:
        check_fingerprint(bundle, certificate.fingerprint())
        check_fingerprint(bundle, certificate.fingerprint("sha1").upper())
    digits = bundle.issuer.fingerprint()
    check_fingerprint(bundle, ":".join(digits[index : index + 2] for index in range(0, 64, 2)))


def test_a_certificate_beside_the_path_is_not_trusted(bundle: CABundle) -> None:
    """Enclosing the true CA does not help an impostor whose RA hangs below his own."""
    other = make_ca(name="other").chain[1]
    mixed = replace(bundle, certificates=(*bundle.certificates, other))
    with pytest.raises(ReplyError, match="do not trust this server"):
        check_fingerprint(mixed, other.fingerprint())


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "0" * 63])
def test_what_is_no_fingerprint_is_said_so(bundle: CABundle, text: str) -> None:
    """64 or 40 hexadecimal digits."""
    with pytest.raises(MalformedData, match="64"):
        check_fingerprint(bundle, text)


def test_a_loop_of_issuers_ends() -> None:
    """Two CAs that certify each other do not keep the client busy."""
    keys: list[SoftwareKey] = [make_key(owner=f"cross {number}") for number in range(2)]
    certificates = [
        sign_tbs(
            assemble_tbs(
                certificate_serial=1,
                algorithm=signature_algorithm(keys[1 - number].spki),
                issuer=parse_name(f"CN=CA {1 - number}"),
                not_before=NOW,
                not_after=NOW + timedelta(days=1),
                subject=parse_name(f"CN=CA {number}"),
                spki=keys[number].spki,
                extensions=encode_extension(oids.BASIC_CONSTRAINTS, der.sequence(der.TRUE)),
            ),
            keys[1 - number],
        )
        for number in range(2)
    ]
    one, two = certificates
    assert CABundle(signing=one, encryption=one, issuer=two, certificates=(one, two)).path(one) == (one, two)
