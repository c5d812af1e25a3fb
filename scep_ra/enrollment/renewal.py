"""May this certificate have a successor? The rules of a profile, and the checks (RFC 8894 2.3, 2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from scep_ra.enrollment.errors import RenewalRefused
from scep_ra.pki import der, names, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.csr import CertificationRequest
from scep_ra.pki.errors import MalformedData
from scep_ra.storage.base import StoredCertificate

_SUPERSEDED: Final = 4  # CRLReason (RFC 5280 5.3.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRules:
    """What a profile allows."""

    enabled: bool = True
    window: timedelta | None = None  # None: at any time before notAfter
    grace: timedelta = timedelta(0)  # after notAfter
    allow_same_key: bool = False
    revoke_old_after: timedelta | None = None  # once the successor is issued; None = never


def check_live(stored: StoredCertificate | None, signer: Certificate, profile: str) -> StoredCertificate:
    """Return the stored certificate that signed; raise RenewalRefused unless it is ours, octet by octet, and good.

    A CA certificate, or one that our key signed and we do not remember, is nobody's proof.
    """
    if stored is None or stored.der != signer.der:
        raise RenewalRefused("the signer's certificate was not issued here")
    if stored.profile != profile:
        raise RenewalRefused(f"the signer's certificate belongs to profile {stored.profile!r}")
    if stored.revoked_at is not None:
        raise RenewalRefused(f"the signer's certificate was revoked at {stored.revoked_at:%Y-%m-%d %H:%M:%SZ}")
    _check_digital_signature(signer)
    return stored


def _check_digital_signature(signer: Certificate) -> None:
    """RFC 5280 4.2.1.3: the key may sign messages only if its certificate says so."""
    value = signer.extension(oids.KEY_USAGE)
    if value is None:
        return
    try:
        bits = der.Reader(value).contents(der.BIT_STRING)
    except MalformedData as error:
        raise RenewalRefused(f"keyUsage of the signer's certificate: {error}") from None
    if len(bits) < 2 or not bits[1] & 0x80:
        raise RenewalRefused("the signer's certificate is not for digital signatures")


def check_validity(signer: Certificate, now: datetime, grace: timedelta = timedelta(0)) -> None:
    """Raise RenewalRefused when the certificate is not valid now, give or take the grace after its end."""
    if not signer.not_before <= now <= signer.not_after + grace:
        raise RenewalRefused(
            f"the signer's certificate is valid from {signer.not_before:%Y-%m-%d} to {signer.not_after:%Y-%m-%d}"
        )


def check_renewal(
    csr: CertificationRequest,
    stored: StoredCertificate,
    signer: Certificate,
    rules: RenewalRules,
    *,
    same_subject: bool = True,
) -> None:
    """Check what the new request may differ in: the key, and nothing else; raise RenewalRefused.

    Without `same_subject` the names are made by the profile, and what the request says of them does not count.
    """
    if not rules.enabled:
        raise RenewalRefused("renewal is off in this profile")
    if stored.successor is not None:
        raise RenewalRefused(f"the signer's certificate has a successor already ({stored.successor:x})")
    if stored.revoke_at is not None:
        # Housekeeping revokes it in a moment; until then it is no way back for whoever was shut out.
        raise RenewalRefused("the signer's certificate was replaced by one under another key")
    if same_subject and names.attributes(csr.subject) != names.attributes(signer.subject):
        raise RenewalRefused("the subject is not that of the signer's certificate")
    if csr.spki == signer.spki and not rules.allow_same_key:
        raise RenewalRefused("the key is that of the signer's certificate, and allow_same_key is off")


def check_window(signer: Certificate, now: datetime, rules: RenewalRules) -> None:
    """Raise RenewalRefused when it is too early, or too late."""
    check_validity(signer, now, rules.grace)
    if rules.window is not None and now < signer.not_after - rules.window:
        raise RenewalRefused(f"too early: the window opens at {signer.not_after - rules.window:%Y-%m-%d %H:%M:%SZ}")


def check_still_entitled(renewed: StoredCertificate | None, successor: int | None) -> None:
    """Check that a certificate may still have the successor with this serial, None while it has no serial.

    Being replaced by that very successor is no reason against it: a device whose answer was lost asks again. Raise
    RenewalRefused.
    """
    if renewed is None:
        raise RenewalRefused("the certificate to be renewed is gone")
    if renewed.successor is not None and renewed.successor == successor:
        is_withdrawn = renewed.revoked_at is not None and renewed.revocation_reason != _SUPERSEDED
    else:
        is_withdrawn = renewed.revoked_at is not None or (renewed.revoke_at is not None and renewed.successor is None)
    if is_withdrawn:
        raise RenewalRefused("the certificate to be renewed was revoked meanwhile")
