"""The plug-in of the documentation, as somebody would copy it."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scep_ra.aaa.base import Accept, Reject
from scep_ra.config_file import load_settings
from tests.support.authorizers import question
from tests.support.composition import running

DOCUMENTATION = Path(__file__).parent.parent.parent / "docs" / "aaa.md"
MAX_LINES = 10


def block(language: str) -> str:
    """Return the first block in this language of the chapter about plug-ins."""
    chapter = DOCUMENTATION.read_text("utf-8").partition("\n## Plug-ins\n")[2]
    found = re.search(rf"^```{language}\n(.*?)^```", chapter, flags=re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where the plug-in and a configuration lie, a path of Python's."""
    (tmp_path / "badges.py").write_text(block("python"))
    small = '[ca.default]\nkey_type = "ec-p256"\ntiers = 1\n'
    (tmp_path / "scep-ra.toml").write_text(block("toml") + small)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("badges", None)


def test_the_example_is_short() -> None:
    """A plug-in is no project."""
    lines = [line for line in block("python").splitlines() if line]
    assert len(lines) <= MAX_LINES
    assert ast.parse(block("python"))


@pytest.mark.parametrize(("device", "status", "answer"), [("FTX1234ABCD", 0, "accept"), ("SN666", 1, "reject")])
def test_the_example_decides_on_the_command_line(directory: Path, device: str, status: int, answer: str) -> None:
    """In a process of its own, found by its path."""
    program = [sys.executable, "-m", "scep_ra", "--config", str(directory / "scep-ra.toml"), "--data", "var"]
    done = subprocess.run(
        [*program, "aaa", "test", "--device", device, "--json"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert json.loads(done.stdout)["answer"] == answer


async def test_the_example_serves(directory: Path) -> None:
    """The server starts with it, is ready, and asks it."""
    settings = load_settings(config=directory / "scep-ra.toml", data=directory / "var", environ={})
    async with running(settings) as (server, site):
        assert (await site.get("/readyz")).status == 200
        decide = server.parts.authorizers["badges"].authorize
        assert await decide(question("FTX1234ABCD")) == Accept(attributes={"user": "alice"})
        assert await decide(question("SN666")) == Reject(reason="no badge")
