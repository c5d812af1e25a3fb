"""Enrollments in SQL: the steps that must happen together or not at all.

Correct at PostgreSQL's READ COMMITTED, too: every race is decided by a unique index or by the WHERE of an UPDATE,
or after `Session.serialise`, never by what an earlier SELECT saw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from scep_ra.enrollment.states import WAITING, EnrollmentEvent, EnrollmentState, next_state
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.base import (
    NO_LIMITS,
    NO_RETIREMENT,
    AlreadyRenewed,
    Challenge,
    ChallengeSpent,
    Dossier,
    DuplicateEnrollment,
    Enrollment,
    EnrollmentKey,
    IssuanceLimits,
    Retirement,
    StoredCertificate,
    StoredDecision,
)
from scep_ra.storage.database import (
    Row,
    Session,
    UniqueViolation,
    decode_serial,
    decode_time,
    encode_serial,
    encode_time,
)
from scep_ra.storage.sql_audit import SqlAudit
from scep_ra.storage.sql_certificates import (
    certificate_facts,
    find_certificate,
    insert_certificate,
    retire_others,
    retire_renewed,
    revoke_one,
)
from scep_ra.storage.sql_decisions import id_range, insert_decision
from scep_ra.storage.sql_devices import challenge_fact, read_challenge
from scep_ra.storage.sql_limits import check_key, check_limits, condemn_if_disconnected, device_lock, exclude_rivals

# What a person says about a request; their name and words are kept.
_DECISIONS: Final = frozenset({EnrollmentEvent.APPROVE, EnrollmentEvent.REJECT})
_AUDITED: Final = {
    EnrollmentEvent.APPROVE: AuditEvent.ENROLLMENT_APPROVED,
    EnrollmentEvent.AUTHORIZE: AuditEvent.ENROLLMENT_AUTHORIZED,
    EnrollmentEvent.REJECT: AuditEvent.ENROLLMENT_REJECTED,
    EnrollmentEvent.EXPIRE: AuditEvent.ENROLLMENT_EXPIRED,
    EnrollmentEvent.FAIL: AuditEvent.ENROLLMENT_FAILED,
}
# Asked for one state at a time, so that the index gives the newest of each without sorting all of them.
_NEWEST: Final = "SELECT * FROM enrollment WHERE state = $1 ORDER BY created_at DESC, enrollment_id DESC LIMIT $2"
_NEWEST_OF_DEVICE: Final = (
    "SELECT * FROM enrollment WHERE state = $1 AND device_kind = $3 AND device_value = $4"
    " ORDER BY created_at DESC, enrollment_id DESC LIMIT $2"
)


def read_enrollment(row: Row) -> Enrollment:
    """Return the enrollment that a row of table `enrollment` holds."""
    return Enrollment(
        enrollment_id=row["enrollment_id"],
        key=EnrollmentKey(profile=row["profile"], transaction_id=row["transaction_id"], requester=row["requester"]),
        csr_digest=row["csr_digest"],
        csr=row["csr"],
        spki_digest=row["spki_digest"],
        ca=row["ca"],
        state=EnrollmentState(row["state"]),
        device_id=DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]),
        proof=row["proof"],
        source=row["source"],
        hold=row["hold"],
        decided_by=row["decided_by"],
        note=row["note"],
        renewal_of=_decode_optional_serial(row["renewal_of"]),
        certificate_serial=_decode_optional_serial(row["certificate_serial"]),
        order=row["signing_order"],
        created_at=decode_time(row["created_at"]),
        updated_at=decode_time(row["updated_at"]),
    )


class SqlEnrollments(SqlAudit):
    """EnrollmentStore over a Database."""

    async def dossier(self, key: EnrollmentKey, csr_digest: bytes, challenge_digest: bytes | None) -> Dossier:
        """Return what is known; a challenge is returned whatever its state, the caller judges it."""

        async def work(session: Session) -> Dossier:
            latest = await _find_latest(session, key)
            same = latest
            if latest is not None and latest.csr_digest != csr_digest:
                same = await _find_same(session, key, csr_digest)
            return Dossier(
                same=same,
                latest=latest,
                challenge=None if challenge_digest is None else await _find_challenge(session, challenge_digest),
                certificate=None if same is None else await _find_outcome(session, same),
            )

        return await self._database.read(work)

    async def latest_enrollment(self, key: EnrollmentKey) -> tuple[Enrollment, StoredCertificate | None] | None:
        """Return the newest enrollment of this key with its certificate, for CertPoll."""

        async def work(session: Session) -> tuple[Enrollment, StoredCertificate | None] | None:
            latest = await _find_latest(session, key)
            return None if latest is None else (latest, await _find_outcome(session, latest))

        return await self._database.read(work)

    async def insert_enrollment(
        self,
        enrollment: Enrollment,
        *,
        spend: bytes | None,
        decision: StoredDecision | None = None,
        limits: IssuanceLimits = NO_LIMITS,
    ) -> None:
        """Insert a PENDING or ISSUING enrollment with its decision record and spend the challenge, together.

        Raise DuplicateEnrollment, AlreadyRenewed, ChallengeSpent, KeyInUse, SecondKey or QuotaReached; then nothing is
        changed.
        """
        if enrollment.state not in (EnrollmentState.PENDING, EnrollmentState.ISSUING):
            raise ValueError(f"an enrollment is born pending or issuing, not {enrollment.state}")
        _check_intent(enrollment.state, enrollment.certificate_serial, enrollment.order)
        _check_decision(enrollment, decision)
        is_intent = enrollment.state is EnrollmentState.ISSUING
        event = AuditEvent.ENROLLMENT_AUTHORIZED if is_intent else AuditEvent.ENROLLMENT_DEFERRED
        challenge = None if spend is None else challenge_fact(spend)

        async def work(session: Session) -> None:
            if is_intent:
                await exclude_rivals(session, enrollment, limits)
            await _insert(session, enrollment)
            if enrollment.renewal_of is not None and await _has_successor(session, enrollment):
                raise _already_renewed(enrollment)
            if spend is not None:
                await _spend_challenge(session, spend, enrollment)
            await check_key(session, enrollment)
            if is_intent:
                await check_limits(session, enrollment, limits, enrollment.created_at)
                await condemn_if_disconnected(session, enrollment)
            if decision is not None:
                await insert_decision(session, decision)
            await self._audit(
                session, event, enrollment.created_at, **enrollment_facts(enrollment), challenge=challenge
            )

        await self._database.write(work)

    async def advance(
        self,
        enrollment_id: str,
        expected: EnrollmentState,
        event: EnrollmentEvent,
        now: datetime,
        *,
        certificate_serial: int | None = None,
        order: bytes | None = None,
        limits: IssuanceLimits = NO_LIMITS,
        by: str = "",
        note: str = "",
    ) -> bool:
        """Apply one event of the transition table if the state is still `expected`; return False when it is not.

        When authorizing, raise AlreadyRenewed, KeyInUse, SecondKey or QuotaReached as insert_enrollment does. Raise
        IllegalTransition for a pair that the table does not hold.
        """
        if event is EnrollmentEvent.COMPLETE:
            raise ValueError("complete() alone makes an enrollment ISSUED, together with its certificate")
        state = next_state(expected, event)
        _check_intent(state, certificate_serial, order)
        is_intent = state is EnrollmentState.ISSUING
        # AAA may reject without a word what a person has approved: that person's word stays.
        words = {"by": by or None, "note": note or None} if event in _DECISIONS and (by or note) else {}

        async def work(session: Session) -> bool:
            if is_intent and (enrollment := await _find(session, enrollment_id)) is not None:
                # What counts of a row read before the lock never changes; whether its state still holds, _move tells.
                await exclude_rivals(session, enrollment, limits)
            moved = await _move(
                session, enrollment_id, expected, state, now, certificate_serial=certificate_serial, order=order
            )
            if moved is None:
                return False
            if words:
                await _keep_words(session, enrollment_id, by, note)
            if is_intent:
                await check_key(session, moved)
                await check_limits(session, moved, limits, now)
                await condemn_if_disconnected(session, moved)
            await self._audit(session, _AUDITED[event], now, **enrollment_facts(moved), **words)
            return True

        try:
            return await self._database.write(work)
        except UniqueViolation:
            raise AlreadyRenewed(f"enrollment {enrollment_id} renews a certificate that was renewed") from None

    async def complete(
        self,
        enrollment_id: str,
        certificate: StoredCertificate,
        now: datetime,
        *,
        retirement: Retirement = NO_RETIREMENT,
    ) -> bool:
        """Store the certificate and move ISSUING to ISSUED together; False when another worker did it first.

        The renewed certificate gets its successor, and what is replaced its `revoke_at`, in the same transaction; the
        new one is revoked at once when its device was disconnected meanwhile. Raise AlreadyExists when the CA gave the
        serial to another enrollment; then nothing is changed.
        """
        serial = encode_serial(certificate.certificate_serial)

        async def work(session: Session) -> bool:
            if retirement.others_at is not None:
                # Two at once would not see each other's certificate, and both would stay.
                await session.serialise(device_lock(certificate.profile, certificate.device_id))
            moved = await session.fetch(
                "UPDATE enrollment SET state = $3, updated_at = $4, certificate_serial = $5"
                " WHERE enrollment_id = $1 AND state = $2 RETURNING renewal_of, transaction_id, revocation_reason",
                enrollment_id,
                EnrollmentState.ISSUING.value,
                next_state(EnrollmentState.ISSUING, EnrollmentEvent.COMPLETE).value,
                encode_time(now),
                serial,
            )
            if not moved:
                return False
            await insert_certificate(session, certificate)
            if (renewed := moved[0]["renewal_of"]) is not None:
                await retire_renewed(session, certificate, renewed, retirement.renewed_at)
            if retirement.others_at is not None:
                await retire_others(session, certificate, retirement.others_at, now)
            # The device was disconnected while the CA was at work.
            if (reason := moved[0]["revocation_reason"]) is not None:
                await revoke_one(session, certificate.ca, certificate.certificate_serial, now, reason)
            await self._audit(
                session,
                AuditEvent.CERTIFICATE_ISSUED,
                now,
                **certificate_facts(certificate),
                enrollment_id=enrollment_id,
                transaction_id=moved[0]["transaction_id"],
                renewal_of=None if renewed is None else f"{decode_serial(renewed):x}",
            )
            if reason is not None:
                facts = certificate_facts(certificate)
                await self._audit(session, AuditEvent.CERTIFICATE_REVOKED, now, **facts, reason=str(reason))
            return True

        return await self._database.write(work)

    async def find_enrollments(self, id_prefix: str) -> Sequence[Enrollment]:
        """Return at most two enrollments whose ID begins so; none when that is not one to 32 lower-case digits."""
        ids = id_range(id_prefix)
        if ids is None:
            return []
        sql = "SELECT * FROM enrollment WHERE enrollment_id >= $1 AND enrollment_id < $2 ORDER BY enrollment_id LIMIT 2"
        return [read_enrollment(row) for row in await self._database.read(lambda session: session.fetch(sql, *ids))]

    async def list_enrollments(
        self, states: Collection[EnrollmentState], *, device_id: DeviceID | None = None, limit: int = 1000
    ) -> Sequence[Enrollment]:
        """Return the newest enrollments in these states, newest first."""
        device = () if device_id is None else (device_id.kind.value, device_id.value)
        sql = _NEWEST_OF_DEVICE if device else _NEWEST

        async def work(session: Session) -> Sequence[Row]:
            return [row for state in states for row in await session.fetch(sql, state.value, limit, *device)]

        found = [read_enrollment(row) for row in await self._database.read(work)]
        return sorted(found, key=lambda one: (one.created_at, one.enrollment_id), reverse=True)[:limit]

    async def open_intents(self) -> Sequence[Enrollment]:
        """Return all enrollments in ISSUING, oldest first."""
        sql = "SELECT * FROM enrollment WHERE state = $1 ORDER BY created_at"
        issuing = EnrollmentState.ISSUING.value
        return [read_enrollment(row) for row in await self._database.read(lambda session: session.fetch(sql, issuing))]

    async def expire_waiting(self, profile: str, before: datetime, now: datetime) -> int:
        """Expire the PENDING and APPROVED enrollments of a profile created before `before`; return how many."""
        sql = (
            "UPDATE enrollment SET state = $4, updated_at = $5 WHERE state = $1 AND profile = $2 AND created_at < $3"
            " RETURNING *"
        )

        async def work(session: Session) -> int:
            expired: list[Row] = []
            for state in WAITING:
                following = next_state(state, EnrollmentEvent.EXPIRE).value
                expired += await session.fetch(
                    sql, state.value, profile, encode_time(before), following, encode_time(now)
                )
            for row in expired:
                await self._audit(session, AuditEvent.ENROLLMENT_EXPIRED, now, **enrollment_facts(read_enrollment(row)))
            return len(expired)

        return await self._database.write(work)


def enrollment_facts(enrollment: Enrollment) -> dict[str, str | None]:
    """Return what the audit log says of an enrollment, without the octets."""
    serial, renewed = enrollment.certificate_serial, enrollment.renewal_of
    return {
        "ca": enrollment.ca,
        "certificate_serial": None if serial is None else f"{serial:x}",
        "csr_sha256": enrollment.csr_digest.hex(),
        "device": str(enrollment.device_id),
        "enrollment_id": enrollment.enrollment_id,
        "hold": enrollment.hold or None,
        "key_sha256": enrollment.spki_digest.hex(),
        "profile": enrollment.key.profile,
        "proof": enrollment.proof,
        "renewal_of": None if renewed is None else f"{renewed:x}",
        "requester_sha256": enrollment.key.requester.hex(),
        "source": enrollment.source,
        "transaction_id": enrollment.key.transaction_id,
    }


def _check_intent(state: EnrollmentState, certificate_serial: int | None, order: bytes | None) -> None:
    """Raise ValueError for an intent that a start after a crash could not carry out."""
    if state is EnrollmentState.ISSUING and (certificate_serial is None or order is None):
        raise ValueError("an enrollment in ISSUING needs its certificate serial and its order")


def _check_decision(enrollment: Enrollment, decision: StoredDecision | None) -> None:
    """Raise ValueError for a record that nobody would find beside its enrollment."""
    if decision is not None and decision.decision_id != enrollment.enrollment_id:
        raise ValueError("the decision record of an enrollment needs the enrollment's ID")


def _already_renewed(enrollment: Enrollment) -> AlreadyRenewed:
    return AlreadyRenewed(f"certificate {enrollment.renewal_of:x} of CA {enrollment.ca} has a successor")


async def _insert(session: Session, enrollment: Enrollment) -> None:
    """Insert the row; raise DuplicateEnrollment or AlreadyRenewed, whichever index is in the way."""
    inserted = await session.execute(
        "INSERT INTO enrollment (enrollment_id, profile, transaction_id, requester, csr_digest, csr, spki_digest, ca,"
        " state, device_kind, device_value, proof, source, hold, decided_by, note, renewal_of, certificate_serial,"
        " signing_order, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
        " $15, $16, $17, $18, $19, $20, $21) ON CONFLICT DO NOTHING",
        enrollment.enrollment_id,
        enrollment.key.profile,
        enrollment.key.transaction_id,
        enrollment.key.requester,
        enrollment.csr_digest,
        enrollment.csr,
        enrollment.spki_digest,
        enrollment.ca,
        enrollment.state.value,
        enrollment.device_id.kind.value,
        enrollment.device_id.value,
        enrollment.proof,
        enrollment.source,
        enrollment.hold,
        enrollment.decided_by,
        enrollment.note,
        _encode_optional_serial(enrollment.renewal_of),
        _encode_optional_serial(enrollment.certificate_serial),
        enrollment.order,
        encode_time(enrollment.created_at),
        encode_time(enrollment.updated_at),
    )
    if inserted == 1:
        return
    if await _find_same(session, enrollment.key, enrollment.csr_digest) is not None:
        raise DuplicateEnrollment("the same request is recorded already")
    raise _already_renewed(enrollment)


async def _move(
    session: Session,
    enrollment_id: str,
    expected: EnrollmentState,
    state: EnrollmentState,
    now: datetime,
    *,
    certificate_serial: int | None,
    order: bytes | None,
) -> Enrollment | None:
    """Change the state if it is the expected one; return the enrollment as it is now, or None."""
    moved = await session.fetch(
        "UPDATE enrollment SET state = $3, updated_at = $4,"
        " certificate_serial = COALESCE($5, certificate_serial), signing_order = COALESCE($6, signing_order)"
        " WHERE enrollment_id = $1 AND state = $2 RETURNING *",
        enrollment_id,
        expected.value,
        state.value,
        encode_time(now),
        _encode_optional_serial(certificate_serial),
        order,
    )
    return read_enrollment(moved[0]) if moved else None


async def _keep_words(session: Session, enrollment_id: str, by: str, note: str) -> None:
    await session.execute(
        "UPDATE enrollment SET decided_by = $2, note = $3 WHERE enrollment_id = $1", enrollment_id, by, note
    )


async def _has_successor(session: Session, enrollment: Enrollment) -> bool:
    # The unique index already keeps two renewals from being signed; this tells the others before anybody approves them.
    rows = await session.fetch(
        "SELECT 1 FROM certificate WHERE ca = $1 AND certificate_serial = $2 AND successor IS NOT NULL"
        " UNION ALL SELECT 1 FROM enrollment WHERE ca = $1 AND renewal_of = $2 AND state IN ('issuing', 'issued')"
        " AND enrollment_id <> $3",
        enrollment.ca,
        _encode_optional_serial(enrollment.renewal_of),
        enrollment.enrollment_id,
    )
    return bool(rows)


async def _spend_challenge(session: Session, digest: bytes, enrollment: Enrollment) -> None:
    spent = await session.execute(
        "UPDATE challenge SET used_by = $2 WHERE digest = $1 AND used_by IS NULL AND expires_at > $3",
        digest,
        enrollment.enrollment_id,
        encode_time(enrollment.created_at),
    )
    if spent == 0:
        raise ChallengeSpent("the challenge was used, voided or has expired")


async def _find(session: Session, enrollment_id: str) -> Enrollment | None:
    rows = await session.fetch("SELECT * FROM enrollment WHERE enrollment_id = $1", enrollment_id)
    return read_enrollment(rows[0]) if rows else None


async def _find_latest(session: Session, key: EnrollmentKey) -> Enrollment | None:
    rows = await session.fetch(
        "SELECT * FROM enrollment WHERE profile = $1 AND transaction_id = $2 AND requester = $3"
        " ORDER BY created_at DESC, enrollment_id DESC LIMIT 1",
        key.profile,
        key.transaction_id,
        key.requester,
    )
    return read_enrollment(rows[0]) if rows else None


async def _find_same(session: Session, key: EnrollmentKey, csr_digest: bytes) -> Enrollment | None:
    rows = await session.fetch(
        "SELECT * FROM enrollment WHERE profile = $1 AND transaction_id = $2 AND requester = $3 AND csr_digest = $4",
        key.profile,
        key.transaction_id,
        key.requester,
        csr_digest,
    )
    return read_enrollment(rows[0]) if rows else None


async def _find_challenge(session: Session, digest: bytes) -> Challenge | None:
    rows = await session.fetch("SELECT * FROM challenge WHERE digest = $1", digest)
    return read_challenge(rows[0]) if rows else None


async def _find_outcome(session: Session, enrollment: Enrollment) -> StoredCertificate | None:
    if enrollment.state is not EnrollmentState.ISSUED or enrollment.certificate_serial is None:
        return None
    return await find_certificate(session, enrollment.ca, enrollment.certificate_serial)


def _encode_optional_serial(certificate_serial: int | None) -> str | None:
    return None if certificate_serial is None else encode_serial(certificate_serial)


def _decode_optional_serial(text: str | None) -> int | None:
    return None if text is None else decode_serial(text)
