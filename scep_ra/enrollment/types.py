"""What enters the core and what leaves it, as values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from scep_ra.pki.certificates import Certificate
from scep_ra.pki.csr import CertificationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """The requester signed with a certificate made for the occasion, with the key of the CSR."""

    certificate: Certificate

    @property
    def requester(self) -> bytes:
        """Return what identifies the requester between messages: SHA-256 of the key."""
        return hashlib.sha256(self.certificate.spki).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingCertificate:
    """The requester signed with a certificate that bears the signature of our CA."""

    certificate: Certificate

    @property
    def requester(self) -> bytes:
        """Return what identifies the requester between messages: SHA-256 of the certificate.

        Not of its key: a renewal with the same key and CSR would look like the enrollment before it.
        """
        return hashlib.sha256(self.certificate.der).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManufacturerCertificate:
    """The requester signed with an IDevID that leads to this manufacturer's trust store (802.1AR; Cisco: SUDI)."""

    certificate: Certificate
    store: str

    @property
    def requester(self) -> bytes:
        """Return what identifies the requester between messages: SHA-256 of the certificate, a device's for life."""
        return hashlib.sha256(self.certificate.der).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRA:
    """A registration authority signed for a device; it answers for who that is."""

    certificate: Certificate
    ra: str

    @property
    def requester(self) -> bytes:
        """Return what identifies the requester between messages: SHA-256 of the RA's certificate.

        Many devices stand behind it; the transactionID tells them apart (RFC 8894 3.2.1.1).
        """
        return hashlib.sha256(self.certificate.der).digest()


IdentityProof = StandIn | ExistingCertificate | ManufacturerCertificate | TrustedRA


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRequest:
    """One PKCSReq or RenewalReq whose signature and proof of possession hold."""

    transaction_id: str
    csr: CertificationRequest
    proof: IdentityProof
    source: str  # address of the peer, for log and AAA


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The certificate exists and is stored."""

    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """Ask again later."""


Outcome = Granted | Undecided
