"""The real server as a process on 127.0.0.1, with its command line beside it.

Whoever starts one learns at its end of every traceback in its log and of an exit status that is not 0.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import scep_ra
from scep_ra.ca.directory import CAMaterial, load_ca
from scep_ra.cli.main import main
from scep_ra.pki.certificates import Certificate, parse_certificate
from tests.support.keys import rsa_key
from tests.support.openssl import read_pem
from tests.support.pki import NOW

# A loaded machine with two cores may take its time; a test that meets one of these has failed.
START_S: Final = 20.0
STOP_S: Final = 20.0
EVENT_S: Final = 20.0

_REPOSITORY: Final = Path(scep_ra.__file__).parent.parent


class Log:
    """What a process writes to standard error, read as it comes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._follow, args=(stream,))
        self._reader.start()

    def _follow(self, stream: IO[bytes]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line.decode())
                self._changed.notify_all()

    def finish(self) -> None:
        """Wait for the end of the stream."""
        self._reader.join(STOP_S)

    def text(self) -> str:
        return "".join(self._lines)

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Return the records of an event that have these fields."""
        records = [json.loads(line) for line in tuple(self._lines) if line.startswith("{")]
        return [each for each in records if {**each, "event": name, **fields} == each]

    def wait_for(self, name: str, *, times: int = 1, **fields: object) -> dict[str, Any]:
        """Wait until an event is logged, for the first time or so many times, and return that record."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.events(name, **fields)) >= times, EVENT_S), self.text()
        return self.events(name, **fields)[times - 1]

    def check_calm(self) -> None:
        """Fail where the server met a bug of its own."""
        text = self.text()
        assert "Traceback" not in text, text
        assert "internal_error" not in text, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A device that may enroll, its keys and its one-time challenge."""

    device_serial: str
    challenge: str

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """Return the key that it enrolls with; no other device may have it."""
        return rsa_key(self.device_serial)

    @property
    def next_key(self) -> rsa.RSAPrivateKey:
        """Return the key that it has after a renewal."""
        return rsa_key(f"{self.device_serial}, renewed")

    @property
    def subject(self) -> str:
        """Return its subject as `openssl` and `certmonger` read it."""
        return f"serialNumber={self.device_serial},CN={self.device_serial}"


@dataclass(kw_only=True)
class DataDirectory:
    """A data directory and `scep-ra` on it."""

    path: Path

    def run(self, *arguments: str | Path) -> str:
        """Run a command in this process, insist that it succeeds, and return what it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
            main(["--data", str(self.path), *map(str, arguments)])
        assert not ended.value.code
        return printed.getvalue()

    def register(self, *options: str, profile: str = "default") -> Registered:
        """Register a device that no other test knows, with options of `device add`, and make a challenge for it."""
        device_serial = f"SN{secrets.token_hex(6).upper()}"
        self.run("device", "add", device_serial, *options)
        return Registered(device_serial=device_serial, challenge=self.new_challenge(device_serial, profile=profile))

    def new_challenge(self, device_serial: str, *, profile: str = "default") -> str:
        return self.run("challenge", "new", "--device", device_serial, "--profile", profile).strip()

    def certificates_of(self, device_serial: str) -> list[dict[str, str]]:
        """Return the records of the device's certificates, newest first."""
        records: list[dict[str, str]] = json.loads(self.run("certificate", "list", "--device", device_serial, "--json"))
        return records

    @property
    def ca(self) -> CAMaterial:
        return load_ca(self.path, "default", now=NOW)

    @property
    def ra_certificate(self) -> Certificate:
        return read_pem(self.path / "ra/default/ra.pem")[0]


@dataclass(kw_only=True)
class RunningServer(DataDirectory):
    """A server that answers."""

    process: subprocess.Popen[bytes]
    base_url: str
    banner: str
    log: Log = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.base_url.rpartition(":")[2])

    def url(self, profile: str = "default") -> str:
        return f"{self.base_url}/scep/{profile}"

    def get(self, path: str) -> tuple[str, bytes]:
        """Fetch a path; return media type and body, or raise urllib.error.HTTPError."""
        with urllib.request.urlopen(self.base_url + path, timeout=EVENT_S) as response:
            return response.headers["Content-Type"], response.read()

    def post(self, message: bytes, *, profile: str = "default") -> bytes:
        """Send a PKIMessage and return the body of the answer."""
        request = urllib.request.Request(self.url(profile) + "?operation=PKIOperation", data=message, method="POST")
        with urllib.request.urlopen(request, timeout=EVENT_S) as response:
            body: bytes = response.read()
        return body

    def waiting(self, device: Registered) -> str:
        """Wait until a request of the device waits for an operator and return its ID."""
        record = self.log.wait_for("enrollment_deferred", device_id=f"serial:{device.device_serial}")
        return str(record["enrollment_id"])

    def fetch_certificate(self, url: str) -> Certificate:
        """Fetch a DER certificate from a URL of this server."""
        return parse_certificate(self.get(url.removeprefix(self.base_url))[1])

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self.process.kill()
        self.process.wait(STOP_S)


def make_data_directory(parent: Path, toml: str = "") -> DataDirectory:
    """Make a data directory with a configuration file; the server adds its keys at first start."""
    path = parent / "var"
    path.mkdir(mode=0o700)
    (path / "scep-ra.toml").write_text(toml)
    return DataDirectory(path=path)


@contextlib.contextmanager
def running_server(data: DataDirectory, *options: str, port: int = 0) -> Iterator[RunningServer]:
    """Serve until the end of the block, then SIGTERM, unless the block has ended the server itself."""
    command = [sys.executable, "-m", "scep_ra", "serve", "--data", str(data.path), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        log = Log(process.stderr)
        try:
            server = _ready(process, data, process.stdout, log)
            yield server
            if process.poll() is None:
                assert server.terminate() == 0, log.text()
        finally:
            process.kill()
            process.wait(STOP_S)
            log.finish()
    log.check_calm()


def _ready(process: subprocess.Popen[bytes], data: DataDirectory, stdout: IO[bytes], log: Log) -> RunningServer:
    """Read the URL from the first lines of the banner, ask /readyz, and read the rest of the banner."""
    with _deadline(process.kill):
        lines = stdout.readline().decode(), stdout.readline().decode()
    assert "is ready" in lines[0], log.text()
    base_url = lines[1].strip().partition("/scep/")[0]
    with urllib.request.urlopen(f"{base_url}/readyz", timeout=START_S) as response:
        assert response.status == 200
    # The banner is written before the first request is answered, so all of it is there.
    os.set_blocking(stdout.fileno(), False)
    banner = "".join(lines) + (stdout.read() or b"").decode()
    return RunningServer(path=data.path, process=process, base_url=base_url, banner=banner, log=log)


@contextlib.contextmanager
def _deadline(give_up: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(START_S, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def environment() -> dict[str, str]:
    """Return the environment in which `python -m scep_ra` means this tree."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SCEP_RA_")}
    path = os.pathsep.join(filter(None, [str(_REPOSITORY), inherited.get("PYTHONPATH")]))
    return {**inherited, "PYTHONPATH": path}
