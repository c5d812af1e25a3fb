"""Tell headends to end a session: Disconnect-Request and its answers (RFC 5176), as an outbox Sender.

When to send, and what to do when nobody answers, is `outbox`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_address
from types import MappingProxyType
from typing import Final

from scep_ra.errors import Unavailable
from scep_ra.headend.outbox import Attempt, Verdict
from scep_ra.radius.packets import Code, Packet, Value
from scep_ra.radius.transport import Address, RadiusClient, Rules
from scep_ra.storage.sessions import OutboxMessage, SessionStore

PORT: Final = 3799  # RFC 5176 2.1; IOS listens on 1700 by default
# Three transmissions in about 3.5 s (RFC 5080 2.2.1): whoever waits at a terminal sees the outcome.
_RULES: Final = Rules(retransmit_s=0.5, tries=3, require_message_authenticator="no")
_NOT_FOUND: Final = 503
# Error-Cause (RFC 5176 3.5), those that a Disconnect-NAK carries.
_CAUSES: Final = MappingProxyType(
    {
        401: "unsupported attribute",
        402: "missing attribute",
        403: "NAS identification mismatch",
        404: "invalid request",
        405: "unsupported service",
        406: "unsupported extension",
        501: "administratively prohibited",
        502: "request not routable",
        503: "session not found",
        504: "session cannot be removed",
        505: "other proxy processing error",
        506: "resources unavailable",
        507: "request initiated",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectTarget:
    """A headend that takes Disconnect-Requests, or several of one name, told apart by the address of the session."""

    name: str
    network: IPv4Network | IPv6Network
    port: int = PORT
    read_secret: Callable[[], bytes] = field(repr=False)


class DisconnectSender:
    """headend.outbox.Sender of Disconnect-Requests; ends the sessions that are gone in the store."""

    def __init__(
        self, targets: Iterable[DisconnectTarget], *, sessions: SessionStore, now: Callable[[], datetime]
    ) -> None:
        self._targets = {each.name: each for each in targets}
        self._clients: dict[tuple[str, Address], RadiusClient] = {}
        self._sessions = sessions
        self._now = now

    async def send(self, message: OutboxMessage) -> Attempt:
        """Ask the session's headend to end it, and take it out of the store when it is gone.

        Raise a BackendError, or a RadiusError when the session's name does not fit into a packet.
        """
        target = self._targets.get(message.target)
        if target is None:
            return Attempt(verdict=Verdict.REFUSED, result=f"no [headend.{message.target}] takes Disconnect-Requests")
        address = _address_of(target, message.payload["nas_address"])
        if address is None:
            outside = f"{message.payload['nas_address'] or 'its address'} is not in [headend.{message.target}]"
            return Attempt(verdict=Verdict.REFUSED, result=outside)
        try:
            reply = await self._client(target, address).exchange(_request(message, self._now()))
        except Unavailable as error:
            # In full: who looks at it must learn whether the secret is wrong.
            return Attempt(verdict=Verdict.SILENT, result=f"timeout ({error})")
        attempt = judge(reply)
        if attempt.verdict is Verdict.DONE:
            await self._sessions.end_session(message.target, message.payload["session_id"])
        return attempt

    def _client(self, target: DisconnectTarget, address: Address) -> RadiusClient:
        key = target.name, address
        if key not in self._clients:
            self._clients[key] = RadiusClient([address], target.read_secret(), _RULES)
        return self._clients[key]

    async def close(self) -> None:
        """Close all sockets."""
        for client in self._clients.values():
            await client.close()


def _address_of(target: DisconnectTarget, nas_address: str) -> Address | None:
    """Return where a session's headend listens; what it says of itself counts only within its network."""
    if target.network.num_addresses == 1:
        return Address(host=str(target.network.network_address), port=target.port)
    if nas_address and ip_address(nas_address) in target.network:
        return Address(host=nas_address, port=target.port)
    return None


def _request(message: OutboxMessage, now: datetime) -> Packet:
    return Packet(code=Code.DISCONNECT_REQUEST, attributes=tuple(_attributes(message, now)))


def _attributes(message: OutboxMessage, now: datetime) -> Iterator[tuple[str, Value]]:
    """Yield what names the session and no more: hostapd and others answer any other attribute with a NAK 401."""
    session = message.payload
    if session["nas_address"]:
        version = ip_address(session["nas_address"]).version
        yield "NAS-IP-Address" if version == 4 else "NAS-IPv6-Address", session["nas_address"]
    for name, key in (
        ("NAS-Identifier", "nas_identifier"),
        ("User-Name", "user_name"),
        ("Acct-Session-Id", "session_id"),
        ("Calling-Station-Id", "calling_station"),
    ):
        if session[key]:
            yield name, session[key]
    # Receivers drop what is older than 300 s, so that nobody can repeat it (RFC 5176 6.3).
    yield "Event-Timestamp", int(now.timestamp())


def judge(reply: Packet) -> Attempt:
    """Say what a headend's answer means; a session that it does not have is what we want."""
    cause = reply.number("Error-Cause")
    if reply.code is Code.DISCONNECT_ACK:
        return Attempt(verdict=Verdict.DONE, result="ack")
    if cause is None:
        # strongSwan's answer when nobody of this name is connected.
        return Attempt(verdict=Verdict.DONE, result="nak (no such session)")
    text = f"nak {cause} {_CAUSES.get(cause, '')}".rstrip()
    return Attempt(verdict=Verdict.DONE if cause == _NOT_FOUND else Verdict.REFUSED, result=text)
