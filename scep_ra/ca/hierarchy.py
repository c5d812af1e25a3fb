"""Make a CA from nothing: certificate serials, the root, the issuing CA below it, and the RA's certificate.

Pure but for the key generation that callers do beforehand: keys, time and randomness are arguments. Files are
`ca.directory`'s work; certificates of devices are `ca.local`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from scep_ra.errors import Misconfigured
from scep_ra.pki import names, oids
from scep_ra.pki.algorithms import SignatureScheme
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.issuance import (
    EndEntityTemplate,
    assemble_signed,
    assemble_tbs,
    authority_key_identifier,
    ca_basic_constraints,
    issuer_key_identifier,
    key_identifier,
    key_usage,
    new_certificate_serial,
    signature_algorithm,
    signing_scheme,
    subject_key_identifier,
)
from scep_ra.pki.keys import Signer
from scep_ra.pki.profiles import CertificateProfile, KeyUsage

Random = Callable[[int], bytes]  # secrets.token_bytes: so many octets from a cryptographic generator

_MAX_COMMON_NAME: Final = 64  # ub-common-name, RFC 5280 A.1
# Devices' clocks run behind: a certificate made this minute must not be one of the future.
BACKDATED: Final = timedelta(hours=1)
# Only these two: Apple takes a non-root certificate with digitalSignature and keyEncipherment for the RA's.
_CA_KEY_USAGE: Final = (KeyUsage.KEY_CERT_SIGN, KeyUsage.CRL_SIGN)
_SCEP_KEY_USAGE: Final = (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)
# No extended key usage: OpenSSL's S/MIME purpose, by which some clients verify CertReps, would refuse others' purposes.
_RA_PROFILE: Final = CertificateProfile(key_usage=_SCEP_KEY_USAGE, extended_key_usage=())


@dataclass(frozen=True, slots=True, kw_only=True)
class CAParameters:
    """What a new CA is to be."""

    organization: str = "scep-ra"
    tiers: Literal[1, 2] = 2
    key_type: str = "rsa-2048"  # as pki.keys.generate_key knows it
    root_validity_days: int = 7300
    validity_days: int = 3650  # of the issuing CA; with one tier, of the only one
    scep_key_usage: bool = False  # the CA speaks SCEP itself, no RA does (RFC 8894 2.1.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RAParameters:
    """What a new RA is to be; its key is RSA because clients encrypt to it."""

    organization: str = "scep-ra"
    key_type: str = "rsa-2048"
    validity_days: int = 1825


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A CA certificate and its key, together able to sign."""

    certificate: Certificate
    key: Signer


def authority_name(organization: str, name: str, role: str) -> bytes:
    """Return the DER Name `O=organization,CN=organization name role`; raise Misconfigured when CN is too long."""
    common_name = " ".join(part for part in (organization, name, role) if part)
    if len(common_name) > _MAX_COMMON_NAME:
        raise Misconfigured(
            f"the name {common_name!r} has more than {_MAX_COMMON_NAME} characters: shorten `organization`"
        )
    pairs = [(oids.ORGANIZATION, organization)] if organization else []
    return names.build_name([*pairs, (oids.COMMON_NAME, common_name)])


def make_root(parameters: CAParameters, name: str, key: Signer, *, now: datetime, random: Random) -> Certificate:
    """Return the self-signed root of a two-tier CA."""
    return _make_ca(
        subject=authority_name(parameters.organization, name, "Root CA"),
        key=key,
        issuer=None,
        usage=_CA_KEY_USAGE,
        path_length=None,
        validity=timedelta(days=parameters.root_validity_days),
        now=now,
        random=random,
    )


def make_issuing_ca(
    parameters: CAParameters, name: str, key: Signer, root: Issuer | None, *, now: datetime, random: Random
) -> Certificate:
    """Return the CA that issues to end entities only: below the root, or self-signed when there is none.

    Raise Misconfigured for scep_key_usage with a key that cannot be encrypted to.
    """
    return _make_ca(
        subject=authority_name(parameters.organization, name, "CA" if root is None else "Issuing CA"),
        key=key,
        issuer=root,
        usage=_issuing_key_usage(parameters, key),
        path_length=0,
        validity=timedelta(days=parameters.validity_days),
        now=now,
        random=random,
    )


def _issuing_key_usage(parameters: CAParameters, key: Signer) -> tuple[KeyUsage, ...]:
    if not parameters.scep_key_usage:
        return _CA_KEY_USAGE
    if key.scheme is SignatureScheme.ECDSA:
        raise Misconfigured(
            "`scep_key_usage` needs an RSA key, to which clients can encrypt: set `key_type` to rsa-..."
        )
    return (*_SCEP_KEY_USAGE, *_CA_KEY_USAGE)


def _make_ca(
    *,
    subject: bytes,
    key: Signer,
    issuer: Issuer | None,
    usage: tuple[KeyUsage, ...],
    path_length: int | None,
    validity: timedelta,
    now: datetime,
    random: Random,
) -> Certificate:
    own_identifier = key_identifier(key.spki)
    signing_key = key if issuer is None else issuer.key
    not_before, not_after = _validity(validity, now, issuer)
    tbs = assemble_tbs(
        certificate_serial=new_certificate_serial(random),
        algorithm=signature_algorithm(signing_key.spki),
        issuer=subject if issuer is None else issuer.certificate.subject,
        not_before=not_before,
        not_after=not_after,
        subject=subject,
        spki=key.spki,
        extensions=ca_basic_constraints(path_length)
        + key_usage(usage)
        + subject_key_identifier(own_identifier)
        + authority_key_identifier(own_identifier if issuer is None else issuer_key_identifier(issuer.certificate)),
    )
    return _sign(tbs, signing_key)


def _validity(length: timedelta, now: datetime, issuer: Issuer | None) -> tuple[datetime, datetime]:
    """Return notBefore and notAfter, inside the issuer's."""
    not_before, not_after = now - BACKDATED, now + length
    if issuer is None:
        return not_before, not_after
    return max(not_before, issuer.certificate.not_before), min(not_after, issuer.certificate.not_after)


def _sign(tbs: bytes, key: Signer) -> Certificate:
    signature = key.sign(tbs, signing_scheme(key.spki)[1])
    return parse_certificate(assemble_signed(tbs, signature_algorithm(key.spki), signature))


def make_ra_certificate(
    parameters: RAParameters, name: str, spki: bytes, issuer: Issuer, *, now: datetime, random: Random
) -> Certificate:
    """Return the certificate under which the RA signs CertReps and is encrypted to; it is an end entity's."""
    not_before, not_after = _validity(timedelta(days=parameters.validity_days), now, issuer)
    tbs = EndEntityTemplate(issuer.certificate, _RA_PROFILE).build(
        certificate_serial=new_certificate_serial(random),
        not_before=not_before,
        not_after=not_after,
        subject=authority_name(parameters.organization, name, "RA"),
        spki=spki,
        subject_alt_name=None,
    )
    return _sign(tbs, issuer.key)
