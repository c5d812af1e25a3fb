"""Rows of table `enrollment`: read, insert, find, and change one, inside a unit of work.

Which of these steps belong together, and in which order, is `sql_enrollments`' matter.
"""

from __future__ import annotations

from datetime import datetime

from scep_ra.enrollment.states import UNDER_WAY, EnrollmentState
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import (
    AlreadyRenewed,
    Challenge,
    ChallengeSpent,
    DuplicateEnrollment,
    Enrollment,
    EnrollmentKey,
    StoredCertificate,
)
from scep_ra.storage.database import Row, Session, decode_serial, decode_time, encode_serial, encode_time
from scep_ra.storage.sql_certificates import find_certificate
from scep_ra.storage.sql_devices import read_challenge


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
        refusal=row["refusal"],
        renewal_of=_decode_optional_serial(row["renewal_of"]),
        certificate_serial=_decode_optional_serial(row["certificate_serial"]),
        order=row["signing_order"],
        subject=row["subject"],
        subject_alt_name=row["subject_alt_name"],
        created_at=decode_time(row["created_at"]),
        updated_at=decode_time(row["updated_at"]),
        closed_at=None if row["closed_at"] is None else decode_time(row["closed_at"]),
    )


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


def already_renewed(enrollment: Enrollment) -> AlreadyRenewed:
    """Return the error for a certificate that has, or is about to get, a successor."""
    return AlreadyRenewed(f"certificate {enrollment.renewal_of:x} of CA {enrollment.ca} has a successor")


async def insert_enrollment_row(session: Session, enrollment: Enrollment) -> None:
    """Insert the row; raise DuplicateEnrollment or AlreadyRenewed, whichever index is in the way."""
    inserted = await session.execute(
        "INSERT INTO enrollment (enrollment_id, profile, transaction_id, requester, csr_digest, csr, spki_digest, ca,"
        " state, device_kind, device_value, proof, source, hold, decided_by, note, refusal, renewal_of,"
        " certificate_serial, signing_order, subject, subject_alt_name, created_at, updated_at) VALUES ($1, $2, $3, $4,"
        " $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)"
        " ON CONFLICT DO NOTHING",
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
        enrollment.refusal,
        _encode_optional_serial(enrollment.renewal_of),
        _encode_optional_serial(enrollment.certificate_serial),
        enrollment.order,
        enrollment.subject,
        enrollment.subject_alt_name,
        encode_time(enrollment.created_at),
        encode_time(enrollment.updated_at),
    )
    if inserted == 1:
        return
    if await find_same(session, enrollment.key, enrollment.csr_digest) is not None:
        raise DuplicateEnrollment("the same request is recorded already")
    raise already_renewed(enrollment)


async def close_row(session: Session, enrollment_id: str, now: datetime) -> Enrollment | None:
    """Close an enrollment that has ended; return it, or None when it is under way, closed already, or not there."""
    closed = await session.fetch(
        "UPDATE enrollment SET closed_at = $2 WHERE enrollment_id = $1 AND closed_at IS NULL"
        " AND state NOT IN ($3, $4, $5) RETURNING *",
        enrollment_id,
        encode_time(now),
        *sorted(UNDER_WAY),
    )
    return read_enrollment(closed[0]) if closed else None


async def move_row(
    session: Session, enrollment_id: str, expected: EnrollmentState, state: EnrollmentState, now: datetime
) -> Enrollment | None:
    """Change the state if it is the expected one; return the enrollment as it is now, or None."""
    moved = await session.fetch(
        "UPDATE enrollment SET state = $3, updated_at = $4 WHERE enrollment_id = $1 AND state = $2 RETURNING *",
        enrollment_id,
        expected.value,
        state.value,
        encode_time(now),
    )
    return read_enrollment(moved[0]) if moved else None


async def keep_intent(session: Session, enrollment: Enrollment) -> None:
    """Write what an intent adds: serial, order and names."""
    await session.execute(
        "UPDATE enrollment SET certificate_serial = $2, signing_order = $3, subject = $4, subject_alt_name = $5"
        " WHERE enrollment_id = $1",
        enrollment.enrollment_id,
        _encode_optional_serial(enrollment.certificate_serial),
        enrollment.order,
        enrollment.subject,
        enrollment.subject_alt_name,
    )


async def keep_words(session: Session, enrollment_id: str, by: str, note: str, refusal: str) -> None:
    """Keep what a person said about a request, and what AAA did: neither takes the place of the other."""
    if by or note:
        sql = "UPDATE enrollment SET decided_by = $2, note = $3 WHERE enrollment_id = $1"
        await session.execute(sql, enrollment_id, by, note)
    if refusal:
        await session.execute("UPDATE enrollment SET refusal = $2 WHERE enrollment_id = $1", enrollment_id, refusal)


async def has_successor(session: Session, enrollment: Enrollment) -> bool:
    """Tell whether the certificate to be renewed has, or is about to get, another successor."""
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


async def spend_challenge(session: Session, digest: bytes, enrollment: Enrollment) -> None:
    """Mark a challenge as used by this enrollment; raise ChallengeSpent when it is not open."""
    spent = await session.execute(
        "UPDATE challenge SET used_by = $2 WHERE digest = $1 AND used_by IS NULL AND expires_at > $3",
        digest,
        enrollment.enrollment_id,
        encode_time(enrollment.created_at),
    )
    if spent == 0:
        raise ChallengeSpent("the challenge was used, voided or has expired")


async def find_enrollment(session: Session, enrollment_id: str) -> Enrollment | None:
    """Return the enrollment with this ID."""
    rows = await session.fetch("SELECT * FROM enrollment WHERE enrollment_id = $1", enrollment_id)
    return read_enrollment(rows[0]) if rows else None


async def find_latest(session: Session, key: EnrollmentKey) -> Enrollment | None:
    """Return the newest enrollment of this key that is not closed."""
    rows = await session.fetch(
        "SELECT * FROM enrollment WHERE profile = $1 AND transaction_id = $2 AND requester = $3 AND closed_at IS NULL"
        " ORDER BY created_at DESC, enrollment_id DESC LIMIT 1",
        key.profile,
        key.transaction_id,
        key.requester,
    )
    return read_enrollment(rows[0]) if rows else None


async def find_same(session: Session, key: EnrollmentKey, csr_digest: bytes) -> Enrollment | None:
    """Return the enrollment of this key and CSR that is not closed."""
    rows = await session.fetch(
        "SELECT * FROM enrollment WHERE profile = $1 AND transaction_id = $2 AND requester = $3 AND csr_digest = $4"
        " AND closed_at IS NULL",
        key.profile,
        key.transaction_id,
        key.requester,
        csr_digest,
    )
    return read_enrollment(rows[0]) if rows else None


async def find_challenge(session: Session, digest: bytes) -> Challenge | None:
    """Return a challenge whatever its state."""
    rows = await session.fetch("SELECT * FROM challenge WHERE digest = $1", digest)
    return read_challenge(rows[0]) if rows else None


async def find_outcome(session: Session, enrollment: Enrollment) -> StoredCertificate | None:
    """Return the certificate of an enrollment that is ISSUED."""
    if enrollment.state is not EnrollmentState.ISSUED or enrollment.certificate_serial is None:
        return None
    return await find_certificate(session, enrollment.ca, enrollment.certificate_serial)


def _encode_optional_serial(certificate_serial: int | None) -> str | None:
    return None if certificate_serial is None else encode_serial(certificate_serial)


def _decode_optional_serial(text: str | None) -> int | None:
    return None if text is None else decode_serial(text)
