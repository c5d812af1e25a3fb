"""The listening socket: aiohttp set up with our limits, each connection under a guard, and an orderly end.

The middleware here tells the guard how far a request has come and keeps what concerns every request alike: body
read in full before a handler runs, no content codings, no version banner. Routes and answers are others' work.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, cast

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from scep_ra.web.connections import ConnectionCensus, ConnectionGuard, Event, GuardLimits, Phase
from scep_ra.web.http_log import HTTP_LOGGER

_log = structlog.stdlib.get_logger(__name__)

# A GET PKIOperation carries the message in the request line: 64 KiB holds 48 KiB of CMS, three times the largest seen.
_MAX_REQUEST_LINE_BYTES: Final = 65536
# Clients send five to ten. The size of one stays at aiohttp's 8190 bytes, so headers cost at most half a MiB.
_MAX_HEADERS: Final = 64
# A burst of a thousand devices after a power cut must not be refused by the kernel.
_BACKLOG: Final = 1024
# How long aiohttp waits for handlers that are still at work after the drain, before it cancels them. 0 means forever.
_CANCEL_AFTER_S: Final = 0.1
_RETRY_AFTER_S: Final = "10"
_SERVER_NAME: Final = "scep-ra"


class Listener:
    """A listening server. Make one with `start`, end it with `drain`."""

    def __init__(self, app: web.Application, limits: GuardLimits) -> None:
        self.census: Final = ConnectionCensus(limits)
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        # The outermost middleware, so that the guard hears of every request first and of every answer last.
        app.middlewares.insert(0, self._attend)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=HTTP_LOGGER,
            handle_signals=False,
            # A device that hangs up does not undo an enrollment that has begun; it asks again and gets the same.
            handler_cancellation=False,
            # The guard ends idle connections; aiohttp's own timer counts headers as idleness and must come later.
            keepalive_timeout=limits.idle_timeout_s + limits.header_timeout_s + 1,
            shutdown_timeout=_CANCEL_AFTER_S,
            max_line_size=_MAX_REQUEST_LINE_BYTES,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,
        )
        self._server: asyncio.Server
        self.port: int

    @classmethod
    async def start(cls, app: web.Application, *, sock: socket.socket, limits: GuardLimits) -> Listener:
        """Serve the application on a bound TCP socket, which then belongs to the listener."""
        listener = cls(app, limits)
        await listener._runner.setup()
        make_protocol = cast(web.Server, listener._runner.server)
        listener._server = await asyncio.get_running_loop().create_server(
            lambda: ConnectionGuard(make_protocol(), limits, listener.census), sock=sock, backlog=_BACKLOG
        )
        listener.port = sock.getsockname()[1]
        return listener

    @property
    def requests_in_flight(self) -> int:
        """Requests whose headers are complete and whose answer is not ready."""
        return self._in_flight

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let requests in flight finish, and after `timeout_s` cut off what is left."""
        self.census.closing = True
        self._server.close()
        for guard in self.census:
            guard.close_if_idle()
        try:
            async with asyncio.timeout(timeout_s):
                # A device may have hung up while its request is still carried out, so both are waited for.
                await self._quiet.wait()
                await self.census.wait_empty()
        except TimeoutError:
            _log.warning("drain_cut_off", connections=len(self.census), requests=self._in_flight)
        for guard in self.census:
            guard.abort()
        await self.census.wait_empty()
        await self._runner.cleanup()

    @web.middleware
    async def _attend(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._in_flight += 1
        self._quiet.clear()
        try:
            return await self._answer(request, handler)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._quiet.set()

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest  # The peer left meanwhile; nobody reads this.
        guard = cast(ConnectionGuard, transport.get_protocol())
        try:
            response = await self._answer_guarded(request, handler, guard)
            self._finish(response, guard)
        except web.HTTPException as refusal:
            self._finish(refusal, guard)
            raise
        finally:
            guard.advance(Event.ANSWERED)
        return response

    async def _answer_guarded(
        self, request: web.Request, handler: Handler, guard: ConnectionGuard
    ) -> web.StreamResponse:
        try:
            # A peer that pipelines and does not read gets no further work done.
            await request.writer.drain()
            guard.advance(Event.REQUEST)
            self._check_acceptable(request)
            await request.read()
        except (ConnectionError, web.RequestPayloadError):
            raise web.HTTPBadRequest(text="the body is cut short or badly framed") from None
        guard.advance(Event.BODY_READ)
        return await handler(request)

    def _check_acceptable(self, request: web.Request) -> None:
        if self.census.closing:
            raise web.HTTPServiceUnavailable(headers={hdrs.RETRY_AFTER: _RETRY_AFTER_S}, text="shutting down")
        # No SCEP client compresses; 48 kB of gzip can hold 50 MB.
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
            raise web.HTTPUnsupportedMediaType(text="send the body without Content-Encoding")

    def _finish(self, response: web.StreamResponse, guard: ConnectionGuard) -> None:
        response.headers[hdrs.SERVER] = _SERVER_NAME
        # In phase BODY the rest of the body is still to come, and no next request can be told from it.
        if self.census.closing or guard.phase is Phase.BODY:
            response.force_close()
