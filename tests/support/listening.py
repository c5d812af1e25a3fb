"""A listener on a free port with a small application to try it on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from scep_ra.web.connections import GuardLimits
from scep_ra.web.listener import Listener

MAX_BODY_BYTES = 65536
BIG_BODY = bytes(16 * 2**20)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GET_HELD = b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The running listener and the events by which a test holds a handler and lets it go."""

    listener: Listener
    entered: asyncio.Event
    release: asyncio.Event

    @property
    def port(self) -> int:
        return self.listener.port


@dataclass(slots=True)
class _Application:
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def greet(self, request: web.Request) -> web.Response:
        return web.Response(body=b"%d" % len(await request.read()))

    async def hold(self, _request: web.Request) -> web.Response:
        self.entered.set()
        await self.release.wait()
        return web.Response(body=b"done")

    async def flood(self, _request: web.Request) -> web.Response:
        return web.Response(body=BIG_BODY)

    async def fail(self, _request: web.Request) -> web.Response:
        raise RuntimeError("a bug")

    def build(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/", self.greet)
        app.router.add_get("/held", self.hold)
        app.router.add_get("/big", self.flood)
        app.router.add_get("/fail", self.fail)
        return app


def limits(
    *,
    header_timeout_s: float = 30.0,
    body_timeout_s: float = 30.0,
    idle_timeout_s: float = 30.0,
    write_timeout_s: float = 30.0,
    max_connections: int = 1000,
    max_connections_per_address: int = 1000,
) -> GuardLimits:
    """Return limits that no test reaches but those it names."""
    return GuardLimits(
        header_timeout_s=header_timeout_s,
        body_timeout_s=body_timeout_s,
        idle_timeout_s=idle_timeout_s,
        write_timeout_s=write_timeout_s,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
    )


def free_port() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@asynccontextmanager
async def listening(guard_limits: GuardLimits | None = None) -> AsyncIterator[Stage]:
    """Serve on 127.0.0.1 and drain at the end, unless the test has done it."""
    application = _Application()
    listener = await Listener.start(application.build(), sock=free_port(), limits=guard_limits or limits())
    try:
        yield Stage(listener=listener, entered=application.entered, release=application.release)
    finally:
        application.release.set()
        if not listener.census.closing:
            await listener.drain(timeout_s=0.2)
