"""Accounting-Requests of headends: which sessions begin, last and end (RFC 2866).

What they report is kept for one purpose, to end sessions of devices that are cut off; traffic is not counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, Protocol, assert_never

import structlog

from scep_ra.headend.access import AccessEngine
from scep_ra.headend.radius_headends import RadiusHeadend
from scep_ra.identity.errors import InvalidDeviceID
from scep_ra.identity.types import DeviceID, parse_device_id
from scep_ra.radius.errors import MalformedPacket
from scep_ra.radius.packets import Code, Packet
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.sessions import DisconnectStore, LiveSession, SessionStore

log = structlog.stdlib.get_logger(__name__)

# Of one headend: twice what the largest VPN gateways carry, and about 15 MB. One that has fallen into wrong hands can
# fill its own share and no more.
MAX_SESSIONS: Final = 50_000
# How far from ours the clock of a headend may be, and how old a report (RFC 5176 6.3 takes the same).
_FRESH: Final = timedelta(seconds=300)


class AccountingStore(SessionStore, DisconnectStore, Protocol):
    """The part of the store that accounts need."""


class StatusType(IntEnum):
    """Acct-Status-Type (RFC 2866 5.1), as far as it is about sessions."""

    START = 1
    STOP = 2
    INTERIM_UPDATE = 3
    ACCOUNTING_ON = 7
    ACCOUNTING_OFF = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """Answers Accounting-Requests once their news are in the store; a `server.Handler`."""

    engine: AccessEngine
    sessions: AccountingStore
    now: Callable[[], datetime]
    random: Callable[[int], bytes] = secrets.token_bytes

    async def answer(self, request: Packet, headend: RadiusHeadend, source: str) -> Packet:
        """Return Accounting-Response; raise MalformedPacket, or a BackendError when nothing could be recorded."""
        status = request.number("Acct-Status-Type")
        # Others (tunnels, failures) are no news of sessions; without an answer a headend would repeat them for ever.
        if status in set(StatusType):
            await self._record(StatusType(status), request, headend, source)
        return Packet(code=Code.ACCOUNTING_RESPONSE)

    async def _record(self, status: StatusType, request: Packet, headend: RadiusHeadend, source: str) -> None:
        match status:
            case StatusType.START | StatusType.INTERIM_UPDATE:
                facts = await self._begin(await self._session(request, headend, source), source)
            case StatusType.STOP:
                session_id = _session_id(request)
                await self.sessions.end_session(headend.name, session_id)
                facts = {"session_id": session_id}
            case StatusType.ACCOUNTING_ON | StatusType.ACCOUNTING_OFF:
                facts = {"ended": str(await self._end_all(request, headend, source))}
            case _:
                assert_never(status)
        log.info("accounting", status=status.name.lower(), headend=headend.name, source=source, **facts)

    async def _begin(self, session: LiveSession, source: str) -> Mapping[str, str]:
        """Record a session, and have it ended if its device was cut off while this report was on its way."""
        await self.sessions.record_session(session, most=MAX_SESSIONS)
        facts = {"session_id": session.session_id, "device_id": str(session.device_id or "")}
        if await self.sessions.end_if_cut_off(session, self.now(), self.random(16).hex()):
            reason = "the device was cut off: the headend is asked to end the session"
            security_event(SecurityEvent.ACCESS_DENIED, headend=session.headend, source=source, **facts, reason=reason)
        return facts

    async def _session(self, request: Packet, headend: RadiusHeadend, source: str) -> LiveSession:
        now = self.now()
        user_name = request.text("User-Name")
        return LiveSession(
            headend=headend.name,
            session_id=_session_id(request),
            user_name=user_name,
            device_id=_named_by_us(request) or await self.engine.identify(user_name),
            nas_address=_nas_address(request, headend, source),
            nas_identifier=request.text("NAS-Identifier"),
            framed_address=request.text("Framed-IP-Address") or request.text("Framed-IPv6-Address"),
            calling_station=request.text("Calling-Station-Id"),
            started_at=now,
            updated_at=now,
        )

    async def _end_all(self, request: Packet, headend: RadiusHeadend, source: str) -> int:
        """Forget the sessions of a headend that has started anew; of several under one name it could be any.

        Who sends again what a headend said long ago must not hide its sessions from a disconnect. One that is kept
        though it has ended does no harm: the headend answers that there is none.
        """
        said_at = request.number("Event-Timestamp")
        if said_at is not None and abs(self.now() - datetime.fromtimestamp(said_at, UTC)) > _FRESH:
            reason = (
                "it says that it starts anew or goes down, at a time that is not now: recorded long ago, or its clock"
            )
            security_event(SecurityEvent.RADIUS_DROPPED, source=source, headend=headend.name, reason=reason)
            return 0
        return await self.sessions.end_sessions(headend.name) if headend.is_single else 0


def _session_id(request: Packet) -> str:
    session_id = request.text("Acct-Session-Id")
    if not session_id:
        raise MalformedPacket("there is no Acct-Session-Id (RFC 2866 5.5)")
    return session_id


def _nas_address(request: Packet, headend: RadiusHeadend, source: str) -> str:
    """Return what the headend says, which a disconnect has to repeat; of several under one name it has to be known."""
    said = request.text("NAS-IP-Address") or request.text("NAS-IPv6-Address")
    return said or ("" if headend.is_single else source)


def _named_by_us(request: Packet) -> DeviceID | None:
    """Return the device of our Access-Accept; a Class can also be another server's."""
    for value in request.values("Class"):
        text = value.decode(errors="replace") if isinstance(value, bytes) else ""
        try:
            device_id = parse_device_id(text)
        except InvalidDeviceID:
            continue
        if str(device_id) == text:
            return device_id
    return None
