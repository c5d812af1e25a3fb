"""Claims about several processes on one port: nothing is lost or done twice, whoever dies."""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.enrolling import certificate_in, pkcs_req
from tests.support.server import Registered, RunningServer, environment, make_data_directory, running_server

PATIENCE_S = 20.0
CLIENTS = 16


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Return a server of two workers."""
    data = make_data_directory(tmp_path, '[ca.default]\nkey_type = "ec-p256"\ntiers = 1\n')
    with running_server(data, "--workers", "2") as server:
        yield server


def messages_of(server: RunningServer, count: int) -> dict[Registered, bytes]:
    """Register devices and return the request of each."""
    devices = [server.register() for _ in range(count)]
    with ThreadPoolExecutor(2) as makers:  # of keys, most of all
        return dict(zip(devices, makers.map(lambda device: pkcs_req(server, device), devices), strict=True))


def enroll_all(server: RunningServer, messages: dict[Registered, bytes]) -> dict[str, str]:
    """Enroll all devices at once; return what each was told is its certificate's serial."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        return dict(clients.map(lambda item: enroll(server, *item), messages.items()))


def enroll(server: RunningServer, device: Registered, message: bytes) -> tuple[str, str]:
    """Send the request until it is answered, as a device does."""
    while True:
        try:
            reply = server.post(message)
        except (ConnectionError, urllib.error.URLError, http.client.HTTPException):
            continue
        return device.device_serial, f"{certificate_in(server, reply, device).certificate_serial:x}"


def stored(server: RunningServer, devices: Sequence[Registered]) -> dict[str, str]:
    """Return the serial of the one certificate that each device has."""
    found = {}
    for device in devices:
        (record,) = server.certificates_of(device.device_serial)
        found[device.device_serial] = record["serial"]
    return found


def test_two_workers_enroll_together_without_loss_or_duplicate(server: RunningServer) -> None:
    """64 devices at once: what each was told is in the store, once, and both workers had their part."""
    messages = messages_of(server, 64)
    told = enroll_all(server, messages)
    assert told == stored(server, list(messages))
    assert len(set(told.values())) == 64
    assert {record["worker"] for record in server.log.events("certificate_issued")} == {1, 2}


def test_a_worker_that_is_killed_loses_nothing_that_was_acknowledged(server: RunningServer) -> None:
    """The other goes on, the dead one is replaced, and devices that ask again are answered."""
    messages = messages_of(server, 64)
    victim = server.log.wait_for("worker_ready", worker=1)["pid"]

    def kill_at_work() -> None:
        server.log.wait_for("certificate_issued", worker=1)
        os.kill(victim, signal.SIGKILL)

    with ThreadPoolExecutor(1) as killer:
        killing = killer.submit(kill_at_work)
        told = enroll_all(server, messages)
        killing.result()
    assert told == stored(server, list(messages))
    assert server.log.wait_for("worker_died", worker=1, exit_status=-signal.SIGKILL)["served"]
    assert server.log.wait_for("worker_ready", times=2, worker=1)["pid"] != victim


def test_sigterm_lets_every_worker_answer_what_has_begun(server: RunningServer) -> None:
    """Twelve requests in flight, whichever worker has them; new connections are refused meanwhile."""
    with ExitStack() as stack:
        flying = [stack.enter_context(begun_request(server.port)) for _ in range(12)]
        server.process.send_signal(signal.SIGTERM)
        server.log.wait_for("stopping")
        for connection in flying:
            connection.sendall(b"abc")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")
    assert server.process.wait(PATIENCE_S) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def begun_request(port: int) -> socket.socket:
    """Return a connection on which the server waits for the body of a request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    head = "POST /scep?operation=PKIOperation HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(4096).startswith(b"HTTP/1.1 100")
    return connection


def test_workers_end_with_a_parent_that_was_killed(server: RunningServer) -> None:
    """And the port is free for the next start."""
    workers = [server.log.wait_for("worker_ready", worker=number)["pid"] for number in (1, 2)]
    with ExitStack() as stack:
        descriptors = [os.pidfd_open(pid) for pid in workers]
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        server.kill()
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], PATIENCE_S)[0], "a worker outlived its parent"
    assert {record["worker"] for record in server.log.events("parent_gone")} == {1, 2}
    with closing(socket.create_server(("127.0.0.1", server.port))):
        pass


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_server_on_the_port_is_refused(server: RunningServer, tmp_path: Path, workers: str) -> None:
    """Whatever it shares among its own."""
    command = ["serve", "--data", str(tmp_path / "other"), "--port", str(server.port), "--workers", workers]
    second = subprocess.run(
        [sys.executable, "-m", "scep_ra", *command], check=False, capture_output=True, text=True, env=environment()
    )
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {server.port}" in second.stderr
