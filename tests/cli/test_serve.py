"""Claims about `scep-ra serve`: what it hands to the server and what it prints; the server has tests of its own."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from tests.support.command_line import CommandLine


@pytest.fixture
def small(scep_ra: CommandLine) -> CommandLine:
    """Return a configuration whose first start is quick, with a weak setting."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(
        '[ca.default]\nkey_type = "ec-p256"\ntiers = 1\n[profile.default.algorithms]\nallow_sha1 = true\n'
    )
    return scep_ra


@pytest.mark.parametrize("program", [["-m", "scep_ra"], ["-c", "from scep_ra.cli.main import main; main()"]])
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_the_server_announces_itself_serves_and_ends_on_sigterm(
    small: CommandLine, program: list[str], workers: list[str]
) -> None:
    """The URL on standard output answers, log lines are on standard error, the exit status is 0."""
    options = ["--data", str(small.data), "--port", "0", "--bind", "127.0.0.1", *workers]
    command = [sys.executable, *program, "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            assert "is ready" in server.stdout.readline()
            url = server.stdout.readline().strip()
            with urllib.request.urlopen(f"{url}?operation=GetCACaps") as reply:
                assert b"POSTPKIOperation" in reply.read()
        finally:
            server.send_signal(signal.SIGTERM)
        rest, log = server.stdout.read(), server.stderr.read()
    assert server.returncode == 0, log
    assert f"--data {small.data} device add" in rest
    assert "weak_setting" in log


def test_security_events_go_to_their_file_from_the_first_start(scep_ra: CommandLine) -> None:
    """The data directory is made for it; what is wrong with the file is said before anything is served."""
    scep_ra.data.mkdir(mode=0o700)
    config = scep_ra.data / "elsewhere.toml"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for name, message in (
            ("security.log", "cannot listen"),
            ("no/security.log", "cannot hold the security events"),
        ):
            config.write_text(f'[log]\nsecurity = "{name}"\n')
            outcome = scep_ra("--config", str(config), "serve", "--bind", "127.0.0.1", "--port", port)
            assert (outcome.status, message in outcome.err) == (2, True)
    assert (scep_ra.data / "security.log").stat().st_mode & 0o777 == 0o600


def test_a_port_that_is_taken_ends_with_status_2(small: CommandLine) -> None:
    """The message says which, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        outcome = small("serve", "--port", str(port))
    assert outcome.status == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in outcome.err


def test_a_port_outside_the_range_is_a_usage_error(small: CommandLine) -> None:
    """Before anything is made."""
    assert small("serve", "--port", "70000").status == 2


def test_nobody_is_a_worker_by_hand(small: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hidden option is told apart from the one for people."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    outcome = small("serve", "--worker")
    assert outcome.status == 2
    assert "scep-ra serve --workers N" in outcome.err
    assert "--worker " not in small.ok("serve", "--help").out
