"""Send what the store keeps for others, at least once, however often we are restarted meanwhile.

What is due is claimed for the time of a lease, so that of several nodes one sends; a node that dies leaves its messages
to the next. How a kind of message is sent is its Sender's work, what is in it the store's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, Protocol, assert_never

import structlog

from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceID
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.sessions import MessageKind, OutboxMessage, OutboxStore

log = structlog.stdlib.get_logger(__name__)

# Longer than any sender takes, which is what it is for; a node that was killed delays its messages by so much.
LEASE_S: Final = 30.0
_PATIENCE_S: Final = LEASE_S * 2 / 3
# Sent side by side, and claimed at a time: a datagram or a connection each.
_BATCH: Final = 64
# A server looks for what others left behind, or what is due again.
_INTERVAL_S: Final = 2.0
# A headend that is away is asked after 2, 4, 8 ... seconds and at last every five minutes, for a day: then somebody
# has to look at it, and the sessions of its old life are gone.
_MAX_DELAY: Final = timedelta(minutes=5)
_MAX_AGE: Final = timedelta(days=1)
# Who understood and said no will hardly change its mind; it may have been busy (Error-Cause 506).
_MAX_REFUSALS: Final = 4


# Where the configuration says to whom a kind of message goes.
_TABLES: Final = {MessageKind.DISCONNECT: "[headend.NAME]", MessageKind.WEBHOOK: "[webhook.NAME]"}


class Verdict(Enum):
    """What an attempt has come to."""

    DONE = auto()  # it arrived, and nothing more is to be done
    SILENT = auto()  # nobody answered: try for as long as it makes sense
    REFUSED = auto()  # it arrived, and the answer was no: a few more times


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How an attempt ended."""

    verdict: Verdict
    result: str  # in words: "ack", "nak 506 resources unavailable", "timeout"


class Sender(Protocol):
    """Sends one kind of message."""

    async def send(self, message: OutboxMessage) -> Attempt:
        """Try once, with retransmissions, in much less than a lease; raise nothing but a ScepRaError."""
        ...

    async def close(self) -> None:
        """Let go of sockets and connections."""
        ...


class Outbox:
    """Claims messages and has them sent."""

    def __init__(
        self, *, store: OutboxStore, senders: Mapping[MessageKind, Sender], now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._senders = senders
        self._now = now
        self._under_way: dict[asyncio.Task[None], OutboxMessage] = {}

    async def start_sending(self, device_id: DeviceID) -> Sequence[asyncio.Task[None]]:
        """Claim what is due because of a device and return the tasks that send it; raise a BackendError."""
        return await self._start(_BATCH, device_id)

    async def _start(self, limit: int, device_id: DeviceID | None = None) -> Sequence[asyncio.Task[None]]:
        now = self._now()
        claimed = await self._store.claim_messages(now, now + timedelta(seconds=LEASE_S), limit, device_id)
        tasks = {asyncio.create_task(self._deliver(message)): message for message in claimed}
        self._under_way |= tasks
        for task in tasks:
            task.add_done_callback(self._under_way.pop)
        return list(tasks)

    async def run(self) -> None:
        """Send what is due until cancelled; what fails is logged."""
        while True:
            try:
                await self._start(max(_BATCH - len(self._under_way), 0))
            except ScepRaError as error:
                log.warning("outbox_failed", reason=str(error))
            except Exception:
                # A bug must not end the sending unseen.
                log.exception("outbox_failed")
            if len(self._under_way) < _BATCH:
                await asyncio.sleep(_INTERVAL_S)
            else:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """End what is under way, for the next process to take up at once, and let go of the senders."""
        unfinished = dict(self._under_way)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for task, message in unfinished.items():
            if task.cancelled():
                with suppress(ScepRaError):  # its lease ends by itself
                    await self._store.put_off_message(message.message_id, self._now(), "interrupted")
        for sender in self._senders.values():
            await sender.close()

    async def _deliver(self, message: OutboxMessage) -> None:
        attempt = await self._attempt(message)
        try:
            await self._conclude(message, attempt)
        except ScepRaError as error:
            # It will be sent once more, when the lease has ended.
            log.warning("outbox_failed", message_id=message.message_id, reason=str(error))

    async def _attempt(self, message: OutboxMessage) -> Attempt:
        sender = self._senders.get(message.kind)
        if sender is None:
            return Attempt(verdict=Verdict.REFUSED, result=f"no {_TABLES[message.kind]} in the configuration")
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await sender.send(message)
        except TimeoutError:
            return Attempt(verdict=Verdict.SILENT, result="timeout")
        except ScepRaError as error:
            return Attempt(verdict=Verdict.SILENT, result=str(error))
        except Exception as error:
            log.exception("message_not_sent", **_facts(message))
            return Attempt(verdict=Verdict.REFUSED, result=type(error).__name__)

    async def _conclude(self, message: OutboxMessage, attempt: Attempt) -> None:
        now = self._now()
        match attempt.verdict:
            case Verdict.DONE:
                log.info("message_delivered", **_facts(message), result=attempt.result)
                await self._store.settle_message(message.message_id, now, attempt.result)
                return
            case Verdict.SILENT:
                is_over = now - message.created_at >= _MAX_AGE
            case Verdict.REFUSED:
                is_over = message.attempts >= _MAX_REFUSALS
            case _:
                assert_never(attempt.verdict)
        if is_over:
            security_event(SecurityEvent.MESSAGE_UNDELIVERED, **_facts(message), reason=attempt.result)
            await self._store.settle_message(message.message_id, now, f"given up: {attempt.result}")
        else:
            log.warning("message_put_off", **_facts(message), reason=attempt.result)
            await self._store.put_off_message(message.message_id, now + _delay(message.attempts), attempt.result)


def _delay(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts."""
    return min(timedelta(seconds=2 ** min(attempts, 16)), _MAX_DELAY)


def _facts(message: OutboxMessage) -> dict[str, object]:
    return {
        "message_id": message.message_id,
        "kind": message.kind.value,
        "target": message.target,
        "device_id": str(message.device_id),
        "attempts": message.attempts,
    }
