"""A RADIUS client over UDP: retransmission (RFC 5080 2.2.1), several servers with failover, any number of questions.

The answers that get here are authentic (`packets`) and belong to what was asked (`sockets`). What they say is for the
caller to judge.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, assert_never

import structlog

from scep_ra.errors import Unavailable
from scep_ra.radius.packets import Packet, decode_reply, encode_request
from scep_ra.radius.sockets import IDENTIFIERS, ClientSocket, Outcome, Waiting

SignatureRule = Literal["yes", "auto", "no"]

# 16384 questions at a time, or on their way to be forgotten; a server that has so many before it answers none in time.
MAX_SOCKETS: Final = 64
# RFC 5080 2.2.2 lets servers repeat an answer for 5 to 30 s.
QUARANTINE_S: Final = 30.0
# Looking up a host name.
_OPEN_S: Final = 3.0
# RFC 5080 2.2.1: RAND is at most a tenth, so that clients that lost packets together do not send again together.
_JITTER: Final = 0.1

_log = structlog.stdlib.get_logger(__name__)
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server listens: a name or an address, and a UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How patient a client is, and what it believes."""

    # Twice 0.8 and 1.6 s: two silent servers are found out within the 5 s that a question may take by default.
    retransmit_s: float = 0.8
    tries: int = 2
    dead_s: float = 30.0  # how long a server that did not answer is asked last
    require_message_authenticator: SignatureRule = "yes"  # "auto": of a server that has sent one

    @property
    def longest_s(self) -> float:
        """Return how long one server may take, at most."""
        return sum(waits(self, jitter=_JITTER))


def waits(rules: Rules, *, jitter: float | None = None) -> Iterator[float]:
    """Yield how long to wait after each transmission: twice the wait before, give or take a tenth (RFC 5080 2.2.1)."""
    wait_s = 0.0
    for attempt in range(rules.tries):
        off = _random.uniform(-_JITTER, _JITTER) if jitter is None else jitter
        wait_s = rules.retransmit_s * (1 + off) if attempt == 0 else wait_s * (2 + off)
        yield wait_s


class RadiusClient:
    """Ask the first of several servers that answers; several questions at a time are welcome.

    Servers are asked in their order, those last that were silent of late. All share a secret.
    """

    def __init__(self, servers: Sequence[Address], secret: bytes, rules: Rules) -> None:
        self._servers = [_Server(address, secret, rules) for address in servers]

    async def exchange(self, packet: Packet) -> Packet:
        """Send a request and return the reply to it; raise Unavailable when no server answers.

        Each server gets an identifier and, with an Access-Request, an authenticator of its own. Raises UnfitAttribute.
        """
        failures = []
        for server in sorted(self._servers, key=_Server.is_dead):
            try:
                return await server.ask(packet)
            except Unavailable as error:
                failures.append(str(error))
        raise Unavailable("; ".join(failures))

    async def close(self) -> None:
        """Close all sockets; who still waits gets Unavailable."""
        for server in self._servers:
            await server.close()


@dataclass(eq=False, slots=True)
class _Server:
    """One server: its sockets, and when it was heard."""

    address: Address
    secret: bytes = field(repr=False)
    rules: Rules
    _sockets: list[ClientSocket] = field(default_factory=list)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_closed: bool = False
    _has_signed: bool = False
    _heard_at: float = float("-inf")
    _dead_until: float = float("-inf")

    def is_dead(self) -> bool:
        """Tell whether it was silent of late."""
        return asyncio.get_running_loop().time() < self._dead_until

    async def ask(self, packet: Packet) -> Packet:
        """Return the reply; raise Unavailable when there is none."""
        started_at = asyncio.get_running_loop().time()
        socket, waiting = await self._reserve()
        try:
            waiting.request = encode_request(replace(packet, identifier=waiting.identifier), self.secret)
            outcome = await self._insist(socket, waiting)
        finally:
            socket.give_back(waiting)
        match outcome:
            case Packet():
                self._note_answer(signed=outcome.signed)
                return outcome
            case Exception():
                raise self._failed(f"cannot be reached: {outcome}")
            case None:
                # Only a server that has been silent for all is dead: one question may have been too hard.
                raise self._failed(_silence(self.rules.tries, waiting), is_dead=self._heard_at < started_at)
            case _:
                assert_never(outcome)

    async def _insist(self, socket: ClientSocket, waiting: Waiting) -> Outcome | None:
        for wait_s in waits(self.rules):
            socket.send(waiting)
            await asyncio.wait([waiting.outcome], timeout=wait_s)
            if waiting.outcome.done():
                return waiting.outcome.result()
        return None

    async def _reserve(self) -> tuple[ClientSocket, Waiting]:
        """Return an identifier and its socket, a new one if all are taken."""
        async with self._opening:
            self._sockets = [socket for socket in self._sockets if not socket.closed.is_set()]
            while True:
                for socket in self._sockets:
                    waiting = socket.take()
                    if waiting is not None:
                        return socket, waiting
                self._sockets.append(await self._open())

    async def _open(self) -> ClientSocket:
        if self._is_closed:
            raise Unavailable(f"RADIUS server {self.address}: the client was closed")
        if len(self._sockets) >= MAX_SOCKETS:
            raise Unavailable(
                f"RADIUS server {self.address}: {MAX_SOCKETS * IDENTIFIERS} questions are open or just given up"
            )
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_OPEN_S):
                _, socket = await loop.create_datagram_endpoint(
                    lambda: ClientSocket(self._decode, quarantine_s=QUARANTINE_S),
                    remote_addr=(self.address.host, self.address.port),
                )
        except TimeoutError as error:
            raise self._failed(f"cannot be reached: its address is not found within {_OPEN_S:g} s") from error
        except OSError as error:
            raise self._failed(f"cannot be reached: {error}") from error
        return socket

    def _decode(self, reply: bytes, request: bytes) -> Packet:
        rule = self.rules.require_message_authenticator
        is_required = rule == "yes" or (rule == "auto" and self._has_signed)
        return decode_reply(reply, request, self.secret, require_message_authenticator=is_required)

    def _note_answer(self, *, signed: bool) -> None:
        if self._dead_until > self._heard_at:
            _log.info("radius_server_back", server=str(self.address))
        self._heard_at = asyncio.get_running_loop().time()
        self._dead_until = float("-inf")
        self._has_signed = self._has_signed or signed

    def _failed(self, reason: str, *, is_dead: bool = True) -> Unavailable:
        if is_dead and not self._is_closed:
            if not self.is_dead():
                _log.warning("radius_server_dead", server=str(self.address), reason=reason, dead_s=self.rules.dead_s)
            self._dead_until = asyncio.get_running_loop().time() + self.rules.dead_s
            # Name and route are looked up anew: either may be why nothing came.
            for socket in self._sockets:
                socket.retire()
        return Unavailable(f"RADIUS server {self.address}: {reason}")

    async def close(self) -> None:
        """Close all sockets and open no more."""
        self._is_closed = True
        for socket in self._sockets:
            socket.close()
        for socket in self._sockets:
            await socket.closed.wait()


def _silence(tries: int, waiting: Waiting) -> str:
    if waiting.dropped:
        return (
            f"no acceptable answer in {tries} tries; {waiting.dropped} dropped, the last because {waiting.drop_reason}"
        )
    return f"no answer in {tries} tries: is it running, does it know our address, and by this secret?"
