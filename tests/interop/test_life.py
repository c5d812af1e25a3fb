"""Claims about the life of the server: first start, restart, orderly end, sudden end."""

from __future__ import annotations

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.enrolling import certificate_in, enroll, pkcs_req
from tests.support.server import DataDirectory, RunningServer, make_data_directory, running_server

PATIENCE_S = 20.0
# An operator who tries it out waits for this; four RSA keys are made meanwhile.
FIRST_START_S = 3.0


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return make_data_directory(tmp_path)


def _fingerprints(server: RunningServer) -> list[str]:
    return re.findall(r"SHA-256 (\S+)", server.banner)


def test_the_first_start_is_ready_within_seconds_and_needs_nothing(tmp_path: Path) -> None:
    """No file, not even the directory: CA, RA, database and configuration are made."""
    data = DataDirectory(path=tmp_path / "new")
    began = time.monotonic()
    with running_server(data) as server:
        took_s = time.monotonic() - began
        assert _fingerprints(server)
    assert took_s < FIRST_START_S
    made = {str(path.relative_to(data.path)) for path in data.path.rglob("*") if path.is_file()}
    assert {"scep-ra.toml", "scep-ra.sqlite", "ca/default/root.pem", "ra/default/ra.key"} <= made
    assert data.path.stat().st_mode & 0o777 == 0o700


def test_the_second_start_has_the_same_ca(data: DataDirectory) -> None:
    """The fingerprints that devices were given stay true."""
    with running_server(data) as first:
        before = first.get("/scep?operation=GetCACert")
    with running_server(data) as second:
        assert _fingerprints(second) == _fingerprints(first)
        assert second.get("/scep?operation=GetCACert") == before


def test_an_enrollment_in_flight_at_sigterm_is_still_answered(data: DataDirectory) -> None:
    """New connections are refused meanwhile, and the exit status is 0."""
    with running_server(data) as server:
        device = server.register()
        message = pkcs_req(server, device)
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(_head(message, "Expect: 100-continue\r\n"))
            # The server has the headers and waits for the body.
            assert connection.recv(4096).startswith(b"HTTP/1.1 100")
            server.process.send_signal(signal.SIGTERM)
            server.log.wait_for("stopping")
            connection.sendall(message)
            assert certificate_in(server, _read_body(connection), device).certificate_serial
        assert server.process.wait(PATIENCE_S) == 0
        server.log.wait_for("stopped")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def test_sigint_ends_it_as_sigterm_does(data: DataDirectory) -> None:
    """Somebody tries it out in a terminal and presses Ctrl-C."""
    with running_server(data) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0


def test_what_was_issued_survives_sigkill(data: DataDirectory) -> None:
    """The certificate is there, its challenge is spent, and the same request gets the same certificate."""
    with running_server(data) as server:
        device = server.register()
        message = pkcs_req(server, device)
        issued = certificate_in(server, server.post(message), device)
        server.kill()
    with running_server(data) as again:
        (record,) = again.certificates_of(device.device_serial)
        assert record["serial"] == f"{issued.certificate_serial:x}"
        assert certificate_in(again, again.post(message), device) == issued
        other_key = pkcs_req(again, device, key=device.next_key)
        again.post(other_key)
        again.log.wait_for("request_refused", reason="the challenge has been used")
        assert len(again.certificates_of(device.device_serial)) == 1


def test_an_unfinished_request_at_sigkill_leaves_no_trace(data: DataDirectory) -> None:
    """The challenge can still be used."""
    with running_server(data) as server:
        device = server.register()
        message = pkcs_req(server, device)
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(_head(message) + message[:-1])
            server.kill()
    with running_server(data) as again:
        assert again.certificates_of(device.device_serial) == []
        assert certificate_in(again, again.post(message), device).certificate_serial


def test_options_win_over_the_file(tmp_path: Path) -> None:
    """--config names it, --data, --bind and --port replace what it says."""
    data = make_data_directory(tmp_path, "this is not read = [")
    file = tmp_path / "other.toml"
    # An address of a documentation network: nobody could listen there.
    file.write_text(
        '[server]\nbind = "192.0.2.1"\nport = 1\n[ca.default]\nkey_type = "ec-p256"\norganization = "Chosen"\n'
    )
    with running_server(data, "--config", str(file), "--bind", "127.0.0.1") as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server.port != 1
        assert "O=Chosen" in server.banner
        assert (data.path / "ca/default/issuing.pem").exists()


def test_a_port_that_is_given_is_taken(data: DataDirectory) -> None:
    """And it is the one in the banner and in certificates."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running_server(data, port=port) as server:
        assert server.port == port
        issued = enroll(server, server.register())
        assert f"http://127.0.0.1:{port}/crl/default.crl".encode() in issued.der


def test_commands_work_beside_the_server(data: DataDirectory) -> None:
    """A device that is added, disabled or removed meanwhile is so for the next request."""
    with running_server(data) as server:
        device = server.register()
        server.run("device", "disable", device.device_serial, "--keep-certificates")
        message = pkcs_req(server, device)
        server.post(message)
        server.log.wait_for("request_refused", transaction_id=device.device_serial)
        assert server.certificates_of(device.device_serial) == []
        server.run("device", "enable", device.device_serial)
        assert certificate_in(server, server.post(message), device).certificate_serial


def _head(message: bytes, extra: str = "") -> bytes:
    lines = f"POST /scep?operation=PKIOperation HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(message)}\r\n\r\n"
    return lines.encode()


def _read_body(connection: socket.socket) -> bytes:
    """Read a response until the server closes the connection."""
    received = bytearray()
    while chunk := connection.recv(65536):
        received += chunk
    header, _, body = bytes(received).partition(b"\r\n\r\n")
    assert header.split()[1] == b"200"
    return body
