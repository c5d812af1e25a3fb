"""Claims about reported deletions: who is cut off, and when a report is not believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from structlog.testing import capture_logs

from scep_ra.headend.deletions import ReportedDeletions
from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.headend.sync import DeletionCap, Survey, TooManyDeletions
from scep_ra.identity.types import DeviceID
from tests.support.authorizers import Stopwatch
from tests.support.records import device_id


class FakeEnforcement:
    """A fleet, and those of it that were cut off."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.done: list[tuple[list[DeviceID], str]] = []

    async def devices(self) -> Mapping[DeviceID, Sequence[str]]:
        return {device_id(f"SN{number}"): ["default"] for number in range(self._size)}

    async def enforce(self, survey: Survey, cap: DeletionCap, *, by: str) -> Sequence[DisconnectReport]:
        assert cap.of(survey.asked) == len(survey.rejected)
        self.done.append((list(survey.rejected), by))
        return []


def devices(*numbers: int) -> list[DeviceID]:
    return [device_id(f"SN{number}") for number in numbers]


async def test_what_is_reported_is_cut_off() -> None:
    """In the name of who has reported it."""
    fleet = FakeEnforcement(3)
    await ReportedDeletions(fleet, Stopwatch()).carry_out(devices(1, 2), DeletionCap(), reporter="api:ldap")
    assert fleet.done == [(devices(1, 2), "api:ldap")]


async def test_a_mass_of_deletions_changes_nothing_and_is_told() -> None:
    """AAA may have lost a branch."""
    fleet = FakeEnforcement(100)
    reported = ReportedDeletions(fleet, Stopwatch())
    cap = DeletionCap(number=2, percent=3)
    with capture_logs() as log, pytest.raises(TooManyDeletions, match=r"reports 4 deletions .* and 3 is the most"):
        await reported.carry_out(devices(1, 2, 3, 4), cap, reporter="api:ldap")
    assert not fleet.done
    (event,) = [line for line in log if line["event"] == "mass_deletion"]
    assert (event["reporter"], event["rejected"], event["asked"], event["allowed"]) == ("api:ldap", 4, 100, 3)


async def test_a_mass_that_comes_one_by_one_is_a_mass() -> None:
    """Within an hour; what was reported before and is reported again does not count again."""
    clock, fleet = Stopwatch(), FakeEnforcement(100)
    reported, cap = ReportedDeletions(fleet, clock), DeletionCap(number=2, percent=0)
    for number in (1, 2, 2, 1):
        await reported.carry_out(devices(number), cap, reporter="api:ldap")
    with pytest.raises(TooManyDeletions):
        await reported.carry_out(devices(3), cap, reporter="api:ldap")
    await reported.carry_out(devices(3), cap, reporter="api:other")
    clock.now_s += 3600
    await reported.carry_out(devices(3), cap, reporter="api:ldap")
    assert [done for done, _ in fleet.done] == [devices(1), devices(2), devices(2), devices(1), devices(3), devices(3)]
