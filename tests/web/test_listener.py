"""Tests of `scep_ra.web.listener`: HTTP as clients speak it, and an orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import web
from blockbuster import blockbuster_ctx
from structlog.testing import capture_logs

from scep_ra.web.connections import ConnectionGuard
from scep_ra.web.listener import Listener
from tests.support.listening import GET, GET_HELD, MAX_BODY_BYTES, limits, listening
from tests.support.raw_http import PATIENCE_S, connect

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> Iterator[None]:
    """Fail a test whose event loop waits for disk, network or a lock in our modules."""
    with blockbuster_ctx("scep_ra"):
        yield


async def exchange(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with connect(port) as client:
        client.send(request)
        answer = await client.answer()
    return answer.status, answer.headers, answer.body


async def begin_drain(listener: Listener) -> asyncio.Task[None]:
    task = asyncio.create_task(listener.drain(PATIENCE_S))
    await asyncio.sleep(0)  # one step, in which the socket is closed
    with pytest.raises(ConnectionRefusedError):
        async with connect(listener.port):
            pass
    return task


async def test_http_1_0_without_host_is_served_and_closed() -> None:
    """Old IOS and sscep speak so."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")

        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_expect_100_continue_is_granted() -> None:
    """The curl family waits for it before sending a larger body."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert (await client.answer()).status == 100
        client.send(b"12345")

        assert (await client.answer()).body == b"5"


async def test_a_chunked_body_is_put_together() -> None:
    """RFC 9112 7.1."""
    async with listening() as stage:
        chunks = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
        _, _, body = await exchange(stage.port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

    assert body == b"7"


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Two requests in one segment get two answers on one connection."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(POST + b"Content-Length: 1\r\n\r\nx" + GET)

        assert [(await client.answer()).body, (await client.answer()).body] == [b"1", b"0"]


async def test_head_has_no_body() -> None:
    """HEAD is answered like GET, without the content."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await client.answer(head=True)
        client.send(GET)

        assert (head.headers["content-length"], (await client.answer()).body) == ("1", b"0")


@pytest.mark.parametrize(("length", "status"), [(60000, 200), (70000, 400)])
async def test_a_long_request_line_is_served_up_to_the_limit(length: int, status: int) -> None:
    """A GET PKIOperation of 45 kB of CMS fits; a longer line is refused, not waited for."""
    async with listening() as stage:
        line = b"GET /?message=" + b"A" * length + b" HTTP/1.1\r\n"
        assert (await exchange(stage.port, line + b"Host: x\r\n\r\n"))[0] == status


async def test_too_many_headers_are_refused() -> None:
    """Memory for headers is bounded by their number, too."""
    async with listening() as stage:
        headers = b"".join(b"X-%d: a\r\n" % number for number in range(100))
        assert (await exchange(stage.port, b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"))[0] == 400


async def test_a_body_beyond_the_limit_is_413_and_the_connection_ends() -> None:
    """One octet too many is refused while it arrives, and the next request is served elsewhere."""
    async with listening() as stage:
        async with connect(stage.port) as client:
            client.send(POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1) + bytes(MAX_BODY_BYTES + 1))
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            await client.rest()
        assert (await exchange(stage.port, GET))[0] == 200


async def test_a_compressed_body_is_refused_unread() -> None:
    """No SCEP client compresses, so nothing is ever decompressed."""
    async with listening() as stage:
        status, headers, _ = await exchange(stage.port, POST + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n")

    assert (status, headers["connection"]) == (415, "close")


async def test_the_answer_names_no_version() -> None:
    """Neither an answer nor a refusal says what software this is made of."""
    async with listening() as stage:
        banners = [
            (await exchange(stage.port, request))[1]["server"] for request in (GET, GET.replace(b"/ ", b"/none "))
        ]

    assert banners == ["scep-ra", "scep-ra"]


async def test_a_badly_framed_chunk_is_400() -> None:
    """What is no chunk is the peer's fault and no incident of ours."""
    async with listening() as stage:
        with capture_logs() as events:
            async with connect(stage.port) as client:
                client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
                client.send(b"zz\r\nabc\r\n")
                answer = await client.answer()

    assert answer.status == 400
    assert not [event for event in events if event["log_level"] == "error"]


async def test_a_body_cut_short_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The device's power goes in the middle of a request: no traceback, and the next one is served."""
    async with listening() as stage:
        async with connect(stage.port) as client:
            client.send(POST + b"Expect: 100-continue\r\nContent-Length: 500\r\n\r\nabc")
            assert (await client.answer()).status == 100
        await asyncio.wait_for(stage.listener.census.wait_empty(), PATIENCE_S)
        assert (await exchange(stage.port, GET))[0] == 200

    assert caplog.records == []


async def test_a_request_whose_peer_left_before_it_began_is_dropped() -> None:
    """The handler of a pipelined request is not run when its connection is gone."""
    async with listening() as stage:
        async with connect(stage.port) as client:
            client.send(GET_HELD + GET_HELD)
            await stage.entered.wait()
        await asyncio.wait_for(stage.listener.census.wait_empty(), PATIENCE_S)
        stage.entered.clear()
        stage.release.set()
        await stage.listener.drain(PATIENCE_S)

        assert not stage.entered.is_set()


async def test_a_request_without_connection_runs_no_handler() -> None:
    """A request may start a request in the very turn in which its connection is lost."""
    listener = Listener(web.Application(), limits())

    class Gone:
        transport = None

    async def handler(_request: web.Request) -> web.StreamResponse:
        raise AssertionError("must not run")

    with pytest.raises(web.HTTPBadRequest):
        await listener._attend(Gone(), handler)  # type: ignore[arg-type]  # all that is looked at


async def test_a_drain_finishes_what_is_in_flight() -> None:
    """The answer under way arrives, says that the connection ends, and nobody new is let in."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(GET_HELD)
        await stage.entered.wait()
        assert stage.listener.requests_in_flight == 1
        drained = await begin_drain(stage.listener)
        stage.release.set()
        answer = await client.answer()
        await drained

    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"done", "close")
    assert stage.listener.requests_in_flight == 0


async def test_a_drain_closes_idle_connections() -> None:
    """Keep-alive connections without a request do not hold the process up."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(GET)
        await client.answer()
        async with asyncio.timeout(PATIENCE_S):
            await stage.listener.drain(PATIENCE_S)

        assert await client.rest() == b""


async def test_a_request_that_comes_during_the_drain_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose headers end after the drain has begun gets 503, Retry-After and the end of its connection."""
    begun = asyncio.Event()
    forward = ConnectionGuard.data_received

    def receive(guard: ConnectionGuard, data: bytes) -> None:
        forward(guard, data)
        begun.set()

    monkeypatch.setattr(ConnectionGuard, "data_received", receive)
    async with listening() as stage, connect(stage.port) as client:
        client.send(b"GET / HTTP/1.1\r\n")
        await begun.wait()
        drained = await begin_drain(stage.listener)
        client.send(b"Host: x\r\n\r\n")
        answer = await client.answer()
        await drained

    assert (answer.status, answer.headers["connection"], "retry-after" in answer.headers) == (503, "close", True)


async def test_a_drain_cuts_off_what_does_not_end() -> None:
    """After its time the drain ends whatever is left, and says so."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(GET_HELD)
        await stage.entered.wait()
        with capture_logs() as events:
            await stage.listener.drain(0.05)

        assert await client.rest() == b""
    assert events == [{"event": "drain_cut_off", "log_level": "warning", "connections": 1, "requests": 1}]


async def test_a_drain_waits_for_a_request_whose_device_has_hung_up() -> None:
    """What has begun is carried out although nobody reads the answer."""
    async with listening() as stage:
        async with connect(stage.port) as client:
            client.send(GET_HELD)
            await stage.entered.wait()
        await asyncio.wait_for(stage.listener.census.wait_empty(), PATIENCE_S)
        drained = await begin_drain(stage.listener)
        assert not drained.done()
        stage.release.set()

        await asyncio.wait_for(drained, PATIENCE_S)


async def test_a_connection_accepted_while_closing_is_refused() -> None:
    """A connection that the kernel had accepted before the drain began is counted as refused."""
    async with listening() as stage:
        stage.listener.census.closing = True
        async with connect(stage.port) as client:
            assert await client.rest() == b""
        assert stage.listener.census.refused_connections == 1
        await stage.listener.drain(PATIENCE_S)
