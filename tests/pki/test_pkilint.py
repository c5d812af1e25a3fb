"""Claims about every kind of certificate that we issue, before a linter and a verifier that are not ours (SR-35).

`scep_ra.pki.lint` compares a certificate with its order, each time; pkilint holds it against RFC 5280 as a whole, in
tests, because it takes a thousand times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from pkilint import loader, validation
from pkilint.pkix import certificate as pkix
from pkilint.pkix import extension, name

from scep_ra.ca.directory import CAMaterial
from scep_ra.enrollment.naming import NamingFacts, NamingRules
from scep_ra.identity.types import parse_device_id
from scep_ra.pki import der
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile, ExtendedKeyUsage, KeyUsage
from tests.support.openssl import needs_openssl, verify_strictly
from tests.support.pki import make_ca, make_certificate, make_key, make_ra

# Codes of warnings that we know of, with the reason why they stand. There are none.
ALLOWED: Final[dict[str, str]] = {}
SERIOUS: Final = frozenset({"FATAL", "ERROR", "WARNING"})
KEY_TYPES: Final = ("rsa-2048", "ec-p256", "ec-p384")
DNS: Final = der.context(2, constructed=False)
FULL: Final = CertificateProfile(
    crl_url="http://ra.example.com/crl/a.crl",
    ca_issuers_url="http://ra.example.com/ca/a.cer",
    ocsp_url="http://ra.example.com/ocsp/a",
)
EVERY_PURPOSE: Final = CertificateProfile(
    key_usage=(KeyUsage.DIGITAL_SIGNATURE, KeyUsage.NON_REPUDIATION),
    extended_key_usage=(
        ExtendedKeyUsage.CLIENT_AUTH,
        ExtendedKeyUsage.SERVER_AUTH,
        ExtendedKeyUsage.EMAIL_PROTECTION,
        ExtendedKeyUsage.IPSEC_IKE,
    ),
)
OCSP_DELEGATE: Final = CertificateProfile(
    key_usage=(KeyUsage.DIGITAL_SIGNATURE,), extended_key_usage=(ExtendedKeyUsage.OCSP_SIGNING,), ocsp_nocheck=True
)
ATTRIBUTES: Final = {
    "user": "alice",
    "dns": "gw7.example.com",
    "email": "gw7@example.com",
    "uri": "https://gw7.example.com/status",
    "upn": "alice@example.com",
    "ip": "2001:db8::7",
    "site": "Zürich",
}


@cache
def linter() -> validation.ValidatorContainer:
    """Return pkilint's rules for certificates of RFC 5280."""
    return pkix.create_pkix_certificate_validator_container(
        pkix.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            pkix.create_issuer_validator_container([]),
            pkix.create_validity_validator_container(),
            pkix.create_subject_validator_container([]),
            pkix.create_extensions_validator_container([]),
            pkix.create_spki_validator_container([]),
        ],
    )


def findings(certificate: Certificate) -> list[str]:
    """Return what pkilint has to say that is more than information and not on the list of exceptions."""
    document = loader.load_certificate(certificate.der, "certificate")
    found = [each for result in linter().validate(document.root) for each in result.finding_descriptions]
    assert found  # it says at least by which method the key identifier was made
    return [
        f"{each.finding.severity.name} {each.finding.code} {each.message or ''}"
        for each in found
        if each.finding.severity.name in SERIOUS and each.finding.code not in ALLOWED
    ]


Issued = tuple[CAMaterial, Certificate]


def below(ca: CAMaterial, key_type: str = "rsa-2048", **fields: Any) -> Issued:
    """Return a device's certificate with every extension that a profile can have."""
    return ca, make_certificate(ca, make_key(key_type).spki, **{"profile": FULL, **fields})


def device(key_type: str, ca_key_type: str) -> Issued:
    return below(make_ca(ca_key_type), key_type)


def named(subject: str, *entries: str, profile: CertificateProfile = FULL) -> Issued:
    """Return a certificate with subject and SAN as templates make them."""
    facts = NamingFacts(
        device_id=parse_device_id("FOC1234X0AB"),
        profile="default",
        attributes=ATTRIBUTES,
        csr_subject=parse_name("serialNumber=FOC1234X0AB"),
        csr_subject_alt_name=der.sequence(der.element(DNS, b"gw7.example.com")),
    )
    names = NamingRules.compile(subject=subject, subject_alt_name=entries).names(facts)
    return below(make_ca(), subject=names.subject, subject_alt_name=names.subject_alt_name, profile=profile)


def authority(key_type: str, tiers: Literal[1, 2] = 2, *, place: int = 0, scep_key_usage: bool = False) -> Issued:
    ca = make_ca(key_type, tiers=tiers, scep_key_usage=scep_key_usage)
    return ca, ca.chain[place]


def ra(key_type: str) -> Issued:
    return make_ca(key_type), make_ra(make_ca(key_type)).certificate


KINDS: Final[dict[str, Callable[[], Issued]]] = {
    **{f"root {key}": partial(authority, key, place=1) for key in KEY_TYPES},
    **{f"issuing CA {key}": partial(authority, key) for key in KEY_TYPES},
    **{f"only CA {key}": partial(authority, key, 1) for key in KEY_TYPES},
    "CA that speaks SCEP": partial(authority, "rsa-2048", 1, scep_key_usage=True),
    **{f"RA below {key}": partial(ra, key) for key in KEY_TYPES},
    "who answers OCSP": partial(below, make_ca(), profile=OCSP_DELEGATE),
}
DEVICES: Final[dict[str, Callable[[], Issued]]] = {
    **{f"{key} below {ca}": partial(device, key, ca) for key in KEY_TYPES for ca in KEY_TYPES},
    "without URLs": lambda: below(make_ca(), profile=CertificateProfile()),
    "names of a host": lambda: named(
        "serialNumber={device.value},CN={user},OU={attribute.site},O=Example,C=CH", "dns:{attribute.dns}"
    ),
    "names of a client": lambda: named("CN={device.value}", "email:{attribute.email}", "uri:{attribute.uri}"),
    "names of an account": lambda: named(
        "DC=com,DC=example,CN={device.value}+serialNumber={device.value}", "upn:{attribute.upn}"
    ),
    "an address": lambda: named("CN={device.value}", "ip:{attribute.ip}"),
    "the device as a module": lambda: named("O=Example", "hardware-module:1.3.6.1.4.1.99999.1:{device.value}"),
    "the device for life": lambda: named("O=Example", "permanent-identifier:{device.value}"),
    "names of the request": lambda: named("", "csr"),
    "every purpose": lambda: named("CN={attribute.dns}", "dns:{attribute.dns}", profile=EVERY_PURPOSE),
}


@pytest.mark.parametrize("kind", [*KINDS, *DEVICES])
def test_pkilint_has_nothing_to_say_against_any_kind(kind: str) -> None:
    """Neither error nor warning."""
    _, certificate = {**KINDS, **DEVICES}[kind]()
    assert findings(certificate) == []


@needs_openssl
@pytest.mark.parametrize("kind", DEVICES)
def test_openssl_takes_every_device_for_a_client_of_tls(kind: str, tmp_path: Path) -> None:
    """Under -x509_strict."""
    ca, certificate = DEVICES[kind]()
    verify_strictly(tmp_path, certificate, tuple(ca.chain), "-purpose", "sslclient")


@pytest.mark.parametrize(
    ("subject_alt_name", "code"),
    [
        (der.sequence(der.element(DNS, b"not a host")), "pkix.invalid_domain_name_syntax"),
        (der.sequence(), "itu.invalid_asn1_syntax"),
    ],
    ids=["no host", "empty"],
)
def test_a_certificate_that_breaks_the_rules_is_found(subject_alt_name: bytes, code: str) -> None:
    """The linter is awake."""
    _, certificate = below(make_ca(), subject_alt_name=subject_alt_name)
    assert [finding.split()[1] for finding in findings(certificate)] == [code]
