"""Call `scep-ra` in this process, as the console script does."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scep_ra.cli.main import main
from scep_ra.cli.options import Invocation
from scep_ra.cli.session import Session, with_store

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """`scep-ra` with a data directory of its own; call it with arguments."""

    def __init__(self, data: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.data = data
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main(["--data", str(self.data), *arguments])
        captured = self._capture.readouterr()
        return Outcome(status=int(ended.value.code or 0), out=captured.out, err=captured.err)

    def ok(self, *arguments: str) -> Outcome:
        """Call it and insist that it succeeds."""
        outcome = self(*arguments)
        assert outcome.status == 0, outcome.err
        return outcome

    def in_store(self, work: Callable[[Session], Coroutine[Any, Any, _T]]) -> _T:
        """Do something with the store behind the command line's back."""
        return with_store(Invocation(data=self.data), work)
