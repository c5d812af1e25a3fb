"""Accounting-Requests of headends: which sessions begin, last and end (RFC 2866).

What they report is kept for one purpose, to end sessions of devices that are cut off; traffic is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import assert_never

import structlog

from scep_ra.headend.access import AccessEngine
from scep_ra.headend.radius_headends import RadiusHeadend
from scep_ra.identity.errors import InvalidDeviceID
from scep_ra.identity.types import DeviceID, parse_device_id
from scep_ra.radius.errors import MalformedPacket
from scep_ra.radius.packets import Code, Packet
from scep_ra.storage.sessions import LiveSession, SessionStore

log = structlog.stdlib.get_logger(__name__)


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
    sessions: SessionStore
    now: Callable[[], datetime]

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
                session = await self._session(request, headend, source)
                await self.sessions.record_session(session)
                facts = {"session_id": session.session_id, "device_id": str(session.device_id or "")}
            case StatusType.STOP:
                session_id = _session_id(request)
                await self.sessions.end_session(headend.name, session_id)
                facts = {"session_id": session_id}
            case StatusType.ACCOUNTING_ON | StatusType.ACCOUNTING_OFF:
                facts = {"ended": str(await self._end_all(headend))}
            case _:
                assert_never(status)
        log.info("accounting", status=status.name.lower(), headend=headend.name, source=source, **facts)

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

    async def _end_all(self, headend: RadiusHeadend) -> int:
        """Forget the sessions of a headend that has started anew; of several under one name it could be any."""
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
