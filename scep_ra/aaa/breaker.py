"""A circuit breaker: leaves a backend alone that has failed several times in a row, and finds out when it is back.

It keeps requests from queueing up before a dead server, and a server that recovers from being run over. What counts as
a failure is the guard's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import structlog

from scep_ra.aaa.base import MalformedAnswer
from scep_ra.errors import BackendError, Unavailable

log = structlog.stdlib.get_logger(__name__)


class BreakerOpen(Unavailable):
    """The backend was not asked, because it has failed too often just now."""


class State(StrEnum):
    """Whether questions get through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"  # one is under way that finds out


class Event(StrEnum):
    """What happens to a breaker."""

    ANSWERED = "answered"
    LIMIT_REACHED = "limit reached"  # one more failure than is borne
    PAUSE_OVER = "pause over"
    ABANDONED = "abandoned"  # the question was taken back, which says nothing about the backend


# Questions that began before may end in any state. What is not here changes nothing.
TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.CLOSED, Event.LIMIT_REACHED): State.OPEN,
    (State.OPEN, Event.PAUSE_OVER): State.HALF_OPEN,
    (State.OPEN, Event.ANSWERED): State.CLOSED,
    (State.HALF_OPEN, Event.ANSWERED): State.CLOSED,
    (State.HALF_OPEN, Event.LIMIT_REACHED): State.OPEN,
    (State.HALF_OPEN, Event.ABANDONED): State.OPEN,
}


class Breaker:
    """The breaker of one backend; `failures` in a row open it for `reset_s`."""

    def __init__(self, name: str, *, failures: int, reset_s: float, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._limit = failures
        self._reset_s = reset_s
        self._monotonic = monotonic
        self._state = State.CLOSED
        self._failures = 0
        self._last_failure = ""
        self._retry_at = 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Watch one question, which fails by BackendError; raise BreakerOpen when it is not to be asked."""
        self._enter()
        try:
            yield
        except MalformedAnswer:
            self._answered()  # one device with a broken entry must not keep all others out
            raise
        except BreakerOpen:
            self._happened(Event.ABANDONED)  # of a member of a chain, whose failures have been counted
            raise
        except BackendError as error:
            self._failed(str(error))
            raise
        except BaseException:
            self._happened(Event.ABANDONED)
            raise
        self._answered()

    def _enter(self) -> None:
        if self._state is State.OPEN and self._monotonic() >= self._retry_at:
            self._happened(Event.PAUSE_OVER)
        elif self._state is not State.CLOSED:
            raise BreakerOpen(f"aaa.{self._name} is left alone after {self._failures} failures: {self._last_failure}")

    def _answered(self) -> None:
        self._failures = 0
        if self._happened(Event.ANSWERED):
            log.warning("aaa_breaker_closed", authorizer=self._name)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        self._last_failure = reason
        if self._failures < self._limit:
            return
        is_first = self._state is State.CLOSED
        if self._happened(Event.LIMIT_REACHED):
            self._retry_at = self._monotonic() + self._reset_s
        if is_first:
            log.error("aaa_breaker_opened", authorizer=self._name, failures=self._failures, reason=reason)

    def _happened(self, event: Event) -> bool:
        """Change the state as the table says, and tell whether it did change."""
        before = self._state
        self._state = TRANSITIONS.get((before, event), before)
        return self._state is not before
