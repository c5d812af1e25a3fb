"""Who was asked, what came back and how long it took: for `scep-ra aaa test`, which shows more than a decision.

Nothing is traced unless somebody wants to see it. Logs are written elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from scep_ra.aaa.base import Decision
from scep_ra.errors import BackendError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one authorizer made of one question."""

    authorizer: str  # its name in the configuration
    answer: Decision | BackendError
    elapsed_s: float
    cached: bool = False


_VERDICTS: Final[ContextVar[list[Verdict] | None]] = ContextVar("scep_ra_aaa_verdicts", default=None)


@contextmanager
def tracing() -> Iterator[Sequence[Verdict]]:
    """Collect the verdicts of everything asked inside, in the order in which they came in."""
    verdicts: list[Verdict] = []
    token = _VERDICTS.set(verdicts)
    try:
        yield verdicts
    finally:
        _VERDICTS.reset(token)


def trace(verdict: Verdict) -> None:
    """Add a verdict, if anybody is tracing."""
    verdicts = _VERDICTS.get()
    if verdicts is not None:
        verdicts.append(verdict)
