"""A real FreeRADIUS on 127.0.0.1: one file of configuration, a users file that tests write, nothing of /etc."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.support.programs import require_program

SECRET: Final = "testing123"
_READY: Final = "Ready to process requests"
_PATIENCE_S: Final = 30.0
_CONFIGURATION: Final = """
prefix = "{directory}"
confdir = "{directory}"
logdir = "{directory}"
run_dir = "{directory}"
libdir = /usr/lib/freeradius
max_requests = 16384
security {{
    reject_delay = 0
    status_server = yes
}}
client neighbour {{
    ipaddr = 127.0.0.1
    secret = {secret}
    require_message_authenticator = yes
}}
modules {{
    files {{
        filename = "{directory}/users"
    }}
    pap {{
    }}
    {modules}
}}
{servers}
server default {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        files
        pap
    }}
    authenticate {{
        Auth-Type PAP {{
            pap
        }}
    }}
    {post_auth}
}}
"""
# Before 3.2.5 it signs its answers only if told to, which is what docs/aaa.md tells.
SIGNING: Final = """
    post-auth {
        update reply {
            &Message-Authenticator := 0x00
        }
        Post-Auth-Type REJECT {
            update reply {
                &Message-Authenticator := 0x00
            }
        }
    }
"""


@dataclass(kw_only=True)
class FreeRadius:
    """A server that can be stopped, started, held and told whom it knows."""

    program: str
    directory: Path
    port: int
    process: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self.program, "-f", "-l", "stdout", "-d", str(self.directory), "-n", "radiusd"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        ready = threading.Event()
        self._reader = threading.Thread(target=self._follow, args=(self.process.stdout, ready))
        self._reader.start()
        ready.wait(_PATIENCE_S)
        assert self.is_ready, "".join(self.log)

    @property
    def is_ready(self) -> bool:
        return any(_READY in line for line in self.log)

    def stop(self) -> None:
        """End it, held or not."""
        if self.process is not None and self._reader is not None:
            self.process.kill()
            self.process.wait(_PATIENCE_S)
            self._reader.join(_PATIENCE_S)
        self.process = None
        self.log.clear()

    def write_users(self, text: str) -> None:
        """Replace those whom it knows; a server that runs is started again."""
        (self.directory / "users").write_text(text)
        if self.process is not None:
            self.stop()
            self.start()

    def hold(self) -> None:
        """Let it answer nothing from now on."""
        self._signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let it answer all that it was asked meanwhile."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _follow(self, stream: IO[str], ready: threading.Event) -> None:
        with stream:
            for line in stream:
                self.log.append(line)
                if _READY in line:
                    ready.set()
        ready.set()


@contextmanager
def running_freeradius(
    directory: Path, users: str, *, post_auth: str = SIGNING, modules: str = "", servers: str = ""
) -> Iterator[FreeRadius]:
    """Start a server and end it; without Debian's package skip the test, or fail it where CI=true.

    It may have more modules and virtual servers.
    """
    program = require_program("freeradius", package="freeradius").path
    directory.mkdir(mode=0o700, exist_ok=True)
    server = FreeRadius(program=program, directory=directory, port=_free_port())
    configuration = directory / "radiusd.conf"
    places = {"directory": directory, "secret": SECRET, "port": server.port}
    configuration.write_text(_CONFIGURATION.format(**places, post_auth=post_auth, modules=modules, servers=servers))
    configuration.chmod(0o600)
    server.write_users(users)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def device_entry(device_serial: str, *pairs: str, password: str = "cisco") -> str:
    """Return the entry of a device in the users file: permitted, with further AV pairs or `Attribute = value`."""
    replies = ['Cisco-AVPair = "pki:cert-application=all"']
    replies += [f'Cisco-AVPair += "{pair}"' for pair in pairs]
    return f'{device_serial} Cleartext-Password := "{password}"\n\t' + ",\n\t".join(replies) + "\n"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
