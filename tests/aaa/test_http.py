"""Claims about AAA by HTTP: what a service gets to see, and what becomes of services that misbehave."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, MalformedAnswer, Reject
from scep_ra.aaa.http import HttpAuthorizer, HttpSettings, http_settings
from scep_ra.config_aaa import GUARD_KEYS, HttpConfig
from scep_ra.errors import BackendError, ConfigurationError, Misconfigured, Unavailable
from scep_ra.pki.csr import build_request
from scep_ra.pki.names import parse_name
from tests.support.authorizer_benches import write_private
from tests.support.authorizers import notice, question
from tests.support.pki import NOW, make_key
from tests.support.tls import write_server_files
from tests.support.webhook_server import WebhookServer, always, reply, webhook_server

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef")
CSR = build_request(subject=parse_name("CN=SN1"), key=make_key("ec-p256"))

Asking = Callable[..., AbstractAsyncContextManager[HttpAuthorizer]]


@asynccontextmanager
async def asking(server: WebhookServer, **fields: Any) -> AsyncIterator[HttpAuthorizer]:
    """Lend an authorizer that asks this server, and repeats itself at once."""
    settings = {"retry_s": 0.0, "notice_retries_s": (0.0, 0.0), "timeout_s": 20.0, **fields}
    authorizer = HttpAuthorizer(HttpSettings(url=server.url, **settings), lambda: NOW)
    yield authorizer
    await authorizer.close()


@pytest.fixture
async def server() -> AsyncIterator[WebhookServer]:
    async with webhook_server() as running:
        yield running


# --- settings ------------------------------------------------------------------------------------------------------


def settings_of(tmp_path: Path, **keys: Any) -> HttpSettings:
    table = HttpConfig.model_validate({"url": "https://aaa.example/hook", **keys})
    return http_settings(table.model_dump(exclude=set(GUARD_KEYS)), data_directory=tmp_path, timeout_s=3)


def test_the_keys_of_the_table_are_the_settings(tmp_path: Path) -> None:
    """Files are relative to the data directory."""
    keys = {"secret_file": "s", "token_file": "t", "ca_file": "c", "user": "ra", "kind": "SCEPCHALLENGE"}
    assert settings_of(tmp_path, **keys, notify=True) == HttpSettings(
        url="https://aaa.example/hook",
        kind="SCEPCHALLENGE",
        secret_file=tmp_path / "s",
        token_file=tmp_path / "t",
        ca_file=tmp_path / "c",
        user="ra",
        notify=True,
        timeout_s=3,
    )
    assert settings_of(tmp_path).secret_file is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]:8080", "localhost"])
def test_questions_may_go_to_this_machine_in_the_clear(tmp_path: Path, host: str) -> None:
    """Nobody is on the way."""
    assert settings_of(tmp_path, url=f"http://{host}/hook").host


@pytest.mark.parametrize("host", ["192.0.2.1", "aaa.example", "localhost.example", "127.0.0.1.example", "0.0.0.0"])
def test_questions_go_elsewhere_by_tls_unless_somebody_means_it(tmp_path: Path, host: str) -> None:
    """Who is on the way could say yes."""
    with pytest.raises(ConfigurationError, match="insecure_plaintext"):
        settings_of(tmp_path, url=f"http://{host}/hook")
    assert settings_of(tmp_path, url=f"http://{host}/hook", insecure_plaintext=True).host == host


def test_credentials_have_files_of_their_own(tmp_path: Path) -> None:
    """A URL is in logs and process lists; the message does not repeat it."""
    with pytest.raises(ConfigurationError, match="token_file") as caught:
        settings_of(tmp_path, url="https://ra:hunter2@aaa.example/hook")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="user needs token_file"):
        settings_of(tmp_path, user="ra")


# --- what a service gets -------------------------------------------------------------------------------------------


async def test_a_service_that_knows_the_secret_can_tell_that_a_question_is_ours(
    server: WebhookServer, tmp_path: Path
) -> None:
    """X-Smallstep-Signature is the HMAC-SHA256 over the very body; each question has an ID of its own."""
    write_private(tmp_path / "secret", SECRET + b"\n")
    async with asking(server, secret_file=tmp_path / "secret", webhook_id="corp") as authorizer:
        assert await authorizer.authorize(question()) == Accept()
        await authorizer.authorize(question())
    first, second = server.received
    expected = hmac.new(base64.b64decode(SECRET), first.body, hashlib.sha256).hexdigest()
    assert first.headers["X-Smallstep-Signature"] == expected
    assert (first.method, first.path, first.headers["Content-Type"]) == ("POST", "/hook", "application/json")
    assert first.headers["X-Smallstep-Webhook-ID"] == "corp"
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert first.document["scepRa"]["deviceId"] == {"kind": "serial", "value": "SN1"}
    assert "Authorization" not in first.headers


@pytest.mark.parametrize(("user", "header"), [("", "Bearer s3cret"), ("ra", "Basic cmE6czNjcmV0")])
async def test_a_token_goes_along_as_bearer_or_password(
    server: WebhookServer, tmp_path: Path, user: str, header: str
) -> None:
    """RFC 6750 2.1, RFC 7617 2; without a secret nothing is signed."""
    write_private(tmp_path / "token", b"s3cret\n")
    async with asking(server, token_file=tmp_path / "token", user=user) as authorizer:
        await authorizer.authorize(question())
    assert server.received[0].headers["Authorization"] == header
    assert "X-Smallstep-Signature" not in server.received[0].headers


async def test_a_token_can_be_changed_while_the_server_runs(server: WebhookServer, tmp_path: Path) -> None:
    """It is read for each question."""
    write_private(tmp_path / "token", b"old")
    async with asking(server, token_file=tmp_path / "token") as authorizer:
        await authorizer.authorize(question())
        (tmp_path / "token").write_bytes(b"new")
        await authorizer.authorize(question())
    assert [each.headers["Authorization"] for each in server.received] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    ("fields", "octets", "words"),
    [
        ("token_file", b"two\nlines", "one line of ASCII"),
        ("token_file", "gr\u00fcn".encode(), "one line of ASCII"),
        ("secret_file", b"not base64!", "openssl rand -base64"),
        ("secret_file", b"", "is empty"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_for_a_person_to_mend(
    server: WebhookServer, tmp_path: Path, fields: str, octets: bytes, words: str
) -> None:
    """Nothing is sent, and the message does not repeat it."""
    write_private(tmp_path / "file", octets)
    async with asking(server, **{fields: tmp_path / "file"}) as authorizer:
        with pytest.raises(Misconfigured, match=words) as caught:
            await authorizer.authorize(question())
        assert not octets or octets.decode() not in str(caught.value)
        with pytest.raises(Misconfigured):
            await authorizer.check()
    assert not server.received


# --- what services answer ------------------------------------------------------------------------------------------


async def test_a_service_allows_and_denies(server: WebhookServer) -> None:
    """Data become attributes."""
    server.script = lambda count: reply(
        {"allow": True, "data": {"user": "alice"}} if count == 0 else {"allow": False, "error": {"message": "stolen"}}
    )
    async with asking(server) as authorizer:
        assert await authorizer.authorize(question()) == Accept(attributes={"user": "alice"})
        assert await authorizer.authorize(question()) == Reject(reason="stolen")


@pytest.mark.parametrize("status", [201, 299])
async def test_every_success_is_one(server: WebhookServer, status: int) -> None:
    """Frameworks answer a POST with 201."""
    server.script = always(status=status)
    async with asking(server) as authorizer:
        assert await authorizer.authorize(question()) == Accept()


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (400, Unavailable, 1),
        (401, Misconfigured, 1),
        (403, Misconfigured, 1),
        (404, Unavailable, 1),
        (429, Unavailable, 1),
        (500, Unavailable, 2),
        (503, Unavailable, 2),
    ],
)
async def test_whatever_else_is_no_answer_and_a_server_error_is_asked_about_once_more(
    server: WebhookServer, status: int, error: type[BackendError], attempts: int
) -> None:
    """As step-ca does; the body, which may say allow, does not count."""
    server.script = always({"allow": True}, status=status)
    async with asking(server) as authorizer:
        with pytest.raises(error, match=f"HTTP {status}"):
            await authorizer.authorize(question())
    assert len({each.headers["X-Request-Id"] for each in server.received}) == 1
    assert [each.body for each in server.received] == [server.received[0].body] * attempts


async def test_the_second_attempt_counts(server: WebhookServer) -> None:
    """A service that was being restarted."""
    server.script = lambda count: reply(status=503 if count == 0 else 200)
    async with asking(server) as authorizer:
        assert await authorizer.authorize(question()) == Accept()


async def test_nobody_is_asked_but_whom_the_configuration_names(server: WebhookServer) -> None:
    """Redirects lead to whom somebody else wants."""
    async with webhook_server() as other:
        headers = {"Location": other.url}
        server.script = lambda _count: web.Response(status=307, headers=headers)
        async with asking(server) as authorizer:
            with pytest.raises(Misconfigured, match="HTTP 307"):
                await authorizer.authorize(question())
            await authorizer.check()
        assert not other.received


async def test_proxies_of_the_environment_are_not_asked(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for other programs, and would see questions and answers."""
    async with webhook_server(always({"allow": False})) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with asking(server) as authorizer:
            assert await authorizer.authorize(question()) == Accept()
        assert not proxy.received


async def test_a_reply_of_any_length_costs_no_more_than_allowed(server: WebhookServer) -> None:
    """One octet more is no answer."""
    body = json.dumps({"allow": True}).ljust(2048).encode()
    server.script = lambda _count: web.Response(body=body)
    async with asking(server, max_reply_bytes=2048) as authorizer:
        assert await authorizer.authorize(question()) == Accept()
    async with asking(server, max_reply_bytes=2047) as authorizer:
        with pytest.raises(MalformedAnswer, match="longer than 2047 octets"):
            await authorizer.authorize(question())


async def test_a_reply_is_not_decompressed(server: WebhookServer) -> None:
    """A few octets could become gigabytes; we ask for none of it."""

    def compressed(_count: int) -> web.Response:
        response = web.json_response({"allow": True})
        response.enable_compression(web.ContentCoding.gzip)
        return response

    server.script = compressed
    async with asking(server) as authorizer:
        with pytest.raises(MalformedAnswer):
            await authorizer.authorize(question())
    assert server.received[0].headers["Accept-Encoding"] == "identity"


# --- services that come and go -------------------------------------------------------------------------------------


async def test_nobody_there_is_no_answer(server: WebhookServer) -> None:
    """Named by host, without the path, in which people put tokens."""
    await server.stop()
    async with asking(server) as authorizer:
        for ask in (lambda: authorizer.authorize(question()), authorizer.check):
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1 gives no answer") as caught:
                await ask()
            assert "hook" not in str(caught.value)


async def test_a_service_that_was_restarted_is_asked_over_a_new_connection(server: WebhookServer) -> None:
    """The old one is found dead when it is used, which costs the one repetition."""
    async with asking(server) as authorizer:
        await authorizer.authorize(question())
        await server.stop()
        await server.start()
        assert await authorizer.authorize(question()) == Accept()


async def test_a_service_that_speaks_no_http_is_no_answer() -> None:
    """Without a quotation of what it said, or of the URL."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(babble, "127.0.0.1")
    port = listener.sockets[0].getsockname()[1]
    settings = HttpSettings(url=f"http://127.0.0.1:{port}/hook?token=hunter2", retry_s=0)
    authorizer = HttpAuthorizer(settings, lambda: NOW)
    with pytest.raises(Unavailable, match="gives no answer") as caught:
        await authorizer.authorize(question())
    assert "hunter2" not in str(caught.value)
    await authorizer.close()
    listener.close()
    await listener.wait_closed()


async def test_a_service_that_says_nothing_is_given_up(server: WebhookServer) -> None:
    """Whoever waits has a deadline, and so has the socket."""
    server.script = lambda _count: None
    async with asking(server, timeout_s=0.05) as authorizer:
        with pytest.raises(Unavailable, match="gives no answer"):
            await authorizer.authorize(question())
        with pytest.raises(Unavailable, match="gives no answer"):
            await authorizer.check()


async def test_who_stops_waiting_leaves_no_answer_for_the_next(server: WebhookServer) -> None:
    """The reply to a question that was given up is not taken for that to another."""
    server.script = lambda count: None if count == 0 else reply({"allow": False})
    async with asking(server) as authorizer:
        waiting = asyncio.create_task(authorizer.authorize(question("SN1")))
        await server.wait_for(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert isinstance(await authorizer.authorize(question("SN2")), Reject)


async def test_many_questions_at_once_get_their_own_answers(server: WebhookServer) -> None:
    """And make one client between them."""
    server.script = lambda count: reply({"allow": True, "data": {"nonce": str(count)}})
    async with asking(server) as authorizer:
        answers = await asyncio.gather(*(authorizer.authorize(question()) for _ in range(50)))
    assert {each.attributes["nonce"] for each in answers if isinstance(each, Accept)} == set(map(str, range(50)))


async def test_what_was_never_asked_closes() -> None:
    """No connection is made before the first question."""
    await HttpAuthorizer(HttpSettings(url="https://aaa.example"), lambda: NOW).close()


# --- TLS -----------------------------------------------------------------------------------------------------------


async def test_a_service_is_believed_by_its_certificate(tmp_path: Path) -> None:
    """From the CA that the configuration names."""
    files = write_server_files(tmp_path)
    async with webhook_server(files=files) as server, asking(server, ca_file=files.ca) as authorizer:
        assert await authorizer.authorize(question()) == Accept()
        await authorizer.check()


async def test_a_service_with_somebody_elses_certificate_is_not_asked(tmp_path: Path) -> None:
    """Neither from another CA nor for another address; no octet of the question is sent."""
    files = write_server_files(tmp_path)
    stranger = write_server_files(tmp_path, owner="stranger")
    moved = write_server_files(tmp_path, address="192.0.2.1", owner="moved")
    for served, trusted in ((files, stranger.ca), (files, None), (moved, moved.ca)):
        async with webhook_server(files=served) as server, asking(server, ca_file=trusted) as authorizer:
            with pytest.raises(Misconfigured, match="look at ca_file"):
                await authorizer.authorize(question())
            with pytest.raises(Misconfigured, match="look at ca_file"):
                await authorizer.check()
            assert not server.received


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_ca_file_that_holds_no_cas_is_for_a_person_to_mend(
    server: WebhookServer, tmp_path: Path, content: bytes | None
) -> None:
    """It is never replaced by the CAs of the system."""
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    async with asking(server, ca_file=tmp_path / "ca.pem") as authorizer:
        with pytest.raises(Misconfigured, match=r"ca_file .*ca\.pem holds no CA"):
            await authorizer.authorize(question())


# --- readiness -----------------------------------------------------------------------------------------------------


async def test_a_service_is_there_whatever_it_says_to_a_question_about_nobody(server: WebhookServer) -> None:
    """Some know no HEAD."""
    server.script = always(status=405)
    async with asking(server) as authorizer:
        await authorizer.check()
    assert [each.method for each in server.received] == ["HEAD"]


# --- notices -------------------------------------------------------------------------------------------------------


async def test_a_service_hears_what_became_of_requests(server: WebhookServer) -> None:
    """In the background; the reply does not matter."""
    server.script = lambda _count: web.Response(body=b"thanks")
    async with asking(server, notify=True) as authorizer:
        authorizer.notify(notice(csr=CSR, reason="too late"))
        await server.wait_for(1)
    assert server.received[0].document["scepErrorDescription"] == "too late"
    assert len(server.received) == 1


async def test_a_service_that_wants_no_notices_gets_none(server: WebhookServer) -> None:
    """It is asked only."""
    async with asking(server) as authorizer:
        authorizer.notify(notice(csr=CSR))
        await authorizer.authorize(question())
    assert len(server.received) == 1
    assert "scepErrorCode" not in server.received[0].document


async def test_a_notice_is_repeated_and_given_up(server: WebhookServer) -> None:
    """Three times here, the same each time; then the log has it."""
    server.script = always(status=500)
    with capture_logs() as log:
        async with asking(server, notify=True) as authorizer:
            authorizer.notify(notice(csr=CSR))
            await server.wait_for(3)
    assert len({each.headers["X-Request-Id"] for each in server.received}) == 1
    (line,) = [each for each in log if each["event"] == "notice_failed"]
    assert (line["device_id"], line["transaction_id"]) == ("serial:SN1", "T1")
    assert "HTTP 500" in line["reason"]


async def test_a_notice_that_comes_through_late_has_come_through(server: WebhookServer) -> None:
    """Nothing is logged as lost."""
    server.script = lambda count: reply(status=500 if count == 0 else 200)
    with capture_logs() as log:
        async with asking(server, notify=True) as authorizer:
            authorizer.notify(notice(csr=CSR))
            await server.wait_for(2)
    assert [each["event"] for each in log] == ["notice_sent"]


async def test_notices_do_not_pile_up(server: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a service that is away for long, the rest is dropped."""
    monkeypatch.setattr("scep_ra.aaa.http._MAX_NOTICES", 1)
    with capture_logs() as log:
        async with asking(server, notify=True) as authorizer:
            authorizer.notify(notice(csr=CSR))
            authorizer.notify(notice(csr=CSR))
    assert [each["event"] for each in log] == ["notice_dropped", "notice_sent"]


async def test_the_end_waits_for_notices_but_not_for_ever(server: WebhookServer) -> None:
    """A service that says nothing does not keep the server from stopping."""
    server.script = lambda _count: None
    async with asking(server, notify=True, timeout_s=0.2, notice_retries_s=(3600.0,)) as authorizer:
        authorizer.notify(notice(csr=CSR))
        await server.wait_for(1)
    assert len(server.received) == 1
