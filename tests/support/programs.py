"""Foreign programs that tests drive: where they are, and what it means that one is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

# The longest of them, certmonger's daemon, ends by itself after 20 s.
_PATIENCE_S = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An installed program; call it with its arguments."""

    path: str

    def __call__(
        self, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end and return what it said; its exit status is the caller's to judge."""
        return subprocess.run(
            [self.path, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
        )

    def until(self, text: str, *arguments: str | Path, cwd: Path) -> None:
        """Run it until it writes a line with this text, then end it; fail when it ends before."""
        with subprocess.Popen(
            [self.path, *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            impatience = threading.Timer(_PATIENCE_S, process.kill)
            impatience.start()
            said = ""
            try:
                for line in process.stdout:
                    said += line
                    if text in line:
                        return
                pytest.fail(f"it never said {text!r} but: {said}")
            finally:
                impatience.cancel()
                process.kill()

    def to_file(self, output: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run it with its standard output, bytes of any kind, in a file."""
        with output.open("wb") as stdout:
            return subprocess.run(
                [self.path, *map(str, arguments)],
                cwd=cwd,
                check=False,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_PATIENCE_S,
            )


def require_program(name: str, *, package: str | None) -> Program:
    """Return the program; without it skip the test, or fail it where CI=true and Debian has the package."""
    path = shutil.which(name)
    if path is None:
        _miss(name, package)
    return Program(path=path)


def require_file(path: Path, *, package: str) -> Path:
    """Return a file that a package brings; without it skip the test, or fail it where CI=true."""
    if not path.exists():
        _miss(path.name, package)
    return path


def _miss(name: str, package: str | None) -> NoReturn:
    if package is None:
        pytest.skip(f"{name} is not installed, and Debian has no package of it")
    reason = f"{name} is not installed: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
