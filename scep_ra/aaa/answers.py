"""A short memory for yes: the very same question is answered again without asking. Off unless the configuration says.

Only Accept is kept. A no must take effect at once, and a no that has become a yes as well.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from scep_ra.aaa.base import Accept, AccessRequest
from scep_ra.identity.types import DeviceID

# A few hundred octets each; more devices than ask within a minute.
_MAX_ANSWERS: Final = 10_000


class Answers:
    """The answers of one authorizer, each for `lifetime_s` (0: none are kept)."""

    def __init__(self, lifetime_s: float, monotonic: Callable[[], float]) -> None:
        self._lifetime_s = lifetime_s
        self._monotonic = monotonic
        self._kept: OrderedDict[AccessRequest, tuple[float, Accept]] = OrderedDict()  # oldest first
        self._flushes = 0

    def begin(self) -> int:
        """Return what `keep` has to be told of a question that is asked now."""
        return self._flushes

    def find(self, question: AccessRequest) -> Accept | None:
        """Return a yes to the same question that still holds."""
        if not self._kept:
            return None  # as always where nothing is kept: a digest would cost more than all the rest
        self._let_go()
        kept = self._kept.get(_digest(question))
        return None if kept is None else kept[1]

    def keep(self, question: AccessRequest, answer: Accept, *, begun: int) -> None:
        """Remember a yes, unless something was flushed since the question was asked."""
        if self._lifetime_s and begun == self._flushes:
            self._kept[_digest(question)] = self._monotonic() + self._lifetime_s, answer
            self._kept.move_to_end(_digest(question))

    def flush(self, device_id: DeviceID) -> None:
        """Forget every answer about a device, those that are on their way included."""
        self._flushes += 1
        for question in [each for each in self._kept if each.device_id == device_id]:
            del self._kept[question]

    def _let_go(self) -> None:
        now = self._monotonic()
        while self._kept:
            question, (end, _) = next(iter(self._kept.items()))
            if now < end and len(self._kept) <= _MAX_ANSWERS:
                return
            del self._kept[question]


def _digest(question: AccessRequest) -> AccessRequest:
    """Return the question with a digest in place of the CSR, which is large."""
    return replace(question, csr=hashlib.sha256(question.csr).digest())
