"""A monotonic clock that moves when it is told to."""

from __future__ import annotations


class Stopwatch:
    """Seconds since nothing in particular."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
