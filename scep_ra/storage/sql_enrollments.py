"""Enrollments in SQL: the steps that must happen together or not at all.

Correct at PostgreSQL's READ COMMITTED, too: every race is decided by a unique index or by the WHERE of an UPDATE,
never by what an earlier SELECT saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState, next_state
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import (
    AlreadyRenewed,
    Challenge,
    ChallengeSpent,
    Dossier,
    DuplicateEnrollment,
    Enrollment,
    EnrollmentKey,
    StoredCertificate,
)
from scep_ra.storage.database import (
    Database,
    Row,
    Session,
    UniqueViolation,
    decode_serial,
    decode_time,
    encode_serial,
    encode_time,
)
from scep_ra.storage.sql_certificates import find_certificate, insert_certificate
from scep_ra.storage.sql_devices import read_challenge


def read_enrollment(row: Row) -> Enrollment:
    """Return the enrollment that a row of table `enrollment` holds."""
    return Enrollment(
        enrollment_id=row["enrollment_id"],
        key=EnrollmentKey(profile=row["profile"], transaction_id=row["transaction_id"], requester=row["requester"]),
        csr_digest=row["csr_digest"],
        csr=row["csr"],
        ca=row["ca"],
        state=EnrollmentState(row["state"]),
        device_id=DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]),
        renewal_of=_decode_optional_serial(row["renewal_of"]),
        certificate_serial=_decode_optional_serial(row["certificate_serial"]),
        order=row["signing_order"],
        created_at=decode_time(row["created_at"]),
        updated_at=decode_time(row["updated_at"]),
    )


class SqlEnrollments:
    """EnrollmentStore over a Database."""

    _database: Database

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

    async def insert_enrollment(self, enrollment: Enrollment, *, spend: bytes | None) -> None:
        """Insert a PENDING or ISSUING enrollment and spend the challenge with this digest, together.

        Raise DuplicateEnrollment, AlreadyRenewed or ChallengeSpent; then nothing is changed.
        """
        if enrollment.state not in (EnrollmentState.PENDING, EnrollmentState.ISSUING):
            raise ValueError(f"an enrollment is born pending or issuing, not {enrollment.state}")
        _check_intent(enrollment.state, enrollment.certificate_serial, enrollment.order)

        async def work(session: Session) -> None:
            if not await _insert(session, enrollment):
                if await _find_same(session, enrollment.key, enrollment.csr_digest) is not None:
                    raise DuplicateEnrollment("the same request is recorded already")
                raise _already_renewed(enrollment)
            if enrollment.renewal_of is not None and await _has_successor(session, enrollment):
                raise _already_renewed(enrollment)
            if spend is not None:
                await _spend_challenge(session, spend, enrollment)

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
    ) -> bool:
        """Apply one event of the transition table if the state is still `expected`; return False when it is not.

        Raise AlreadyRenewed when approving a renewal that another one forestalled, IllegalTransition for a pair that
        the table does not hold.
        """
        if event is EnrollmentEvent.COMPLETE:
            raise ValueError("complete() alone makes an enrollment ISSUED, together with its certificate")
        state = next_state(expected, event)
        _check_intent(state, certificate_serial, order)

        async def work(session: Session) -> bool:
            changed = await session.execute(
                "UPDATE enrollment SET state = $3, updated_at = $4,"
                " certificate_serial = COALESCE($5, certificate_serial), signing_order = COALESCE($6, signing_order)"
                " WHERE enrollment_id = $1 AND state = $2",
                enrollment_id,
                expected.value,
                state.value,
                encode_time(now),
                _encode_optional_serial(certificate_serial),
                order,
            )
            return changed == 1

        try:
            return await self._database.write(work)
        except UniqueViolation:
            raise AlreadyRenewed(f"enrollment {enrollment_id} renews a certificate that was renewed") from None

    async def complete(self, enrollment_id: str, certificate: StoredCertificate, now: datetime) -> bool:
        """Store the certificate and move ISSUING to ISSUED together; False when another worker did it first.

        The renewed certificate gets its successor in the same transaction. Raise AlreadyExists when the CA gave the
        serial to another enrollment; then nothing is changed.
        """
        serial = encode_serial(certificate.certificate_serial)

        async def work(session: Session) -> bool:
            moved = await session.fetch(
                "UPDATE enrollment SET state = $3, updated_at = $4, certificate_serial = $5"
                " WHERE enrollment_id = $1 AND state = $2 RETURNING renewal_of",
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
                await session.execute(
                    "UPDATE certificate SET successor = $3 WHERE ca = $1 AND certificate_serial = $2",
                    certificate.ca,
                    renewed,
                    serial,
                )
            return True

        return await self._database.write(work)

    async def open_intents(self) -> Sequence[Enrollment]:
        """Return all enrollments in ISSUING, oldest first."""
        # The state is written out, because a partial index serves only a statement that repeats its condition.
        sql = "SELECT * FROM enrollment WHERE state = 'issuing' ORDER BY created_at"
        return [read_enrollment(row) for row in await self._database.read(lambda session: session.fetch(sql))]

    async def expire_pending(self, profile: str, before: datetime, now: datetime) -> int:
        """Reject the PENDING enrollments of a profile created earlier than `before`; return how many."""
        sql = (
            "UPDATE enrollment SET state = $3, updated_at = $4"
            " WHERE state = 'pending' AND profile = $1 AND created_at < $2"
        )
        rejected = next_state(EnrollmentState.PENDING, EnrollmentEvent.REJECT).value
        return await self._database.write(
            lambda session: session.execute(sql, profile, encode_time(before), rejected, encode_time(now))
        )


def _check_intent(state: EnrollmentState, certificate_serial: int | None, order: bytes | None) -> None:
    """Raise ValueError for an intent that a start after a crash could not carry out."""
    if state is EnrollmentState.ISSUING and (certificate_serial is None or order is None):
        raise ValueError("an enrollment in ISSUING needs its certificate serial and its order")


def _already_renewed(enrollment: Enrollment) -> AlreadyRenewed:
    return AlreadyRenewed(f"certificate {enrollment.renewal_of:x} of CA {enrollment.ca} has a successor")


async def _insert(session: Session, enrollment: Enrollment) -> bool:
    inserted = await session.execute(
        "INSERT INTO enrollment (enrollment_id, profile, transaction_id, requester, csr_digest, csr, ca, state,"
        " device_kind, device_value, renewal_of, certificate_serial, signing_order, created_at, updated_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING",
        enrollment.enrollment_id,
        enrollment.key.profile,
        enrollment.key.transaction_id,
        enrollment.key.requester,
        enrollment.csr_digest,
        enrollment.csr,
        enrollment.ca,
        enrollment.state.value,
        enrollment.device_id.kind.value,
        enrollment.device_id.value,
        _encode_optional_serial(enrollment.renewal_of),
        _encode_optional_serial(enrollment.certificate_serial),
        enrollment.order,
        encode_time(enrollment.created_at),
        encode_time(enrollment.updated_at),
    )
    return inserted == 1


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
