"""Lock-out after wrong challenges, per source and per device (SR-16): one counter for each profile and process.

A one-time challenge has 128 bits and cannot be guessed, so a right one always passes; the lock then only spares work
and records. A static challenge can be guessed, so there the lock bites, before the secret is compared.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable

from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.enrollment.limits import MAX_KEYS, network_of
from scep_ra.identity.types import DeviceID
from scep_ra.security_events import SecurityEvent, security_event


class Lockout:
    """Counts wrong challenges; `attempts` of them within the window lock for as long as the window is. 0 = never."""

    def __init__(
        self,
        *,
        attempts: int,
        window_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._attempts = attempts
        self._window_s = window_s
        self._monotonic = monotonic
        # Apart, so that whoever tries many devices does not push sources out of memory.
        self._sources = _Failures(attempts=attempts, window_s=window_s, max_keys=max_keys)
        self._devices = _Failures(attempts=attempts, window_s=window_s, max_keys=max_keys)

    def check(self, source: str, device_id: DeviceID) -> None:
        """Check that this source may try a secret for this device; raise NotAuthorized.

        A locked device is locked for sources that have failed lately: from its own clean address it gets in.
        """
        now, network = self._monotonic(), network_of(source)
        if self._sources.are_too_many(network, now):
            raise NotAuthorized(f"{network} is locked out after {self._attempts} wrong challenges")
        if self._devices.are_too_many(str(device_id), now) and self._sources.are_recent(network, now):
            raise NotAuthorized(f"{device_id} is locked out after {self._attempts} wrong challenges")

    def failed(self, source: str, device_id: DeviceID) -> bool:
        """Count a wrong challenge; return True when it is beyond the limit, and so not worth a record.

        What is tried under a lock is not counted: it cannot make the lock longer. The moment of locking is reported.
        """
        now, network, device = self._monotonic(), network_of(source), str(device_id)
        if self._sources.are_too_many(network, now):
            return True
        is_beyond = self._devices.are_too_many(device, now)
        if not is_beyond and self._devices.note(device, now):
            self._report("device", source, device)
        if self._sources.note(network, now):
            self._report("source", source, device)
        return is_beyond

    def _report(self, locked: str, source: str, device: str) -> None:
        security_event(
            SecurityEvent.LOCKOUT,
            locked=locked,
            source=source,
            device_id=device,
            attempts=self._attempts,
            for_s=self._window_s,
        )


class _Failures:
    """The moments of the last failures by key; what has been quiet longest is forgotten first."""

    def __init__(self, *, attempts: int, window_s: float, max_keys: int) -> None:
        self._attempts = attempts
        self._window_s = window_s
        self._max_keys = max_keys
        self._moments: OrderedDict[str, deque[float]] = OrderedDict()

    def are_recent(self, key: str, now: float) -> bool:
        moments = self._moments.get(key)
        return moments is not None and now - moments[-1] < self._window_s

    def are_too_many(self, key: str, now: float) -> bool:
        return self.are_recent(key, now) and len(self._moments[key]) == self._attempts

    def note(self, key: str, now: float) -> bool:
        """Count a failure; return True when there are now too many."""
        if not self._attempts:
            return False
        moments = self._moments.setdefault(key, deque())
        self._moments.move_to_end(key)
        while moments and now - moments[0] >= self._window_s:
            moments.popleft()
        moments.append(now)
        if len(self._moments) > self._max_keys:
            self._moments.popitem(last=False)
        return len(moments) == self._attempts
