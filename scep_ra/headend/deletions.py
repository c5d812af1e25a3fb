"""Deletions that an AAA system reports as they happen: the devices are disconnected at once, a mass of them is not.

`sync` finds deletions by asking; here somebody tells. Who may tell is for the HTTP API to know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.headend.sync import DeletionCap, Survey, TooManyDeletions
from scep_ra.identity.types import DeviceID
from scep_ra.security_events import SecurityEvent, security_event

# An AAA system that lost a branch reports device after device, so not the single report is counted.
_WINDOW_S: Final = 3600.0


class Enforcement(Protocol):
    """Who knows the devices of external AAA systems, and disconnects (`sync.AccessSync`)."""

    async def devices(self) -> Mapping[DeviceID, Sequence[str]]:
        """Return the devices that hold a live certificate by an external AAA."""
        ...

    async def enforce(self, survey: Survey, cap: DeletionCap, *, by: str) -> Sequence[DisconnectReport]:
        """Disconnect rejected devices."""
        ...


class ReportedDeletions:
    """Disconnects what is reported; each reporter within its own cap an hour."""

    def __init__(self, enforcement: Enforcement, monotonic: Callable[[], float]) -> None:
        self._enforcement = enforcement
        self._monotonic = monotonic
        self._reported: dict[str, dict[DeviceID, float]] = {}  # by reporter: device -> when

    async def carry_out(
        self, device_ids: Collection[DeviceID], cap: DeletionCap, *, reporter: str
    ) -> Sequence[DisconnectReport]:
        """Disconnect these devices, whose entries are somebody else's.

        Raise TooManyDeletions, and then nothing was done, or a BackendError: then report the same again.
        """
        fleet = len(await self._enforcement.devices())
        self._count(device_ids, cap.of(fleet), fleet, reporter)
        survey = Survey(allowed=0, unknown=0, rejected=dict.fromkeys(device_ids, "reported as deleted"))
        everything = DeletionCap(number=len(survey.rejected), percent=0)
        return await self._enforcement.enforce(survey, everything, by=reporter)

    def _count(self, device_ids: Collection[DeviceID], allowed: int, fleet: int, reporter: str) -> None:
        """Count these devices, those of the last hour once; raise TooManyDeletions when they are too many."""
        now = self._monotonic()
        recent = {each: at for each, at in self._reported.get(reporter, {}).items() if now - at < _WINDOW_S}
        together = {**dict.fromkeys(device_ids, now), **recent}
        if len(together) > allowed:
            security_event(
                SecurityEvent.MASS_DELETION, reporter=reporter, rejected=len(together), asked=fleet, allowed=allowed
            )
            raise TooManyDeletions(
                f"{reporter} reports {len(together)} deletions within an hour, and {allowed} is the most that may be"
                " disconnected: nothing was done. See whether AAA is in order; if it is, raise max_deletions, or run"
                " scep-ra aaa sync"
            )
        self._reported[reporter] = together
