"""Live sessions in SQL: what headends have reported and not ended. Disconnecting them is `sql_disconnect`'s."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.database import Row, Session, decode_time, encode_time
from scep_ra.storage.sessions import LiveSession, TooManySessions
from scep_ra.storage.sql_audit import SqlAudit


def read_session(row: Row) -> LiveSession:
    """Return the session that a row of table `live_session` holds."""
    return LiveSession(
        headend=row["headend"],
        session_id=row["session_id"],
        user_name=row["user_name"],
        device_id=_read_device_id(row),
        nas_address=row["nas_address"],
        nas_identifier=row["nas_identifier"],
        framed_address=row["framed_address"],
        calling_station=row["calling_station"],
        started_at=decode_time(row["started_at"]),
        updated_at=decode_time(row["updated_at"]),
    )


async def sessions_of(session: Session, device_id: DeviceID) -> Sequence[LiveSession]:
    """Return the live sessions of a device, newest first, inside a unit of work."""
    rows = await session.fetch(
        "SELECT * FROM live_session WHERE device_kind = $1 AND device_value = $2"
        " ORDER BY started_at DESC, headend, session_id",
        device_id.kind.value,
        device_id.value,
    )
    return [read_session(row) for row in rows]


class SqlSessions(SqlAudit):
    """SessionStore over a Database.

    Sessions are no part of the audit log: they come and go by the thousand, and the headends keep their own accounts.
    """

    async def record_session(self, session: LiveSession, *, most: int | None = None) -> None:
        """Insert or refresh (start, interim update); `started_at` of a known session stays."""
        sql = (
            "INSERT INTO live_session (headend, session_id, user_name, device_kind, device_value, nas_address,"
            " nas_identifier, framed_address, calling_station, started_at, updated_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (headend, session_id) DO UPDATE SET"
            " user_name = excluded.user_name, device_kind = excluded.device_kind, device_value = excluded.device_value,"
            " nas_address = excluded.nas_address, nas_identifier = excluded.nas_identifier,"
            " framed_address = excluded.framed_address, calling_station = excluded.calling_station,"
            " updated_at = excluded.updated_at"
        )
        row = (
            session.headend,
            session.session_id,
            session.user_name,
            None if session.device_id is None else session.device_id.kind.value,
            None if session.device_id is None else session.device_id.value,
            session.nas_address,
            session.nas_identifier,
            session.framed_address,
            session.calling_station,
            encode_time(session.started_at),
            encode_time(session.updated_at),
        )

        async def work(unit: Session) -> None:
            if most is not None:
                await _check_room(unit, session, most)
            await unit.execute(sql, *row)

        await self._database.write(work)

    async def end_session(self, headend: str, session_id: str) -> bool:
        """Forget a session (stop); return False when it was not known."""
        sql = "DELETE FROM live_session WHERE headend = $1 AND session_id = $2"
        return await self._database.write(lambda unit: unit.execute(sql, headend, session_id)) == 1

    async def end_sessions(self, headend: str) -> int:
        """Forget all sessions of a headend (Accounting-On, Accounting-Off); return how many."""
        sql = "DELETE FROM live_session WHERE headend = $1"
        return await self._database.write(lambda unit: unit.execute(sql, headend))

    async def list_sessions(self, device_id: DeviceID | None = None, limit: int = 1000) -> Sequence[LiveSession]:
        """Return live sessions, newest first."""
        if device_id is not None:
            return (await self._database.read(lambda unit: sessions_of(unit, device_id)))[:limit]
        sql = "SELECT * FROM live_session ORDER BY started_at DESC, headend, session_id LIMIT $1"
        return [read_session(row) for row in await self._database.read(lambda unit: unit.fetch(sql, limit))]

    async def expire_sessions(self, before: datetime) -> int:
        """Forget sessions that nobody has spoken of since `before`; return how many."""
        sql = "DELETE FROM live_session WHERE updated_at < $1"
        return await self._database.write(lambda unit: unit.execute(sql, encode_time(before)))


async def _check_room(unit: Session, session: LiveSession, most: int) -> None:
    """Raise TooManySessions unless a session is known or its headend has fewer than that."""
    sql = "SELECT 1 FROM live_session WHERE headend = $1 AND session_id = $2"
    if await unit.fetch(sql, session.headend, session.session_id):
        return
    sql = "SELECT COUNT(*) AS number FROM live_session WHERE headend = $1"
    if (await unit.fetch(sql, session.headend))[0]["number"] >= most:
        raise TooManySessions(
            f"[headend.{session.headend}] has {most} live sessions, and no more are kept: does it report their ends?"
        )


def _read_device_id(row: Row) -> DeviceID | None:
    if row["device_kind"] is None:
        return None
    return DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"])
