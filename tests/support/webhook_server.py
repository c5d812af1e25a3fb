"""A web service on 127.0.0.1 that keeps what it is sent and replies whatever a test wants."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.tls import ServerFiles

# Called with how many requests came before.
Script = Callable[[int], web.Response | None]


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


@dataclass(kw_only=True)
class WebhookServer:
    """A server that can be stopped and started; a script that gives None never replies."""

    script: Script
    files: ServerFiles | None = None  # of a server that speaks TLS
    received: list[Received] = field(default_factory=list)
    port: int = 0
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: TestServer | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.files else 'http'}://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        """Listen, at the port of before if there was one."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._server = TestServer(application, host="127.0.0.1", port=self.port or None)
        await self._server.start_server(ssl=_context(self.files) if self.files else None)
        assert self._server.port is not None
        self.port = self._server.port

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.close()

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append(Received(method=request.method, path=request.path, headers=request.headers, body=body))
        async with self._arrived:
            self._arrived.notify_all()
        response = self.script(len(self.received) - 1)
        if response is None:
            # Until the client goes away, or the server.
            await asyncio.Event().wait()
            raise AssertionError
        return response


def reply(document: object = None, *, status: int = 200) -> web.Response:
    return web.json_response({"allow": True} if document is None else document, status=status)


def always(document: object = None, *, status: int = 200) -> Script:
    """Return a script with one reply, made anew each time."""
    return lambda _count: reply(document, status=status)


@asynccontextmanager
async def webhook_server(
    script: Script | None = None, *, files: ServerFiles | None = None
) -> AsyncIterator[WebhookServer]:
    """Lend a running server; one without a script says yes."""
    server = WebhookServer(script=script or always(), files=files)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def _context(files: ServerFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    return context
