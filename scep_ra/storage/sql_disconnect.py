"""The instant disconnect in SQL: everything that ends a device's access, in one unit of work.

Rows are met in the order in which a request passes through them (waiting, intent, certificate), so whatever is under
way at the same moment is found on one side or the other, never missed between two statements.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState, next_state
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.base import Enrollment, StoredCertificate
from scep_ra.storage.database import Session, encode_time
from scep_ra.storage.enrollment_rows import enrollment_facts, read_enrollment
from scep_ra.storage.sessions import Disconnection, EntryChange, Holder, LiveSession, MessageKind, OutboxMessage
from scep_ra.storage.sql_audit import SqlAudit
from scep_ra.storage.sql_certificates import certificate_facts, revoke_all_of
from scep_ra.storage.sql_limits import disconnect_lock
from scep_ra.storage.sql_outbox import insert_messages, unsettled_messages
from scep_ra.storage.sql_sessions import sessions_of

# In the order in which a request passes through them.
_WAITING: Final = (EnrollmentState.PENDING, EnrollmentState.APPROVED)
_NOTE: Final = "the device was disconnected"
_ENTRY_EVENTS: Final = {
    EntryChange.DISABLE: AuditEvent.DEVICE_DISABLED,
    EntryChange.REMOVE: AuditEvent.DEVICE_REMOVED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """Which device is to be cut off, and how."""

    device_id: DeviceID
    now: datetime
    entry: EntryChange
    reason: int
    webhooks: Collection[str]
    by: str
    new_id: Callable[[], str]

    def facts(self) -> dict[str, str]:
        """Return what the audit log and webhooks say of it."""
        return {"by": self.by, "entry": self.entry.value, "revocation_reason": str(self.reason)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """What a disconnect found and changed."""

    entry_changed: bool
    challenges_voided: int
    rejected: Sequence[Enrollment]
    condemned: int  # open intents, whose certificates will be revoked when they are stored
    revoked: Sequence[StoredCertificate]
    sessions: Sequence[LiveSession]

    def facts(self) -> dict[str, str]:
        """Return what the audit log and webhooks say of it; lists are separated by blanks."""
        return {
            "entry_changed": str(self.entry_changed).lower(),
            "challenges_voided": str(self.challenges_voided),
            "requests_rejected": str(len(self.rejected)),
            "requests_condemned": str(self.condemned),
            "certificates_revoked": " ".join(f"{each.ca}/{each.certificate_serial:x}" for each in self.revoked),
            "headends": " ".join(sorted({each.headend for each in self.sessions})),
            "sessions": str(len(self.sessions)),
        }

    def __bool__(self) -> bool:
        return any(
            (self.entry_changed, self.challenges_voided, self.rejected, self.condemned, self.revoked, self.sessions)
        )


class SqlDisconnect(SqlAudit):
    """DisconnectStore over a Database."""

    async def disconnect_device(
        self,
        device_id: DeviceID,
        now: datetime,
        *,
        entry: EntryChange,
        revocation_reason: int,
        webhooks: Collection[str],
        by: str,
        new_id: Callable[[], str],
    ) -> Disconnection:
        """Cut a device off: entry, open challenges, waiting requests, all its certificates; one transaction."""
        order = _Order(
            device_id=device_id,
            now=now,
            entry=entry,
            reason=revocation_reason,
            webhooks=webhooks,
            by=by,
            new_id=new_id,
        )

        async def work(session: Session) -> Disconnection:
            # No intent of this device is recorded from here to the commit; those after it are condemned.
            await session.serialise(disconnect_lock(device_id))
            changes = await _cut_off(session, order)
            told = await _tell(session, order, changes)
            if changes:
                await self._record_disconnection(session, order, changes)
            return Disconnection(
                device_id=device_id,
                entry_changed=changes.entry_changed,
                challenges_voided=changes.challenges_voided,
                requests_rejected=len(changes.rejected),
                revoked=tuple((each.ca, each.certificate_serial) for each in changes.revoked),
                messages=tuple(told),
            )

        return await self._database.write(work)

    async def end_if_cut_off(self, session: LiveSession, now: datetime, message_id: str) -> bool:
        """Have a recorded session ended if its device was cut off and holds no certificate since; say whether so."""
        device_id = session.device_id
        if device_id is None:
            return False

        async def work(unit: Session) -> bool:
            # A disconnect under way has either seen the session or is seen here.
            await unit.serialise(disconnect_lock(device_id))
            if not await _is_cut_off(unit, device_id, now):
                return False
            if (session.headend, session.session_id) not in _being_ended(await unsettled_messages(unit, device_id)):
                message = OutboxMessage(
                    message_id=message_id,
                    kind=MessageKind.DISCONNECT,
                    target=session.headend,
                    payload=_address(session),
                    device_id=device_id,
                    created_at=now,
                    due_at=now,
                )
                await insert_messages(unit, [message])
            return True

        return await self._database.write(work)

    async def disconnected_since(self, moment: datetime) -> Sequence[DeviceID]:
        """Return the devices that were cut off at or after a moment, and not let in again."""
        sql = "SELECT device_kind, device_value FROM disconnection WHERE disconnected_at >= $1 ORDER BY disconnected_at"
        rows = await self._database.read(lambda session: session.fetch(sql, encode_time(moment)))
        return [DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]) for row in rows]

    async def certificate_holders(self, now: datetime, after: Holder | None, limit: int) -> Sequence[Holder]:
        """Return those who hold a live certificate, by device and profile, from behind `after`."""
        sql = (
            "SELECT DISTINCT device_kind, device_value, profile FROM certificate"
            " WHERE (device_kind, device_value, profile) > ($1, $2, $3) AND not_after > $4 AND revoked_at IS NULL"
            " ORDER BY device_kind, device_value, profile LIMIT $5"
        )
        last = ("", "", "")
        if after is not None:
            last = (after.device_id.kind.value, after.device_id.value, after.profile)
        rows = await self._database.read(lambda session: session.fetch(sql, *last, encode_time(now), limit))
        return [
            Holder(
                device_id=DeviceID(kind=DeviceIDKind(row["device_kind"]), value=row["device_value"]),
                profile=row["profile"],
            )
            for row in rows
        ]

    async def _record_disconnection(self, session: Session, order: _Order, changes: _Changes) -> None:
        """Append a record for everything that changed, and one for the whole."""
        device = str(order.device_id)
        if changes.entry_changed:
            await self._audit(session, _ENTRY_EVENTS[order.entry], order.now, device=device)
        for enrollment in changes.rejected:
            facts = enrollment_facts(enrollment)
            await self._audit(
                session, AuditEvent.ENROLLMENT_REJECTED, order.now, **facts, by=order.by or None, note=_NOTE
            )
        for certificate in changes.revoked:
            await self._audit(
                session,
                AuditEvent.CERTIFICATE_REVOKED,
                order.now,
                **certificate_facts(certificate),
                reason=str(order.reason),
            )
        await self._audit(
            session, AuditEvent.DEVICE_DISCONNECTED, order.now, device=device, **order.facts(), **changes.facts()
        )


async def _cut_off(session: Session, order: _Order) -> _Changes:
    """Change every row that lets the device in; in this order, see the top of the module."""
    await _note_disconnection(session, order)
    return _Changes(
        entry_changed=await _change_entry(session, order.device_id, order.entry),
        challenges_voided=await _void_challenges(session, order.device_id, order.now),
        rejected=await _reject_waiting(session, order),
        condemned=await _condemn_intents(session, order),
        revoked=await revoke_all_of(session, order.device_id, order.now, order.reason),
        sessions=await sessions_of(session, order.device_id),
    )


async def _note_disconnection(session: Session, order: _Order) -> None:
    await session.execute(
        "INSERT INTO disconnection (device_kind, device_value, disconnected_at, revocation_reason)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT (device_kind, device_value) DO UPDATE SET"
        " disconnected_at = excluded.disconnected_at, revocation_reason = excluded.revocation_reason",
        order.device_id.kind.value,
        order.device_id.value,
        encode_time(order.now),
        order.reason,
    )


async def _change_entry(session: Session, device_id: DeviceID, entry: EntryChange) -> bool:
    match entry:
        case EntryChange.DISABLE:
            sql = "UPDATE device SET enabled = FALSE WHERE kind = $1 AND value = $2 AND enabled"
        case EntryChange.REMOVE:
            sql = "DELETE FROM device WHERE kind = $1 AND value = $2"
        case EntryChange.KEEP:
            return False
        case _:
            assert_never(entry)
    return await session.execute(sql, device_id.kind.value, device_id.value) == 1


async def _void_challenges(session: Session, device_id: DeviceID, now: datetime) -> int:
    """Delete the unused challenges; return how many of them would have been good for something."""
    rows = await session.fetch(
        "DELETE FROM challenge WHERE device_kind = $1 AND device_value = $2 AND used_by IS NULL RETURNING expires_at",
        device_id.kind.value,
        device_id.value,
    )
    return sum(row["expires_at"] > encode_time(now) for row in rows)


async def _reject_waiting(session: Session, order: _Order) -> Sequence[Enrollment]:
    rejected: list[Enrollment] = []
    for state in _WAITING:
        rows = await session.fetch(
            "UPDATE enrollment SET state = $4, updated_at = $5, decided_by = $6, note = $7"
            " WHERE device_kind = $1 AND device_value = $2 AND state = $3 RETURNING *",
            order.device_id.kind.value,
            order.device_id.value,
            state.value,
            next_state(state, EnrollmentEvent.REJECT).value,
            encode_time(order.now),
            order.by,
            _NOTE,
        )
        rejected += map(read_enrollment, rows)
    return rejected


async def _condemn_intents(session: Session, order: _Order) -> int:
    """Have the certificates of open intents revoked when they are stored: the CA may be at work on them."""
    return await session.execute(
        "UPDATE enrollment SET revocation_reason = $4 WHERE device_kind = $1 AND device_value = $2 AND state = $3"
        " AND revocation_reason IS NULL",
        order.device_id.kind.value,
        order.device_id.value,
        EnrollmentState.ISSUING.value,
        order.reason,
    )


async def _tell(session: Session, order: _Order, changes: _Changes) -> Sequence[OutboxMessage]:
    """Put messages into the outbox, and return them with those that an earlier disconnect has not got rid of."""
    before = await unsettled_messages(session, order.device_id)
    known = _being_ended(before)
    fresh = [
        _new_message(order, MessageKind.DISCONNECT, live.headend, _address(live))
        for live in changes.sessions
        if (live.headend, live.session_id) not in known
    ]
    if changes:
        facts = {**order.facts(), **changes.facts(), "disconnected_at": order.now.isoformat()}
        fresh += [_new_message(order, MessageKind.WEBHOOK, name, facts) for name in order.webhooks]
    await insert_messages(session, fresh)
    return [*before, *fresh]


async def _is_cut_off(session: Session, device_id: DeviceID, now: datetime) -> bool:
    """Tell whether a device was disconnected and has got no certificate since."""
    rows = await session.fetch(
        "SELECT 1 FROM disconnection WHERE device_kind = $1 AND device_value = $2 AND NOT EXISTS (SELECT 1 FROM"
        " certificate WHERE device_kind = $1 AND device_value = $2 AND revoked_at IS NULL AND not_after > $3)",
        device_id.kind.value,
        device_id.value,
        encode_time(now),
    )
    return bool(rows)


def _being_ended(messages: Iterable[OutboxMessage]) -> Collection[tuple[str, str | None]]:
    """Return headend and ID of the sessions that these messages end."""
    return {(each.target, each.payload.get("session_id")) for each in messages if each.kind is MessageKind.DISCONNECT}


def _new_message(order: _Order, kind: MessageKind, target: str, payload: Mapping[str, str]) -> OutboxMessage:
    return OutboxMessage(
        message_id=order.new_id(),
        kind=kind,
        target=target,
        payload=payload,
        device_id=order.device_id,
        created_at=order.now,
        due_at=order.now,
    )


def _address(live: LiveSession) -> dict[str, str]:
    """Return what a headend needs to find the session again (RFC 5176 3)."""
    return {
        "user_name": live.user_name,
        "session_id": live.session_id,
        "nas_address": live.nas_address,
        "nas_identifier": live.nas_identifier,
        "calling_station": live.calling_station,
    }
