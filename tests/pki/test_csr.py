"""Claims about PKCS#10 requests: what real clients send, proof of possession, and building."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509.oid import AttributeOID
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest
from scep_ra.pki.certificates import Extension
from scep_ra.pki.csr import MAX_CHALLENGE_BYTES, build_request, parse_request
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, SignatureInvalid
from scep_ra.pki.keys import SoftwareKey
from scep_ra.pki.names import parse_name
from tests.support.keys import PrivateKey, ec_key, rsa_key, spki
from tests.support.mutations import mutations
from tests.support.scep_messages import (
    HASHES,
    Request,
    algorithm,
    attribute,
    challenge,
    extension,
    name,
    printable,
    pss_parameters,
    san_request,
    utf8,
)

STANDARD = frozenset({Digest.SHA256, Digest.SHA384, Digest.SHA512})
BASE = Request(key=rsa_key())


# --- what clients send ---------------------------------------------------------------------------------------------


def test_every_field_is_what_another_parser_reads() -> None:
    """Subject, key, attributes and signed octets agree with `cryptography` on an ordinary request."""
    octets = BASE.encode()
    ours, theirs = parse_request(octets), x509.load_der_x509_csr(octets)
    assert ours.der == octets
    assert ours.info == theirs.tbs_certrequest_bytes
    assert ours.subject == theirs.subject.public_bytes()
    assert ours.signature == theirs.signature
    assert ours.spki == spki(rsa_key())
    assert ours.spki_digest == hashlib.sha256(spki(rsa_key())).digest()
    assert ours.challenge_password == "secret"
    assert (ours.version, ours.trailing) == (0, b"")
    ours.check_form()
    ours.verify_possession(STANDARD)


def test_strongswan_attributes_in_the_wrong_order_are_read_where_cryptography_refuses_them() -> None:
    """Regression: SAN before challengePassword is no sorted SET; if the library reads it now, use the library."""
    octets = replace(BASE, attributes=(san_request("dev3.example"), challenge("s3cret"))).encode()
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        _ = x509.load_der_x509_csr(octets).attributes
    ours = parse_request(octets)
    ours.check_form()
    ours.verify_possession(STANDARD)
    assert ours.challenge_password == "s3cret"
    assert ours.subject_alt_name == der.sequence(b"\x82\x0cdev3.example")


def test_a_request_without_attributes_field_is_read() -> None:
    """P-27: the field is not OPTIONAL in RFC 2986, and left out all the same."""
    request = parse_request(replace(BASE, attributes=None).encode())
    request.check_form()
    request.verify_possession(STANDARD)
    assert request.challenge_password is None
    assert request.requested_extensions == ()
    assert request.subject_alt_name is None


@pytest.mark.parametrize(
    "value",
    [
        printable("pass 1"),
        utf8("pass 1"),
        der.element(der.T61_STRING, b"pass 1"),
        der.element(der.IA5_STRING, b"pass 1"),
        der.element(der.BMP_STRING, "pass 1".encode("utf-16-be")),
    ],
)
def test_a_challenge_is_the_same_text_in_every_string_type(value: bytes) -> None:
    """P-26 (RFC 2985 5.4.1)."""
    request = replace(BASE, attributes=(attribute(oids.CHALLENGE_PASSWORD, value),))
    assert parse_request(request.encode()).challenge_password == "pass 1"


def test_an_empty_challenge_is_no_challenge() -> None:
    """IOS sends one when the operator presses return; an empty challenge must never match (SR-15)."""
    assert parse_request(replace(BASE, attributes=(challenge(""),)).encode()).challenge_password is None


@pytest.mark.parametrize(
    "oid",
    ["1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14", "2.16.840.1.113733.1.9.8"],
    ids=["PKCS#9", "MS", "VeriSign"],
)
def test_extension_requests_are_read_under_all_three_types(oid: str) -> None:
    """The same payload by three names."""
    request = parse_request(replace(BASE, attributes=(san_request("a.example", oid),)).encode())
    assert [item.oid for item in request.requested_extensions] == [oids.SUBJECT_ALT_NAME]
    assert request.subject_alt_name == der.sequence(b"\x82\x09a.example")


def test_other_extensions_leave_the_alternative_name_none() -> None:
    """A request for a key usage alone."""
    value = der.sequence(extension(oids.KEY_USAGE, der.named_bits(0)))
    request = parse_request(replace(BASE, attributes=(attribute(oids.EXTENSION_REQUEST, value),)).encode())
    assert request.subject_alt_name is None


def test_unstructured_names_of_the_request_itself_are_seen() -> None:
    """Some stacks put them among the attributes, and there may be several."""
    value = (printable("router.example"), utf8("10.0.0.1"))
    request = parse_request(replace(BASE, attributes=(attribute(oids.UNSTRUCTURED_NAME, *value),)).encode())
    assert request.unstructured_names == ("router.example", "10.0.0.1")


# --- form ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "request_"),
    [
        ("version 2", replace(BASE, version=1)),
        ("version 3", replace(BASE, version=2)),
        ("more than one challenge", replace(BASE, attributes=(challenge("a"), challenge("b")))),
        (
            "more than one challenge",
            replace(BASE, attributes=(attribute(oids.CHALLENGE_PASSWORD, printable("a"), printable("a")),)),
        ),
        ("not a character string", replace(BASE, attributes=(attribute(oids.CHALLENGE_PASSWORD, der.NULL),))),
        ("challengePassword is too long", replace(BASE, attributes=(challenge("x" * MAX_CHALLENGE_BYTES),))),
        (
            "more than one extension",
            replace(BASE, attributes=(san_request("a"), san_request("a", oids.MS_CERT_EXTENSIONS))),
        ),
        ("tag 0x05", replace(BASE, attributes=(attribute(oids.EXTENSION_REQUEST, der.NULL),))),
        ("not a character string", replace(BASE, attributes=(attribute(oids.UNSTRUCTURED_NAME, der.NULL),))),
        ("tag 0x05", replace(BASE, attributes=(der.NULL,))),
    ],
)
def test_rule_breakers_are_found_by_check_form(pattern: str, request_: Request) -> None:
    """N-30, N-33: other versions, two challenges, two or unreadable extension requests, unreadable text."""
    with pytest.raises(MalformedData, match=pattern):
        parse_request(request_.encode()).check_form()


def test_octets_behind_the_request_are_kept_apart_and_refused_by_check_form() -> None:
    """N-29."""
    request = parse_request(BASE.encode() + b"more")
    assert request.trailing == b"more"
    with pytest.raises(MalformedData, match="octets behind"):
        request.check_form()


@pytest.mark.parametrize(
    "octets",
    [b"", b"\x30\x00", name("x"), der.sequence(der.sequence(), algorithm("1.2.3"), der.bit_string(b""))],
)
def test_other_structures_are_no_requests(octets: bytes) -> None:
    """Nothing, an empty SEQUENCE, a Name, an empty CertificationRequestInfo."""
    with pytest.raises(MalformedData):
        parse_request(octets)


# --- proof of possession -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [rsa_key(), ec_key("secp256r1"), ec_key("secp384r1"), ec_key("secp521r1")])
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_possession_is_proved_by_every_kind_of_key(key: PrivateKey, digest: str) -> None:
    """RSA and the three curves with the standard digests."""
    parse_request(Request(key=key, digest=digest).encode()).verify_possession(STANDARD)


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha224"])
def test_weak_digests_prove_possession_where_allowed_and_are_refused_elsewhere(digest: str) -> None:
    """P-28: `cryptography` calls such a signature silently invalid, so the refusal has to be ours."""
    request = parse_request(replace(BASE, digest=digest).encode())
    request.verify_possession(STANDARD | {Digest(digest)})
    with pytest.raises(AlgorithmRefused, match=f"PKCS#10 signed with {digest}"):
        request.verify_possession(STANDARD)


def test_a_pss_signature_proves_possession() -> None:
    """RSASSA-PSS, as strongSwan can be told to."""
    info = parse_request(BASE.encode()).info
    signature = rsa_key().sign(info, padding.PSS(padding.MGF1(HASHES["sha256"]), 32), HASHES["sha256"])
    request = replace(BASE, algorithm=algorithm(oids.RSASSA_PSS, pss_parameters("sha256", 32)), signature=signature)
    parse_request(request.encode()).verify_possession(STANDARD)


def test_a_broken_signature_or_a_changed_subject_proves_nothing() -> None:
    """N-27."""
    for octets in (
        replace(BASE, signature=bytes(256)).encode(),
        BASE.encode().replace(b"device-1", b"device-2"),
        replace(BASE, spki=spki(rsa_key("other"))).encode(),
    ):
        with pytest.raises(SignatureInvalid):
            parse_request(octets).verify_possession(STANDARD)


@pytest.mark.parametrize(
    ("pattern", "request_"),
    [
        ("names no digest", replace(BASE, algorithm=algorithm(oids.RSA_ENCRYPTION))),
        ("unknown signature algorithm", replace(BASE, algorithm=algorithm("1.2.3.4"))),
        ("does not fit the key", replace(BASE, algorithm=algorithm(oids.ECDSA_WITH_SHA256, b""))),
        ("cannot be loaded", replace(BASE, spki=der.sequence())),
    ],
)
def test_signatures_that_cannot_be_checked_are_refused(pattern: str, request_: Request) -> None:
    """No digest named, unknown algorithm, another kind of key, no key."""
    with pytest.raises(AlgorithmRefused, match=pattern):
        parse_request(request_.encode()).verify_possession(STANDARD)


# --- building ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [rsa_key(), ec_key()], ids=["rsa", "ec"])
def test_requests_we_build_are_read_by_another_parser(key: PrivateKey) -> None:
    """Sorted attributes, PrintableString challenge, extensions, and a signature that holds."""
    san = Extension(oid=oids.SUBJECT_ALT_NAME, critical=True, value=der.sequence(b"\x82\x09a.example"))
    octets = build_request(
        subject=parse_name("O=Test,CN=device-1"),
        key=SoftwareKey(key),
        challenge_password="secret",
        extensions=[san],
        digest=Digest.SHA384,
    )
    theirs = x509.load_der_x509_csr(octets)
    assert theirs.is_signature_valid
    assert theirs.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value == b"secret"
    assert theirs.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert challenge("secret") in octets
    ours = parse_request(octets)
    ours.check_form()
    assert ours.requested_extensions == (san,)


def test_what_is_kept_of_a_request_lacks_the_challenge_and_nothing_else() -> None:
    """V21: a secret at rest outlives its use; without one, the octets stay as they came."""
    san = Extension(oid=oids.SUBJECT_ALT_NAME, critical=True, value=der.sequence(b"\x82\x09a.example"))
    subject, key = parse_name("O=Test,CN=device-1"), SoftwareKey(rsa_key())
    request = parse_request(
        build_request(subject=subject, key=key, challenge_password="correct horse", extensions=[san])
    )

    kept = parse_request(request.without_challenge())

    assert b"correct horse" in request.der
    assert b"correct horse" not in kept.der
    kept.check_form()
    assert (kept.subject, kept.spki, kept.requested_extensions) == (subject, key.spki, (san,))
    assert kept.challenge_password is None
    assert kept.without_challenge() == kept.der


def test_a_bare_request_has_an_empty_attributes_field() -> None:
    """RFC 2986 4.1: the field itself is not optional."""
    octets = build_request(subject=parse_name("CN=x"), key=SoftwareKey(rsa_key()))
    assert parse_request(octets).info.endswith(b"\xa0\x00")
    assert x509.load_der_x509_csr(octets).is_signature_valid


# --- hostile -------------------------------------------------------------------------------------------------------


def read_all(octets: bytes) -> None:
    with suppress(MalformedData, SignatureInvalid, AlgorithmRefused):
        request = parse_request(octets)
        request.check_form()
        request.verify_possession(STANDARD)


@given(st.binary(max_size=100))
def test_only_documented_errors_leave_for_arbitrary_octets(octets: bytes) -> None:
    """MalformedData from the parser; the checks of the result add theirs."""
    read_all(octets)


@given(mutations(replace(BASE, attributes=(san_request("a.example"), challenge())).encode()))
def test_only_documented_errors_leave_for_changed_requests(octets: bytes) -> None:
    """One octet changed, cut off, or an element said twice."""
    read_all(octets)
