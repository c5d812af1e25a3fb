"""The outbox in SQL: messages that have to reach somebody else, at least once. What sends them is `headend.outbox`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.database import Row, Session, decode_time, encode_time
from scep_ra.storage.sessions import MessageKind, OutboxMessage
from scep_ra.storage.sql_audit import SqlAudit


def read_message(row: Row) -> OutboxMessage:
    """Return the message that a row of table `outbox` holds."""
    return OutboxMessage(
        message_id=row["message_id"],
        kind=MessageKind(row["kind"]),
        target=row["target"],
        payload=json.loads(row["payload"]),
        device_id=DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]),
        created_at=decode_time(row["created_at"]),
        due_at=decode_time(row["due_at"]),
        attempts=row["attempts"],
        settled_at=None if row["settled_at"] is None else decode_time(row["settled_at"]),
        result=row["result"],
    )


async def insert_messages(session: Session, messages: Iterable[OutboxMessage]) -> None:
    """Insert new messages, inside a unit of work."""
    for message in messages:
        await session.execute(
            "INSERT INTO outbox (message_id, kind, target, payload, device_kind, device_value, created_at, due_at,"
            " attempts, settled_at, result) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, $10)",
            message.message_id,
            message.kind.value,
            message.target,
            json.dumps(dict(message.payload), sort_keys=True),
            message.device_id.kind.value,
            message.device_id.value,
            encode_time(message.created_at),
            encode_time(message.due_at),
            message.attempts,
            message.result,
        )


async def unsettled_messages(session: Session, device_id: DeviceID) -> Sequence[OutboxMessage]:
    """Return what is still to be sent because of a device, oldest first, inside a unit of work."""
    rows = await session.fetch(
        "SELECT * FROM outbox WHERE device_kind = $1 AND device_value = $2 AND settled_at IS NULL"
        " ORDER BY created_at, message_id",
        device_id.kind.value,
        device_id.value,
    )
    return [read_message(row) for row in rows]


class SqlOutbox(SqlAudit):
    """OutboxStore over a Database."""

    async def claim_messages(
        self, now: datetime, lease_until: datetime, limit: int, device_id: DeviceID | None = None
    ) -> Sequence[OutboxMessage]:
        """Take messages that are due, oldest first, so that no other node takes them before the lease ends."""
        kind, value = ("", "") if device_id is None else (device_id.kind.value, device_id.value)
        sql = (
            "UPDATE outbox SET due_at = $2, attempts = attempts + 1 WHERE message_id IN ("
            "SELECT message_id FROM outbox WHERE settled_at IS NULL AND due_at <= $1"
            " AND ($4 = '' OR (device_kind = $4 AND device_value = $5)) ORDER BY due_at, message_id LIMIT $3)"
            " RETURNING *"
        )

        async def work(session: Session) -> Sequence[Row]:
            # Two that claim at once would choose the same, and the second come away with nothing though there is more.
            await session.serialise("outbox")
            return await session.fetch(sql, encode_time(now), encode_time(lease_until), limit, kind, value)

        claimed = [read_message(row) for row in await self._database.write(work)]
        return sorted(claimed, key=lambda message: (message.created_at, message.message_id))

    async def put_off_message(self, message_id: str, due_at: datetime, result: str) -> None:
        """Note how an attempt ended and when the next is due."""
        sql = "UPDATE outbox SET due_at = $2, result = $3 WHERE message_id = $1 AND settled_at IS NULL"
        await self._database.write(lambda session: session.execute(sql, message_id, encode_time(due_at), result))

    async def settle_message(self, message_id: str, now: datetime, result: str) -> None:
        """Note that nothing more is to be done, and how it ended; what was settled before stays as it is."""
        sql = "UPDATE outbox SET settled_at = $2, result = $3 WHERE message_id = $1 AND settled_at IS NULL RETURNING *"

        async def work(session: Session) -> None:
            settled = await session.fetch(sql, message_id, encode_time(now), result)
            if settled:
                message = read_message(settled[0])
                await self._audit(
                    session,
                    AuditEvent.MESSAGE_SETTLED,
                    now,
                    attempts=str(message.attempts),
                    device=str(message.device_id),
                    kind=message.kind.value,
                    message_id=message_id,
                    result=result,
                    target=message.target,
                )

        await self._database.write(work)

    async def messages_of(self, message_ids: Collection[str]) -> Sequence[OutboxMessage]:
        """Return these messages as they stand, in the order of their IDs."""
        sql = "SELECT * FROM outbox WHERE message_id = $1"

        async def work(session: Session) -> Sequence[Row]:
            return [row for each in sorted(message_ids) for row in await session.fetch(sql, each)]

        return [read_message(row) for row in await self._database.read(work)]

    async def prune_messages(self, before: datetime) -> int:
        """Delete messages settled before; return how many."""
        sql = "DELETE FROM outbox WHERE settled_at < $1"
        return await self._database.write(lambda session: session.execute(sql, encode_time(before)))
