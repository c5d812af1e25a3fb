"""How often one stranger may do something: counters by key, in bounded memory.

Nothing is stored and nothing refused here; whoever counts decides what follows. Clocks are monotonic, in seconds.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

# About 1 MiB of memory; who has more addresses than this is stopped by the limits on all of them together.
MAX_KEYS: Final = 4096


def network_of(source: str) -> str:
    """Return whom an address stands for: itself, its /64 for IPv6, or the text as it is when it is no address."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        # One subscriber owns a /64 at least (RFC 6177 2); counting single addresses would count nothing.
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def per_address(per_s: float) -> TokenBuckets | None:
    """Return what counts requests by address, None when `per_s` is 0: then nobody does."""
    # A device that enrolls sends three or four requests in a row, whatever the rate.
    return TokenBuckets(burst=max(10, 10 * per_s), per_s=per_s) if per_s else None


class TokenBuckets:
    """Each key may take `burst` at once and `per_s` a second in the long run."""

    def __init__(
        self, *, burst: float, per_s: float, monotonic: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self._burst = burst
        self._per_s = per_s
        self._monotonic = monotonic
        self._max_keys = max_keys
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def take(self, key: str) -> bool:
        """Take one token; return False when there is none."""
        now = self._monotonic()
        tokens, counted_at = self._left.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted_at) * self._per_s)
        is_there = tokens >= 1
        self._left[key] = (tokens - 1 if is_there else tokens, now)
        self._left.move_to_end(key)
        if len(self._left) > self._max_keys:
            self._left.popitem(last=False)  # the one that was quiet longest, so its bucket is the fullest
        return is_there
