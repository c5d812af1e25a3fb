"""Puts refused requests on record, out of the way of the answer and within bounds.

`note` only queues; a task writes what has gathered. Strangers cause refusals as often as they like, so each source has
an allowance: what goes beyond is counted and logged, never stored. What a record says is `decisions`' matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from scep_ra.enrollment.limits import TokenBuckets, network_of
from scep_ra.errors import ScepRaError
from scep_ra.storage.base import DecisionStore, StoredDecision

log = structlog.stdlib.get_logger(__name__)

# About 2 MiB; a store that is slower than this much has other troubles.
MAX_WAITING: Final = 1000
# A gateway whose devices all have expired challenges stays on record; who guesses does not.
BURST: Final = 30
PER_S: Final = 1.0
_REPORT_EVERY_S: Final = 60.0


class RefusalLog:
    """Takes records of refused requests and writes them in batches, one transaction each."""

    def __init__(
        self,
        *,
        store: DecisionStore,
        monotonic: Callable[[], float] = time.monotonic,
        max_waiting: int = MAX_WAITING,
        burst: int = BURST,
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._max_waiting = max_waiting
        self._allowances = TokenBuckets(burst=burst, per_s=PER_S, monotonic=monotonic)
        self._waiting: list[StoredDecision] = []
        self._writing: asyncio.Task[None] | None = None
        self._left_out = 0
        self._report_at = monotonic()

    def note(self, decision: StoredDecision) -> None:
        """Queue a record, or count it when its source or all together have too many; never wait, never raise."""
        if len(self._waiting) >= self._max_waiting or not self._allowances.take(network_of(decision.source)):
            self._leave_out(decision.source)
            return
        self._waiting.append(decision)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Write what waits; call it when no request is under way any more."""
        if self._writing is not None:
            await self._writing
        self._report()

    async def _write(self) -> None:
        try:
            while self._waiting:
                # What comes while one batch is written is the next batch.
                batch, self._waiting = self._waiting, []
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[StoredDecision]) -> None:
        try:
            await self._store.add_decisions(batch)
        except ScepRaError as error:
            log.warning("refusals_lost", count=len(batch), reason=str(error))
        except Exception:
            # A bug in one record costs its batch; the next refusals are still to be written.
            log.exception("refusals_lost", count=len(batch))

    def _leave_out(self, source: str) -> None:
        self._left_out += 1
        if self._monotonic() >= self._report_at:
            self._report(source=source)

    def _report(self, **facts: str) -> None:
        if self._left_out:
            log.warning("refusals_not_recorded", count=self._left_out, **facts)
            self._left_out = 0
            self._report_at = self._monotonic() + _REPORT_EVERY_S
