"""The instant disconnect: one transaction, then everybody who has to know, at once.

The transaction (`storage.sessions.DisconnectStore`) is what counts; all that follows can fail and is made up for: an
outbox is emptied by the server, a CRL is made by whoever asks for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from scep_ra.aaa.base import SupportsFlush
from scep_ra.errors import ScepRaError
from scep_ra.headend.outbox import Outbox
from scep_ra.identity.types import DeviceID
from scep_ra.storage.base import StoredCRL
from scep_ra.storage.sessions import Disconnection, DisconnectStore, EntryChange, OutboxMessage, OutboxStore

log = structlog.stdlib.get_logger(__name__)

CESSATION_OF_OPERATION: Final = 5  # CRLReason (RFC 5280 5.3.1)
# How long the caller waits for headends, unless it says otherwise: three transmissions to one that is dead.
WAIT_S: Final = 5.0
# What another node has claimed is looked at so often.
_LOOK_S: Final = 0.05


class HeadendStore(DisconnectStore, OutboxStore, Protocol):
    """The part of the store that a disconnect needs."""


class CRLs(Protocol):
    """Who makes CRLs (`revocation.service`)."""

    async def current_crl(self, ca: str) -> StoredCRL:
        """Return a CRL that knows all revocations."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How one message stood when the waiting ended."""

    message: OutboxMessage

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing more is to be done about it."""
        return self.message.settled_at is not None

    @property
    def took(self) -> timedelta | None:
        """Return the time from the disconnect to the outcome."""
        settled_at = self.message.settled_at
        return None if settled_at is None else settled_at - self.message.created_at


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectReport:
    """What a disconnect did, and how far it had come when the waiting ended."""

    changes: Disconnection
    crls: Mapping[str, int]  # CA -> number of the CRL that lists its certificates
    deliveries: Sequence[Delivery]
    elapsed_ms: float

    @property
    def open_deliveries(self) -> int:
        """Return how many messages the server still has to deliver."""
        return sum(not each.is_settled for each in self.deliveries)


class DisconnectService:
    """Cuts devices off."""

    def __init__(
        self,
        *,
        store: HeadendStore,
        outbox: Outbox,
        revocations: CRLs,
        authorizers: Iterable[object],
        webhooks: Collection[str],
        now: Callable[[], datetime],
        random: Callable[[int], bytes],
    ) -> None:
        """Take `authorizers`, told to forget where they can, and the names of the `webhooks` in the configuration."""
        self._store = store
        self._outbox = outbox
        self._revocations = revocations
        self._caches = [each for each in authorizers if isinstance(each, SupportsFlush)]
        self._webhooks = tuple(webhooks)
        self._now = now
        self._random = random

    async def disconnect(
        self,
        device_id: DeviceID,
        *,
        entry: EntryChange,
        by: str,
        reason: int = CESSATION_OF_OPERATION,
        wait_s: float = WAIT_S,
    ) -> DisconnectReport:
        """Cut a device off and wait up to `wait_s` for headends and webhooks to say what they did.

        Raise a BackendError when the transaction cannot be committed; then nothing was done, or it is not known. What
        fails after it is in the report or the log.
        """
        started_at = time.monotonic()
        changes = await self._store.disconnect_device(
            device_id,
            self._now(),
            entry=entry,
            revocation_reason=reason,
            webhooks=self._webhooks,
            by=by,
            new_id=lambda: self._random(16).hex(),
        )
        for cache in self._caches:
            cache.flush(device_id)
        crls, deliveries = await asyncio.gather(self._make_crls(changes), self._deliver(changes, wait_s))
        elapsed_ms = (time.monotonic() - started_at) * 1000
        log.info(
            "device_disconnected",
            device_id=str(device_id),
            by=by,
            revoked=len(changes.revoked),
            messages=len(deliveries),
            elapsed_ms=round(elapsed_ms),
        )
        return DisconnectReport(changes=changes, crls=crls, deliveries=deliveries, elapsed_ms=elapsed_ms)

    async def _make_crls(self, changes: Disconnection) -> Mapping[str, int]:
        """Make the CRLs that the revocations ask for, so that nobody who fetches one has to wait for it."""
        numbers = {}
        for ca in sorted({ca for ca, _ in changes.revoked}):
            try:
                numbers[ca] = (await self._revocations.current_crl(ca)).crl_number
            except ScepRaError as error:
                log.warning("crl_not_made", ca=ca, reason=str(error))
        return numbers

    async def _deliver(self, changes: Disconnection, wait_s: float) -> Sequence[Delivery]:
        if not changes.messages:
            return []
        messages: Sequence[OutboxMessage] = changes.messages
        try:
            async with asyncio.timeout(wait_s):
                # The tasks go on when the waiting ends.
                sending = await self._outbox.start_sending(changes.device_id)
                if sending:
                    await asyncio.wait(sending)
                messages = await self._read(changes)
                while any(not each.result for each in messages):
                    await asyncio.sleep(_LOOK_S)
                    messages = await self._read(changes)
        except TimeoutError:
            messages = await self._read(changes)
        except ScepRaError as error:
            log.warning("outbox_failed", device_id=str(changes.device_id), reason=str(error))
        return [Delivery(message=message) for message in messages]

    async def _read(self, changes: Disconnection) -> Sequence[OutboxMessage]:
        return await self._store.messages_of([message.message_id for message in changes.messages])
