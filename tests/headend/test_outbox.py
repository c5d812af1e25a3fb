"""Claims about the outbox: who sends what when, and when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scep_ra.errors import Unavailable
from scep_ra.headend import outbox as outbox_module
from scep_ra.headend.outbox import LEASE_S, Attempt, Outbox, Verdict
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.sessions import MessageKind, OutboxMessage
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.outbox import Clock, FakeSender
from tests.support.records import NOW, device_id, disconnect_device, make_session

SILENT = Attempt(verdict=Verdict.SILENT, result="timeout")
REFUSED = Attempt(verdict=Verdict.REFUSED, result="nak 506")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite"))
    yield store
    await store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_outbox(store: SqlStore, clock: Clock, sender: FakeSender) -> Outbox:
    return Outbox(store=store, senders={MessageKind.DISCONNECT: sender}, now=clock)


async def enqueue(store: SqlStore, value: str = "SN123") -> str:
    await store.record_session(make_session(value, device_id=device_id(value)))
    (message,) = (await disconnect_device(store, value)).messages
    return message.message_id


async def send(outbox: Outbox, value: str = "SN123") -> int:
    """Send what is due and wait for it; return how many messages there were."""
    tasks = await outbox.start_sending(device_id(value))
    await asyncio.gather(*tasks)
    return len(tasks)


async def read(store: SqlStore, message_id: str) -> OutboxMessage:
    (message,) = await store.messages_of([message_id])
    return message


class TestAttempts:
    async def test_what_has_arrived_is_settled(self, store: SqlStore, clock: Clock) -> None:
        """And not sent again."""
        message_id, sender = await enqueue(store), FakeSender()
        outbox = make_outbox(store, clock, sender)
        assert await send(outbox) == 1
        message = await read(store, message_id)
        assert (message.settled_at, message.result) == (NOW, "ack")
        clock.pass_(days=1)
        assert await send(outbox) == 0

    async def test_who_is_silent_is_asked_again_ever_later_for_a_day(self, store: SqlStore, clock: Clock) -> None:
        """2, 4, 8 seconds, at last every five minutes; then somebody has to look at it."""
        message_id = await enqueue(store)
        outbox = make_outbox(store, clock, FakeSender(script=[SILENT]))
        delays = []
        while await send(outbox) == 1 and (message := await read(store, message_id)).settled_at is None:
            delays.append((message.due_at - clock.moment).total_seconds())
            clock.moment = message.due_at
        assert delays[:9] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
        assert set(delays[9:]) == {300}
        assert 86_100 <= sum(delays) <= 86_700
        assert (await read(store, message_id)).result == "given up: timeout"

    async def test_who_says_no_is_asked_four_times(self, store: SqlStore, clock: Clock) -> None:
        """It may have been busy."""
        message_id, sender = await enqueue(store), FakeSender(script=[REFUSED])
        outbox = make_outbox(store, clock, sender)
        while await send(outbox):
            clock.pass_(minutes=5)
        assert len(sender.sent) == 4
        assert (await read(store, message_id)).result == "given up: nak 506"

    async def test_giving_up_is_a_security_event(
        self, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stolen device may still be connected."""
        reported: list[dict[str, Any]] = []
        monkeypatch.setattr(
            outbox_module, "security_event", lambda event, **facts: reported.append({"e": event, **facts})
        )
        message_id = await enqueue(store)
        outbox = make_outbox(store, clock, FakeSender(script=[REFUSED]))
        while await send(outbox):
            clock.pass_(minutes=5)
        assert reported == [
            {
                "e": "message_undelivered",
                "message_id": message_id,
                "kind": "disconnect",
                "target": "vpn",
                "device_id": "serial:SN123",
                "attempts": 4,
                "reason": "nak 506",
            }
        ]
        assert [record.event async for record in store.audit_records()][-1] == AuditEvent.MESSAGE_SETTLED

    @pytest.mark.parametrize(
        ("error", "result"),
        [
            (Unavailable("no route to host"), "no route to host"),
            (RuntimeError("a bug"), "RuntimeError"),
            (TimeoutError(), "timeout"),
        ],
    )
    async def test_a_sender_that_fails_is_tried_again(
        self, store: SqlStore, clock: Clock, error: Exception, result: str
    ) -> None:
        """Whatever it raises."""
        message_id = await enqueue(store)
        outbox = make_outbox(store, clock, FakeSender(script=[error, Attempt(verdict=Verdict.DONE, result="ack")]))
        await send(outbox)
        message = await read(store, message_id)
        assert (message.settled_at, message.result) == (None, result)
        clock.pass_(seconds=2)
        await send(outbox)
        assert (await read(store, message_id)).result == "ack"

    async def test_a_kind_of_message_that_nobody_sends_is_refused(self, store: SqlStore, clock: Clock) -> None:
        """The last headend was taken out of the configuration."""
        message_id = await enqueue(store)
        await send(Outbox(store=store, senders={}, now=clock))
        assert (await read(store, message_id)).result == "no [headend.NAME] in the configuration"

    async def test_a_sender_that_hangs_is_cut_off_before_the_lease_ends(
        self, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise another node would send at the same time."""
        assert outbox_module._PATIENCE_S < LEASE_S
        monkeypatch.setattr(outbox_module, "_PATIENCE_S", 0.01)
        message_id = await enqueue(store)
        await send(make_outbox(store, clock, FakeSender(script=[asyncio.Event().wait])))
        assert (await read(store, message_id)).result == "timeout"

    async def test_a_store_that_is_away_leaves_the_message_to_its_lease(
        self, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is sent once more, which does no harm."""

        async def fail(*_: object) -> None:
            raise Unavailable("the disk is full")

        await enqueue(store)
        sender = FakeSender()
        outbox = make_outbox(store, clock, sender)
        with monkeypatch.context() as patch:
            patch.setattr(store, "settle_message", fail)
            await send(outbox)
        assert await send(outbox) == 0
        clock.pass_(seconds=LEASE_S)
        assert await send(outbox) == 1
        assert [message.attempts for message in sender.sent] == [1, 2]


class TestSharing:
    async def test_two_nodes_send_each_message_once(self, store: SqlStore, clock: Clock) -> None:
        """Whoever claims it."""
        for number in range(20):
            await enqueue(store, f"SN{number}")
        sender = FakeSender()
        nodes = [make_outbox(store, clock, sender) for _ in range(2)]
        counts = await asyncio.gather(*(send(node, f"SN{number}") for number in range(20) for node in nodes))
        assert sum(counts) == len({message.message_id for message in sender.sent}) == 20

    async def test_a_node_that_died_leaves_its_messages_to_the_next(self, store: SqlStore, clock: Clock) -> None:
        """When the lease has ended."""
        await enqueue(store)
        await store.claim_messages(clock(), clock() + timedelta(seconds=LEASE_S), 9)
        alive = make_outbox(store, clock, FakeSender())
        assert await send(alive) == 0
        clock.pass_(seconds=LEASE_S)
        assert await send(alive) == 1

    async def test_a_node_that_stops_leaves_its_messages_to_the_next_at_once(
        self, store: SqlStore, clock: Clock
    ) -> None:
        """So does a command that ends before a headend has answered; what has ended is not begun again."""
        message_id = await enqueue(store)
        stopping = make_outbox(store, clock, FakeSender(script=[asyncio.Event().wait]))
        await stopping.start_sending(device_id())
        await stopping.close()
        assert (await read(store, message_id)).result == "interrupted"
        assert await send(make_outbox(store, clock, FakeSender())) == 1

    async def test_a_store_that_is_away_at_the_end_holds_nobody_up(
        self, store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lease ends by itself."""

        async def fail(*_: object) -> None:
            raise Unavailable("away")

        await enqueue(store)
        stopping = make_outbox(store, clock, FakeSender(script=[asyncio.Event().wait]))
        await stopping.start_sending(device_id())
        monkeypatch.setattr(store, "put_off_message", fail)
        await stopping.close()

    async def test_an_outcome_on_its_way_to_the_store_is_not_lost(self, store: SqlStore, clock: Clock) -> None:
        """A cancelled task that ends all the same has ended."""
        message_id = await enqueue(store)
        sent, put = asyncio.Event(), store.settle_message

        async def settle(*arguments: Any) -> None:
            sent.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await put(*arguments)

        store.settle_message = settle  # type: ignore[method-assign, assignment]  # of this test's store
        outbox = make_outbox(store, clock, FakeSender())
        await outbox.start_sending(device_id())
        await sent.wait()
        await outbox.close()
        assert (await read(store, message_id)).result == "ack"

    async def test_closing_closes_the_senders(self, store: SqlStore, clock: Clock) -> None:
        """Their sockets must not outlive the server."""
        sender = FakeSender()
        await make_outbox(store, clock, sender).close()
        assert sender.is_closed


class TestRunning:
    @pytest.fixture
    async def arrived(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[OutboxMessage]:
        monkeypatch.setattr(outbox_module, "_INTERVAL_S", 0.001)
        return asyncio.Queue()

    async def run(self, outbox: Outbox, arrived: asyncio.Queue[OutboxMessage], count: int) -> Sequence[OutboxMessage]:
        """Run until so many messages have arrived."""
        task = asyncio.create_task(outbox.run())
        try:
            async with asyncio.timeout(10):
                return [await arrived.get() for _ in range(count)]
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await outbox.close()

    async def test_a_server_sends_what_another_process_left_behind(
        self, store: SqlStore, clock: Clock, arrived: asyncio.Queue[OutboxMessage]
    ) -> None:
        """More of it than is sent side by side."""
        sender = _Telling(arrived)
        for number in range(outbox_module._BATCH + 5):
            await enqueue(store, f"SN{number}")
        messages = await self.run(make_outbox(store, clock, sender), arrived, outbox_module._BATCH + 5)
        assert len({message.message_id for message in messages}) == outbox_module._BATCH + 5

    @pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
    async def test_what_goes_wrong_once_does_not_end_the_sending(
        self,
        store: SqlStore,
        clock: Clock,
        arrived: asyncio.Queue[OutboxMessage],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        """The next round is another one."""
        await enqueue(store)
        claim, errors = store.claim_messages, [error]

        async def claim_later(*arguments: Any) -> Sequence[OutboxMessage]:
            if errors:
                raise errors.pop()
            return await claim(*arguments)

        monkeypatch.setattr(store, "claim_messages", claim_later)
        assert len(await self.run(make_outbox(store, clock, _Telling(arrived)), arrived, 1)) == 1


class _Telling(FakeSender):
    """A sender whose test waits for what it gets."""

    def __init__(self, arrived: asyncio.Queue[OutboxMessage]) -> None:
        super().__init__()
        self._arrived = arrived

    async def send(self, message: OutboxMessage) -> Attempt:
        await self._arrived.put(message)
        return await super().send(message)
