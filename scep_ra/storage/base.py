"""The storage ports: what must be remembered, and which steps must happen together or not at all.

Every method is one transaction. Times are aware datetimes in UTC. Implementations raise Unavailable when the
outcome of a call is unknown or the store cannot be reached; a lost race is an answer (None, False or a named
error below), never an exception of a driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.errors import BackendError
from scep_ra.identity.types import DeviceID
from scep_ra.storage.audit_chain import AuditLog
from scep_ra.storage.sessions import DisconnectStore, OutboxStore, SessionStore


class AlreadyExists(BackendError):
    """A row with this key is there already."""


class ChallengeSpent(BackendError):
    """The challenge was used by another request, voided, or has expired, since it was looked up."""


class DuplicateEnrollment(BackendError):
    """Another request with the same key and CSR won the race; read it and answer what it answers."""


class AlreadyRenewed(BackendError):
    """The certificate has a successor, or another enrollment is about to give it one."""


class KeyInUse(BackendError):
    """The key was certified for another device, or is blocked because a certificate of it was revoked as stolen."""


class QuotaReached(BackendError):
    """The device has as many active certificates of this profile as it may have."""


class SecondKeyFound(BackendError):
    """The device has an active certificate of this profile under another key, and this request renews none of them."""


# --- devices -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An entry of the embedded registry: who may enroll, for what, and what its certificate says."""

    device_id: DeviceID
    user: str = ""
    profile: str = ""  # "" = every profile
    services: tuple[str, ...] = ()  # what the device may use; a profile can demand one
    note: str = ""
    enabled: bool = True
    approval: bool = False  # an operator has to approve each first enrollment
    valid_until: datetime | None = None  # no certificate reaches beyond, none is issued after
    attributes: Mapping[str, str] = field(default_factory=dict)  # free; templates and vouching draw on them
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

    async def set_device_enabled(self, device_id: DeviceID, enabled: bool, now: datetime) -> bool:
        """Return False when there is no such device."""
        ...

    async def update_device(self, device: Device, now: datetime) -> bool:
        """Replace everything but the ID, `created_at` and `enabled`; return False when there is no such device."""
        ...

    async def remove_device(self, device_id: DeviceID, now: datetime) -> bool:
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
    requester: bytes  # SHA-256: of the signer's SPKI when self-signed, else of the signer's certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """One request for one certificate, from first sight to outcome."""

    enrollment_id: str  # 32 hex digits, random
    key: EnrollmentKey
    csr_digest: bytes  # SHA-256 of the CSR
    csr: bytes  # DER, without the challenge
    spki_digest: bytes  # SHA-256 of the SubjectPublicKeyInfo that is to be certified
    ca: str  # name of the CA in the configuration that is to sign, and that issued `renewal_of`
    state: EnrollmentState
    device_id: DeviceID
    proof: str  # what proved the requester: "certificate", "manufacturer", "ra", or the profile's ChallengeRule.kind
    source: str  # address from which it came first
    hold: str = ""  # why an operator has to approve it; "" = nobody has to
    decided_by: str = ""  # the operator who approved or rejected it
    note: str = ""  # what the operator had to say
    refusal: str = ""  # why AAA, asked again, said no
    renewal_of: int | None  # certificate serial (of the same CA) that this one renews
    certificate_serial: int | None  # reserved while ISSUING, real when ISSUED
    order: bytes | None  # CertificateAuthority.prepare's octets, from ISSUING on
    subject: bytes | None = None  # DER Name that the certificate is to have, from ISSUING on
    subject_alt_name: bytes | None = None  # DER GeneralNames that go with it, if any
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None = None  # from when on the same request is a new one


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """All that the store knows about an incoming request, read in one step."""

    same: Enrollment | None  # same key and same CSR, not closed
    latest: Enrollment | None  # same key, newest, whatever the CSR, not closed
    challenge: Challenge | None
    certificate: StoredCertificate | None  # of `same`, when issued


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuanceLimits:
    """What must hold of a device's certificates and requests in this profile when an enrollment is recorded.

    Certificates count for an intent, what waits for what is to wait. Active is a certificate of the device and profile
    that has not expired, is not revoked and has no successor, and an open intent for one, but not the renewed one.
    """

    max_active: int | None = None
    second_key: bool = True  # False: raise SecondKeyFound when another key is active
    max_waiting: int | None = None  # requests that are PENDING or APPROVED


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """When certificates that a new one replaces are to be revoked; None = they stay until they expire."""

    renewed_at: datetime | None = None  # the one that was renewed
    others_at: datetime | None = None  # every other active one of the device in this profile


NO_LIMITS: Final = IssuanceLimits()
NO_RETIREMENT: Final = Retirement()


class EnrollmentStore(Protocol):
    """Enrollments and their compare-and-set steps."""

    async def dossier(self, key: EnrollmentKey, csr_digest: bytes, challenge_digest: bytes | None) -> Dossier:
        """Return what is known; a challenge is returned whatever its state, the caller judges it."""
        ...

    async def latest_enrollment(self, key: EnrollmentKey) -> tuple[Enrollment, StoredCertificate | None] | None:
        """Return the newest enrollment of this key that is not closed, with its certificate, for CertPoll."""
        ...

    async def insert_enrollment(
        self,
        enrollment: Enrollment,
        *,
        spend: bytes | None,
        closes: str | None = None,
        decision: StoredDecision | None = None,
        limits: IssuanceLimits = NO_LIMITS,
    ) -> None:
        """Insert an enrollment (PENDING or ISSUING) and, in the same transaction, spend the challenge with this digest.

        The decision record, with the same ID, goes in as well. `closes` is the ID of the same request long ago. Raise,
        in this order, DuplicateEnrollment when the same key and CSR are there and not closed, AlreadyRenewed when
        `renewal_of` has or is about to get another successor, ChallengeSpent when the challenge is not open at
        enrollment.created_at, KeyInUse, and SecondKeyFound or QuotaReached as `limits` say; then nothing is changed.
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
        subject: bytes | None = None,
        subject_alt_name: bytes | None = None,
        limits: IssuanceLimits = NO_LIMITS,
        by: str = "",
        note: str = "",
        refusal: str = "",
    ) -> bool:
        """Apply one event of the transition table if the state is still `expected`; return False when it is not.

        AUTHORIZE needs certificate_serial, order and names, and raises AlreadyRenewed, KeyInUse, SecondKeyFound and
        QuotaReached as insert_enrollment does. APPROVE and REJECT keep an operator's `by` and `note`, and AAA's
        `refusal` beside them. COMPLETE is `complete`'s alone: none is ISSUED without its certificate.
        """
        ...

    async def complete(
        self,
        enrollment_id: str,
        certificate: StoredCertificate,
        now: datetime,
        *,
        retirement: Retirement = NO_RETIREMENT,
    ) -> StoredCertificate | None:
        """Store the certificate and move ISSUING to ISSUED together; None when another worker did it first.

        The renewed certificate gets its successor, those that are replaced their `revoke_at`. Return the new one, which
        is revoked when its device was disconnected, or the renewed one revoked or replaced, since the intent. Raise
        AlreadyExists when the CA gave the same serial to two enrollments; then nothing is changed.
        """
        ...

    async def close_enrollment(self, enrollment_id: str, now: datetime, *, by: str, note: str = "") -> bool:
        """Have the same request judged as new from now on; False when it is under way, closed, or not there."""
        ...

    async def find_enrollments(self, id_prefix: str) -> Sequence[Enrollment]:
        """Return at most two enrollments whose ID begins so: none, the one that is meant, or an ambiguity."""
        ...

    async def list_enrollments(
        self, states: Collection[EnrollmentState], *, device_id: DeviceID | None = None, limit: int = 1000
    ) -> Sequence[Enrollment]:
        """Return the newest enrollments in these states, newest first."""
        ...

    async def open_intents(self) -> Sequence[Enrollment]:
        """Return all enrollments in ISSUING, oldest first: what a start after a crash must resolve."""
        ...

    async def expire_waiting(self, profile: str, before: datetime, now: datetime) -> int:
        """Expire the PENDING and APPROVED enrollments of a profile created before `before`; return how many."""
        ...


# --- decisions -----------------------------------------------------------------------------------------------------


class DecisionOutcome(StrEnum):
    """What became of a request when it was first looked at."""

    AUTHORIZED = "authorized"
    DEFERRED = "deferred"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDecision:
    """Why one request was let in, put off or refused; `record` is the whole of it, written by enrollment.decisions."""

    decision_id: str  # 32 hex digits; the enrollment_id where there is an enrollment
    decided_at: datetime
    profile: str
    transaction_id: str
    source: str
    device_id: DeviceID | None
    outcome: DecisionOutcome
    code: str  # public code of the refusal, "" otherwise
    record: str  # JSON


class DecisionStore(Protocol):
    """Decision records; those of enrollments are written by insert_enrollment."""

    async def add_decisions(self, decisions: Sequence[StoredDecision]) -> None:
        """Insert records of requests that became no enrollment, all in one transaction."""
        ...

    async def find_decisions(self, id_prefix: str) -> Sequence[StoredDecision]:
        """Return at most two records whose ID begins so."""
        ...

    async def list_decisions(
        self,
        *,
        outcomes: Collection[DecisionOutcome] = frozenset(DecisionOutcome),
        device_id: DeviceID | None = None,
        limit: int = 100,
    ) -> Sequence[StoredDecision]:
        """Return the newest records, newest first."""
        ...

    async def prune_decisions(self, before: datetime, keep: int) -> int:
        """Delete records of refused requests older than `before`, and all but the newest `keep`; return how many."""
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
    spki_digest: bytes  # SHA-256 of its SubjectPublicKeyInfo
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    successor: int | None = None  # serial of the renewal
    revoke_at: datetime | None = None  # when it is to be revoked because another one replaces it
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

    async def current_certificates(
        self, device_ids: Collection[DeviceID], now: datetime
    ) -> Sequence[StoredCertificate]:
        """Return what these devices may show to be let in at `now`, newest first.

        Not expired, not revoked nor to be revoked by then, and without a successor.
        """
        ...

    async def due_revocations(self, now: datetime, limit: int = 100) -> Sequence[StoredCertificate]:
        """Return certificates that were to be revoked by now (`revoke_at`) and are not, oldest first."""
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


class Store(
    DeviceStore,
    ChallengeStore,
    EnrollmentStore,
    DecisionStore,
    CertificateStore,
    CRLStore,
    SessionStore,
    OutboxStore,
    DisconnectStore,
    AuditLog,
    Protocol,
):
    """Everything together, as the composition root opens it."""

    async def check(self) -> None:
        """Verify that reading and writing work; raise Unavailable."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the files or connections."""
        ...
