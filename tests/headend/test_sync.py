"""Claims about `aaa sync`: who is asked about, who is cut off, and what never counts as a deletion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Defer, Reject
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.headend import sync as sync_module
from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.headend.sync import AccessSync, DeletionCap, ProfileAccess, Survey, TooManyDeletions
from scep_ra.identity.types import DeviceID
from scep_ra.storage.sessions import Disconnection, EntryChange
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.records import NOW, device_id, make_certificate, make_enrollment, make_key

Answers = Mapping[str, Decision | Exception]
NO_CAP = DeletionCap(number=1000, percent=0)


class FakeAAA:
    """Answers by the device's value; everybody else is let in."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.asked: list[AccessRequest] = []

    async def authorize(self, request: AccessRequest) -> Decision:
        self.asked.append(request)
        answer = self._answers.get(request.device_id.value, Accept())
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check(self) -> None:
        raise NotImplementedError


class FakeDisconnects:
    """Keeps whom it is told to cut off."""

    def __init__(self, error: Exception | None = None) -> None:
        self.done: list[tuple[str, EntryChange, str]] = []
        self._error = error

    async def disconnect(self, device_id: DeviceID, *, entry: EntryChange, by: str) -> DisconnectReport:
        if self._error is not None:
            raise self._error
        self.done.append((device_id.value, entry, by))
        changes = Disconnection(
            device_id=device_id, entry_changed=False, challenges_voided=0, requests_rejected=0, revoked=(), messages=()
        )
        return DisconnectReport(changes=changes, crls={}, deliveries=(), elapsed_ms=0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite"))
    yield store
    await store.close()


async def issue(store: SqlStore, *holders: tuple[str, str]) -> None:
    for number, (value, profile) in enumerate(holders):
        enrollment = make_enrollment(number, key=make_key(f"TX{number}"), device_id=device_id(value))
        await store.insert_enrollment(enrollment, spend=None)
        certificate = make_certificate(number, device_id=device_id(value), profile=profile)
        await store.complete(enrollment.enrollment_id, certificate, NOW)


def make_sync(store: SqlStore, aaa: FakeAAA, disconnects: FakeDisconnects | None = None, **fields: Any) -> AccessSync:
    vpn = ProfileAccess(authorizer=aaa, service=fields.get("service", ""), is_external=True)
    own = ProfileAccess(authorizer=FakeAAA({"SN5": Reject(reason="disabled")}), service="", is_external=False)
    return AccessSync(
        store=store,
        profiles={"vpn": vpn, "own": own, **fields.get("profiles", {})},
        disconnects=disconnects or FakeDisconnects(),
        now=lambda: NOW,
    )


class TestSurvey:
    async def test_every_device_with_a_live_certificate_by_an_external_aaa_is_asked_about(
        self, store: SqlStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many pages they fill; it is a recheck, and nobody is at the line."""
        monkeypatch.setattr(sync_module, "_PAGE", 2)
        await issue(store, *((f"SN{number}", "vpn") for number in range(5)), ("SN7", "own"))
        aaa, steps = FakeAAA({}), list[int]()
        sync = make_sync(store, aaa)
        survey = await sync.survey(await sync.devices(), steps.append)
        assert survey == Survey(allowed=5, unknown=0, rejected={})
        assert sorted(request.device_id.value for request in aaa.asked) == [f"SN{number}" for number in range(5)]
        assert aaa.asked[0] == AccessRequest(
            device_id=aaa.asked[0].device_id, profile="vpn", source="", renewal=False, recheck=True
        )
        assert steps == [1] * 5

    async def test_no_answer_is_never_a_deletion(self, store: SqlStore) -> None:
        """Nor is "not yet", nor a profile that is gone."""
        await issue(store, ("SN1", "vpn"), ("SN2", "vpn"), ("SN3", "vpn"), ("SN4", "vpn"), ("SN4", "gone"))
        aaa = FakeAAA(
            {
                "SN1": Unavailable("away"),
                "SN2": Misconfigured("wrong secret"),
                "SN3": Defer(reason="being looked at"),
                "SN4": Reject(reason="unknown user"),
            }
        )
        sync = make_sync(store, aaa)
        assert await sync.survey(await sync.devices()) == Survey(allowed=0, unknown=4, rejected={})

    async def test_a_device_goes_when_no_profile_lets_it_in_any_more(self, store: SqlStore) -> None:
        """One yes keeps it: a disconnect would take all of its certificates."""
        await issue(store, ("SN1", "vpn"), ("SN2", "vpn"), ("SN2", "own"), ("SN5", "vpn"), ("SN5", "own"))
        gone = Reject(reason="unknown user")
        sync = make_sync(store, FakeAAA({"SN1": gone, "SN2": gone, "SN5": gone}))
        survey = await sync.survey(await sync.devices())
        assert {str(device): reason for device, reason in survey.rejected.items()} == {
            "serial:SN1": "unknown user",
            "serial:SN5": "disabled",
        }
        assert (survey.allowed, survey.asked) == (1, 3)

    async def test_a_service_that_aaa_no_longer_grants_is_a_no(self, store: SqlStore) -> None:
        """As it is when the device enrolls."""
        await issue(store, ("SN1", "vpn"), ("SN2", "vpn"))
        aaa = FakeAAA({"SN1": Accept(services=frozenset({"wifi"})), "SN2": Accept(services=frozenset({"vpn"}))})
        sync = make_sync(store, aaa, service="vpn")
        survey = await sync.survey(await sync.devices())
        assert {device.value: reason for device, reason in survey.rejected.items()} == {
            "SN1": "AAA does not grant service 'vpn'"
        }

    async def test_no_more_questions_are_open_than_agreed(self, store: SqlStore) -> None:
        """The AAA system has other work."""
        await issue(store, *((f"SN{number}", "vpn") for number in range(40)))
        open_now, most = 0, 0

        class Busy(FakeAAA):
            async def authorize(self, request: AccessRequest) -> Decision:
                nonlocal open_now, most
                open_now += 1
                most = max(most, open_now)
                await asyncio.sleep(0)
                open_now -= 1
                return await super().authorize(request)

        sync = make_sync(store, Busy({}))
        assert (await sync.survey(await sync.devices())).allowed == 40
        assert most == sync_module.CONCURRENCY


class TestEnforcement:
    async def survey_of(
        self, store: SqlStore, gone: int, kept: int, disconnects: FakeDisconnects
    ) -> tuple[AccessSync, Survey]:
        await issue(store, *((f"SN{number}", "vpn") for number in range(gone + kept)))
        sync = make_sync(
            store, FakeAAA({f"SN{number}": Reject(reason="unknown user") for number in range(gone)}), disconnects
        )
        return sync, await sync.survey(await sync.devices())

    async def test_rejected_devices_are_disconnected_and_their_entries_kept(self, store: SqlStore) -> None:
        """The entry that went is somebody else's."""
        disconnects = FakeDisconnects()
        sync, survey = await self.survey_of(store, 10, 1, disconnects)
        assert len(await sync.enforce(survey, DeletionCap(), by="alice")) == 10
        assert min(disconnects.done) == ("SN0", EntryChange.KEEP, "alice")

    async def test_very_many_at_once_are_a_fault_until_somebody_says_otherwise(
        self, store: SqlStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is done, it is a security event, and the message says how to go on."""
        events: list[dict[str, Any]] = []
        monkeypatch.setattr(sync_module, "security_event", lambda event, **facts: events.append({"e": event, **facts}))
        disconnects = FakeDisconnects()
        sync, survey = await self.survey_of(store, 11, 9, disconnects)
        with pytest.raises(TooManyDeletions, match=r"11 of 20 devices.*nothing was done.*--max-deletions 11"):
            await sync.enforce(survey, DeletionCap(), by="alice")
        assert disconnects.done == []
        assert events == [{"e": "mass_deletion", "rejected": 11, "asked": 20, "allowed": 10}]
        assert len(await sync.enforce(survey, DeletionCap.parse("11"), by="alice")) == 11

    async def test_a_store_that_fails_ends_it(self, store: SqlStore) -> None:
        """With its own error; what was done stays done."""
        sync, survey = await self.survey_of(store, 3, 0, FakeDisconnects(Unavailable("the disk is full")))
        with pytest.raises(Unavailable, match="the disk is full"):
            await sync.enforce(survey, NO_CAP, by="alice")

    @pytest.mark.parametrize(
        ("cap", "devices", "allowed"),
        [
            (DeletionCap(), 100, 10),
            (DeletionCap(), 1000, 50),
            (DeletionCap.parse("3"), 1000, 3),
            (DeletionCap.parse("0"), 1000, 0),
            (DeletionCap.parse("12.5%"), 80, 10),
            (DeletionCap.parse("100%"), 7, 7),
        ],
    )
    def test_a_cap_is_a_number_or_a_percentage(self, cap: DeletionCap, devices: int, allowed: int) -> None:
        """By default ten devices or five percent, whichever is more."""
        assert cap.of(devices) == allowed

    @pytest.mark.parametrize("text", ["", "-1", "many", "101%", "-1%", "x%", "nan%", "1.5", "²"])
    def test_any_other_text_is_none(self, text: str) -> None:
        """A slip must not lift the cap."""
        with pytest.raises(ValueError, match=r"."):
            DeletionCap.parse(text)


class TestRounds:
    async def run(self, sync: AccessSync, until: asyncio.Event) -> None:
        task = asyncio.create_task(sync.run(0.001, DeletionCap(number=1, percent=0)))
        try:
            async with asyncio.timeout(10):
                await until.wait()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def test_rounds_follow_one_another_and_disconnect(self, store: SqlStore) -> None:
        """In the name of the job."""
        await issue(store, ("SN1", "vpn"))
        second = asyncio.Event()

        class Disconnects(FakeDisconnects):
            async def disconnect(self, device_id: DeviceID, *, entry: EntryChange, by: str) -> DisconnectReport:
                if self.done:
                    second.set()
                return await super().disconnect(device_id, entry=entry, by=by)

        disconnects = Disconnects()
        await self.run(make_sync(store, FakeAAA({"SN1": Reject(reason="gone")}), disconnects), second)
        assert disconnects.done[0] == ("SN1", EntryChange.KEEP, "aaa sync")

    @pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
    async def test_what_fails_once_does_not_end_the_rounds(
        self, store: SqlStore, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        """The next may find the store again."""
        holders, errors, again = store.certificate_holders, [error], asyncio.Event()

        async def fail_once(*arguments: Any) -> Any:
            if errors:
                raise errors.pop()
            again.set()
            return await holders(*arguments)

        monkeypatch.setattr(store, "certificate_holders", fail_once)
        await self.run(make_sync(store, FakeAAA({})), again)
        assert errors == []
