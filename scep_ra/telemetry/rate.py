"""A bound on how many log lines one stranger can cause.

Only events that are named here by the caller are counted, so no error of ours is ever left out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

WINDOW_S: Final = 60.0
# About 1 MiB of memory; beyond it all further sources share one allowance.
MAX_SOURCES: Final = 4096
_EVERYBODY_ELSE: Final = "*"


class PerSourceLimit:
    """A structlog processor: so many lines a minute of an event for each `source`, then one that says so, then silence.

    The first line of a source in the next minute carries `suppressed`, the number of lines left out in the last.
    """

    def __init__(self, allowances: Mapping[str, int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowances = allowances
        self._clock = clock
        self._window_ends_at = clock() + WINDOW_S
        self._lines: Counter[tuple[str, str]] = Counter()
        self._lines_before: Counter[tuple[str, str]] = Counter()

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Return the event or its summary; raise structlog.DropEvent in the silence."""
        allowance = self._allowances.get(event["event"])
        if allowance is None:
            return event
        self._roll()
        key = self._key(event)
        self._lines[key] += 1
        if self._lines[key] > allowance:
            return self._limit(event, over=self._lines[key] - allowance)
        suppressed = self._lines_before.pop(key, 0) - allowance
        return {**event, "suppressed": suppressed} if suppressed > 0 else event

    def _roll(self) -> None:
        if self._clock() >= self._window_ends_at:
            self._window_ends_at = self._clock() + WINDOW_S
            self._lines, self._lines_before = Counter(), self._lines

    def _key(self, event: EventDict) -> tuple[str, str]:
        key = (event["event"], str(event.get("source", "")))
        known = key in self._lines or len(self._lines) < MAX_SOURCES
        return key if known else (event["event"], _EVERYBODY_ELSE)

    def _limit(self, event: EventDict, over: int) -> EventDict:
        if over > 1:
            raise structlog.DropEvent
        seconds = round(self._window_ends_at - self._clock())
        return {"event": "log_limited", "source": event.get("source", ""), "of": event["event"], "for_s": seconds}
