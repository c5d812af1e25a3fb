"""Claims about the certificates that we write (RFC 5280 4), with another parser as the judge."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, issuance, oids
from scep_ra.pki.algorithms import Digest, SignatureScheme
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import AlgorithmRefused
from scep_ra.pki.keys import load_public_key
from scep_ra.pki.names import build_name, parse_name
from scep_ra.pki.profiles import CertificateProfile, ExtendedKeyUsage, KeyUsage
from tests.support.pki import NOW, make_ca, make_certificate, make_key

SAN = der.sequence(der.element(der.context(2, constructed=False), b"device-1.example"))


def as_x509(certificate: Certificate) -> x509.Certificate:
    return x509.load_der_x509_certificate(certificate.der)


@pytest.mark.parametrize("subject_key", ["rsa-2048", "ec-p256", "ec-p384"])
@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p256", "ec-p384"])
def test_every_pair_of_key_types_makes_a_certificate_that_another_parser_accepts(ca_key: str, subject_key: str) -> None:
    """Serial, names, validity and signature read by `cryptography` are what was ordered."""
    ca, key = make_ca(ca_key), make_key(subject_key)
    ours = make_certificate(ca, key.spki)
    theirs, issuer = as_x509(ours), as_x509(ca.chain[0])
    theirs.verify_directly_issued_by(issuer)
    assert theirs.version is x509.Version.v3
    assert theirs.serial_number == ours.certificate_serial
    assert theirs.subject.rfc4514_string() == "CN=device-1,O=Test"
    assert theirs.subject.public_bytes() == ours.subject
    assert (theirs.not_valid_before_utc, theirs.not_valid_after_utc) == (NOW, NOW + timedelta(days=365))
    assert theirs.public_key() == load_public_key(key.spki)
    assert theirs.signature_hash_algorithm is not None
    assert theirs.signature_hash_algorithm.name == ("sha384" if ca_key == "ec-p384" else "sha256")


def test_an_end_entity_is_no_ca_and_its_basic_constraints_are_critical_and_empty() -> None:
    """DER leaves a DEFAULT out, so the value is the empty SEQUENCE."""
    certificate = make_certificate(make_ca(), make_key().spki)
    assert certificate.extension(oids.BASIC_CONSTRAINTS) == b"\x30\x00"
    constraints = as_x509(certificate).extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)


@pytest.mark.parametrize(
    ("key_type", "ordered", "expected"),
    [
        ("rsa-2048", (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT), b"\x03\x02\x05\xa0"),
        ("ec-p256", (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT), b"\x03\x02\x07\x80"),
        ("rsa-2048", (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_AGREEMENT), b"\x03\x02\x07\x80"),
        ("ec-p256", (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_AGREEMENT), b"\x03\x02\x03\x88"),
    ],
)
def test_key_usage_holds_what_this_kind_of_key_can_do(
    key_type: str, ordered: tuple[KeyUsage, ...], expected: bytes
) -> None:
    """EC keys encipher nothing (RFC 8813 3), RSA keys agree on nothing (RFC 3279 2.3.1)."""
    certificate = make_certificate(make_ca(), make_key(key_type).spki, profile=CertificateProfile(key_usage=ordered))
    assert certificate.extension(oids.KEY_USAGE) == expected
    assert as_x509(certificate).extensions.get_extension_for_class(x509.KeyUsage).critical


def test_a_profile_that_leaves_a_key_no_usage_is_refused() -> None:
    """Without the extension the certificate would be good for everything."""
    profile = CertificateProfile(key_usage=(KeyUsage.KEY_ENCIPHERMENT,))
    with pytest.raises(AlgorithmRefused, match="EC key"):
        make_certificate(make_ca(), make_key("ec-p256").spki, profile=profile)
    with pytest.raises(AlgorithmRefused, match="RSA key"):
        make_certificate(make_ca(), make_key().spki, profile=CertificateProfile(key_usage=()))


def test_the_purposes_and_addresses_of_the_profile_are_in_the_certificate() -> None:
    """EKU, CRL distribution point, OCSP and caIssuers come from the profile and from nothing else."""
    profile = CertificateProfile(
        extended_key_usage=(ExtendedKeyUsage.CLIENT_AUTH, ExtendedKeyUsage.IPSEC_IKE),
        crl_url="http://ra.example/crl/test.crl",
        ca_issuers_url="http://ra.example/ca/test.cer",
        ocsp_url="http://ra.example/ocsp/test",
    )
    extensions = as_x509(make_certificate(make_ca(), make_key().spki, profile=profile)).extensions
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.IPSEC_IKE]
    (point,) = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier(profile.crl_url)]
    assert [
        (access.access_method, access.access_location)
        for access in extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    ] == [
        (AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(profile.ocsp_url)),
        (AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(profile.ca_issuers_url)),
    ]


@pytest.mark.parametrize(
    ("profile", "method"),
    [
        (CertificateProfile(ocsp_url="http://ra.example/x"), AuthorityInformationAccessOID.OCSP),
        (CertificateProfile(ca_issuers_url="http://ra.example/x"), AuthorityInformationAccessOID.CA_ISSUERS),
    ],
)
def test_an_address_that_is_not_there_leaves_no_trace(profile: CertificateProfile, method: object) -> None:
    """AuthorityInfoAccess has a part for each address and no other (RFC 5280 4.2.2.1)."""
    extensions = as_x509(make_certificate(make_ca(), make_key().spki, profile=profile)).extensions
    (access,) = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert access.access_method == method


def test_who_answers_ocsp_is_not_asked_about() -> None:
    """id-kp-OCSPSigning and id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2), neither critical."""
    profile = CertificateProfile(extended_key_usage=(ExtendedKeyUsage.OCSP_SIGNING,), ocsp_nocheck=True)
    extensions = as_x509(make_certificate(make_ca(), make_key().spki, profile=profile)).extensions
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert (list(purposes.value), purposes.critical) == ([ExtendedKeyUsageOID.OCSP_SIGNING], False)
    assert not extensions.get_extension_for_class(x509.OCSPNoCheck).critical


def test_a_bare_profile_adds_no_optional_extension() -> None:
    """Empty means absent, never an empty list."""
    profile = CertificateProfile(extended_key_usage=())
    certificate = make_certificate(make_ca(), make_key().spki, profile=profile)
    assert [extension.oid for extension in certificate.extensions] == [
        oids.AUTHORITY_KEY_IDENTIFIER,
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.SUBJECT_KEY_IDENTIFIER,
    ]


@pytest.mark.parametrize(("subject", "critical"), [(der.sequence(), True), (parse_name("CN=device-1"), False)])
def test_alternative_names_are_critical_exactly_when_the_subject_is_empty(subject: bytes, critical: bool) -> None:
    """RFC 5280 4.2.1.6."""
    certificate = make_certificate(make_ca(), make_key().spki, subject=subject, subject_alt_name=SAN)
    extension = as_x509(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert extension.critical is critical
    assert extension.value.get_values_for_type(x509.DNSName) == ["device-1.example"]


def test_the_key_identifier_is_the_cut_digest_of_the_key_bits() -> None:
    """RFC 7093 2 method 1, over PKCS#1 for RSA and over the point for EC."""
    rsa_key, ec_key = load_public_key(make_key().spki), load_public_key(make_key("ec-p256").spki)
    assert isinstance(rsa_key, rsa.RSAPublicKey)
    assert isinstance(ec_key, ec.EllipticCurvePublicKey)
    pkcs1 = rsa_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    point = ec_key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert issuance.key_identifier(make_key().spki) == sha256(pkcs1).digest()[:20]
    assert issuance.key_identifier(make_key("ec-p256").spki) == sha256(point).digest()[:20]


def test_the_authority_key_identifier_repeats_what_the_issuer_calls_itself() -> None:
    """A CA brought along may have been named by another method, or not at all."""
    ca = make_ca().chain[0]
    other_method = replace(
        ca,
        extensions=tuple(
            replace(extension, value=der.octet_string(b"theirs"))
            if extension.oid == oids.SUBJECT_KEY_IDENTIFIER
            else extension
            for extension in ca.extensions
        ),
    )
    assert issuance.issuer_key_identifier(other_method) == b"theirs"
    assert issuance.issuer_key_identifier(replace(ca, extensions=())) == issuance.key_identifier(ca.spki)


def test_the_signature_digest_is_as_strong_as_the_curve() -> None:
    """SHA-256 for RSA and P-256, SHA-384 above."""
    assert issuance.signing_scheme(make_key().spki) == (SignatureScheme.RSA_PKCS1, Digest.SHA256)
    assert issuance.signing_scheme(make_key("ec-p256").spki) == (SignatureScheme.ECDSA, Digest.SHA256)
    assert issuance.signing_scheme(make_key("ec-p384").spki) == (SignatureScheme.ECDSA, Digest.SHA384)


def test_years_from_2050_are_written_in_four_digits() -> None:
    """RFC 5280 4.1.2.5: UTCTime ends in 2049."""
    ca = make_ca()
    certificate = make_certificate(ca, make_key().spki, not_after=datetime(2050, 1, 1, tzinfo=UTC))
    assert b"20500101000000Z" in certificate.tbs
    assert as_x509(certificate).not_valid_after_utc.year == 2050


names = st.lists(
    st.tuples(
        st.sampled_from([oids.COMMON_NAME, oids.ORGANIZATION, oids.SUBJECT_SERIAL_NUMBER, oids.USER_ID]),
        # At most four octets a character: `cryptography` warns of common names of more than 64 octets.
        st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=16),
    ),
    max_size=6,
)


@given(pairs=names, certificate_serial=st.integers(1, (1 << 159) - 1), days=st.integers(1, 36500))
def test_any_subject_serial_and_validity_survives(
    pairs: list[tuple[str, str]], certificate_serial: int, days: int
) -> None:
    """Names are copied octet by octet, and another parser reads the same numbers and times."""
    ca, subject = make_ca("ec-p256"), build_name(pairs)
    template = issuance.EndEntityTemplate(ca.chain[0], CertificateProfile())
    tbs = template.build(
        certificate_serial=certificate_serial,
        not_before=NOW,
        not_after=NOW + timedelta(days=days),
        subject=subject,
        spki=make_key("ec-p256").spki,
        subject_alt_name=None,
    )
    signature = ca.signer.sign(tbs, Digest.SHA256)
    theirs = x509.load_der_x509_certificate(
        issuance.assemble_signed(tbs, issuance.signature_algorithm(ca.signer.spki), signature)
    )
    ca_key = load_public_key(ca.signer.spki)
    assert isinstance(ca_key, ec.EllipticCurvePublicKey)
    ca_key.verify(theirs.signature, theirs.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    assert theirs.tbs_certificate_bytes == tbs
    assert theirs.serial_number == certificate_serial
    assert theirs.not_valid_after_utc == NOW + timedelta(days=days)
    assert [(entry.oid.dotted_string, entry.value) for entry in theirs.subject] == pairs
