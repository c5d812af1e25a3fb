"""A SCEP server for client tests: the server core behind the standard library's HTTP server, in a thread.

Deliberately not the product's web front, so that the client commands are told against somebody else's HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

from scep_ra.scep.http_binding import ScepCall, ScepReply, parse_call
from scep_ra.scep.server import (
    CACapsRequested,
    CACertRequested,
    EnrollmentRequested,
    PasswordRequired,
    PKIEvent,
    Refused,
    ScepServer,
)
from scep_ra.scep.terms import Operation
from tests.support.pki import NOW
from tests.support.scep_pair import CHALLENGE, ScepPair

Answer = Callable[[ScepCall], ScepReply]
_PATIENCE_S = 30


class ScepService:
    """The service: `decide` answers enrollments and polls, `overrides` answers an operation in place of the core."""

    def __init__(self, pair: ScepPair | None = None) -> None:
        self.pair = pair or ScepPair()
        self.overrides: dict[Operation, ScepReply] = {}
        self.pending = 0  # so many answers are PENDING before the certificate
        self.decide: Callable[[PKIEvent], ScepReply] = self.issue
        self.events: list[PKIEvent] = []
        self.spki = b""
        self.url = ""

    @property
    def core(self) -> ScepServer:
        return self.pair.server

    @property
    def requests(self) -> list[EnrollmentRequested]:
        """Return the enrollments seen so far."""
        return [event for event in self.events if isinstance(event, EnrollmentRequested)]

    def issue(self, event: PKIEvent) -> ScepReply:
        """Issue a certificate when the time has come."""
        if isinstance(event, EnrollmentRequested):
            self.spki = event.csr.spki
        if self.pending:
            self.pending -= 1
            return self.core.pending(event.reply_to)
        return self.core.success(event.reply_to, [self.pair.issue(self.spki)])

    def answer(self, call: ScepCall) -> ScepReply:
        """Answer one call."""
        if call.operation in self.overrides:
            return self.overrides[call.operation]
        event = self.core.receive(call, NOW)
        match event:
            case CACapsRequested():
                return self.core.ca_caps()
            case CACertRequested():
                return self.core.ca_cert()
            case PasswordRequired():
                event = self.core.open_with_passwords(event, [CHALLENGE.encode()])
            case Refused():
                return self.core.failure(event.reply_to, event.error.fail_info, str(event.error))
        self.events.append(event)
        return self.decide(event)


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = answer(parse_call(self.command, self.path, body, max_message_bytes=1 << 16))
            if not reply.status:  # hang up
                return
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_POST = do_GET  # noqa: N815 - the library looks for these names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/scep"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """Serve without ever answering; yield the URL."""
    over = Event()

    def wait(_: ScepCall) -> ScepReply:
        over.wait(_PATIENCE_S)
        return ScepReply(content_type="", body=b"", status=0)

    with serving(wait) as url:
        try:
            yield url
        finally:
            over.set()
