"""A command line with an empty data directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.command_line import CommandLine


@pytest.fixture
def scep_ra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    """Return the command line, and put logging back afterwards."""
    monkeypatch.delenv("SCEP_RA_CONFIG", raising=False)
    monkeypatch.delenv("SCEP_RA_DATA", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield CommandLine(tmp_path / "var", capsys)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
