"""Claims about webhooks: what is posted, how it is signed, and what a status means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from scep_ra.errors import Misconfigured
from scep_ra.headend.outbox import Attempt, Verdict
from scep_ra.headend.webhooks import Webhook, WebhookSender, encode_body, judge
from scep_ra.storage.sessions import OutboxMessage
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.records import NOW, SERIAL, disconnect_device, make_certificate, make_device, make_enrollment

KEY = b"sixteen octets.."
SECRET = base64.b64encode(KEY).decode()
Received = list[tuple[CIMultiDict[str], bytes]]


@pytest.fixture
async def message(tmp_path: Path) -> AsyncIterator[OutboxMessage]:
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite"))
    await store.add_device(make_device())
    await store.insert_enrollment(make_enrollment(), spend=None)
    await store.complete(make_enrollment().enrollment_id, make_certificate(), NOW)
    yield (await disconnect_device(store, webhooks=["siem"])).messages[0]
    await store.close()


@pytest.fixture
async def sender() -> AsyncIterator[Callable[..., WebhookSender]]:
    """Return what makes a sender for one webhook."""
    senders: list[WebhookSender] = []

    def make(url: str, **fields: object) -> WebhookSender:
        senders.append(WebhookSender([Webhook(name="siem", url=url, **fields)]))  # type: ignore[arg-type]  # by name
        return senders[-1]

    yield make
    for each in senders:
        await each.close()


@pytest.fixture
async def serve(received: Received) -> AsyncIterator[Callable[[int], Awaitable[str]]]:
    """Return what starts a service that answers every post with a status."""
    servers: list[TestServer] = []

    async def start(status: int) -> str:
        async def answer(request: web.Request) -> web.Response:
            received.append((CIMultiDict(request.headers), await request.read()))
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        application = web.Application()
        application.router.add_post("/{path:.*}", answer)
        servers.append(TestServer(application))
        await servers[-1].start_server()
        return str(servers[-1].make_url("/hook"))

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def received() -> Received:
    return []


def test_the_body_tells_what_was_done_with_numbers_as_numbers(message: OutboxMessage) -> None:
    """Every attempt sends the same."""
    assert json.loads(encode_body(message)) == {
        "id": "serial:SN123 1",
        "event": "device.disconnected",
        "timestamp": "2026-03-01T12:00:00.123456+00:00",
        "device": {"kind": "serial", "value": "SN123"},
        "entry": "disable",
        "entry_changed": True,
        "by": "alice",
        "certificates_revoked": [f"default/{SERIAL + 1:x}"],
        "challenges_voided": 0,
        "headends": [],
        "requests_condemned": 0,
        "requests_rejected": 0,
        "revocation_reason": 5,
        "sessions": 0,
    }
    assert encode_body(message) == encode_body(message)


async def test_a_post_is_signed_and_names_itself(
    message: OutboxMessage,
    sender: Callable[..., WebhookSender],
    serve: Callable[[int], Awaitable[str]],
    received: Received,
) -> None:
    """So that the receiver can tell us, and a repetition."""
    hook = sender(await serve(200), read_secret=lambda: SECRET)
    assert await hook.send(message) == Attempt(verdict=Verdict.DONE, result="200")
    await hook.send(message)
    headers, body = received[0]
    assert headers["X-Smallstep-Signature"] == hmac.new(KEY, body, hashlib.sha256).hexdigest()
    assert headers["X-Smallstep-Webhook-ID"] == "siem"
    assert headers["X-Request-Id"] == message.message_id
    assert headers["Content-Type"] == "application/json"
    assert received[1][1] == body == encode_body(message)


async def test_without_a_secret_nothing_is_signed(
    message: OutboxMessage,
    sender: Callable[..., WebhookSender],
    serve: Callable[[int], Awaitable[str]],
    received: Received,
) -> None:
    """An empty signature would look like one."""
    await sender(await serve(204)).send(message)
    assert "X-Smallstep-Signature" not in received[0][0]


async def test_a_redirect_is_not_followed(
    message: OutboxMessage,
    sender: Callable[..., WebhookSender],
    serve: Callable[[int], Awaitable[str]],
    received: Received,
) -> None:
    """The configuration says who gets it."""
    attempt = await sender(await serve(307)).send(message)
    assert (attempt, len(received)) == (Attempt(verdict=Verdict.SILENT, result="HTTP 307"), 1)


async def test_nobody_at_the_address_is_silence(
    message: OutboxMessage, sender: Callable[..., WebhookSender], unused_tcp_port: int
) -> None:
    """It is tried again."""
    attempt = await sender(f"http://127.0.0.1:{unused_tcp_port}/hook").send(message)
    assert attempt.verdict is Verdict.SILENT
    assert "Cannot connect" in attempt.result


async def test_a_sender_that_sent_nothing_closes(sender: Callable[..., WebhookSender]) -> None:
    """Most servers never disconnect anybody."""
    await sender("http://127.0.0.1:1/").close()


async def test_a_webhook_that_left_the_configuration_is_refused_by_name(message: OutboxMessage) -> None:
    """Whoever reads it knows what to mend."""
    attempt = await WebhookSender([]).send(message)
    assert attempt == Attempt(verdict=Verdict.REFUSED, result="no [webhook.siem] in the configuration")


async def test_a_secret_that_is_not_base64_is_not_used_and_not_quoted(
    message: OutboxMessage, sender: Callable[..., WebhookSender]
) -> None:
    """The message says how to make one."""
    with pytest.raises(Misconfigured, match="openssl rand -base64 32") as caught:
        await sender("http://127.0.0.1:1/", read_secret=lambda: "not base64!").send(message)
    assert "not base64!" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(
    message: OutboxMessage, sender: Callable[..., WebhookSender], tmp_path: Path, text: str | None
) -> None:
    """Missing, or something else."""
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Misconfigured, match=rf"{file}: no CAs for \[webhook.siem\]"):
        await sender("https://127.0.0.1:1/", ca_file=file).send(message)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DONE),
        (202, Verdict.DONE),
        (301, Verdict.SILENT),
        (401, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (408, Verdict.SILENT),
        (429, Verdict.SILENT),
        (500, Verdict.SILENT),
        (503, Verdict.SILENT),
    ],
)
def test_a_status_tells_whether_to_try_again(status: int, verdict: Verdict) -> None:
    """What a service cannot help may pass; what it will not take stays so."""
    assert judge(status).verdict is verdict


async def test_what_is_told_of_a_failure_never_holds_the_url(
    sender: Callable[..., WebhookSender], message: OutboxMessage
) -> None:
    """Whoever knows the URL of a chat's webhook may write there, and the result is shown by the API."""

    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/hook/hunter2", "http:///hook/hunter2"):
            attempt = await sender(url).send(message)
            assert attempt.verdict is Verdict.SILENT
            assert "hunter2" not in attempt.result
    assert (await sender(f"http://127.0.0.1:{port}/hook/hunter2").send(message)).result.startswith("ClientConnector")
