"""Devices and challenges in SQL: the embedded registry's side of the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.base import AlreadyExists, Challenge, Device, EnrollmentKey
from scep_ra.storage.database import Row, Session, decode_time, encode_time
from scep_ra.storage.sql_audit import SqlAudit


def read_device(row: Row) -> Device:
    """Return the device that a row of table `device` holds."""
    return Device(
        device_id=DeviceID(kind=DeviceIDKind(row["kind"]), value=row["value"]),
        user=row["user_name"],
        profile=row["profile"],
        services=tuple(json.loads(row["services"])),
        note=row["note"],
        enabled=bool(row["enabled"]),
        approval=bool(row["approval"]),
        valid_until=None if row["valid_until"] is None else decode_time(row["valid_until"]),
        attributes=json.loads(row["attributes"]),
        created_at=decode_time(row["created_at"]),
    )


def read_challenge(row: Row) -> Challenge:
    """Return the challenge that a row of table `challenge` holds."""
    return Challenge(
        digest=row["digest"],
        device_id=DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]),
        profile=row["profile"],
        created_at=decode_time(row["created_at"]),
        expires_at=decode_time(row["expires_at"]),
        used_by=row["used_by"],
        sealed=row["sealed"],
    )


class SqlDevices(SqlAudit):
    """DeviceStore and ChallengeStore over a Database."""

    async def add_device(self, device: Device) -> None:
        """Insert; raise AlreadyExists."""

        async def work(session: Session) -> None:
            if not await _insert_device(session, device):
                raise AlreadyExists(f"{device.device_id} is registered already")
            await self._audit(session, AuditEvent.DEVICE_ADDED, device.created_at, **_device_facts(device))

        await self._database.write(work)

    async def import_devices(self, devices: Iterable[Device]) -> int:
        """Insert those that are new, in one transaction; return how many were inserted."""
        entries = list(devices)  # the caller's iterable may be slow or fail: not inside a transaction

        async def work(session: Session) -> int:
            fresh = [device for device in entries if await _insert_device(session, device)]
            if fresh:
                text = "".join(sorted(f"{device.device_id}\n" for device in fresh))
                await self._audit(
                    session,
                    AuditEvent.DEVICES_IMPORTED,
                    fresh[0].created_at,
                    count=str(len(fresh)),
                    devices_sha256=hashlib.sha256(text.encode()).hexdigest(),
                )
            return len(fresh)

        return await self._database.write(work)

    async def device(self, device_id: DeviceID) -> Device | None:
        """Return the entry, enabled or not."""
        sql = "SELECT * FROM device WHERE kind = $1 AND value = $2"
        rows = await self._database.read(lambda session: session.fetch(sql, device_id.kind.value, device_id.value))
        return read_device(rows[0]) if rows else None

    async def devices_by_value(self, value: str) -> Sequence[Device]:
        """Return the devices whose normalised value is this, whatever the kind."""
        sql = "SELECT * FROM device WHERE value = $1 ORDER BY kind"
        return [read_device(row) for row in await self._database.read(lambda session: session.fetch(sql, value))]

    async def list_devices(self) -> Sequence[Device]:
        """Return all, ordered by kind and value."""
        sql = "SELECT * FROM device ORDER BY kind, value"
        return [read_device(row) for row in await self._database.read(lambda session: session.fetch(sql))]

    async def set_device_enabled(self, device_id: DeviceID, enabled: bool, now: datetime) -> bool:
        """Return False when there is no such device."""
        sql = "UPDATE device SET enabled = $3 WHERE kind = $1 AND value = $2"
        event = AuditEvent.DEVICE_ENABLED if enabled else AuditEvent.DEVICE_DISABLED

        async def work(session: Session) -> bool:
            if await session.execute(sql, device_id.kind.value, device_id.value, enabled) == 0:
                return False
            if enabled:
                await _forget_disconnection(session, device_id)
            await self._audit(session, event, now, device=str(device_id))
            return True

        return await self._database.write(work)

    async def update_device(self, device: Device, now: datetime) -> bool:
        """Replace everything but the ID, `created_at` and `enabled`; return False when there is no such device.

        Whoever edits an entry has read it before: a device that was disabled meanwhile must not be let in by that.
        """
        sql = (
            "UPDATE device SET user_name = $3, profile = $4, services = $5, note = $6, approval = $7,"
            " valid_until = $8, attributes = $9 WHERE kind = $1 AND value = $2 RETURNING *"
        )

        async def work(session: Session) -> bool:
            changed = await session.fetch(sql, *_encode_device(device))
            if not changed:
                return False
            await self._audit(session, AuditEvent.DEVICE_CHANGED, now, **_device_facts(read_device(changed[0])))
            return True

        return await self._database.write(work)

    async def remove_device(self, device_id: DeviceID, now: datetime) -> bool:
        """Remove the device and its unused challenges; return False when there is no such device."""
        kind, value = device_id.kind.value, device_id.value

        async def work(session: Session) -> bool:
            if await session.execute("DELETE FROM device WHERE kind = $1 AND value = $2", kind, value) == 0:
                return False
            await session.execute(
                "DELETE FROM challenge WHERE device_kind = $1 AND device_value = $2 AND used_by IS NULL", kind, value
            )
            await self._audit(session, AuditEvent.DEVICE_REMOVED, now, device=str(device_id))
            return True

        return await self._database.write(work)

    async def add_challenge(self, challenge: Challenge) -> None:
        """Insert; raise AlreadyExists when this digest is there."""

        async def work(session: Session) -> None:
            inserted = await session.execute(
                "INSERT INTO challenge"
                " (digest, device_kind, device_value, profile, created_at, expires_at, used_by, sealed)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                challenge.digest,
                challenge.device_id.kind.value,
                challenge.device_id.value,
                challenge.profile,
                encode_time(challenge.created_at),
                encode_time(challenge.expires_at),
                challenge.used_by,
                challenge.sealed,
            )
            if inserted == 0:
                raise AlreadyExists("a challenge with this digest exists already: draw another secret")
            await self._audit(
                session,
                AuditEvent.CHALLENGE_CREATED,
                challenge.created_at,
                challenge=challenge_fact(challenge.digest),
                device=str(challenge.device_id),
                profile=challenge.profile,
                expires_at=challenge.expires_at.isoformat(timespec="seconds"),
            )

        await self._database.write(work)

    async def sealed_challenges(self, profile: str, now: datetime, limit: int) -> Sequence[bytes]:
        """Return the sealed secrets of unexpired challenges of a profile, unused ones first, newest first."""
        sql = (
            "SELECT sealed FROM challenge WHERE profile = $1 AND expires_at > $2 AND sealed IS NOT NULL"
            " ORDER BY used_by IS NOT NULL, created_at DESC LIMIT $3"
        )
        rows = await self._database.read(lambda session: session.fetch(sql, profile, encode_time(now), limit))
        return [row["sealed"] for row in rows]

    async def sealed_challenge_of(self, key: EnrollmentKey) -> bytes | None:
        """Return the sealed secret that the newest enrollment of this key has spent."""
        sql = (
            "SELECT sealed FROM challenge JOIN enrollment ON challenge.used_by = enrollment.enrollment_id"
            " WHERE enrollment.profile = $1 AND transaction_id = $2 AND requester = $3 AND closed_at IS NULL"
            " AND sealed IS NOT NULL"
            " ORDER BY enrollment.created_at DESC LIMIT 1"
        )
        rows = await self._database.read(
            lambda session: session.fetch(sql, key.profile, key.transaction_id, key.requester)
        )
        return rows[0]["sealed"] if rows else None


def challenge_fact(digest: bytes) -> str:
    """Return what the audit log says of a challenge: enough to find it again, too little to guess from."""
    return digest[:8].hex()


def _device_facts(device: Device) -> dict[str, str | None]:
    return {
        "device": str(device.device_id),
        "user": device.user or None,
        "profile": device.profile or None,
        "services": ",".join(device.services) or None,
        "enabled": str(device.enabled).lower(),
        "approval": str(device.approval).lower(),
        "valid_until": None if device.valid_until is None else device.valid_until.isoformat(timespec="seconds"),
        "attributes": json.dumps(dict(device.attributes), sort_keys=True) if device.attributes else None,
    }


async def _forget_disconnection(session: Session, device_id: DeviceID) -> None:
    """Let what the device asks from now on count, however shortly after its disconnect."""
    await session.execute(
        "DELETE FROM disconnection WHERE device_kind = $1 AND device_value = $2", device_id.kind.value, device_id.value
    )


async def _insert_device(session: Session, device: Device) -> bool:
    inserted = await session.execute(
        "INSERT INTO device (kind, value, user_name, profile, services, note, approval, valid_until, attributes,"
        " enabled, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        *_encode_device(device),
        device.enabled,
        encode_time(device.created_at),
    )
    if inserted == 0:
        return False
    await _forget_disconnection(session, device.device_id)
    return True


def _encode_device(device: Device) -> tuple[object, ...]:
    """Return the columns in the order of the statements, without those that an update leaves alone."""
    return (
        device.device_id.kind.value,
        device.device_id.value,
        device.user,
        device.profile,
        json.dumps(device.services),
        device.note,
        device.approval,
        None if device.valid_until is None else encode_time(device.valid_until),
        json.dumps(dict(device.attributes), sort_keys=True),
    )
