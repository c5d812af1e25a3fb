"""certmonger's daemon, without D-Bus and with all its directories in one place."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from tests.support.programs import Program, require_program
from tests.support.server import environment

DIRECTORIES: Final = {
    "CERTMONGER_CONFIG_DIR": "configuration",
    "CERTMONGER_REQUESTS_DIR": "requests",
    "CERTMONGER_CAS_DIR": "cas",
    "CERTMONGER_LOCAL_CA_DIR": "local",
    "CERTMONGER_TMPDIR": "tmp",
}
# Beside the daemon; it does one HTTP request and tells the outcome by its exit status.
SUBMIT: Final = "/usr/lib/certmonger/scep-submit"
SUBMIT_ISSUED: Final = 0
SUBMIT_REJECTED: Final = 2


class Certmonger:
    """A daemon that lives as long as one script."""

    def __init__(self, directory: Path) -> None:
        self._program = require_program("certmonger", package="certmonger")
        self._directory = directory / "certmonger"
        for name in DIRECTORIES.values():
            (self._directory / name).mkdir(parents=True)

    def run(self, script: str) -> str:
        """Start the daemon, run a shell script that may call getcert, insist that it succeeds; return what was said."""
        file, status = self._directory / "script", self._directory / "status"
        status.unlink(missing_ok=True)
        # The daemon hands on neither the environment nor the exit status.
        python_path = shlex.quote(environment()["PYTHONPATH"])
        file.write_text(f"set -eu\ntrap 'echo $? > {status}' EXIT\nexport PYTHONPATH={python_path}\n{script}\n")
        # -n: in the foreground, -L: no D-Bus but the socket of -P, -c: end with this command.
        outcome = self._program(
            *("-n", "-L", "-P", self._directory / "socket", "-d", "0", "-c", f"bash {file}"),
            cwd=self._directory,
            env={variable: str(self._directory / name) for variable, name in DIRECTORIES.items()},
        )
        said = outcome.stdout + outcome.stderr
        assert status.read_text() == "0\n", said
        return said


def submit() -> Program:
    """Return certmonger's helper for SCEP."""
    return require_program(SUBMIT, package="certmonger")
