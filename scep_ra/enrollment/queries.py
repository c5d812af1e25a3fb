"""GetCert and GetCRL (RFC 8894 4.5, 4.6): for holders of a good certificate of ours, and never from memory of CSRs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from scep_ra.enrollment.errors import NotAuthorized, RenewalRefused, UnknownCertificate
from scep_ra.enrollment.renewal import check_live, check_validity
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.storage.base import CertificateStore, StoredCRL


class CRLSource(Protocol):
    """Whatever makes the current CRL of a CA."""

    async def current_crl(self, ca: str) -> StoredCRL:
        """Return the newest CRL, made now if need be; raise a BackendError."""
        ...


class QueryService:
    """Answers about certificates of one profile's CA; `crls` is None where that CA keeps its lists elsewhere."""

    def __init__(
        self,
        *,
        profile: str,
        ca: str,
        ca_certificates: Sequence[Certificate],
        ra_certificate: Certificate,
        store: CertificateStore,
        crls: CRLSource | None,
        enabled: bool,
        now: Callable[[], datetime],
    ) -> None:
        self._profile = profile
        self._ca = ca
        self._issuer = ca_certificates[0].subject
        # sscep names the RA as issuer when it asks for the CRL in RA mode: the certificate that it was told to trust.
        self._crl_issuers = {self._issuer, ra_certificate.subject, ra_certificate.issuer}
        self._store = store
        self._crls = crls
        self._enabled = enabled
        self._now = now

    async def certificate(self, signer: Certificate, issuer: bytes, certificate_serial: int) -> Certificate:
        """Return a certificate of this profile by issuer and serial; raise NotAuthorized or UnknownCertificate."""
        await self._check_asker(signer)
        stored = await self._store.certificate(self._ca, certificate_serial) if issuer == self._issuer else None
        # Profiles of one CA may serve several tenants, who learn nothing of each other's devices.
        if stored is None or stored.profile != self._profile:
            raise UnknownCertificate("no certificate with this issuer and serial")
        return parse_certificate(stored.der)

    async def crl(self, signer: Certificate, issuer: bytes) -> bytes:
        """Return the DER CRL of our CA; raise NotAuthorized or UnknownCertificate."""
        await self._check_asker(signer)
        if self._crls is None or issuer not in self._crl_issuers:
            raise UnknownCertificate("no CRL of this issuer")
        return (await self._crls.current_crl(self._ca)).der

    async def _check_asker(self, signer: Certificate) -> None:
        """Strangers learn nothing: the signer holds a certificate that we issued under this profile, good today."""
        if not self._enabled:
            raise NotAuthorized("queries are off in this profile")
        stored = await self._store.certificate(self._ca, signer.certificate_serial)
        try:
            check_live(stored, signer, self._profile)
            check_validity(signer, self._now())
        except RenewalRefused as error:
            raise NotAuthorized(f"query: {error}") from error
