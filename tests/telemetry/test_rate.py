"""Tests of `scep_ra.telemetry.rate`: ten lines a minute, a summary, silence."""

from __future__ import annotations

from typing import Any, Final

import structlog

from scep_ra.telemetry.rate import MAX_SOURCES, WINDOW_S, PerSourceLimit

LINES_PER_WINDOW: Final = 10


class Log:
    """A limit with a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._limit = PerSourceLimit({"noise": LINES_PER_WINDOW, "rumble": 2}, clock=lambda: self.now_s)

    def write(self, event: str = "noise", **values: object) -> dict[str, Any] | None:
        try:
            return dict(self._limit(None, "info", {"event": event, **values}))
        except structlog.DropEvent:
            return None

    def fill(self, source: str) -> None:
        for _ in range(LINES_PER_WINDOW):
            assert self.write(source=source) == {"event": "noise", "source": source}


def test_after_ten_lines_there_is_a_summary_and_then_silence() -> None:
    """The summary says what is left out and for how long."""
    log = Log()
    log.fill("a")
    log.now_s += 20

    assert log.write(source="a") == {"event": "log_limited", "source": "a", "of": "noise", "for_s": 40}
    assert log.write(source="a") is None


def test_sources_do_not_share_their_allowance() -> None:
    """A quiet source is heard beside a loud one; one without a name counts as one."""
    log = Log()
    log.fill("a")

    log.fill("b")
    assert log.write() == {"event": "noise"}


def test_every_event_has_an_allowance_of_its_own() -> None:
    """One kind of line says nothing about how much of another is too much."""
    log = Log()
    lines = [log.write("rumble", source="a") for _ in range(4)]

    assert [line and line["event"] for line in lines] == ["rumble", "rumble", "log_limited", None]
    log.fill("a")


def test_other_events_are_never_limited() -> None:
    """Errors are all written."""
    log = Log()

    assert [log.write("error", source="a") for _ in range(100)] == [{"event": "error", "source": "a"}] * 100


def test_the_next_minute_tells_how_many_lines_were_left_out() -> None:
    """The count is on the first line and on no other."""
    log = Log()
    log.fill("a")
    for _ in range(5):
        log.write(source="a")
    log.now_s += WINDOW_S

    assert log.write(source="a") == {"event": "noise", "source": "a", "suppressed": 5}
    assert log.write(source="a") == {"event": "noise", "source": "a"}


def test_a_source_that_kept_within_its_allowance_hears_nothing() -> None:
    """Ten lines are not too many."""
    log = Log()
    log.fill("a")
    log.now_s += WINDOW_S

    assert log.write(source="a") == {"event": "noise", "source": "a"}


def test_memory_is_bounded_however_many_sources_there_are() -> None:
    """Beyond the number remembered, strangers share one allowance."""
    log = Log()
    for number in range(MAX_SOURCES):
        log.write(source=str(number))
    lines = [log.write(source=f"new-{number}") for number in range(LINES_PER_WINDOW + 5)]

    assert [line["event"] for line in lines if line] == ["noise"] * LINES_PER_WINDOW + ["log_limited"]
    assert log.write(source="0") == {"event": "noise", "source": "0"}
