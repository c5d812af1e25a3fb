"""Requests that come twice: RADIUS clients send again what was not answered in time (RFC 5080 2.2.2).

A repeated request gets the answer of the first, and while that is under way none. No request is looked into here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

# RFC 5080 2.2.2 wants 5 to 30 s; a headend that gave up may use the identifier again.
_KEEP_S: Final = 5.0
# A few hundred octets each; the oldest make room.
_MAX_ANSWERS: Final = 8192


class Duplicates:
    """What was asked lately and is under way or answered. The key says who asked what."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._under_way: set[Hashable] = set()
        self._answers: OrderedDict[Hashable, tuple[float, bytes]] = OrderedDict()  # oldest first, with their ends

    def is_under_way(self, key: Hashable) -> bool:
        """Tell whether somebody is at work on the answer."""
        return key in self._under_way

    def find(self, key: Hashable) -> bytes | None:
        """Return the answer given before, if that was not long ago."""
        self._let_go()
        found = self._answers.get(key)
        return None if found is None else found[1]

    def begin(self, key: Hashable) -> None:
        """Note that the answer is being made; `end` has to follow."""
        self._under_way.add(key)

    def end(self, key: Hashable, answer: bytes | None) -> None:
        """Keep the answer; None = there was none, and who asks again is heard again."""
        self._under_way.discard(key)
        if answer is not None:
            self._answers[key] = self._monotonic() + _KEEP_S, answer

    def _let_go(self) -> None:
        now = self._monotonic()
        while self._answers:
            end, _ = next(iter(self._answers.values()))
            if now < end and len(self._answers) <= _MAX_ANSWERS:
                return
            self._answers.popitem(last=False)
