"""One UDP socket of a RADIUS client: its 256 identifiers, who waits under which, and what came back.

It is connected, so the kernel lets through only what the server's address and port sent. When to send again and whom
to ask next is `transport`'s business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scep_ra.radius.errors import RadiusError
from scep_ra.radius.packets import Packet

IDENTIFIERS: Final = 256  # RFC 2865 3: one octet

Decode = Callable[[bytes, bytes], Packet]  # the reply and its request, raises RadiusError
Outcome = Packet | Exception


@dataclass(eq=False, slots=True, kw_only=True)
class Waiting:
    """A request that was or will be sent, and what has been heard since."""

    identifier: int
    outcome: asyncio.Future[Outcome]
    request: bytes = b""
    dropped: int = 0  # datagrams under its identifier that were no answer
    drop_reason: str = ""  # of the last of them


class ClientSocket(asyncio.DatagramProtocol):
    """A connected socket; lends out identifiers and hands each reply that verifies to whoever asked.

    Anything else is dropped and waiting goes on: nobody who can send us datagrams may end it.
    """

    def __init__(self, decode: Decode, *, quarantine_s: float) -> None:
        self._decode = decode
        self._quarantine_s = quarantine_s
        self._loop = asyncio.get_running_loop()
        self._free = deque(range(IDENTIFIERS))
        self._resting: deque[tuple[float, int]] = deque()  # until when, and which
        self._waiting: dict[int, Waiting] = {}
        self._is_retired = False
        self._transport: asyncio.DatagramTransport
        self.closed = asyncio.Event()

    # typeshed: of any kind; a datagram endpoint makes this one
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Let go of those who still wait."""
        self.error_received(ConnectionAbortedError("the socket was closed"))
        self.closed.set()

    def take(self) -> Waiting | None:
        """Lend an identifier, the one that was unused for longest; None when there is none."""
        now = self._loop.time()
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])
        if self._is_retired or not self._free:
            return None
        waiting = Waiting(identifier=self._free.popleft(), outcome=self._loop.create_future())
        self._waiting[waiting.identifier] = waiting
        return waiting

    def give_back(self, waiting: Waiting) -> None:
        """Take an identifier back; one that was not answered rests, because the answer may still be on its way."""
        del self._waiting[waiting.identifier]
        if waiting.outcome.done() and isinstance(waiting.outcome.result(), Packet):
            self._free.append(waiting.identifier)
        else:
            self._resting.append((self._loop.time() + self._quarantine_s, waiting.identifier))
        if self._is_retired and not self._waiting:
            self.close()

    def send(self, waiting: Waiting) -> None:
        """Send a request, for the first time or again: the same octets from the same port (RFC 5080 2.2.1)."""
        self._transport.sendto(waiting.request)

    def retire(self) -> None:
        """Close when the last who waits is through, and lend no more identifiers."""
        self._is_retired = True
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Close now; `closed` is set when it is done."""
        self._is_retired = True
        self._transport.close()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's signature
        """Find out whose answer this is."""
        waiting = self._waiting.get(data[1]) if len(data) > 1 else None
        if waiting is None or waiting.outcome.done():
            return
        try:
            waiting.outcome.set_result(self._decode(data, waiting.request))
        except RadiusError as error:
            waiting.dropped += 1
            waiting.drop_reason = str(error)

    def error_received(self, exc: Exception) -> None:
        """Tell all who wait that the server's machine refused (ICMP), or that ours cannot send."""
        for waiting in self._waiting.values():
            if not waiting.outcome.done():
                waiting.outcome.set_result(exc)
