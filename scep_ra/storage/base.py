"""The storage ports: what must be remembered, and which steps must happen together or not at all.

Every method is one transaction. Times are aware datetimes in UTC. Implementations raise Unavailable when the
outcome of a call is unknown or the store cannot be reached; a lost race is an answer (None, False or a named
error below), never an exception of a driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.errors import BackendError
from scep_ra.identity.types import DeviceID


class AlreadyExists(BackendError):
    """A row with this key is there already."""


class ChallengeSpent(BackendError):
    """The challenge was used by another request, voided, or has expired, since it was looked up."""


class DuplicateEnrollment(BackendError):
    """Another request with the same key and CSR won the race; read it and answer what it answers."""


class AlreadyRenewed(BackendError):
    """The certificate has a successor, or another enrollment is about to give it one."""


# --- devices -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An entry of the embedded registry: who may enroll."""

    device_id: DeviceID
    user: str = ""
    profile: str = ""  # "" = every profile
    note: str = ""
    enabled: bool = True
    created_at: datetime


class DeviceStore(Protocol):
    """The embedded registry's rows, keyed by device ID."""

    async def add_device(self, device: Device) -> None:
        """Insert; raise AlreadyExists."""
        ...

    async def import_devices(self, devices: Iterable[Device]) -> int:
        """Insert those that are new, in one transaction; return how many were inserted."""
        ...

    async def device(self, device_id: DeviceID) -> Device | None:
        """Return the entry, enabled or not."""
        ...

    async def devices_by_value(self, value: str) -> Sequence[Device]:
        """Return the devices whose normalised value is this, whatever the kind."""
        ...

    async def list_devices(self) -> Sequence[Device]:
        """Return all, ordered by kind and value."""
        ...

    async def set_device_enabled(self, device_id: DeviceID, enabled: bool) -> bool:
        """Return False when there is no such device."""
        ...

    async def remove_device(self, device_id: DeviceID) -> bool:
        """Remove the device and void its unused challenges; return False when there is no such device."""
        ...


# --- challenges ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A one-time secret, bound to a device and a profile; the secret itself is never stored."""

    digest: bytes  # SHA-256 of the secret's UTF-8
    device_id: DeviceID
    profile: str
    created_at: datetime
    expires_at: datetime
    used_by: str | None = None  # enrollment_id
    sealed: bytes | None = None  # the secret under the data directory's key: only for the password-based envelope


class ChallengeStore(Protocol):
    """One-time challenges."""

    async def add_challenge(self, challenge: Challenge) -> None:
        """Insert; raise AlreadyExists when this digest is there."""
        ...

    async def sealed_challenges(self, profile: str, now: datetime, limit: int) -> Sequence[bytes]:
        """Return the sealed secrets of unexpired challenges of a profile, unused ones first, newest first."""
        ...

    async def sealed_challenge_of(self, key: EnrollmentKey) -> bytes | None:
        """Return the sealed secret that the newest enrollment of this key has spent, expired or not, for its polls."""
        ...


# --- enrollments ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentKey:
    """What makes two requests the same transaction (RFC 8894 3.2.1.1 plus the key that signed)."""

    profile: str
    transaction_id: str
    requester: bytes  # SHA-256: of the signer's SPKI when self-signed, of the signer's certificate when it is ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """One request for one certificate, from first sight to outcome."""

    enrollment_id: str  # 32 hex digits, random
    key: EnrollmentKey
    csr_digest: bytes  # SHA-256 of the CSR
    csr: bytes  # DER
    ca: str  # name of the CA in the configuration that is to sign, and that issued `renewal_of`
    state: EnrollmentState
    device_id: DeviceID
    renewal_of: int | None  # certificate serial (of the same CA) that this one renews
    certificate_serial: int | None  # reserved while ISSUING, real when ISSUED
    order: bytes | None  # CertificateAuthority.prepare's octets, from ISSUING on
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """All that the store knows about an incoming request, read in one step."""

    same: Enrollment | None  # same key and same CSR
    latest: Enrollment | None  # same key, newest, whatever the CSR
    challenge: Challenge | None
    certificate: StoredCertificate | None  # of `same`, when issued


class EnrollmentStore(Protocol):
    """Enrollments and their compare-and-set steps."""

    async def dossier(self, key: EnrollmentKey, csr_digest: bytes, challenge_digest: bytes | None) -> Dossier:
        """Return what is known; a challenge is returned whatever its state, the caller judges it."""
        ...

    async def latest_enrollment(self, key: EnrollmentKey) -> tuple[Enrollment, StoredCertificate | None] | None:
        """Return the newest enrollment of this key with its certificate, for CertPoll."""
        ...

    async def insert_enrollment(self, enrollment: Enrollment, *, spend: bytes | None) -> None:
        """Insert an enrollment (PENDING or ISSUING) and, in the same transaction, spend the challenge with this digest.

        Raise DuplicateEnrollment when the same key and CSR are there already, else AlreadyRenewed when the enrollment
        is ISSUING and `renewal_of` has or is about to get another successor, else ChallengeSpent when the challenge
        is not open at enrollment.created_at; then nothing is changed.
        """
        ...

    async def advance(
        self,
        enrollment_id: str,
        expected: EnrollmentState,
        event: EnrollmentEvent,
        now: datetime,
        *,
        certificate_serial: int | None = None,
        order: bytes | None = None,
    ) -> bool:
        """Apply one event of the transition table if the state is still `expected`; return False when it is not.

        APPROVE needs certificate_serial and order, and raises AlreadyRenewed as insert_enrollment does. COMPLETE is
        `complete`'s alone, because no enrollment may be ISSUED without its certificate.
        """
        ...

    async def complete(self, enrollment_id: str, certificate: StoredCertificate, now: datetime) -> bool:
        """Store the certificate and move ISSUING to ISSUED together; False when another worker did it first.

        The certificate that the enrollment renews gets this one as its successor. Raise AlreadyExists when the CA gave
        the same serial to two enrollments; then nothing is changed.
        """
        ...

    async def open_intents(self) -> Sequence[Enrollment]:
        """Return all enrollments in ISSUING, oldest first: what a start after a crash must resolve."""
        ...

    async def expire_pending(self, profile: str, before: datetime, now: datetime) -> int:
        """Reject the PENDING enrollments of a profile created earlier than `before`; return how many."""
        ...


# --- certificates --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCertificate:
    """An issued certificate and what became of it."""

    certificate_serial: int
    ca: str  # name of the CA in the configuration
    profile: str
    device_id: DeviceID
    der: bytes
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    successor: int | None = None  # serial of the renewal
    revoked_at: datetime | None = None
    revocation_reason: int | None = None  # CRLReason (RFC 5280 5.3.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One line of a CRL."""

    certificate_serial: int
    revoked_at: datetime
    reason: int


class CertificateStore(Protocol):
    """Issued certificates."""

    async def certificate(self, ca: str, certificate_serial: int) -> StoredCertificate | None:
        """Return the certificate, revoked or not."""
        ...

    async def list_certificates(self, device_id: DeviceID | None = None) -> Sequence[StoredCertificate]:
        """Return certificates, newest first."""
        ...

    async def revoke_certificate(self, ca: str, certificate_serial: int, now: datetime, reason: int) -> bool:
        """Mark as revoked; return False when unknown or revoked already (the first date and reason stay)."""
        ...

    def revocations(self, ca: str, now: datetime) -> AsyncIterator[Revocation]:
        """Iterate over revoked certificates of a CA that have not expired at `now`, by serial.

        Not one transaction: rows come in pages, so that a long list holds nobody up. A revocation meanwhile may be in
        or out; `CRLState.revocation_sequence`, read before, tells.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCRL:
    """The newest CRL of a CA."""

    ca: str
    crl_number: int
    der: bytes
    this_update: datetime
    next_update: datetime
    revocation_sequence: int  # CRLState.revocation_sequence as read before the revocations were


@dataclass(frozen=True, slots=True, kw_only=True)
class CRLState:
    """What a CRL maker must know before it reads the revocations."""

    crl: StoredCRL | None
    revocation_sequence: int  # how many revocations this CA has seen, ever: a counter, because clocks can stand still

    @property
    def outdated(self) -> bool:
        """Tell whether there is no CRL, or a certificate was revoked that it does not know."""
        return self.crl is None or self.crl.revocation_sequence != self.revocation_sequence


class CRLStore(Protocol):
    """Signed CRLs, so that several nodes and restarts hand out one sequence of numbers."""

    async def current_crl(self, ca: str) -> CRLState:
        """Return the newest CRL and how many revocations there are now."""
        ...

    async def save_crl(self, crl: StoredCRL) -> bool:
        """Replace the CRL of this CA; False unless the number is higher (another node was faster: read again)."""
        ...


class Store(DeviceStore, ChallengeStore, EnrollmentStore, CertificateStore, CRLStore, Protocol):
    """Everything together, as the composition root opens it."""

    async def check(self) -> None:
        """Verify that reading and writing work; raise Unavailable."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the files or connections."""
        ...
