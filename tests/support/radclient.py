"""FreeRADIUS's radclient as a headend that asks about devices and reports sessions."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scep_ra.pki.certificates import Certificate
from tests.support.headends import SECRET
from tests.support.programs import Program, require_program

# Has radclient sign the request.
SIGNED: Final = "Message-Authenticator = 0x00"


def require_radclient() -> Program:
    """Return the program; without it skip the test, or fail it where CI=true."""
    return require_program("radclient", package="freeradius-utils")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headend:
    """radclient, and the ports that it sends to."""

    program: Program
    directory: Path
    auth_port: int
    accounting_port: int
    secret: str = SECRET.decode()
    patience_s: float = 10.0

    def __call__(self, command: str, *attributes: str) -> str:
        """Send a request and return what is printed of the answer, or for want of one."""
        port = self.accounting_port if command == "acct" else self.auth_port
        (self.directory / "request").write_text("\n".join(attributes) + "\n")
        once = ("-x", "-r", "1", "-t", str(self.patience_s), "-f", self.directory / "request")
        done: subprocess.CompletedProcess[str] = self.program(
            *once, f"127.0.0.1:{port}", command, self.secret, cwd=self.directory
        )
        return done.stdout.partition("Received")[2] or done.stdout + done.stderr

    def ask(self, user_name: str, *attributes: str) -> str:
        return self("auth", f'User-Name = "{user_name}"', 'User-Password = "cisco"', SIGNED, *attributes)


def hexadecimal(certificate: Certificate) -> str:
    """Return its serial as pki:cert-serial has it."""
    number = certificate.certificate_serial
    return number.to_bytes((number.bit_length() + 7) // 8).hex().upper()
