"""A RADIUS server of our own making on 127.0.0.1 that answers whatever a test wants, wrong answers before all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from scep_ra.radius.packets import Code, Packet, decode_request, encode_reply
from scep_ra.radius.transport import Address

SECRET = b"testing123"

# Called with the octets of a request and how many came before it.
Script = Callable[[bytes, int], Sequence[bytes]]


@dataclass(kw_only=True)
class FakeServer(asyncio.DatagramProtocol):
    """A server that keeps what it received and answers by its script."""

    script: Script
    received: list[bytes] = field(default_factory=list)
    senders: list[tuple[str, int]] = field(default_factory=list)
    transport: Any = None
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> Address:
        host, port = self.transport.get_extra_info("sockname")
        return Address(host=host, port=port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append(data)
        self.senders.append(addr)
        for reply in self.script(data, len(self.received) - 1):
            self.transport.sendto(reply, addr)
        task = asyncio.get_running_loop().create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self) -> None:
        async with self.arrived:
            self.arrived.notify_all()

    async def wait_for(self, count: int) -> None:
        """Wait until so many datagrams have arrived."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)


@asynccontextmanager
async def fake_server(script: Script, *, port: int = 0) -> AsyncIterator[FakeServer]:
    """Serve until the end of the block."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: FakeServer(script=script), local_addr=("127.0.0.1", port)
    )
    try:
        yield server
    finally:
        transport.close()
        await server.closed.wait()


def accepting(octets: bytes, _count: int) -> Sequence[bytes]:
    """Answer with an Access-Accept that repeats the User-Name."""
    return [reply_to(octets)]


def silent(_octets: bytes, _count: int) -> Sequence[bytes]:
    """Answer nothing."""
    return []


def reply_to(octets: bytes, *, secret: bytes = SECRET, code: Code = Code.ACCESS_ACCEPT, sign: bool = True) -> bytes:
    """Return a reply whose Reply-Message is the User-Name of the request."""
    request = decode_request(octets, SECRET, require_message_authenticator=False)
    names = tuple(("Reply-Message", name) for name in request.texts("User-Name"))
    return encode_reply(Packet(code=code, attributes=names), request, secret, sign=sign)
