"""Claims about certificates as values: real ones, odd stand-ins of real clients, and hostile ones."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import parse_certificate, parse_extensions
from scep_ra.pki.errors import MalformedData
from tests.support import pki, vectors
from tests.support.keys import rsa_key, spki
from tests.support.mutations import mutations
from tests.support.scep_messages import algorithm, certificate, extension, name

SKI = extension(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(b"key id"))


def from_pem(octets: bytes) -> bytes:
    return x509.load_pem_x509_certificate(octets).public_bytes(Encoding.DER)


def odd_certificate(*fields: bytes, tail: bytes = b"") -> bytes:
    """Return a certificate of these TBS fields, with a signature of zeros."""
    return der.sequence(der.sequence(*fields), algorithm(oids.SHA256_WITH_RSA), der.bit_string(bytes(8)), tail)


FIELDS = (
    der.integer(1),
    algorithm(oids.SHA256_WITH_RSA),
    name("issuer"),
    der.sequence(der.time(datetime(2024, 1, 1, tzinfo=UTC)), der.time(datetime(2025, 1, 1, tzinfo=UTC))),
    name("subject"),
    der.sequence(algorithm(oids.RSA_ENCRYPTION), der.bit_string(b"key")),
)


@pytest.mark.parametrize("file", ["ra.pem", "ca.pem", "ber-recipient.pem", "certrep-signer.pem"])
def test_every_field_is_what_another_parser_reads(file: str) -> None:
    """Serial, names, validity, key, extensions and fingerprint agree with `cryptography`, raw parts to the octet."""
    theirs = x509.load_pem_x509_certificate(vectors.read(file))
    ours = parse_certificate(from_pem(vectors.read(file)))
    assert ours.certificate_serial == theirs.serial_number
    assert (ours.issuer, ours.subject) == (theirs.issuer.public_bytes(), theirs.subject.public_bytes())
    assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    assert (ours.tbs, ours.signature) == (theirs.tbs_certificate_bytes, theirs.signature)
    assert [item.oid for item in ours.extensions] == [item.oid.dotted_string for item in theirs.extensions]
    assert [item.critical for item in ours.extensions] == [item.critical for item in theirs.extensions]
    assert ours.fingerprint() == hashlib.sha256(ours.der).hexdigest()
    assert ours.fingerprint("sha1") == hashlib.sha1(ours.der).hexdigest()


def test_a_certificate_knows_whether_its_names_are_equal() -> None:
    """Which is no statement about its signature."""
    assert certificate(rsa_key()).is_self_issued
    assert not certificate(rsa_key(), issuer=name("CA")).is_self_issued


def test_extensions_are_found_by_oid_and_the_key_identifier_is_unwrapped() -> None:
    """None where absent."""
    with_ski = certificate(rsa_key(), extensions=[SKI])
    assert with_ski.extension(oids.SUBJECT_KEY_IDENTIFIER) == der.octet_string(b"key id")
    assert with_ski.extension(oids.KEY_USAGE) is None
    assert with_ski.subject_key_identifier == b"key id"
    assert certificate(rsa_key()).subject_key_identifier is None


def test_a_malformed_key_identifier_is_no_key_identifier() -> None:
    """It can only fail to match; the certificate stays readable."""
    odd = certificate(rsa_key(), extensions=[extension(oids.SUBJECT_KEY_IDENTIFIER, der.NULL)])
    assert odd.subject_key_identifier is None


# --- odd, but seen in the field ------------------------------------------------------------------------------------


def test_a_version_1_stand_in_with_generalized_time_and_a_long_serial_is_read() -> None:
    """A stand-in of certmonger: X.509 v1, a serial of 32 octets and GeneralizedTime before 2050."""
    fields = (
        der.integer(2**255 + 1),
        *FIELDS[1:3],
        der.sequence(
            der.generalized_time(datetime(2024, 1, 1, tzinfo=UTC)),
            der.generalized_time(datetime(2025, 1, 1, tzinfo=UTC)),
        ),
        *FIELDS[4:],
    )
    read = parse_certificate(odd_certificate(*fields))
    assert read.certificate_serial == 2**255 + 1
    assert read.not_before == datetime(2024, 1, 1, tzinfo=UTC)
    assert read.extensions == ()


def test_unique_identifiers_are_stepped_over() -> None:
    """X.509 v2 left [1] and [2] behind."""
    identifiers = [der.element(der.context(number, constructed=False), b"\x00\x01") for number in (1, 2)]
    extensions = der.explicit(3, der.sequence(SKI))
    read = parse_certificate(odd_certificate(der.explicit(0, der.integer(2)), *FIELDS, *identifiers, extensions))
    assert read.subject_key_identifier == b"key id"


@pytest.mark.parametrize("file", vectors.CAPTURED_REQUESTS)
def test_stand_ins_of_real_clients_are_read(file: str) -> None:
    """P-04: they follow the digestAlgorithms and the content in every captured request."""
    info = der.Reader(vectors.message(file)).enter()
    info.oid()
    fields = info.enter(der.context(0)).enter()
    fields.integer()
    fields.element()
    fields.element()
    stand_in = parse_certificate(fields.enter(der.context(0)).element())
    assert stand_in.certificate_serial == x509.load_der_x509_certificate(stand_in.der).serial_number
    assert stand_in.is_self_issued


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        odd_certificate(*FIELDS) + b"\x00",
        odd_certificate(*FIELDS, tail=der.NULL),
        odd_certificate(*FIELDS, der.NULL),
        odd_certificate(*FIELDS[1:]),
        odd_certificate(*FIELDS[:3], der.sequence(FIELDS[3]), *FIELDS[4:]),
        odd_certificate(*FIELDS, der.explicit(3, der.NULL)),
    ],
)
def test_malformed_certificates_are_refused(octets: bytes) -> None:
    """Nothing, octets behind, a field too many, too few, no times, no extensions under their tag."""
    with pytest.raises(MalformedData):
        parse_certificate(octets)


def test_an_extension_that_stands_twice_is_refused() -> None:
    """RFC 5280 4.2: whoever reads the first and whoever reads the last would see two certificates."""
    with pytest.raises(MalformedData, match="twice"):
        parse_extensions(der.sequence(SKI, SKI))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        der.sequence(SKI) + b"\x00",
        der.sequence(der.sequence(der.oid(oids.KEY_USAGE))),
        der.sequence(der.sequence(der.oid(oids.KEY_USAGE), der.octet_string(b""), der.NULL)),
    ],
)
def test_malformed_extensions_are_refused(octets: bytes) -> None:
    """Nothing, octets behind, no value, a field too many."""
    with pytest.raises(MalformedData):
        parse_extensions(octets)


def test_critical_is_read_and_false_by_default() -> None:
    """And the value is what stands inside the OCTET STRING."""
    critical, plain = parse_extensions(der.sequence(extension("1.2.3", b"x", critical=True), extension("1.2.4", b"y")))
    assert (critical.oid, critical.critical, critical.value) == ("1.2.3", True, b"x")
    assert (plain.oid, plain.critical, plain.value) == ("1.2.4", False, b"y")


def test_the_key_of_a_certificate_is_kept_to_the_octet() -> None:
    """It is compared with the key of the request."""
    assert certificate(rsa_key()).spki == spki(rsa_key())


@given(st.binary(max_size=100))
def test_only_malformed_data_leaves_the_parsers(octets: bytes) -> None:
    """Whatever the octets."""
    for parse in (parse_certificate, parse_extensions):
        with suppress(MalformedData):
            parse(octets)


@given(mutations(pki.make_ca().chain[0].der))
def test_only_malformed_data_leaves_the_parser_for_changed_certificates(octets: bytes) -> None:
    """One octet changed, cut off, or an element said twice."""
    with suppress(MalformedData):
        parse_certificate(octets)
