"""Enrollments in SQL: the steps that must happen together or not at all.

Correct at PostgreSQL's READ COMMITTED, too: every race is decided by a unique index or by the WHERE of an UPDATE,
or after `Session.serialise`, never by what an earlier SELECT saw.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from scep_ra.enrollment.states import WAITING, EnrollmentEvent, EnrollmentState, next_state
from scep_ra.identity.types import DeviceID
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.base import (
    NO_LIMITS,
    NO_RETIREMENT,
    AlreadyRenewed,
    Dossier,
    Enrollment,
    EnrollmentKey,
    IssuanceLimits,
    Retirement,
    StoredCertificate,
    StoredDecision,
)
from scep_ra.storage.database import Row, Session, UniqueViolation, decode_serial, encode_serial, encode_time
from scep_ra.storage.enrollment_rows import (
    already_renewed,
    close_row,
    enrollment_facts,
    find_challenge,
    find_enrollment,
    find_latest,
    find_outcome,
    find_same,
    has_successor,
    insert_enrollment_row,
    keep_intent,
    keep_words,
    move_row,
    read_enrollment,
    spend_challenge,
)
from scep_ra.storage.sql_audit import SqlAudit
from scep_ra.storage.sql_certificates import (
    certificate_facts,
    insert_certificate,
    retire_others,
    retire_renewed,
    revoke_one,
)
from scep_ra.storage.sql_decisions import id_range, insert_decision
from scep_ra.storage.sql_devices import challenge_fact
from scep_ra.storage.sql_limits import (
    check_key,
    check_limits,
    check_waiting,
    condemn_if_disconnected,
    device_lock,
    exclude_rivals,
    exclude_waiting,
)

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


class SqlEnrollments(SqlAudit):
    """EnrollmentStore over a Database."""

    async def dossier(self, key: EnrollmentKey, csr_digest: bytes, challenge_digest: bytes | None) -> Dossier:
        """Return what is known; a challenge is returned whatever its state, the caller judges it."""

        async def work(session: Session) -> Dossier:
            latest = await find_latest(session, key)
            same = latest
            if latest is not None and latest.csr_digest != csr_digest:
                same = await find_same(session, key, csr_digest)
            return Dossier(
                same=same,
                latest=latest,
                challenge=None if challenge_digest is None else await find_challenge(session, challenge_digest),
                certificate=None if same is None else await find_outcome(session, same),
            )

        return await self._database.read(work)

    async def latest_enrollment(self, key: EnrollmentKey) -> tuple[Enrollment, StoredCertificate | None] | None:
        """Return the newest enrollment of this key that is not closed, with its certificate, for CertPoll."""

        async def work(session: Session) -> tuple[Enrollment, StoredCertificate | None] | None:
            latest = await find_latest(session, key)
            return None if latest is None else (latest, await find_outcome(session, latest))

        return await self._database.read(work)

    async def insert_enrollment(
        self,
        enrollment: Enrollment,
        *,
        spend: bytes | None,
        closes: str | None = None,
        decision: StoredDecision | None = None,
        limits: IssuanceLimits = NO_LIMITS,
    ) -> None:
        """Insert a PENDING or ISSUING enrollment with its decision record, spend the challenge and close, together.

        Raise DuplicateEnrollment, AlreadyRenewed, ChallengeSpent, KeyInUse, SecondKeyFound or QuotaReached; then
        nothing is changed.
        """
        if enrollment.state not in (EnrollmentState.PENDING, EnrollmentState.ISSUING):
            raise ValueError(f"an enrollment is born pending or issuing, not {enrollment.state}")
        _check_intent(enrollment.state, enrollment.certificate_serial, enrollment.order)
        _check_decision(enrollment, decision)
        is_intent = enrollment.state is EnrollmentState.ISSUING
        event = AuditEvent.ENROLLMENT_AUTHORIZED if is_intent else AuditEvent.ENROLLMENT_DEFERRED
        challenge = None if spend is None else challenge_fact(spend)

        async def work(session: Session) -> None:
            await (exclude_rivals if is_intent else exclude_waiting)(session, enrollment, limits)
            # Another node may have closed it just now; then the index tells whether the same request is there again.
            closed = None if closes is None else await close_row(session, closes, enrollment.created_at)
            await insert_enrollment_row(session, enrollment)
            if enrollment.renewal_of is not None and await has_successor(session, enrollment):
                raise already_renewed(enrollment)
            if spend is not None:
                await spend_challenge(session, spend, enrollment)
            await check_key(session, enrollment)
            if is_intent:
                await check_limits(session, enrollment, limits, enrollment.created_at)
                await condemn_if_disconnected(session, enrollment)
            else:
                await check_waiting(session, enrollment, limits)
            if decision is not None:
                await insert_decision(session, decision)
            facts = {"challenge": challenge, "closes": None if closed is None else closes}
            await self._audit(session, event, enrollment.created_at, **enrollment_facts(enrollment), **facts)

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
        subject: bytes | None = None,
        subject_alt_name: bytes | None = None,
        limits: IssuanceLimits = NO_LIMITS,
        by: str = "",
        note: str = "",
        refusal: str = "",
    ) -> bool:
        """Apply one event of the transition table if the state is still `expected`; return False when it is not.

        When authorizing, raise AlreadyRenewed, KeyInUse, SecondKeyFound or QuotaReached as insert_enrollment does.
        Raise IllegalTransition for a pair that the table does not hold.
        """
        if event is EnrollmentEvent.COMPLETE:
            raise ValueError("complete() alone makes an enrollment ISSUED, together with its certificate")
        state = next_state(expected, event)
        _check_intent(state, certificate_serial, order)
        is_intent = state is EnrollmentState.ISSUING
        is_decision = event in _DECISIONS
        words = {"by": by or None, "note": note or None, "refusal": refusal or None} if is_decision else {}

        async def work(session: Session) -> bool:
            if is_intent and (enrollment := await find_enrollment(session, enrollment_id)) is not None:
                # What counts of a row read before the lock never changes; whether its state holds, the move tells.
                await exclude_rivals(session, enrollment, limits)
            moved = await move_row(session, enrollment_id, expected, state, now)
            if moved is None:
                return False
            if is_decision:
                await keep_words(session, enrollment_id, by, note, refusal)
            if is_intent:
                moved = replace(
                    moved,
                    certificate_serial=certificate_serial,
                    order=order,
                    subject=subject,
                    subject_alt_name=subject_alt_name,
                )
                await keep_intent(session, moved)
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
    ) -> StoredCertificate | None:
        """Store the certificate and move ISSUING to ISSUED together; None when another worker did it first.

        The renewed certificate gets its successor, and what is replaced its `revoke_at`, in the same transaction; the
        new one is revoked at once when its device was disconnected meanwhile, or the renewed one revoked or replaced.
        Raise AlreadyExists when the CA gave the serial to another enrollment; then nothing is changed.
        """
        serial = encode_serial(certificate.certificate_serial)

        async def work(session: Session) -> StoredCertificate | None:
            # Of two at once, one that replaces the other would not see its certificate, and both would stay.
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
                return None
            await insert_certificate(session, certificate)
            reason = moved[0]["revocation_reason"]  # of a disconnect while the CA was at work
            if (renewed := moved[0]["renewal_of"]) is not None:
                inherited = await retire_renewed(session, certificate, renewed, retirement.renewed_at)
                reason = inherited if reason is None else reason
            if retirement.others_at is not None:
                await retire_others(session, certificate, retirement.others_at)
            revoked = None
            if reason is not None:
                revoked = await revoke_one(session, certificate.ca, certificate.certificate_serial, now, reason)
            await self._audit(
                session,
                AuditEvent.CERTIFICATE_ISSUED,
                now,
                **certificate_facts(certificate),
                enrollment_id=enrollment_id,
                transaction_id=moved[0]["transaction_id"],
                renewal_of=None if renewed is None else f"{decode_serial(renewed):x}",
            )
            if revoked is not None:
                facts = certificate_facts(certificate)
                await self._audit(session, AuditEvent.CERTIFICATE_REVOKED, now, **facts, reason=str(reason))
            return revoked or certificate

        return await self._database.write(work)

    async def close_enrollment(self, enrollment_id: str, now: datetime, *, by: str, note: str = "") -> bool:
        """Have the same request judged as a new one from now on; False when it is under way, closed, or not there."""

        async def work(session: Session) -> bool:
            closed = await close_row(session, enrollment_id, now)
            if closed is None:
                return False
            words = {"by": by, "note": note or None}
            await self._audit(session, AuditEvent.ENROLLMENT_CLOSED, now, **enrollment_facts(closed), **words)
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


def _check_intent(state: EnrollmentState, certificate_serial: int | None, order: bytes | None) -> None:
    """Raise ValueError for an intent that a start after a crash could not carry out."""
    if state is EnrollmentState.ISSUING and (certificate_serial is None or order is None):
        raise ValueError("an enrollment in ISSUING needs its certificate serial and its order")


def _check_decision(enrollment: Enrollment, decision: StoredDecision | None) -> None:
    """Raise ValueError for a record that nobody would find beside its enrollment."""
    if decision is not None and decision.decision_id != enrollment.enrollment_id:
        raise ValueError("the decision record of an enrollment needs the enrollment's ID")
