"""Claims about what stands around every authorizer: whatever happens inside, there is no yes that nobody gave."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.accept_all import AcceptAll
from scep_ra.aaa.base import Accept, Authorizer, Decision, Defer, MalformedAnswer, Reject
from scep_ra.aaa.breaker import BreakerOpen
from scep_ra.aaa.guard import Guard, GuardRules, PendingOnError, outspoken
from scep_ra.aaa.trace import tracing
from scep_ra.errors import BackendError, Misconfigured, Refused, Unavailable
from tests.support.authorizers import Scripted, Stopwatch, notice, question

YES = Accept(attributes={"user": "alice"})


def guard(inner: Authorizer, clock: Stopwatch | None = None, **rules: Any) -> Guard:
    defaults = {"timeout_s": 5.0, "breaker_failures": 3, "breaker_reset_s": 30.0, "cache_s": 0.0}
    return Guard("corp", inner, GuardRules(**{**defaults, **rules}), clock or Stopwatch())


@pytest.mark.parametrize("decision", [YES, Reject(reason="gone"), Defer(reason="later", until=datetime.now(UTC))])
async def test_every_decision_is_passed_on_as_it_is(decision: Decision) -> None:
    """A guard decides nothing."""
    inner = Scripted(answer=decision)
    assert await guard(inner).authorize(question()) is decision
    assert inner.questions == [question()]


async def test_a_backend_that_is_too_slow_is_cancelled_and_has_not_answered() -> None:
    """For a question and for a check."""
    inner = Scripted(answer=None)
    for ask in (guard(inner, timeout_s=0.01).check(), guard(inner, timeout_s=0.01).authorize(question())):
        inner.cancelled = False
        with pytest.raises(Unavailable, match=r"^aaa\.corp gave no answer within 0\.01 s$"):
            await ask
        assert inner.cancelled


async def test_a_device_that_hangs_up_cancels_its_question() -> None:
    """And that is no failure of the backend."""
    inner = Scripted(answer=None)
    guarded = guard(inner, breaker_failures=1)
    task = asyncio.create_task(guarded.authorize(question()))
    await inner.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.cancelled
    inner.answer = YES
    assert await guarded.authorize(question()) == YES


@pytest.mark.parametrize(
    ("error", "kind", "event", "level"),
    [
        (Unavailable("no route"), Unavailable, "aaa_unavailable", "warning"),
        (MalformedAnswer("no date"), MalformedAnswer, "aaa_unavailable", "warning"),
        (Misconfigured("bad password"), Misconfigured, "aaa_misconfigured", "error"),
    ],
)
async def test_an_error_keeps_its_kind_and_gets_the_name(
    error: BackendError, kind: type[BackendError], event: str, level: str
) -> None:
    """Whoever reads it knows which table of the configuration to look at, and the log is as loud as it has to be."""
    with capture_logs() as logs, pytest.raises(kind, match=f"^aaa\\.corp: {error}$"):
        await guard(Scripted(answer=error)).authorize(question())
    assert [(entry["event"], entry["log_level"], entry["device_id"]) for entry in logs] == [
        (event, level, "serial:SN1")
    ]


@pytest.mark.parametrize("error", [ValueError("s3cret"), Refused("s3cret"), OSError("s3cret")])
async def test_an_error_that_no_authorizer_may_raise_is_no_answer(error: Exception) -> None:
    """A plug-in's bug is not ours to crash on, and what its text quotes is for the log alone."""
    with capture_logs() as logs, pytest.raises(Unavailable) as caught:
        await guard(Scripted(answer=error)).authorize(question())
    assert str(caught.value) == f"aaa.corp failed with {type(error).__name__}; the log has the details"
    assert logs[0]["event"] == "aaa_failed"


@pytest.mark.parametrize("answer", [True, "yes", object()])
async def test_what_is_no_decision_is_no_yes(answer: Any) -> None:
    """However true it looks."""
    with pytest.raises(Misconfigured, match=r"aaa\.corp returned \w+ and no decision: mend the plug-in"):
        await guard(Scripted(answer=answer)).authorize(question())


async def test_a_plug_in_that_is_not_asynchronous_is_no_yes() -> None:
    """Its author forgot a word."""

    class Synchronous(AcceptAll):
        def authorize(self, _request: object) -> Any:
            return YES

    with pytest.raises(Unavailable, match="failed with TypeError"):
        await guard(Synchronous()).authorize(question())


async def test_a_backend_that_keeps_failing_is_left_alone() -> None:
    """No call is made, and the log is not filled."""
    inner = Scripted(answer=Unavailable("no route"))
    clock = Stopwatch()
    guarded = guard(inner, clock)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no route"):
            await guarded.authorize(question())
    with capture_logs() as logs, pytest.raises(BreakerOpen):
        await guarded.authorize(question())
    assert len(inner.questions) == 3
    assert [entry["log_level"] for entry in logs] == ["debug"]
    clock.now_s += 30
    inner.answer = YES
    assert await guarded.authorize(question()) == YES


async def test_a_member_that_is_left_alone_does_not_open_the_chain_as_well() -> None:
    """Nor is the log filled by the chain instead."""
    inner = Scripted(answer=Unavailable("no route"))
    clock = Stopwatch()
    chain = guard(guard(inner, clock, breaker_failures=1), clock, breaker_failures=2)
    with pytest.raises(Unavailable, match=r"^aaa\.corp: aaa\.corp: no route$"):
        await chain.authorize(question())
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(BreakerOpen):
                await chain.authorize(question())
    assert {entry["log_level"] for entry in logs} == {"debug"}
    inner.answer = YES
    clock.now_s += 30
    assert await chain.authorize(question()) == YES


async def test_an_answer_that_takes_more_than_half_of_its_time_is_logged() -> None:
    """Before the first comes too late."""
    clock = Stopwatch()

    class Slow(AcceptAll):
        async def authorize(self, _request: object) -> Decision:
            clock.now_s += 3
            return YES

    with capture_logs() as logs:
        assert await guard(Slow(), clock).authorize(question()) == YES
    assert [(entry["event"], entry["elapsed_ms"]) for entry in logs] == [("aaa_slow", 3000)]


async def test_a_yes_is_not_kept_unless_the_configuration_says() -> None:
    """Who is deleted in AAA is refused at once."""
    inner = Scripted(answer=YES)
    guarded = guard(inner)
    await guarded.authorize(question())
    inner.answer = Reject(reason="gone")
    assert await guarded.authorize(question()) == Reject(reason="gone")


async def test_a_kept_yes_is_repeated_until_it_is_flushed() -> None:
    """A disconnect flushes it, here and in what the guard stands around."""
    inner = Scripted(answer=YES)
    guarded = guard(inner, cache_s=60)
    with tracing() as verdicts:
        await guarded.authorize(question())
        await guarded.authorize(question())
    assert [verdict.cached for verdict in verdicts] == [False, True]
    inner.answer = Reject(reason="gone")
    guarded.flush(question().device_id)
    assert await guarded.authorize(question()) == Reject(reason="gone")
    assert inner.flushed == [question().device_id]


@pytest.mark.parametrize("answer", [Reject(reason="gone"), Defer(reason="later"), Unavailable("no route")])
async def test_nothing_but_a_yes_is_kept(answer: Decision | Unavailable) -> None:
    """What becomes a yes is one at once."""
    inner = Scripted(answer=answer)
    pending = PendingOnError(guard(inner, cache_s=60))
    assert not isinstance(await pending.authorize(question()), Accept)
    inner.answer = YES
    assert await pending.authorize(question()) == YES


async def test_flushing_what_remembers_nothing_is_no_error() -> None:
    """Most authorizers do not."""
    guard(AcceptAll(), cache_s=60).flush(question().device_id)


async def test_notices_reach_whoever_wants_to_hear_them() -> None:
    """Through every guard; most authorizers want none."""
    inner = Scripted()
    PendingOnError(guard(inner)).notify(notice())
    assert inner.notices == [notice()]
    guard(AcceptAll()).notify(notice())


async def test_every_outcome_is_traced_with_its_time() -> None:
    """Errors, too."""
    clock = Stopwatch()
    inner = Scripted(answer=YES)
    guarded = guard(inner, clock)
    with tracing() as verdicts:
        await guarded.authorize(question())
        inner.answer = Unavailable("no route")
        with pytest.raises(Unavailable):
            await guarded.authorize(question())
    assert [(verdict.authorizer, verdict.elapsed_s) for verdict in verdicts] == [("corp", 0.0)] * 2
    assert verdicts[0].answer == YES
    assert isinstance(verdicts[1].answer, Unavailable)


async def test_a_check_that_fails_names_the_authorizer() -> None:
    """Readiness shows it."""
    with pytest.raises(Unavailable, match=r"^aaa\.corp: no route$"):
        await guard(Scripted(answer=Unavailable("no route"))).check()
    await guard(AcceptAll()).check()


# --- pending on error ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Unavailable("no route"), Misconfigured("bad password")])
async def test_where_devices_are_to_wait_no_answer_is_not_yet(error: BackendError) -> None:
    """Their requests are kept, and go on by themselves when the backend is back."""
    inner = Scripted(answer=error)
    pending = PendingOnError(guard(inner))
    assert await pending.authorize(question()) == Defer(reason=f"AAA gave no answer: aaa.corp: {error}")
    inner.answer = YES
    assert await pending.authorize(question()) == YES


async def test_where_devices_are_to_wait_checks_fail_and_flushes_pass_all_the_same() -> None:
    """Only answers to devices are put otherwise."""
    inner = Scripted(answer=Unavailable("no route"))
    pending = PendingOnError(guard(inner))
    with pytest.raises(Unavailable):
        await pending.check()
    pending.flush(question().device_id)
    assert inner.flushed == [question().device_id]


def test_whoever_can_mend_an_error_gets_to_see_it() -> None:
    """On the command line "not yet" would hide the reason."""
    guarded = guard(AcceptAll())
    assert outspoken(PendingOnError(guarded)) is guarded
    assert outspoken(guarded) is guarded
