"""Tests of `scep_ra.web.connections`: caps and deadlines, on real sockets."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from scep_ra.web.connections import (
    TRANSITIONS,
    ConnectionCensus,
    ConnectionGuard,
    Event,
    Phase,
    TooManyConnections,
    source_of,
)
from tests.support.listening import GET, GET_HELD, limits, listening
from tests.support.raw_http import PATIENCE_S, connect

SHORT_S = 0.1
POST_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"


def guard_in(phase: Phase) -> ConnectionGuard:
    guard = ConnectionGuard(asyncio.Protocol(), limits(), ConnectionCensus(limits()))
    guard.phase = phase
    return guard


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
async def test_an_event_moves_a_connection_as_the_table_says_or_not_at_all(phase: Phase, event: Event) -> None:
    """Every pair of phase and event has a defined outcome."""
    guard = guard_in(phase)

    guard.advance(event)

    assert guard.phase is TRANSITIONS.get((phase, event), phase)


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.HEADERS, Phase.BODY, Phase.WRITING])
def test_every_phase_that_waits_for_the_peer_has_an_end(phase: Phase) -> None:
    """Where the peer is to act there is a deadline."""
    assert limits().timeout_s(phase) < math.inf


def test_a_phase_that_waits_for_ourselves_has_no_deadline_here() -> None:
    """A handler may take as long as the backends' own deadlines allow."""
    assert limits().timeout_s(Phase.HANDLING) == math.inf


def test_nothing_leads_out_of_closed() -> None:
    """A handler that outlives its connection wakes no timer."""
    assert not [pair for pair in TRANSITIONS if pair[0] is Phase.CLOSED]


@pytest.mark.parametrize(
    ("peername", "source"),
    [
        (("192.0.2.1", 5000), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5000, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3::4", 5000, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5000, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_source_is_an_address_or_a_subscribers_network(peername: object, source: str) -> None:
    """IPv6 peers are counted by /64, IPv4 ones by address however it is written."""
    assert source_of(peername) == source


async def test_the_census_counts_in_total_and_by_source() -> None:
    """Caps hold at their value, and one source cannot use up what is another's."""
    census = ConnectionCensus(limits(max_connections=3, max_connections_per_address=2))
    guards = [ConnectionGuard(asyncio.Protocol(), limits(), census) for _ in range(4)]
    census.admit(guards[0], "a")
    census.admit(guards[1], "a")

    with pytest.raises(TooManyConnections, match="max_connections_per_address"):
        census.admit(guards[2], "a")
    census.admit(guards[2], "b")
    with pytest.raises(TooManyConnections, match=r"max_connections$"):
        census.admit(guards[3], "c")

    assert (len(census), census.refused_connections) == (3, 2)


async def test_a_dismissed_connection_makes_room() -> None:
    """Closing frees the place, and an empty census wakes who waits for it."""
    census = ConnectionCensus(limits(max_connections_per_address=1))
    guard = ConnectionGuard(asyncio.Protocol(), limits(), census)
    census.admit(guard, "a")
    emptied = asyncio.ensure_future(census.wait_empty())

    census.dismiss(guard, "a")
    await asyncio.wait_for(emptied, PATIENCE_S)
    census.admit(guard, "a")

    assert list(census) == [guard]


async def test_connections_beyond_the_cap_are_closed_at_once() -> None:
    """The second connection of an address that may have one gets no byte, and the first is served on."""
    async with listening(limits(max_connections_per_address=1)) as stage, connect(stage.port) as first:
        first.send(GET)
        await first.answer()
        with capture_logs() as events:
            async with connect(stage.port) as second:
                assert await second.rest() == b""
        first.send(GET)
        assert (await first.answer()).status == 200

    assert [event["event"] for event in events] == ["connection_refused"]
    assert events[0]["source"] == "127.0.0.1"


@pytest.mark.parametrize("sent", [b"", GET], ids=["before the first request", "between requests"])
async def test_an_idle_connection_is_closed_in_good_order(sent: bytes) -> None:
    """Without a request the connection ends after the idle timeout, by FIN and without a log line."""
    async with listening(limits(idle_timeout_s=SHORT_S)) as stage:
        with capture_logs() as events:
            async with connect(stage.port) as client:
                started = time.monotonic()
                client.send(sent)
                if sent:
                    await client.answer()
                await client.rest()
                elapsed = time.monotonic() - started

    assert SHORT_S * 0.9 <= elapsed < SHORT_S * 20
    assert events == []


async def test_headers_in_drops_end_the_connection() -> None:
    """A peer that keeps sending header bytes does not put the deadline off."""
    async with listening(limits(header_timeout_s=SHORT_S)) as stage:
        with capture_logs() as events:
            async with connect(stage.port) as client:
                client.send(b"GET / HTTP/1.1\r\n")
                await client.dribble(itertools.repeat(b"X-A: b\r\n", 1000), every_s=SHORT_S / 10)

    assert events == [
        {"event": "connection_expired", "log_level": "info", "source": "127.0.0.1", "phase": "headers"},
    ]


async def test_a_body_in_drops_ends_the_connection() -> None:
    """The body has a deadline of its own, longer or shorter than that of the headers."""
    async with listening(limits(body_timeout_s=SHORT_S)) as stage:
        with capture_logs() as events:
            async with connect(stage.port) as client:
                client.send(POST_HEAD)
                await client.dribble(itertools.repeat(b"x", 999), every_s=SHORT_S / 10)
            await asyncio.wait_for(stage.listener.census.wait_empty(), PATIENCE_S)

    assert [(event["event"], event["phase"]) for event in events] == [("connection_expired", "body")]


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    """An answer that nobody takes is thrown away after the write timeout."""
    async with listening(limits(write_timeout_s=SHORT_S, idle_timeout_s=SHORT_S / 4)) as stage:
        with capture_logs() as events:
            async with connect(stage.port, receive_buffer_bytes=4096) as client:
                client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
                await asyncio.wait_for(stage.listener.census.wait_empty(), PATIENCE_S)

    assert [(event["event"], event["phase"]) for event in events] == [("connection_expired", "writing")]


async def test_a_large_answer_to_an_honest_reader_ends_the_write_deadline() -> None:
    """A peer that reads gets all of a large answer and may then ask again."""
    async with listening() as stage, connect(stage.port) as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        assert len((await client.answer()).body) == 16 * 2**20
        client.send(GET)
        assert (await client.answer()).status == 200


async def test_a_slow_handler_meets_no_deadline() -> None:
    """Deadlines bound the peer, not our own work: the timer fires and leaves the connection open."""
    short = limits(header_timeout_s=SHORT_S, body_timeout_s=SHORT_S, idle_timeout_s=SHORT_S, write_timeout_s=SHORT_S)
    async with listening(short) as stage, connect(stage.port) as client:
        client.send(GET_HELD)
        await stage.entered.wait()
        asyncio.get_running_loop().call_later(SHORT_S * 3, stage.release.set)

        assert (await client.answer()).body == b"done"


async def test_a_body_may_take_longer_than_the_idle_timeout() -> None:
    """A timer set for an earlier phase does not end a later one."""
    async with listening(limits(idle_timeout_s=SHORT_S / 2)) as stage, connect(stage.port) as client:
        client.send(POST_HEAD)
        asyncio.get_running_loop().call_later(SHORT_S * 2, client.send, bytes(1000))

        assert (await client.answer()).body == b"1000"


async def test_sixty_slow_connections_do_not_keep_an_honest_client_waiting() -> None:
    """All sixty dribbling connections are closed at their deadline while requests beside them are answered."""
    async with listening(limits(header_timeout_s=SHORT_S * 3)) as stage:
        async with asyncio.TaskGroup() as group:
            slow = [group.create_task(_dribble_headers(stage.port)) for _ in range(60)]
            async with connect(stage.port) as honest:
                worst_s = 0.0
                while not all(task.done() for task in slow):
                    started = time.monotonic()
                    honest.send(GET)
                    assert (await honest.answer()).status == 200
                    worst_s = max(worst_s, time.monotonic() - started)
        await asyncio.wait_for(stage.listener.census.wait_empty(), PATIENCE_S)

    assert worst_s < 1.0


async def _dribble_headers(port: int) -> None:
    async with connect(port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        await client.dribble(itertools.repeat(b"X-A: b\r\n", 100000), every_s=SHORT_S / 5)


async def test_the_end_of_input_reaches_aiohttp() -> None:
    """What the inner protocol answers to the end of input is the guard's answer."""

    class KeepsOpen(asyncio.Protocol):
        def eof_received(self) -> bool:
            return True

    guard: Any = ConnectionGuard(KeepsOpen(), limits(), ConnectionCensus(limits()))

    assert guard.eof_received() is True
