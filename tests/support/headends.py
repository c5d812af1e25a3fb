"""An access engine over a store with certificates, as headends meet it, and the sockets by which they ask."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from scep_ra.headend.access import AccessEngine, ProfileAccess
from scep_ra.headend.radius_headends import RadiusHeadend
from scep_ra.identity.types import DeviceID
from scep_ra.radius.packets import Code, Packet, Value
from scep_ra.storage.base import Store
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.enrollment import ScriptedAuthorizer
from tests.support.records import NOW, SERIAL, device_id, make_certificate, make_enrollment, make_key

SECRET = b"testing123"


@dataclass(kw_only=True)
class Gate:
    """A store with certificates, an AAA that answers by a script, and the engine over both."""

    store: Store
    aaa: ScriptedAuthorizer = field(default_factory=ScriptedAuthorizer)
    now: datetime = NOW
    service: str = ""

    @property
    def engine(self) -> AccessEngine:
        access = ProfileAccess(authorizer=self.aaa, service=self.service)
        return AccessEngine(certificates=self.store, profiles={"default": access, "wifi": access}, now=lambda: self.now)

    async def issue(
        self, number: int = 1, device: DeviceID | None = None, *, renewal_of: int | None = None, **fields: Any
    ) -> int:
        """Store the certificate with this number, and return its serial."""
        holder = device or device_id()
        enrollment = make_enrollment(number, key=make_key(f"TX{number}"), device_id=holder, renewal_of=renewal_of)
        await self.store.insert_enrollment(enrollment, spend=None)
        certificate = make_certificate(number, device_id=holder, **fields)
        assert await self.store.complete(enrollment.enrollment_id, certificate, NOW)
        return SERIAL + number


@contextlib.asynccontextmanager
async def open_gate(directory: Path, **fields: Any) -> AsyncIterator[Gate]:
    """Open a gate over an empty SQLite store."""
    store = SqlStore(await SqliteDatabase.open(directory / "gate.sqlite"))
    try:
        yield Gate(store=store, **fields)
    finally:
        await store.close()


def make_headend(name: str = "vpn", network: str = "127.0.0.1", **fields: Any) -> RadiusHeadend:
    return replace(RadiusHeadend(name=name, network=ip_network(network), secret=SECRET), **fields)


class Peer(asyncio.DatagramProtocol):
    """A UDP socket of a headend, or of somebody else, connected to one port of the server."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._received: asyncio.Queue[bytes] = asyncio.Queue()
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._closed.set()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's signature
        self._received.put_nowait(data)

    def send(self, octets: bytes) -> None:
        self._transport.sendto(octets)

    async def receive(self) -> bytes:
        async with asyncio.timeout(10):
            return await self._received.get()

    async def ask(self, octets: bytes) -> bytes:
        """Send and return the next datagram that comes."""
        self.send(octets)
        return await self.receive()

    @property
    def unread(self) -> int:
        """How many datagrams wait to be received."""
        return self._received.qsize()

    async def close(self) -> None:
        self._transport.close()
        await self._closed.wait()


@contextlib.asynccontextmanager
async def peer_of(port: int, local: str = "127.0.0.1") -> AsyncIterator[Peer]:
    """Open a socket at an address of ours to this port of 127.0.0.1."""
    _, peer = await asyncio.get_running_loop().create_datagram_endpoint(
        Peer, local_addr=(local, 0), remote_addr=("127.0.0.1", port)
    )
    try:
        yield peer
    finally:
        await peer.close()


def access_request(user_name: str = "SN123", *attributes: tuple[str, Value], identifier: int = 1) -> Packet:
    return Packet(
        code=Code.ACCESS_REQUEST,
        identifier=identifier,
        attributes=(("User-Name", user_name), ("User-Password", "cisco"), *attributes),
    )


def accounting_request(status: int, *attributes: tuple[str, Value], identifier: int = 1) -> Packet:
    return Packet(
        code=Code.ACCOUNTING_REQUEST, identifier=identifier, attributes=(("Acct-Status-Type", status), *attributes)
    )


def free_udp_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody uses at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def write_secret(directory: Path, name: str = "headend.secret") -> None:
    """Put the secret where a configuration looks for it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    file = directory / name
    file.touch(0o600)
    file.write_bytes(SECRET)
