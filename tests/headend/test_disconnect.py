"""Claims about the instant disconnect: what its caller sees, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from scep_ra.errors import Unavailable
from scep_ra.headend.dae import DisconnectSender, DisconnectTarget
from scep_ra.headend.disconnect import DisconnectService
from scep_ra.headend.outbox import Attempt, Outbox, Verdict
from scep_ra.identity.types import DeviceID
from scep_ra.radius.packets import Code
from scep_ra.storage.base import StoredCRL
from scep_ra.storage.sessions import EntryChange, MessageKind
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.outbox import FakeSender, answering
from tests.support.radius_server import SECRET, FakeServer, fake_server, silent
from tests.support.records import (
    HOUR,
    NOW,
    device_id,
    make_certificate,
    make_device,
    make_enrollment,
    make_session,
)


class FakeCRLs:
    """Makes CRLs without a CA."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[str] = []
        self._error = error

    async def current_crl(self, ca: str) -> StoredCRL:
        self.asked.append(ca)
        if self._error is not None:
            raise self._error
        return StoredCRL(ca=ca, crl_number=7, der=b"", this_update=NOW, next_update=NOW + HOUR, revocation_sequence=1)


class Cache:
    """An authorizer that remembers."""

    def __init__(self) -> None:
        self.flushed: list[DeviceID] = []

    def flush(self, device_id: DeviceID) -> None:
        self.flushed.append(device_id)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite"))
    await store.add_device(make_device())
    await store.insert_enrollment(make_enrollment(), spend=None)
    await store.complete(make_enrollment().enrollment_id, make_certificate(), NOW)
    yield store
    await store.close()


def make_outbox(store: SqlStore, sender: Any) -> Outbox:
    return Outbox(store=store, senders={MessageKind.DISCONNECT: sender, MessageKind.WEBHOOK: sender}, now=lambda: NOW)


def make_service(store: SqlStore, outbox: Outbox, **fields: Any) -> DisconnectService:
    numbers = iter(range(100))
    defaults: dict[str, Any] = {
        "revocations": FakeCRLs(),
        "authorizers": [],
        "webhooks": [],
        "now": lambda: NOW,
        "random": lambda count: next(numbers).to_bytes(count),
    }
    return DisconnectService(store=store, outbox=outbox, **{**defaults, **fields})


def make_target(name: str, server: FakeServer) -> DisconnectTarget:
    return DisconnectTarget(
        name=name, network=ip_network(server.address.host), port=server.address.port, read_secret=lambda: SECRET
    )


async def cut_off(service: DisconnectService, **fields: Any) -> Any:
    return await service.disconnect(device_id(), **{"entry": EntryChange.DISABLE, "by": "alice", **fields})


async def test_a_disconnect_tells_headends_webhooks_caches_and_makes_the_crl(store: SqlStore) -> None:
    """All at once; what became of it is in the report."""
    await store.record_session(make_session())
    crls, cache, sender = FakeCRLs(), Cache(), FakeSender()
    service = make_service(
        store, make_outbox(store, sender), revocations=crls, authorizers=[cache, object()], webhooks=["siem"]
    )
    report = await cut_off(service)
    assert report.changes.entry_changed
    assert len(report.changes.revoked) == 1
    assert (report.crls, crls.asked) == ({"default": 7}, ["default"])
    assert cache.flushed == [device_id()]
    assert sorted((each.message.target, each.message.result) for each in report.deliveries) == [
        ("siem", "ack"),
        ("vpn", "ack"),
    ]
    assert report.open_deliveries == 0
    assert report.deliveries[0].took == timedelta(0)
    assert report.elapsed_ms < 1000


async def test_without_sessions_and_webhooks_nothing_is_waited_for(store: SqlStore) -> None:
    """The second time there is nothing to revoke either."""
    crls = FakeCRLs()
    service = make_service(store, make_outbox(store, FakeSender()), revocations=crls)
    await cut_off(service)
    report = await cut_off(service)
    assert (report.deliveries, report.crls, crls.asked) == ([], {}, ["default"])


async def test_a_ca_that_makes_no_crl_changes_nothing_else(store: SqlStore) -> None:
    """Whoever asks for one makes it; the revocation is in the store."""
    service = make_service(
        store, make_outbox(store, FakeSender()), revocations=FakeCRLs(Unavailable("the token is away"))
    )
    report = await cut_off(service)
    assert (report.crls, len(report.changes.revoked)) == ({}, 1)


async def test_headends_are_asked_side_by_side_in_less_than_a_second(store: SqlStore) -> None:
    """Ten of them, each with its own socket; their sessions end in the store."""
    for number in range(10):
        await store.record_session(make_session(headend=f"vpn{number}"))
    async with fake_server(answering(Code.DISCONNECT_ACK)) as server:
        targets = [make_target(f"vpn{number}", server) for number in range(10)]
        sender = DisconnectSender(targets, sessions=store, now=lambda: NOW)
        outbox = make_outbox(store, sender)
        started_at = time.monotonic()
        report = await cut_off(make_service(store, outbox))
        assert time.monotonic() - started_at < 1
        await outbox.close()
    assert [each.message.result for each in report.deliveries] == ["ack"] * 10
    assert await store.list_sessions() == []


async def test_a_dead_headend_holds_nobody_up_longer_than_the_wait(store: SqlStore) -> None:
    """The others are done by then; it stays in the outbox."""
    await store.record_session(make_session(headend="dead"))
    await store.record_session(make_session(headend="alive"))
    async with fake_server(answering(Code.DISCONNECT_ACK)) as alive, fake_server(silent) as dead:
        targets = [make_target("alive", alive), make_target("dead", dead)]
        outbox = make_outbox(store, DisconnectSender(targets, sessions=store, now=lambda: NOW))
        report = await cut_off(make_service(store, outbox), wait_s=0.4)
        await outbox.close()
    assert {each.message.target: (each.is_settled, each.took is None) for each in report.deliveries} == {
        "alive": (True, False),
        "dead": (False, True),
    }
    assert report.open_deliveries == 1
    assert 400 <= report.elapsed_ms < 2000
    assert [session.headend for session in await store.list_sessions()] == ["dead"]


async def test_what_another_node_is_sending_is_waited_for(store: SqlStore) -> None:
    """It claimed the message in the moment between."""
    await store.record_session(make_session())
    released = asyncio.Event()

    class Slow(FakeSender):
        async def send(self, _message: Any) -> Attempt:
            await released.wait()
            return Attempt(verdict=Verdict.DONE, result="ack of the other")

    other, disconnect = make_outbox(store, Slow()), store.disconnect_device

    async def disconnect_and_lose_the_race(*arguments: Any, **fields: Any) -> Any:
        changes = await disconnect(*arguments, **fields)
        assert len(await other.start_sending(device_id())) == 1
        return changes

    store.disconnect_device = disconnect_and_lose_the_race  # type: ignore[method-assign]  # of this test's store
    waiting = asyncio.create_task(cut_off(make_service(store, make_outbox(store, FakeSender()))))
    read, read_twice = store.messages_of, asyncio.Event()
    reads: list[int] = []

    async def count(*arguments: Any) -> Any:
        reads.append(1)
        if len(reads) == 2:
            read_twice.set()
        return await read(*arguments)

    store.messages_of = count  # type: ignore[method-assign, assignment]  # of this test's store
    await read_twice.wait()
    released.set()
    (delivery,) = (await waiting).deliveries
    assert delivery.message.result == "ack of the other"


async def test_an_outbox_that_fails_leaves_the_disconnect_as_it_is(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is committed; the server sends the rest."""
    await store.record_session(make_session())

    async def fail(*_: object) -> None:
        raise Unavailable("the database went away")

    monkeypatch.setattr(store, "claim_messages", fail)
    report = await cut_off(make_service(store, make_outbox(store, FakeSender())))
    assert (report.open_deliveries, report.changes.entry_changed) == (1, True)


async def test_what_an_earlier_disconnect_could_not_deliver_is_shown_again(store: SqlStore) -> None:
    """With the result of the last attempt, and without waiting for the next."""
    await store.record_session(make_session())
    silent_sender: Callable[[], FakeSender] = lambda: FakeSender(  # noqa: E731 - short and used twice
        script=[Attempt(verdict=Verdict.SILENT, result="timeout")]
    )
    first = await cut_off(make_service(store, make_outbox(store, silent_sender())))
    again = await cut_off(make_service(store, make_outbox(store, silent_sender())))
    assert [each.message for each in again.deliveries] == [each.message for each in first.deliveries]
    assert replace(again.deliveries[0].message, attempts=1).result == "timeout"
