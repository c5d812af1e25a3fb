"""A running server and the web service of docs/aaa.md, joined by config/webhook.toml: both are as written there."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import pytest

from scep_ra.pki.names import format_name
from tests.support.enrolling import certificate_in, pkcs_req, status_of
from tests.support.server import EVENT_S, DataDirectory, Registered, make_data_directory, running_server

ROOT: Final = Path(__file__).parents[2]
SECRET: Final = base64.b64encode(os.urandom(32)).decode()


@dataclass(kw_only=True)
class Service:
    """The web service, and what it prints."""

    process: subprocess.Popen[str]
    port: int
    said: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def follow(self, stream: IO[str]) -> None:
        for line in stream:
            with self.changed:
                self.said.append(line.strip())
                self.changed.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed this."""
        with self.changed:
            assert self.changed.wait_for(lambda: text in self.said, EVENT_S), self.said


@contextmanager
def running_service(directory: Path, devices: object) -> Iterator[Service]:
    """Run what the page shows, at a free port."""
    section = (ROOT / "docs/aaa.md").read_text("utf-8").partition("\n### A service of 30 lines\n")[2]
    (program,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 32
    last = 'ThreadingHTTPServer(("127.0.0.1", 8080), Webhook).serve_forever()'
    assert last in program
    announced = last.replace("8080", "0").removesuffix(".serve_forever()")
    (directory / "service.py").write_text(
        program.replace(last, f"s = {announced}\nprint(s.server_port, flush=True)\ns.serve_forever()")
    )
    (directory / "webhook.secret").write_text(SECRET)
    (directory / "devices.json").write_text(json.dumps(devices))
    command = [sys.executable, "-I", "service.py"]
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        service = Service(process=process, port=int(process.stdout.readline()))
        reader = threading.Thread(target=service.follow, args=(process.stdout,))
        reader.start()
        try:
            yield service
        finally:
            process.kill()
            reader.join(EVENT_S)


def data_directory(parent: Path, service: Service) -> DataDirectory:
    """Return a data directory with the example's configuration, at the port of the service."""
    toml = (ROOT / "config/webhook.toml").read_text("utf-8")
    data = make_data_directory(
        parent, toml.replace("https://inventory.example.com", f"http://127.0.0.1:{service.port}")
    )
    secret = data.path / "webhook.secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    return data


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(
        tmp_path, {"SN123": {"challenge": "correct-horse", "data": {"hostname": "router1"}}}
    ) as running:
        yield running


def test_a_web_service_hands_out_challenges_names_devices_and_hears_the_outcome(
    tmp_path: Path, service: Service
) -> None:
    """Nobody is in a registry of ours; each reason is told where it belongs, and no challenge is logged."""
    with running_server(data_directory(tmp_path, service)) as server:
        guessing = Registered(device_serial="SN123", challenge="battery-staple")
        assert status_of(server, server.post(pkcs_req(server, guessing))) == "2"
        service.wait_for("whoever hands out the challenges says no: the web service said no")

        device = Registered(device_serial="SN123", challenge="correct-horse")
        certificate = certificate_in(server, server.post(pkcs_req(server, device)), device)
        assert format_name(certificate.subject) == "serialNumber=SN123,CN=router1"
        service.wait_for(certificate.not_after.isoformat().replace("+00:00", "Z"))

        stranger = Registered(device_serial="SN666", challenge="correct-horse")
        assert status_of(server, server.post(pkcs_req(server, stranger))) == "2"

        shown = server.run("aaa", "test", "--device", "SN123")
        assert "hostname=router1" in shown
        for secret in ("correct-horse", "battery-staple", SECRET):
            assert secret not in server.log.text()


def test_while_the_service_is_away_devices_hear_it_and_try_again(tmp_path: Path, service: Service) -> None:
    """503, because a challenge is not kept."""
    with running_server(data_directory(tmp_path, service)) as server:
        service.process.kill()
        service.process.wait(EVENT_S)
        device = Registered(device_serial="SN123", challenge="correct-horse")
        with pytest.raises(OSError, match="503"):
            server.post(pkcs_req(server, device))
        assert "correct-horse" not in server.log.text()
