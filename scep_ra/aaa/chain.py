"""Authorizers that ask others: `all` of them, `any` of them, or the `first` that answers.

Members are authorizers under a guard, by name in the configuration, in the order written there. An error of a member
never makes a yes; which decision it leaves is said at each class. What chains do is told to operators in docs/aaa.md.
"""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from scep_ra.aaa.base import (
    Accept,
    AccessRequest,
    Authorizer,
    Decision,
    Defer,
    Notice,
    Reject,
    SupportsFlush,
    SupportsNotices,
)
from scep_ra.errors import BackendError, Unavailable
from scep_ra.identity.types import DeviceID

Members = Mapping[str, Authorizer]
Answers = Mapping[str, Decision | BackendError]
_Answer = TypeVar("_Answer")
_T = TypeVar("_T")


class Chain:
    """What all chains do alike."""

    def __init__(self, members: Members) -> None:
        self._members: Final = members

    async def check(self) -> None:
        """Verify that every member can answer; raise Unavailable or Misconfigured."""
        for member in self._members.values():
            await member.check()

    def flush(self, device_id: DeviceID) -> None:
        """Forget every answer about a device, those that are on their way included."""
        for member in self._members.values():
            if isinstance(member, SupportsFlush):
                member.flush(device_id)

    def notify(self, notice: Notice) -> None:
        """Pass on what became of a request."""
        for member in self._members.values():
            if isinstance(member, SupportsNotices):
                member.notify(notice)

    async def _ask(self, request: AccessRequest) -> Answers:
        """Ask all members at once and wait for all of them, so that the same answers make the same decision.

        None is cancelled because another has decided: that would cost its connection, request by request.
        """
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(_answer(member, request)) for name, member in self._members.items()}
        return {name: task.result() for name, task in tasks.items()}


class AllOf(Chain):
    """Accepts when every member does. A no beats everything, then no answer, then "not yet"."""

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return the decision of all members; raise what a member raised, unless another rejects."""
        answers = await self._ask(request)
        if rejections := _of_kind(Reject, answers):
            return Reject(reason=_reasons(rejections))
        for error in _of_kind(BackendError, answers).values():
            raise error
        if deferrals := _of_kind(Defer, answers):
            times = [each.until for each in deferrals.values() if each.until]
            return Defer(reason=_reasons(deferrals), until=max(times, default=None))
        return _merged(list(_of_kind(Accept, answers).values()))


class AnyOf(Chain):
    """Accepts as the first member in order that does. Else "not yet" beats no answer, which beats a no."""

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return the decision of any member; raise what a member raised, unless another accepts or defers."""
        answers = await self._ask(request)
        for accepted in _of_kind(Accept, answers).values():
            return accepted
        if deferrals := _of_kind(Defer, answers):
            times = [each.until for each in deferrals.values() if each.until]
            # One that names no time may be asked at any.
            until = min(times) if len(times) == len(deferrals) else None
            return Defer(reason=_reasons(deferrals), until=until)
        for error in _of_kind(BackendError, answers).values():
            raise error
        return Reject(reason=_reasons(_of_kind(Reject, answers)))


class FirstOf(Chain):
    """Decides as the first member in order that answers at all: a no and "not yet" are answers, Unavailable is none.

    A member that is Misconfigured ends the search: a typing error must not hand the decision to somebody else.
    """

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return the decision of the first member that has one; raise Unavailable or Misconfigured."""
        return await self._first(lambda member: member.authorize(request))

    async def check(self) -> None:
        """Verify that a member can answer; raise Unavailable or Misconfigured."""
        await self._first(lambda member: member.check())

    async def _first(self, ask: Callable[[Authorizer], Awaitable[_T]]) -> _T:
        silent = []
        for member in self._members.values():
            try:
                return await ask(member)
            except Unavailable as error:
                silent.append(str(error))
        raise Unavailable("; ".join(silent))


async def _answer(member: Authorizer, request: AccessRequest) -> Decision | BackendError:
    try:
        return await member.authorize(request)
    except BackendError as error:
        return error


def _of_kind(kind: type[_Answer], answers: Answers) -> Mapping[str, _Answer]:
    return {name: answer for name, answer in answers.items() if isinstance(answer, kind)}


def _reasons(answers: Mapping[str, Reject] | Mapping[str, Defer]) -> str:
    return "; ".join(f"{name}: {answer.reason}" for name, answer in answers.items())


def _merged(accepts: Sequence[Accept]) -> Accept:
    """Return what all of them together allow; of attributes and profiles the first that says something holds."""
    ends = [accept.not_after for accept in accepts if accept.not_after]
    services = [accept.services for accept in accepts if accept.services]
    return Accept(
        attributes=dict(ChainMap(*(dict(accept.attributes) for accept in accepts))),
        not_after=min(ends, default=None),
        profile=next((accept.profile for accept in accepts if accept.profile), ""),
        services=frozenset.intersection(*services) if services else frozenset(),
        approval=any(accept.approval for accept in accepts),
    )
