"""What stands around every authorizer: a deadline, a circuit breaker, a memory if wanted, and a record of it all.

A backend need not know any of it. Whatever goes wrong in one becomes Unavailable or Misconfigured here, never a yes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar, assert_never

import structlog

from scep_ra.aaa.answers import Answers
from scep_ra.aaa.base import (
    Accept,
    AccessRequest,
    Authorizer,
    Decision,
    Defer,
    MalformedAnswer,
    Notice,
    Reject,
    SupportsFlush,
    SupportsNotices,
)
from scep_ra.aaa.breaker import Breaker, BreakerOpen
from scep_ra.aaa.trace import Verdict, trace
from scep_ra.errors import BackendError, Misconfigured, Unavailable
from scep_ra.identity.types import DeviceID

log = structlog.stdlib.get_logger(__name__)

# Of the deadline: an answer that took longer is logged, because the next may come too late.
_SLOW: Final = 0.5

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRules:
    """The options that [aaa.NAME] tables of all types have."""

    timeout_s: float
    breaker_failures: int
    breaker_reset_s: float
    cache_s: float


class Guard:
    """An Authorizer that asks another one, called `name` in the configuration, with care."""

    def __init__(self, name: str, inner: Authorizer, rules: GuardRules, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._inner = inner
        # Looked at once: to compare an object with a protocol takes longer than most of what a guard does.
        self._listener = inner if isinstance(inner, SupportsNotices) else None
        self._timeout_s = rules.timeout_s
        self._monotonic = monotonic
        self._answers = Answers(rules.cache_s, monotonic)
        self._breaker = Breaker(
            name, failures=rules.breaker_failures, reset_s=rules.breaker_reset_s, monotonic=monotonic
        )

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return the decision; raise Unavailable or Misconfigured, also for what the backend should not have done."""
        known = self._answers.find(request)
        if known is not None:
            trace(Verdict(authorizer=self._name, answer=known, elapsed_s=0.0, cached=True))
            return known
        begun_at, begun = self._monotonic(), self._answers.begin()
        try:
            with self._breaker.attempt():
                decision = self._checked(await self._in_time(lambda: self._inner.authorize(request)))
        except BackendError as error:
            self._record(request, error, self._monotonic() - begun_at)
            raise
        self._record(request, decision, self._monotonic() - begun_at)
        if isinstance(decision, Accept):
            self._answers.keep(request, decision, begun=begun)
        return decision

    async def check(self) -> None:
        """Verify that the backend can answer; raise Unavailable or Misconfigured."""
        await self._in_time(self._inner.check)

    def flush(self, device_id: DeviceID) -> None:
        """Forget every answer about a device, those that are on their way included."""
        self._answers.flush(device_id)
        if isinstance(self._inner, SupportsFlush):
            self._inner.flush(device_id)

    def notify(self, notice: Notice) -> None:
        """Pass on what became of a request."""
        if self._listener is not None:
            self._listener.notify(notice)

    async def _in_time(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Return what the work returns within the deadline; what goes wrong gets this authorizer's name."""
        where = f"aaa.{self._name}"
        try:
            async with asyncio.timeout(self._timeout_s):
                return await work()
        except TimeoutError:
            raise Unavailable(f"{where} gave no answer within {self._timeout_s:g} s") from None
        except BreakerOpen:
            raise
        except MalformedAnswer as error:
            raise MalformedAnswer(f"{where}: {error}") from error
        except Unavailable as error:
            raise Unavailable(f"{where}: {error}") from error
        except Misconfigured as error:
            raise Misconfigured(f"{where}: {error}") from error
        except Exception as error:
            # A plug-in may raise anything. The error's text stays in the log: nobody knows what it quotes.
            log.exception("aaa_failed", authorizer=self._name)
            raise Unavailable(f"{where} failed with {type(error).__name__}; the log has the details") from error

    def _checked(self, decision: object) -> Decision:
        if not isinstance(decision, Decision):
            raise Misconfigured(
                f"aaa.{self._name} returned {type(decision).__name__} and no decision: mend the plug-in"
            )
        return decision

    def _record(self, request: AccessRequest, answer: Decision | BackendError, elapsed_s: float) -> None:
        trace(Verdict(authorizer=self._name, answer=answer, elapsed_s=elapsed_s))
        facts = {
            "authorizer": self._name,
            "device_id": str(request.device_id),
            "answer": type(answer).__name__,
            "elapsed_ms": round(elapsed_s * 1000),
        }
        match answer:
            case Accept() | Reject() | Defer() if elapsed_s > self._timeout_s * _SLOW:
                log.warning("aaa_slow", **facts)
            case Accept() | Reject() | Defer() | BreakerOpen():
                log.debug("aaa_asked", **facts)
            case Misconfigured():
                log.error("aaa_misconfigured", **facts, reason=str(answer))
            case BackendError():
                log.warning("aaa_unavailable", **facts, reason=str(answer))
            case _:
                assert_never(answer)


class PendingOnError:
    """An Authorizer that says "not yet" where the one it asks gives no answer: devices wait, and are asked about again.

    For errors that only a person can mend as well: the log is loud about them, and requests are not lost.
    """

    def __init__(self, inner: Guard) -> None:
        self.inner: Final = inner

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return the decision, Defer for want of one."""
        try:
            return await self.inner.authorize(request)
        except (Unavailable, Misconfigured) as error:
            return Defer(reason=f"AAA gave no answer: {error}")

    async def check(self) -> None:
        """Verify that the backend can answer; raise Unavailable or Misconfigured."""
        await self.inner.check()

    def flush(self, device_id: DeviceID) -> None:
        """Forget every answer about a device, those that are on their way included."""
        self.inner.flush(device_id)

    def notify(self, notice: Notice) -> None:
        """Pass on what became of a request."""
        self.inner.notify(notice)


def outspoken(authorizer: Authorizer) -> Authorizer:
    """Return the authorizer that raises its errors where the given one says "not yet": for whoever can mend them."""
    return authorizer.inner if isinstance(authorizer, PendingOnError) else authorizer
