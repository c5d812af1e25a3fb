"""Tests of `scep_ra.web.http_log`: malformed HTTP is an event, a bug is a traceback."""

from __future__ import annotations

import logging

import pytest
from structlog.testing import capture_logs

from scep_ra.web.http_log import HTTP_LOGGER, report_malformed
from tests.support.listening import listening
from tests.support.raw_http import connect


@pytest.mark.parametrize(
    ("request_head", "kind"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", "InvalidHeader"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", "BadStatusLine"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "BadHttpMethod"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "BadHttpMessage"),
    ],
)
async def test_a_malformed_request_is_400_and_one_event(
    request_head: bytes, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them gives an answer, a single event and no traceback."""
    with capture_logs() as events:
        async with listening() as stage, connect(stage.port) as client:
            client.send(request_head)
            answer = await client.answer()
            await client.rest()

    assert answer.status == 400
    assert [(event["event"], event["source"]) for event in events] == [("http_malformed", "127.0.0.1")]
    assert events[0]["kind"] in {kind, "BadHttpMessage"}
    assert caplog.records == []


async def test_the_event_quotes_nothing_of_the_request() -> None:
    """A malformed header may hold a credential, so its content stays out of the log."""
    with capture_logs() as events:
        async with listening() as stage, connect(stage.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic c2VjcmV0\x00\r\n\r\n")
            await client.rest()

    assert len(events) == 1
    assert "c2VjcmV0" not in str(events)


async def test_a_bug_keeps_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that no handler expected is logged whole, once."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await client.answer()

    assert (answer.status, b"a bug" in answer.body) == (500, False)
    assert [(record.levelname, record.exc_info is not None) for record in caplog.records] == [("ERROR", True)]


def test_debug_chatter_is_dropped() -> None:
    """The logger is open for DEBUG only so that its filter sees bad methods."""
    record = HTTP_LOGGER.makeRecord("x", logging.DEBUG, "x", 1, "chatter", (), None)

    assert report_malformed(record) is False
