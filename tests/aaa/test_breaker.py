"""Claims about the circuit breaker: when it opens, and how it finds out that the backend is back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import product

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import MalformedAnswer
from scep_ra.aaa.breaker import TRANSITIONS, Breaker, BreakerOpen, Event, State
from scep_ra.errors import Misconfigured, Unavailable
from tests.support.authorizers import Stopwatch


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def breaker(clock: Stopwatch) -> Breaker:
    return Breaker("corp", failures=3, reset_s=30, monotonic=clock)


def attempt(breaker: Breaker, error: BaseException | None = None) -> None:
    """Ask a question that ends so."""
    with breaker.attempt():
        if error is not None:
            raise error


def fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable, match="no route"):
            attempt(breaker, Unavailable("no route"))


def test_it_opens_after_the_last_of_so_many_failures_in_a_row(breaker: Breaker) -> None:
    """An answer between them starts the count anew."""
    fail(breaker, 2)
    attempt(breaker)
    fail(breaker, 3)
    with pytest.raises(BreakerOpen, match=r"aaa\.corp is left alone after 3 failures: no route"):
        attempt(breaker)


def test_a_backend_that_only_a_person_can_mend_is_left_alone_too(breaker: Breaker) -> None:
    """A wrong password, tried for each device, locks accounts."""
    for _ in range(3):
        with pytest.raises(Misconfigured):
            attempt(breaker, Misconfigured("wrong password"))
    with pytest.raises(BreakerOpen):
        attempt(breaker)


def test_one_broken_entry_keeps_nobody_else_out(breaker: Breaker) -> None:
    """The backend has answered, though nobody can read it."""
    for _ in range(9):
        with pytest.raises(MalformedAnswer):
            attempt(breaker, MalformedAnswer("valid_until = soon"))
    attempt(breaker)


def test_a_member_that_is_left_alone_is_not_counted_again(breaker: Breaker) -> None:
    """A chain is to follow its members as soon as they are back."""
    for _ in range(9):
        with pytest.raises(BreakerOpen, match="member"):
            attempt(breaker, BreakerOpen("member"))
    attempt(breaker)


def test_after_the_pause_a_single_question_finds_out(breaker: Breaker, clock: Stopwatch) -> None:
    """Its answer lets everybody in again."""
    fail(breaker, 3)
    clock.now_s += 30
    with breaker.attempt():
        with pytest.raises(BreakerOpen):
            attempt(breaker)
    attempt(breaker)
    fail(breaker, 2)
    attempt(breaker)


def test_a_question_that_finds_nobody_starts_the_next_pause(breaker: Breaker, clock: Stopwatch) -> None:
    """As long as the first."""
    fail(breaker, 3)
    clock.now_s += 30
    fail(breaker)
    clock.now_s += 29
    with pytest.raises(BreakerOpen):
        attempt(breaker)
    clock.now_s += 1
    attempt(breaker)


def test_a_question_taken_back_lets_the_next_find_out(breaker: Breaker, clock: Stopwatch) -> None:
    """The device hung up: nobody knows more than before, and nobody waits for nothing."""
    fail(breaker, 3)
    clock.now_s += 30
    with pytest.raises(asyncio.CancelledError):
        attempt(breaker, asyncio.CancelledError())
    attempt(breaker)


def test_an_answer_that_comes_late_closes_it_at_once(breaker: Breaker) -> None:
    """To a question asked before it opened."""
    with breaker.attempt():
        fail(breaker, 3)
    attempt(breaker)


def test_a_failure_that_comes_late_does_not_make_the_pause_longer(breaker: Breaker, clock: Stopwatch) -> None:
    """Or a burst of questions would hold it open."""
    with suppress(Unavailable), breaker.attempt():
        fail(breaker, 3)
        clock.now_s += 20
        raise Unavailable("late")
    clock.now_s += 10
    attempt(breaker)


def test_opening_and_closing_are_logged_once_each(breaker: Breaker, clock: Stopwatch) -> None:
    """However many questions come meanwhile, and however long it lasts."""
    with capture_logs() as logs:
        fail(breaker, 3)
        clock.now_s += 30
        fail(breaker)
        clock.now_s += 30
        attempt(breaker)
        attempt(breaker)
    assert [entry["event"] for entry in logs] == ["aaa_breaker_opened", "aaa_breaker_closed"]
    assert logs[0]["reason"] == "no route"


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_state_knows_what_becomes_of_it(state: State, event: Event) -> None:
    """An answer always closes, the limit always opens, and only the end of the pause lets a single question through."""
    after = TRANSITIONS.get((state, event), state)
    match event:
        case Event.ANSWERED:
            assert after is State.CLOSED
        case Event.LIMIT_REACHED:
            assert after is State.OPEN
        case Event.PAUSE_OVER:
            assert (after is State.HALF_OPEN) == (state is not State.CLOSED)
        case Event.ABANDONED:
            assert after is (State.OPEN if state is not State.CLOSED else State.CLOSED)
