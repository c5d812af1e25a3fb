"""A small test PKI: keys and CAs made once a session, certificates on demand.

Everything is valid around NOW, which is real time, so that foreign tools agree. Keys are shared between tests: treat
them as constants.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

from scep_ra.ca.directory import CAMaterial, RAMaterial
from scep_ra.ca.hierarchy import (
    CAParameters,
    Issuer,
    RAParameters,
    make_issuing_ca,
    make_ra_certificate,
    make_root,
)
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.issuance import (
    EndEntityTemplate,
    assemble_signed,
    new_certificate_serial,
    signature_algorithm,
    signing_scheme,
)
from scep_ra.pki.keys import Signer, SoftwareKey, generate_key
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile

NOW = datetime.now(UTC).replace(microsecond=0)


@cache
def make_key(key_type: str = "rsa-2048", owner: str = "device") -> SoftwareKey:
    """Return the key of this owner, the same one throughout the session."""
    return generate_key(key_type)


@cache
def make_ca(
    key_type: str = "rsa-2048", *, tiers: Literal[1, 2] = 2, name: str = "test", scep_key_usage: bool = False
) -> CAMaterial:
    """Return a CA: its key, and its certificate followed by the root."""
    parameters = CAParameters(organization="Test", tiers=tiers, key_type=key_type, scep_key_usage=scep_key_usage)
    key = make_key(key_type, f"{name} issuing CA")
    if tiers == 1:
        return CAMaterial(signer=key, chain=(_issuing_ca(parameters, name, key, None),))
    root_key = make_key(key_type, f"{name} root CA")
    root = make_root(parameters, name, root_key, now=NOW, random=secrets.token_bytes)
    issuing = _issuing_ca(parameters, name, key, Issuer(certificate=root, key=root_key))
    return CAMaterial(signer=key, chain=(issuing, root))


def _issuing_ca(parameters: CAParameters, name: str, key: Signer, root: Issuer | None) -> Certificate:
    return make_issuing_ca(parameters, name, key, root, now=NOW, random=secrets.token_bytes)


@cache
def make_ra(ca: CAMaterial | None = None, *, name: str = "test") -> RAMaterial:
    """Return an RA, always with an RSA key, below this CA or the default one."""
    ca = ca or make_ca()
    key = make_key("rsa-2048", f"{name} RA")
    issuer = Issuer(certificate=ca.chain[0], key=ca.signer)
    parameters = RAParameters(organization="Test")
    certificate = make_ra_certificate(parameters, name, key.spki, issuer, now=NOW, random=secrets.token_bytes)
    return RAMaterial(key=key, certificate=certificate)


def make_certificate(
    ca: CAMaterial,
    spki: bytes,
    *,
    subject: bytes | None = None,
    subject_alt_name: bytes | None = None,
    not_before: datetime = NOW,
    not_after: datetime = NOW + timedelta(days=365),
    profile: CertificateProfile | None = None,
) -> Certificate:
    """Issue an end-entity certificate for a DER SubjectPublicKeyInfo, `O=Test,CN=device-1` unless told otherwise."""
    tbs = EndEntityTemplate(ca.chain[0], profile or CertificateProfile()).build(
        certificate_serial=new_certificate_serial(secrets.token_bytes),
        not_before=not_before,
        not_after=not_after,
        subject=parse_name("O=Test,CN=device-1") if subject is None else subject,
        spki=spki,
        subject_alt_name=subject_alt_name,
    )
    return sign_tbs(tbs, ca.signer)


def sign_tbs(tbs: bytes, key: Signer) -> Certificate:
    """Sign a DER TBSCertificate, whatever it says."""
    signature = key.sign(tbs, signing_scheme(key.spki)[1])
    return parse_certificate(assemble_signed(tbs, signature_algorithm(key.spki), signature))
