"""Claims about the last look at a certificate (SR-14, SR-35): each fault is found and named."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.issuance import assemble_tbs, signature_algorithm
from scep_ra.pki.lint import CertificateFault, check_contents, check_end_entity
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import KeyUsage
from tests.support.pki import NOW, make_ca, make_certificate, make_key, sign_tbs

ISSUER = make_ca("ec-p256").chain[0]
GOOD = make_certificate(make_ca("ec-p256"), make_key("ec-p256").spki)


def check(certificate: Certificate, *, certificate_serial: int | None = GOOD.certificate_serial) -> None:
    check_end_entity(
        certificate,
        issuer=ISSUER,
        certificate_serial=certificate_serial,
        subject=GOOD.subject,
        subject_alt_name=None,
        spki=GOOD.spki,
    )


def with_extension(oid: str, value: bytes | None) -> Certificate:
    """Return GOOD with one extension replaced, or left out."""
    others = tuple(extension for extension in GOOD.extensions if extension.oid != oid)
    added = () if value is None else (Extension(oid=oid, critical=True, value=value),)
    return replace(GOOD, extensions=others + added)


def test_a_certificate_as_ordered_passes() -> None:
    """Nothing to complain about, nothing raised."""
    check(GOOD)


@pytest.mark.parametrize(
    ("certificate", "complaint"),
    [
        (replace(GOOD, certificate_serial=5), "certificate serial is not the one"),
        (replace(GOOD, subject=parse_name("CN=another")), "subject is not the one"),
        (with_extension(oids.SUBJECT_ALT_NAME, der.sequence()), "subjectAltName is not the one"),
        (replace(GOOD, spki=make_key("ec-p384").spki), "public key is not the one"),
        (replace(GOOD, issuer=parse_name("CN=another")), "issuer is another"),
        (replace(GOOD, not_after=GOOD.not_before), "validity is empty"),
        (replace(GOOD, not_before=ISSUER.not_before - timedelta(seconds=1)), "beyond the issuer's"),
        (replace(GOOD, not_after=ISSUER.not_after + timedelta(seconds=1)), "beyond the issuer's"),
        (replace(GOOD, signature_algorithm=signature_algorithm(make_key("ec-p384").spki)), "signature algorithms"),
        (with_extension(oids.BASIC_CONSTRAINTS, der.sequence(der.TRUE)), "makes it a CA"),
        (with_extension(oids.BASIC_CONSTRAINTS, der.NULL), "cannot be read"),
        (with_extension(oids.KEY_USAGE, der.named_bits(KeyUsage.KEY_CERT_SIGN)), "sign certificates or CRLs"),
        (with_extension(oids.KEY_USAGE, der.named_bits(KeyUsage.CRL_SIGN)), "sign certificates or CRLs"),
        (replace(GOOD, tbs=GOOD.tbs[:-1] + bytes([GOOD.tbs[-1] ^ 1])), "signature is not the issuer's"),
    ],
)
def test_each_deviation_is_named(certificate: Certificate, complaint: str) -> None:
    """One field at a time differs from the order, from the issuer or from what an end entity may say."""
    with pytest.raises(CertificateFault, match=complaint):
        check(certificate)


@pytest.mark.parametrize("certificate_serial", [0, -1, 1 << 159])
def test_a_serial_that_is_not_positive_or_too_long_is_found(certificate_serial: int) -> None:
    """RFC 5280 4.1.2.2: positive, at most 20 octets."""
    with pytest.raises(CertificateFault, match="positive number of at most 20 octets"):
        check_contents(replace(GOOD, certificate_serial=certificate_serial), issuer=ISSUER)


def test_a_serial_that_the_authority_chooses_is_not_compared() -> None:
    """Everything else is."""
    with pytest.raises(CertificateFault, match="certificate serial"):
        check(GOOD, certificate_serial=5)
    check(GOOD, certificate_serial=None)
    with pytest.raises(CertificateFault, match="public key"):
        check(replace(GOOD, spki=b""), certificate_serial=None)


def test_the_longest_serial_passes() -> None:
    """Twenty octets with the sign bit clear."""
    check_contents(replace(GOOD, certificate_serial=(1 << 159) - 1), issuer=ISSUER)


@pytest.mark.parametrize(
    "constraints", [None, der.sequence(), der.sequence(b"\x01\x01\x00"), der.sequence(der.integer(0))]
)
def test_other_authorities_may_say_no_ca_in_their_own_way(constraints: bytes | None) -> None:
    """Absent, empty, or an explicit FALSE that DER forbids but some authorities write."""
    check_contents(with_extension(oids.BASIC_CONSTRAINTS, constraints), issuer=ISSUER)


@pytest.mark.parametrize("usage", [None, der.named_bits(), der.named_bits(KeyUsage.DIGITAL_SIGNATURE)])
def test_key_usage_may_be_absent_or_empty(usage: bytes | None) -> None:
    """What matters here is that it does not make a CA."""
    check_contents(with_extension(oids.KEY_USAGE, usage), issuer=ISSUER)


def test_a_certificate_of_version_1_is_read_as_well() -> None:
    """Without a version field the signature algorithm is still found."""
    ca, key = make_ca("ec-p256"), make_key("ec-p256")
    tbs = assemble_tbs(
        certificate_serial=7,
        algorithm=signature_algorithm(ca.signer.spki),
        issuer=ISSUER.subject,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        subject=GOOD.subject,
        spki=key.spki,
        extensions=b"",
    )
    fields = der.Reader(tbs).enter()
    fields.element(der.context(0))
    version_1 = b"".join(fields.element() for _ in range(6))
    check_contents(sign_tbs(der.sequence(version_1), ca.signer), issuer=ISSUER)
