"""Have the authorizers of this process forget devices that another process has cut off.

A disconnect flushes the caches of its own process; those of other workers and nodes hear of it here, by the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

import structlog

from scep_ra.aaa.base import SupportsFlush
from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceID
from scep_ra.storage.sessions import DisconnectStore

log = structlog.stdlib.get_logger(__name__)

# Less than the five seconds for which the store condemns what AAA has allowed around a disconnect (`sql_limits`): a yes
# that was remembered for longer gets nobody a certificate.
_INTERVAL_S: Final = 2.0
# Clocks of nodes differ, and a transaction commits after it has read its own.
_OVERLAP: Final = timedelta(seconds=30)


class Forgetting:
    """Looks for disconnects of others."""

    def __init__(self, *, store: DisconnectStore, authorizers: Iterable[object], now: Callable[[], datetime]) -> None:
        self._store = store
        self._caches = [each for each in authorizers if isinstance(each, SupportsFlush)]
        self._now = now

    async def run(self) -> None:
        """Forget who was cut off until cancelled; what fails is logged."""
        since = self._now()
        while True:
            begun_at = self._now()
            try:
                for device_id in await self._store.disconnected_since(since - _OVERLAP):
                    self._flush(device_id)
            except ScepRaError as error:
                log.warning("disconnects_not_read", reason=str(error))
            except Exception:
                # A bug must not end the rounds unseen.
                log.exception("disconnects_not_read")
            else:
                since = begun_at
            await asyncio.sleep(_INTERVAL_S)

    def _flush(self, device_id: DeviceID) -> None:
        for cache in self._caches:
            cache.flush(device_id)
