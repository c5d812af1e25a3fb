"""What one connection may cost: how many there are, how slow each may be.

aiohttp reads a request for as long as the peer likes to send it. `ConnectionGuard` stands between the transport and
aiohttp's protocol and puts a deadline on each phase; `ConnectionCensus` counts. What a request means, and whether it
is answered at all, does not belong here (see `web.listener`).
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never, cast

import structlog

from scep_ra.enrollment.limits import network_of
from scep_ra.errors import ScepRaError

_log = structlog.stdlib.get_logger(__name__)


class TooManyConnections(ScepRaError):
    """The connection goes beyond a cap, or the server is closing down."""


class Phase(Enum):
    """What a connection waits for."""

    IDLE = "idle"
    """For the first byte of a request."""
    HEADERS = "headers"
    """For the end of the headers."""
    BODY = "body"
    """For the end of the body."""
    HANDLING = "handling"
    """For our answer."""
    WRITING = "writing"
    """For the peer to take our answer."""
    CLOSED = "closed"
    """For nothing."""


class Event(Enum):
    """What moves a connection to another phase."""

    BYTES = "bytes arrived"
    REQUEST = "headers complete, earlier answers sent"
    BODY_READ = "body complete"
    ANSWERED = "answer ready, or given up"
    BLOCKED = "the kernel takes no more of our answer"
    FLUSHED = "the kernel has all of our answer"


# An event without a row changes nothing: bytes of a body, bytes of the next request while this one is handled.
TRANSITIONS: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.IDLE, Event.BYTES): Phase.HEADERS,
    # Pipelined: its bytes came while its predecessor was handled.
    (Phase.IDLE, Event.REQUEST): Phase.BODY,
    (Phase.IDLE, Event.BLOCKED): Phase.WRITING,
    (Phase.HEADERS, Event.REQUEST): Phase.BODY,
    # aiohttp answers what it cannot parse without a handler.
    (Phase.HEADERS, Event.BLOCKED): Phase.WRITING,
    (Phase.BODY, Event.BODY_READ): Phase.HANDLING,
    # Refused without reading all of it.
    (Phase.BODY, Event.ANSWERED): Phase.IDLE,
    (Phase.HANDLING, Event.ANSWERED): Phase.IDLE,
    (Phase.WRITING, Event.FLUSHED): Phase.IDLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """Deadlines in seconds and caps in connections; `config.LimitsConfig` has the same names and the reasons."""

    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    write_timeout_s: float
    max_connections: int
    max_connections_per_address: int

    def timeout_s(self, phase: Phase) -> float:
        """Return how long a phase may last; infinity where our own work has its own deadlines."""
        match phase:
            case Phase.IDLE:
                return self.idle_timeout_s
            case Phase.HEADERS:
                return self.header_timeout_s
            case Phase.BODY:
                return self.body_timeout_s
            case Phase.WRITING:
                return self.write_timeout_s
            case Phase.HANDLING | Phase.CLOSED:
                return math.inf
            case _:  # pragma: no cover - mypy proves it unreachable
                assert_never(phase)


def source_of(peername: object) -> str:
    """Return whom connections are counted for: an IPv4 address, an IPv6 /64, or "" for a Unix socket."""
    match peername:
        case (str(host), *_):
            return network_of(host)
        case _:
            return ""


class ConnectionCensus:
    """The open connections of one listener, in total and for each source."""

    def __init__(self, limits: GuardLimits) -> None:
        self._limits = limits
        self._guards: set[ConnectionGuard] = set()
        self._by_source: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self.refused_connections = 0
        self.closing = False

    def __iter__(self) -> Iterator[ConnectionGuard]:
        return iter(tuple(self._guards))

    def __len__(self) -> int:
        return len(self._guards)

    def admit(self, guard: ConnectionGuard, source: str) -> None:
        """Count a new connection; raise TooManyConnections when it is one too many."""
        refusal = self._refusal(source)
        if refusal is not None:
            self.refused_connections += 1
            raise TooManyConnections(refusal)
        self._guards.add(guard)
        self._by_source[source] += 1
        self._empty.clear()

    def _refusal(self, source: str) -> str | None:
        if self.closing:
            return "the server is shutting down"
        if len(self._guards) >= self._limits.max_connections:
            return f"{len(self._guards)} connections are open; the cap is [limits] max_connections"
        if self._by_source[source] >= self._limits.max_connections_per_address:
            return f"{self._by_source[source]} from this address; the cap is [limits] max_connections_per_address"
        return None

    def dismiss(self, guard: ConnectionGuard, source: str) -> None:
        """Forget a connection that was admitted."""
        self._guards.remove(guard)
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]
        if not self._guards:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until no connection is open."""
        await self._empty.wait()


class ConnectionGuard(asyncio.Protocol):
    """A protocol that hands everything on to another one and closes the connection when a phase lasts too long."""

    def __init__(self, inner: asyncio.Protocol, limits: GuardLimits, census: ConnectionCensus) -> None:
        self._inner = inner
        self._limits = limits
        self._census = census
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._source = ""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self.phase = Phase.CLOSED

    def advance(self, event: Event) -> None:
        """Enter the phase that the event leads to, and start its deadline."""
        following = TRANSITIONS.get((self.phase, event))
        if following is not None:
            self._enter(following)

    def close_if_idle(self) -> None:
        """Close the connection in good order if no request has begun on it."""
        if self.phase is Phase.IDLE:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection at once, whatever waits to be sent."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or close it at once."""
        self._transport = cast(asyncio.Transport, transport)
        self._source = source_of(transport.get_extra_info("peername"))
        try:
            self._census.admit(self, self._source)
        except TooManyConnections as refusal:
            _log.warning("connection_refused", source=self._source, reason=str(refusal))
            self._transport.abort()
            return
        # Without slack, pause_writing and resume_writing say exactly whether the peer lags behind our answers, and
        # aiohttp works on the next pipelined request only when the answer to this one has left.
        self._transport.set_write_buffer_limits(high=0)
        self._enter(Phase.IDLE)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.phase is Phase.CLOSED:
            return  # It was refused: neither the census nor aiohttp has heard of it.
        self.phase = Phase.CLOSED
        if self._timer is not None:
            self._timer.cancel()
        self._census.dismiss(self, self._source)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand bytes on."""
        self.advance(Event.BYTES)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand the end of input on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Start the write deadline."""
        self.advance(Event.BLOCKED)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """End the write deadline."""
        self.advance(Event.FLUSHED)
        self._inner.resume_writing()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._deadline = self._loop.time() + self._limits.timeout_s(phase)
        # One timer per connection: one that fires too early is set again then, which is rarer than phases are.
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._deadline == math.inf else self._loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            self._set_timer()
        elif self.phase is Phase.IDLE:
            # Not abort: a reset could take an answer from the peer that it has not read yet (RFC 9112 9.6).
            self._transport.close()
        else:
            _log.info("connection_expired", source=self._source, phase=self.phase.value)
            self._transport.abort()
