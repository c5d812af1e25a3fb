"""Certificates, revocations and CRLs in SQL."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.base import AlreadyExists, CRLState, Revocation, StoredCertificate, StoredCRL
from scep_ra.storage.database import (
    CERTIFICATE_SERIALS,
    Row,
    Session,
    decode_serial,
    decode_time,
    encode_serial,
    encode_time,
)
from scep_ra.storage.sql_audit import SqlAudit

# Rows of a revocation list read at a time: about a millisecond, so that other readers hardly wait.
REVOCATION_PAGE: Final = 1000
_SUPERSEDED: Final = 4  # CRLReason (RFC 5280 5.3.1)


def read_certificate(row: Row) -> StoredCertificate:
    """Return the certificate that a row of table `certificate` holds."""
    return StoredCertificate(
        certificate_serial=decode_serial(row["certificate_serial"]),
        ca=row["ca"],
        profile=row["profile"],
        device_id=DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]),
        der=row["der"],
        spki_digest=row["spki_digest"],
        not_before=decode_time(row["not_before"]),
        not_after=decode_time(row["not_after"]),
        issued_at=decode_time(row["issued_at"]),
        successor=None if row["successor"] is None else decode_serial(row["successor"]),
        revoke_at=None if row["revoke_at"] is None else decode_time(row["revoke_at"]),
        revoked_at=None if row["revoked_at"] is None else decode_time(row["revoked_at"]),
        revocation_reason=row["revocation_reason"],
    )


async def find_certificate(session: Session, ca: str, certificate_serial: int) -> StoredCertificate | None:
    """Return one certificate, inside a unit of work."""
    # Peers ask for any number, and the stand-in certificates of sscep have serials of 32 octets.
    if certificate_serial not in CERTIFICATE_SERIALS:
        return None
    rows = await session.fetch(
        "SELECT * FROM certificate WHERE ca = $1 AND certificate_serial = $2", ca, encode_serial(certificate_serial)
    )
    return read_certificate(rows[0]) if rows else None


async def insert_certificate(session: Session, certificate: StoredCertificate) -> None:
    """Insert a fresh certificate, inside a unit of work; raise AlreadyExists when its CA used the serial before."""
    inserted = await session.execute(
        "INSERT INTO certificate"
        " (ca, certificate_serial, profile, device_kind, device_value, der, spki_digest, not_before, not_after,"
        " issued_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        certificate.ca,
        encode_serial(certificate.certificate_serial),
        certificate.profile,
        certificate.device_id.kind.value,
        certificate.device_id.value,
        certificate.der,
        certificate.spki_digest,
        encode_time(certificate.not_before),
        encode_time(certificate.not_after),
        encode_time(certificate.issued_at),
    )
    if inserted == 0:
        raise AlreadyExists(f"CA {certificate.ca} has issued serial {certificate.certificate_serial:x} before")


def certificate_facts(certificate: StoredCertificate) -> dict[str, str]:
    """Return what the audit log says of a certificate."""
    return {
        "ca": certificate.ca,
        "certificate_serial": f"{certificate.certificate_serial:x}",
        "certificate_sha256": hashlib.sha256(certificate.der).hexdigest(),
        "device": str(certificate.device_id),
        "profile": certificate.profile,
    }


async def retire_renewed(
    session: Session, certificate: StoredCertificate, renewed: str, at: datetime | None
) -> int | None:
    """Make a certificate the successor of the renewed one, which is to be revoked at this time if one is given.

    Return the CRLReason for which the successor must not live either, None when it may: the renewed one was revoked, or
    replaced by one under another key, while the successor was being made.
    """
    serials = certificate.ca, renewed
    rows = await session.fetch(
        "UPDATE certificate SET successor = $3 WHERE ca = $1 AND certificate_serial = $2"
        " RETURNING revoke_at, revocation_reason",
        *serials,
        encode_serial(certificate.certificate_serial),
    )
    for row in rows:
        if row["revocation_reason"] is not None:
            return int(row["revocation_reason"])
        if row["revoke_at"] is not None:
            return _SUPERSEDED
    if at is not None:
        sql = "UPDATE certificate SET revoke_at = $3 WHERE ca = $1 AND certificate_serial = $2"
        await session.execute(sql, *serials, encode_time(at))
    return None


async def retire_others(session: Session, certificate: StoredCertificate, at: datetime) -> None:
    """Have all certificates of this one's device and profile that no other replaces revoked at this time.

    Expired ones as well: with a grace they could still be renewed.
    """
    await session.execute(
        "UPDATE certificate SET revoke_at = $6 WHERE device_kind = $1 AND device_value = $2 AND profile = $3"
        " AND successor IS NULL AND revoke_at IS NULL AND revoked_at IS NULL"
        " AND NOT (ca = $4 AND certificate_serial = $5)",
        certificate.device_id.kind.value,
        certificate.device_id.value,
        certificate.profile,
        certificate.ca,
        encode_serial(certificate.certificate_serial),
        encode_time(at),
    )


async def revoke_one(
    session: Session, ca: str, certificate_serial: int, now: datetime, reason: int
) -> StoredCertificate | None:
    """Mark a certificate as revoked and return it, inside a unit of work; None when unknown or revoked already."""
    rows = await session.fetch(
        "UPDATE certificate SET revoked_at = $3, revocation_reason = $4"
        " WHERE ca = $1 AND certificate_serial = $2 AND revoked_at IS NULL RETURNING *",
        ca,
        encode_serial(certificate_serial),
        encode_time(now),
        reason,
    )
    await _count_revocations(session, rows)
    return read_certificate(rows[0]) if rows else None


async def revoke_all_of(
    session: Session, device_id: DeviceID, now: datetime, reason: int
) -> Sequence[StoredCertificate]:
    """Mark all certificates of a device that are still good as revoked and return them, inside a unit of work."""
    rows = await session.fetch(
        "UPDATE certificate SET revoked_at = $3, revocation_reason = $4"
        " WHERE device_kind = $1 AND device_value = $2 AND revoked_at IS NULL AND not_after > $3 RETURNING *",
        device_id.kind.value,
        device_id.value,
        encode_time(now),
        reason,
    )
    await _count_revocations(session, rows)
    return sorted(map(read_certificate, rows), key=lambda each: (each.ca, each.certificate_serial))


async def _count_revocations(session: Session, rows: Iterable[Row]) -> None:
    # By name, so that two units that revoke for several CAs never wait for each other.
    for ca, number in sorted(Counter(row["ca"] for row in rows).items()):
        await session.execute(
            "INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ($1, $2) ON CONFLICT (ca)"
            " DO UPDATE SET revocation_sequence = revocation_counter.revocation_sequence + $2",
            ca,
            number,
        )


class SqlCertificates(SqlAudit):
    """CertificateStore and CRLStore over a Database."""

    async def certificate(self, ca: str, certificate_serial: int) -> StoredCertificate | None:
        """Return the certificate, revoked or not."""
        return await self._database.read(lambda session: find_certificate(session, ca, certificate_serial))

    async def list_certificates(self, device_id: DeviceID | None = None) -> Sequence[StoredCertificate]:
        """Return certificates, newest first."""

        async def work(session: Session) -> Sequence[Row]:
            if device_id is None:
                return await session.fetch("SELECT * FROM certificate ORDER BY issued_at DESC, certificate_serial")
            return await session.fetch(
                "SELECT * FROM certificate WHERE device_kind = $1 AND device_value = $2"
                " ORDER BY issued_at DESC, certificate_serial",
                device_id.kind.value,
                device_id.value,
            )

        return [read_certificate(row) for row in await self._database.read(work)]

    async def current_certificates(
        self, device_ids: Collection[DeviceID], now: datetime
    ) -> Sequence[StoredCertificate]:
        """Return those of these devices that are good and have no successor, newest first."""
        sql = (
            "SELECT * FROM certificate WHERE device_kind = $1 AND device_value = $2 AND not_after > $3"
            " AND successor IS NULL AND revoked_at IS NULL AND (revoke_at IS NULL OR revoke_at > $3)"
        )

        async def work(session: Session) -> list[Row]:
            return [
                row
                for device_id in device_ids
                for row in await session.fetch(sql, device_id.kind.value, device_id.value, encode_time(now))
            ]

        found = map(read_certificate, await self._database.read(work))
        return sorted(found, key=lambda each: (each.issued_at, each.certificate_serial), reverse=True)

    async def due_revocations(self, now: datetime, limit: int = 100) -> Sequence[StoredCertificate]:
        """Return certificates that were to be revoked by now and are not, oldest first."""
        sql = (
            "SELECT * FROM certificate WHERE revoke_at IS NOT NULL AND revoked_at IS NULL AND revoke_at <= $1"
            " ORDER BY revoke_at, certificate_serial LIMIT $2"
        )
        rows = await self._database.read(lambda session: session.fetch(sql, encode_time(now), limit))
        return [read_certificate(row) for row in rows]

    async def revoke_certificate(self, ca: str, certificate_serial: int, now: datetime, reason: int) -> bool:
        """Mark as revoked; return False when unknown or revoked already (the first date and reason stay)."""
        if certificate_serial not in CERTIFICATE_SERIALS:
            return False

        async def work(session: Session) -> bool:
            revoked = await revoke_one(session, ca, certificate_serial, now, reason)
            if revoked is None:
                return False
            facts = certificate_facts(revoked)
            await self._audit(session, AuditEvent.CERTIFICATE_REVOKED, now, **facts, reason=str(reason))
            return True

        return await self._database.write(work)

    async def revocations(self, ca: str, now: datetime) -> AsyncIterator[Revocation]:
        """Iterate over revoked certificates of a CA that have not expired at `now`, by serial, page by page."""
        last = ""
        while True:
            page = await self._read_revocations(ca, now, after=last)
            for row in page:
                yield Revocation(
                    certificate_serial=decode_serial(row["certificate_serial"]),
                    revoked_at=decode_time(row["revoked_at"]),
                    reason=row["revocation_reason"],
                )
            if len(page) < REVOCATION_PAGE:
                return
            last = page[-1]["certificate_serial"]

    async def _read_revocations(self, ca: str, now: datetime, *, after: str) -> Sequence[Row]:
        sql = (
            "SELECT certificate_serial, revoked_at, revocation_reason FROM certificate"
            " WHERE ca = $1 AND certificate_serial > $2 AND not_after > $3 AND revoked_at IS NOT NULL"
            " ORDER BY certificate_serial LIMIT $4"
        )
        return await self._database.read(
            lambda session: session.fetch(sql, ca, after, encode_time(now), REVOCATION_PAGE)
        )

    async def current_crl(self, ca: str) -> CRLState:
        """Return the newest CRL and how many revocations there are now."""

        async def work(session: Session) -> CRLState:
            # The counter first: where every statement has its own snapshot, a new CRL then looks outdated, never the
            # other way round.
            counters = await session.fetch("SELECT revocation_sequence FROM revocation_counter WHERE ca = $1", ca)
            crls = await session.fetch("SELECT * FROM crl WHERE ca = $1", ca)
            return CRLState(
                crl=_read_crl(crls[0]) if crls else None,
                revocation_sequence=counters[0]["revocation_sequence"] if counters else 0,
            )

        return await self._database.read(work)

    async def save_crl(self, crl: StoredCRL) -> bool:
        """Replace the CRL of this CA; False unless the number is higher (another node was faster: read again)."""
        sql = (
            "INSERT INTO crl (ca, crl_number, der, this_update, next_update, revocation_sequence)"
            " VALUES ($1, $2, $3, $4, $5, $6)"
            " ON CONFLICT (ca) DO UPDATE SET crl_number = excluded.crl_number, der = excluded.der,"
            " this_update = excluded.this_update, next_update = excluded.next_update,"
            " revocation_sequence = excluded.revocation_sequence WHERE crl.crl_number < excluded.crl_number"
        )
        times = encode_time(crl.this_update), encode_time(crl.next_update)

        async def work(session: Session) -> bool:
            saved = await session.execute(sql, crl.ca, crl.crl_number, crl.der, *times, crl.revocation_sequence)
            if saved == 0:
                return False
            await self._audit(
                session,
                AuditEvent.CRL_SAVED,
                crl.this_update,
                ca=crl.ca,
                crl_number=str(crl.crl_number),
                crl_sha256=hashlib.sha256(crl.der).hexdigest(),
            )
            return True

        return await self._database.write(work)


def _read_crl(row: Row) -> StoredCRL:
    return StoredCRL(
        ca=row["ca"],
        crl_number=row["crl_number"],
        der=row["der"],
        this_update=decode_time(row["this_update"]),
        next_update=decode_time(row["next_update"]),
        revocation_sequence=row["revocation_sequence"],
    )
