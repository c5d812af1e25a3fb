"""Claims about new CAs and RAs: two other implementations accept them, and clients find what they look for."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.ca.hierarchy import (
    CAParameters,
    Issuer,
    RAParameters,
    authority_name,
    make_issuing_ca,
    make_ra_certificate,
    make_root,
)
from scep_ra.errors import Misconfigured
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.issuance import new_certificate_serial
from scep_ra.pki.names import format_name
from scep_ra.pki.profiles import CertificateProfile
from tests.support.openssl import needs_openssl, verify_strictly
from tests.support.pki import NOW, make_ca, make_certificate, make_key, make_ra

KEY_TYPES = ["rsa-2048", "ec-p256", "ec-p384"]


def key_usage_of(certificate: Certificate) -> set[str]:
    usage = x509.load_der_x509_certificate(certificate.der).extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    bits = ("digital_signature", "key_encipherment", "key_cert_sign", "crl_sign", "key_agreement", "data_encipherment")
    return {bit for bit in bits if getattr(usage.value, bit)}


def constraints_of(certificate: Certificate) -> tuple[bool, int | None]:
    extension = x509.load_der_x509_certificate(certificate.der).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert extension.critical
    return extension.value.ca, extension.value.path_length


@needs_openssl
@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_openssl_accepts_every_certificate_of_the_hierarchy(
    key_type: str, tiers: Literal[1, 2], tmp_path: Path
) -> None:
    """`openssl verify -x509_strict` for the CA, the RA (always RSA) and devices with RSA and EC keys."""
    ca = make_ca(key_type, tiers=tiers)
    profile = CertificateProfile(crl_url="http://ra.example/a.crl", ca_issuers_url="http://ra.example/a.cer")
    devices = [make_certificate(ca, make_key(device_key).spki, profile=profile) for device_key in KEY_TYPES]
    for certificate in (*ca.chain, make_ra(ca).certificate, *devices):
        verify_strictly(tmp_path, certificate, ca.chain)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_the_chain_verifies_in_another_library(key_type: str) -> None:
    """Root over itself, root over issuing CA, issuing CA over RA."""
    issuing, root = (x509.load_der_x509_certificate(certificate.der) for certificate in make_ca(key_type).chain)
    ra = x509.load_der_x509_certificate(make_ra(make_ca(key_type)).certificate.der)
    root.verify_directly_issued_by(root)
    issuing.verify_directly_issued_by(root)
    ra.verify_directly_issued_by(issuing)


def test_the_names_tell_the_roles_apart() -> None:
    """Three different subjects, readable in a list that shows only the common name."""
    issuing, root = make_ca().chain
    assert format_name(root.subject) == "O=Test,CN=Test test Root CA"
    assert format_name(issuing.subject) == "O=Test,CN=Test test Issuing CA"
    assert format_name(make_ra().certificate.subject) == "O=Test,CN=Test test RA"
    assert format_name(make_ca(tiers=1).chain[0].subject) == "O=Test,CN=Test test CA"


def test_an_empty_organization_leaves_no_empty_attribute() -> None:
    """An attribute without text is malformed (DirectoryString has SIZE (1..MAX))."""
    assert format_name(authority_name("", "test", "RA")) == "CN=test RA"


def test_a_common_name_that_is_too_long_is_reported() -> None:
    """64 characters are the upper bound of X.520 (RFC 5280 A.1)."""
    assert authority_name("o" * 56, "test", "RA")
    with pytest.raises(Misconfigured, match="shorten `organization`"):
        authority_name("o" * 57, "test", "RA")


def test_ca_certificates_carry_only_the_usages_of_a_ca() -> None:
    """Apple takes a non-root certificate with digitalSignature and keyEncipherment for the RA's."""
    for certificate in (*make_ca().chain, *make_ca(tiers=1).chain):
        assert key_usage_of(certificate) == {"key_cert_sign", "crl_sign"}


def test_the_issuing_ca_cannot_have_cas_below() -> None:
    """A pathLenConstraint of 0; the root leaves it open."""
    issuing, root = make_ca().chain
    assert constraints_of(issuing) == (True, 0)
    assert constraints_of(root) == (True, None)
    assert constraints_of(make_ca(tiers=1).chain[0]) == (True, 0)


@pytest.mark.parametrize("tiers", [1, 2])
def test_a_ca_that_speaks_scep_itself_may_sign_and_decrypt(tiers: Literal[1, 2]) -> None:
    """RFC 8894 2.1.2."""
    certificate = make_ca(tiers=tiers, scep_key_usage=True).chain[0]
    assert key_usage_of(certificate) == {"key_cert_sign", "crl_sign", "digital_signature", "key_encipherment"}


def test_a_ca_that_speaks_scep_itself_needs_a_key_to_encrypt_to() -> None:
    """Refused at start, not at the first request that nobody can open."""
    with pytest.raises(Misconfigured, match="`scep_key_usage` needs an RSA key"):
        make_ca("ec-p256", scep_key_usage=True, name="scep")


@pytest.mark.parametrize("ca_key", KEY_TYPES)
def test_the_ra_is_an_end_entity_that_signs_and_decrypts(ca_key: str) -> None:
    """Also below an EC CA, and without extended key usage, which OpenSSL's S/MIME purpose might not like."""
    certificate = make_ra(make_ca(ca_key)).certificate
    assert key_usage_of(certificate) == {"digital_signature", "key_encipherment"}
    assert constraints_of(certificate) == (False, None)
    assert certificate.extension(oids.EXTENDED_KEY_USAGE) is None
    assert certificate.issuer == make_ca(ca_key).chain[0].subject


def test_no_certificate_outlives_its_issuer() -> None:
    """The issuing CA ends with the root, the RA with the issuing CA, whatever was asked."""
    key, eternal = make_key("ec-p256", "root"), CAParameters(root_validity_days=10, validity_days=9999)
    root = make_root(eternal, "short", key, now=NOW, random=secrets.token_bytes)
    above = Issuer(certificate=root, key=key)
    issuing = make_issuing_ca(eternal, "short", key, above, now=NOW, random=secrets.token_bytes)
    ra = make_ra_certificate(
        RAParameters(validity_days=9999),
        "short",
        make_key().spki,
        Issuer(certificate=issuing, key=key),
        now=NOW + timedelta(days=1),
        random=secrets.token_bytes,
    )
    assert root.not_after == issuing.not_after == ra.not_after == NOW + timedelta(days=10)


def test_new_certificates_are_valid_for_clocks_that_run_behind() -> None:
    """By an hour."""
    assert make_ca().chain[0].not_before == NOW - timedelta(hours=1)


@given(st.binary(min_size=16, max_size=16))
def test_a_serial_is_positive_and_short_whatever_the_generator_gives(octets: bytes) -> None:
    """128 random bits, 17 octets with the tag's rules kept (RFC 5280 4.1.2.2: at most 20)."""
    serial = new_certificate_serial(lambda count: octets[:count])
    assert serial > 0
    assert len(der.integer(serial)) == 2 + 17
    assert serial & (1 << 128) - 1 == int.from_bytes(octets, "big")
