"""Claims about the records of refused requests: they are written, they hold nobody up, and they cannot be a flood."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from scep_ra.enrollment.refusals import BURST, RefusalLog
from scep_ra.errors import Unavailable
from scep_ra.storage.base import DecisionOutcome, StoredDecision
from tests.support.stopwatch import Stopwatch


class Archive:
    """A store that keeps batches, once its gate is open."""

    def __init__(self) -> None:
        self.batches: list[Sequence[StoredDecision]] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.script: list[Exception | None] = []

    async def add_decisions(self, decisions: Sequence[StoredDecision]) -> None:
        self.entered.set()
        await self.gate.wait()
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        self.batches.append(decisions)

    async def find_decisions(self, id_prefix: str) -> Sequence[StoredDecision]:
        raise NotImplementedError

    async def list_decisions(self, **_: object) -> Sequence[StoredDecision]:
        raise NotImplementedError

    async def prune_decisions(self, before: datetime, keep: int) -> int:
        raise NotImplementedError


def refusal(number: int, source: str = "192.0.2.1") -> StoredDecision:
    return StoredDecision(
        decision_id=f"{number:032x}",
        decided_at=datetime(2026, 3, 1, tzinfo=UTC),
        profile="default",
        transaction_id="TX1",
        source=source,
        device_id=None,
        outcome=DecisionOutcome.REFUSED,
        code="not_authorized",
        record="{}",
    )


def sizes(archive: Archive) -> list[int]:
    return [len(batch) for batch in archive.batches]


async def test_what_is_noted_is_written_without_anybody_waiting() -> None:
    """In the order of arrival, and `close` sees it through."""
    archive = Archive()
    refusals = RefusalLog(store=archive)
    for number in range(3):
        refusals.note(refusal(number))
    assert archive.batches == []

    await refusals.close()
    assert archive.batches == [[refusal(0), refusal(1), refusal(2)]]


async def test_what_comes_while_a_batch_is_written_is_the_next_batch() -> None:
    """So a slow disk makes few and large transactions."""
    archive = Archive()
    archive.gate.clear()
    refusals = RefusalLog(store=archive)
    refusals.note(refusal(0))
    await archive.entered.wait()
    for number in range(1, 5):
        refusals.note(refusal(number))
    archive.gate.set()
    await refusals.close()

    assert sizes(archive) == [1, 4]


async def test_the_writer_comes_back_after_a_pause() -> None:
    """It ends when nothing waits, and closing twice is no mistake."""
    archive = Archive()
    refusals = RefusalLog(store=archive)
    for number in range(2):
        refusals.note(refusal(number))
        await refusals.close()
    await refusals.close()

    assert sizes(archive) == [1, 1]


async def test_one_source_cannot_fill_the_disk() -> None:
    """A burst, then one a second; the rest is a number in the log, and other sources are not affected."""
    archive, clock = Archive(), Stopwatch()
    refusals = RefusalLog(store=archive, monotonic=clock)
    with capture_logs() as log:
        for number in range(100):
            refusals.note(refusal(number, "2001:db8::bad"))
        refusals.note(refusal(100, "2001:db8:1::1"))
        clock.advance(1)
        refusals.note(refusal(101, "2001:db8::bad:2"))
        await refusals.close()

    written = [decision.source for decision in archive.batches[0]]
    assert written.count("2001:db8::bad") == BURST
    assert written[BURST:] == ["2001:db8:1::1", "2001:db8::bad:2"]
    assert [(line["event"], line["count"], line.get("source")) for line in log] == [
        ("refusals_not_recorded", 1, "2001:db8::bad"),
        ("refusals_not_recorded", 69, None),
    ]


async def test_what_is_left_out_is_logged_once_a_minute() -> None:
    """With the number since the last time."""
    clock = Stopwatch()
    refusals = RefusalLog(store=Archive(), monotonic=clock, burst=0)
    with capture_logs() as log:
        for _ in range(61):
            refusals.note(refusal(1))
            clock.advance(0.999)
        clock.advance(1)
        await refusals.close()

    assert [line["count"] for line in log] == [1, 60]


async def test_a_store_that_hangs_costs_a_bounded_amount_of_memory() -> None:
    """What finds no place is counted."""
    archive = Archive()
    archive.gate.clear()
    refusals = RefusalLog(store=archive, max_waiting=5)
    for number in range(8):
        refusals.note(refusal(number))
    with capture_logs() as log:
        archive.gate.set()
        await refusals.close()

    assert sizes(archive) == [5]
    assert [line["count"] for line in log] == [2]


@pytest.mark.parametrize(("error", "level"), [(Unavailable("disk full"), "warning"), (KeyError("bug"), "error")])
async def test_a_batch_that_cannot_be_written_is_logged_and_the_next_one_is_written(
    error: Exception, level: str
) -> None:
    """Nothing of it reaches whoever noted it."""
    archive = Archive()
    archive.script = [error]
    refusals = RefusalLog(store=archive)
    with capture_logs() as log:
        refusals.note(refusal(0))
        await refusals.close()
    refusals.note(refusal(1))
    await refusals.close()

    assert [(line["event"], line["count"], line["log_level"]) for line in log] == [("refusals_lost", 1, level)]
    assert archive.batches == [[refusal(1)]]
