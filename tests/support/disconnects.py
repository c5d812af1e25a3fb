"""What a test of the command line needs to cut devices off: a headend in a thread, and an AAA system that forgets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Reject
from scep_ra.aaa.registry import Options, Parts
from scep_ra.errors import Unavailable
from scep_ra.radius.packets import Code
from tests.support.outbox import answering
from tests.support.radius_server import SECRET, Script


@dataclass(kw_only=True)
class ThreadedHeadend:
    """A headend that answers though the test's own thread is busy."""

    sock: socket.socket
    script: Script
    received: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    def serve(self) -> None:
        while (datagram := self.sock.recvfrom(4096))[0]:
            self.received.append(datagram[0])
            for reply in self.script(datagram[0], len(self.received) - 1):
                self.sock.sendto(reply, datagram[1])


@contextmanager
def threaded_headend(script: Script | None = None) -> Iterator[ThreadedHeadend]:
    """Serve on 127.0.0.1 until the end of the block."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        headend = ThreadedHeadend(sock=sock, script=script or answering(Code.DISCONNECT_ACK))
        thread = threading.Thread(target=headend.serve)
        thread.start()
        try:
            yield headend
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", sock.getsockname())
            thread.join()


def configure(data: Path, ports: Mapping[str, int], more: str = "") -> None:
    """Write a configuration with these headends, and the secret that they share."""
    data.mkdir(mode=0o700, exist_ok=True)
    secret = data / "headend.secret"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET)
    tables = [
        f'[headend.{name}]\naddress = "127.0.0.{number}"\nsecret_file = "headend.secret"\ndisconnect_port = {port}\n'
        for number, (name, port) in enumerate(ports.items(), start=1)
    ]
    small = '[ca.default]\nkey_type = "ec-p256"\ntiers = 1\n'
    (data / "scep-ra.toml").write_text(small + "".join(tables) + more)


class ForgetfulAAA:
    """An authorizer plug-in that knows the devices in a file of the data directory, a line each; without it, nobody."""

    def __init__(self, parts: Parts, _options: Options) -> None:
        self._file = parts.data_directory / "devices"

    async def authorize(self, request: AccessRequest) -> Decision:
        """Accept those that stand in the file."""
        try:
            known = self._file.read_text().split()
        except OSError as error:
            raise Unavailable("the file is away") from error
        return Accept() if request.device_id.value in known else Reject(reason="no entry")

    async def check(self) -> None:
        """Find nothing wrong."""
