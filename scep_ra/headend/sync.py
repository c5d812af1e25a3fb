"""Find out which devices AAA has let go of, and disconnect them.

An external AAA system tells nobody when an entry is deleted, so it is asked again about every device that holds a live
certificate. No answer is never a deletion; a great many at once are taken for a fault of AAA until somebody says
otherwise.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Final, Protocol, Self, TypeVar, assert_never

import structlog

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Defer, Reject
from scep_ra.errors import ScepRaError
from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.identity.types import DeviceID
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.sessions import EntryChange, Holder

log = structlog.stdlib.get_logger(__name__)

# Questions at a time: what a RADIUS or LDAP server takes beside its other work.
CONCURRENCY: Final = 16
_PAGE: Final = 500
# A directory that lost a branch, or answers from an empty replica, looks like many deletions.
_MIN_CAP: Final = 10
_CAP_PERCENT: Final = 5.0

_T = TypeVar("_T")
_R = TypeVar("_R")


class TooManyDeletions(ScepRaError):
    """More devices would be disconnected than a day usually brings; nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileAccess:
    """Whom a profile asks, and for what."""

    authorizer: Authorizer
    service: str  # that AAA must grant; "" = none
    is_external: bool  # AAA is a system of its own, where entries vanish without our knowing


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionCap:
    """How many devices may be disconnected at once."""

    number: int = _MIN_CAP
    percent: float = _CAP_PERCENT

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `N` or `P%`; raise ValueError."""
        if text.endswith("%"):
            percent = float(text.removesuffix("%"))
            if not 0 <= percent <= 100:
                raise ValueError(f"{text!r} is not between 0% and 100%")
            return cls(number=0, percent=percent)
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"{text!r} is neither a number nor a percentage")
        return cls(number=int(text), percent=0)

    def of(self, devices: int) -> int:
        """Return how many of so many devices may go."""
        return max(self.number, int(devices * self.percent / 100))


class Standing(Enum):
    """What AAA says of a device now."""

    ALLOWED = auto()
    REJECTED = auto()
    UNKNOWN = auto()  # no answer, or "not yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What AAA says of all that hold a certificate."""

    allowed: int
    unknown: int
    rejected: Mapping[DeviceID, str]  # why

    @property
    def asked(self) -> int:
        """Return how many devices AAA was asked about."""
        return self.allowed + self.unknown + len(self.rejected)


class Disconnects(Protocol):
    """Who cuts devices off (`disconnect.DisconnectService`)."""

    async def disconnect(self, device_id: DeviceID, *, entry: EntryChange, by: str) -> DisconnectReport:
        """Cut a device off."""
        ...


class HolderStore(Protocol):
    """The part of the store that tells who holds certificates."""

    async def certificate_holders(self, now: datetime, after: Holder | None, limit: int) -> Sequence[Holder]:
        """Return those who hold a live certificate, by device and profile, from behind `after`."""
        ...


@dataclass(slots=True, kw_only=True)
class _Tally:
    allowed: int = 0
    unknown: int = 0
    rejected: dict[DeviceID, str] = field(default_factory=dict)


class AccessSync:
    """Asks, and disconnects."""

    def __init__(
        self,
        *,
        store: HolderStore,
        profiles: Mapping[str, ProfileAccess],
        disconnects: Disconnects,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._profiles = profiles
        self._disconnects = disconnects
        self._now = now

    async def devices(self) -> Mapping[DeviceID, Sequence[str]]:
        """Return the devices that hold a live certificate by an external AAA, with all their profiles."""
        held: defaultdict[DeviceID, list[str]] = defaultdict(list)
        async for holder in self._holders():
            held[holder.device_id].append(holder.profile)
        return {device_id: names for device_id, names in held.items() if any(map(self._is_external, names))}

    async def survey(
        self, devices: Mapping[DeviceID, Sequence[str]], progress: Callable[[int], None] = lambda _: None
    ) -> Survey:
        """Ask AAA about each device; a device is rejected when none of the profiles it has used lets it in any more."""
        tally = _Tally()

        async def ask(device_id: DeviceID) -> None:
            standing, reason = await self._ask_all(device_id, devices[device_id])
            match standing:
                case Standing.ALLOWED:
                    tally.allowed += 1
                case Standing.UNKNOWN:
                    tally.unknown += 1
                    log.info("sync_unknown", device_id=str(device_id), reason=reason)
                case Standing.REJECTED:
                    tally.rejected[device_id] = reason
                case _:
                    assert_never(standing)
            progress(1)

        await _each(devices, ask)
        return Survey(
            allowed=tally.allowed,
            unknown=tally.unknown,
            rejected=dict(sorted(tally.rejected.items(), key=lambda each: str(each[0]))),
        )

    async def enforce(self, survey: Survey, cap: DeletionCap, *, by: str) -> Sequence[DisconnectReport]:
        """Disconnect the rejected devices; raise TooManyDeletions, and then nothing was done, or a BackendError."""
        allowed = cap.of(survey.asked)
        if len(survey.rejected) > allowed:
            security_event(
                SecurityEvent.MASS_DELETION, rejected=len(survey.rejected), asked=survey.asked, allowed=allowed
            )
            raise TooManyDeletions(
                f"AAA rejects {len(survey.rejected)} of {survey.asked} devices, and {allowed} is the most that may be"
                " disconnected at once: nothing was done. See whether AAA is in order; if it is, run"
                f" scep-ra aaa sync --max-deletions {len(survey.rejected)}"
            )

        async def disconnect(device_id: DeviceID) -> DisconnectReport:
            return await self._disconnects.disconnect(device_id, entry=EntryChange.KEEP, by=by)

        return await _each(survey.rejected, disconnect)

    async def run(self, interval_s: float, cap: DeletionCap) -> None:
        """Do all of it again and again until cancelled; what fails is logged."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                survey = await self.survey(await self.devices())
                done = await self.enforce(survey, cap, by="aaa sync")
            except ScepRaError as error:
                log.error("sync_failed", reason=str(error))  # noqa: TRY400 - nothing broke, somebody has to look
            except Exception:
                # A bug must not end the rounds unseen.
                log.exception("sync_failed")
            else:
                log.info("sync_done", asked=survey.asked, unknown=survey.unknown, disconnected=len(done))

    async def _holders(self) -> AsyncIterator[Holder]:
        last = None
        while page := await self._store.certificate_holders(self._now(), last, _PAGE):
            for holder in page:
                yield holder
            last = page[-1]

    def _is_external(self, profile: str) -> bool:
        return profile in self._profiles and self._profiles[profile].is_external

    async def _ask_all(self, device_id: DeviceID, names: Sequence[str]) -> tuple[Standing, str]:
        """Ask by every profile; one yes is a yes, and only a no by all of them is one."""
        answers = [await self._ask(device_id, name) for name in names]
        for standing in (Standing.ALLOWED, Standing.UNKNOWN):
            for answer in answers:
                if answer[0] is standing:
                    return answer
        return answers[0]

    async def _ask(self, device_id: DeviceID, name: str) -> tuple[Standing, str]:
        profile = self._profiles.get(name)
        if profile is None:
            return Standing.UNKNOWN, f"the configuration has no [profile.{name}]"
        question = AccessRequest(device_id=device_id, profile=name, source="", renewal=False, recheck=True)
        try:
            decision = await profile.authorizer.authorize(question)
        except ScepRaError as error:
            return Standing.UNKNOWN, str(error)
        match decision:
            case Accept(services=services) if profile.service and profile.service not in services:
                return Standing.REJECTED, f"AAA does not grant service {profile.service!r}"
            case Accept():
                return Standing.ALLOWED, ""
            case Reject(reason=reason):
                return Standing.REJECTED, reason
            case Defer(reason=reason):
                return Standing.UNKNOWN, reason
            case _:
                assert_never(decision)


async def _each(items: Iterable[_T], work: Callable[[_T], Awaitable[_R]]) -> Sequence[_R]:
    """Return the results of work on the items, as they come, so many at a time; the first error ends it."""
    waiting, results = iter(items), list[_R]()

    async def take_turns() -> None:
        for item in waiting:
            results.append(await work(item))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(take_turns())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return results
