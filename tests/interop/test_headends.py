"""FreeRADIUS's radclient as a headend: what a device may do follows from its certificate and its entry, at once.

The server has two workers, of which one answers by RADIUS.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scep_ra.pki.certificates import Certificate
from tests.support.enrolling import certificate_in, enroll, pkcs_req
from tests.support.headends import SECRET, free_udp_ports, write_secret
from tests.support.programs import Program
from tests.support.radclient import SIGNED, Headend, hexadecimal, require_radclient
from tests.support.server import Registered, RunningServer, make_data_directory, running_server

_TOML = """
[radius]
bind = "127.0.0.1"
auth_port = {0}
accounting_port = {1}

[headend.vpn]
address = "127.0.0.1"
secret_file = "headend.secret"
trustpoint = "RA-TP"

[profile.default]
second_key = "replace"
"""
DOCUMENTATION = Path(__file__).parent.parent.parent / "docs/aaa.md"


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return free_udp_ports(2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ports: list[int]) -> Iterator[RunningServer]:
    data = make_data_directory(tmp_path_factory.mktemp("server"), _TOML.format(*ports))
    write_secret(data.path)
    with running_server(data, "--workers", "2") as running:
        yield running


@pytest.fixture
def headend(server: RunningServer, ports: list[int], tmp_path: Path) -> Headend:
    return Headend(program=require_radclient(), directory=tmp_path, auth_port=ports[0], accounting_port=ports[1])


@pytest.fixture
def device(server: RunningServer) -> Registered:
    return server.register()


@pytest.fixture
def certificate(server: RunningServer, device: Registered) -> Certificate:
    return enroll(server, device)


def test_the_banner_says_where(server: RunningServer, ports: list[int]) -> None:
    """An operator copies it into the headend."""
    assert f"RADIUS (PKI-AAA) at\n  127.0.0.1 ports {ports[0]}/udp and {ports[1]}/udp\n" in server.banner


def test_a_device_with_a_certificate_is_accepted(
    headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """For this trustpoint and with this certificate."""
    printed = headend.ask(device.device_serial)
    for line in (
        "Access-Accept",
        "Message-Authenticator = 0x",
        'Cisco-AVPair = "pki:cert-application=all"',
        'Cisco-AVPair = "pki:cert-trustpoint=RA-TP"',
        f'Cisco-AVPair = "pki:cert-serial={hexadecimal(certificate)}"',
        f"Class = 0x{f'serial:{device.device_serial}'.encode().hex()}",
    ):
        assert line in printed


@pytest.mark.parametrize(
    "spell", ["serialNumber={0},CN={0}", "CN={0}, serialNumber={0}", "/serialNumber={0}/CN={0}", "PID:X1 SN:{0}"]
)
def test_the_whole_subject_is_understood(
    headend: Headend, device: Registered, certificate: Certificate, spell: str
) -> None:
    """In both orders, as IOS and OpenSSL write it."""
    assert "Access-Accept" in headend.ask(spell.format(device.device_serial))


def test_an_unknown_device_is_rejected(headend: Headend, device: Registered) -> None:
    """Also one that is registered and has no certificate."""
    for name in (device.device_serial, "SN-NOBODY", "CN=nobody", "*"):
        assert "Access-Reject" in headend.ask(name)


def test_a_disabled_device_is_rejected(
    server: RunningServer, headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """By the next question on."""
    assert "Access-Accept" in headend.ask(device.device_serial)
    server.run("device", "disable", device.device_serial)
    assert "Access-Reject" in headend.ask(device.device_serial)


def test_a_revoked_certificate_is_rejected(
    server: RunningServer, headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """Though the device stays registered."""
    server.run("certificate", "revoke", f"{certificate.certificate_serial:x}")
    assert "Access-Reject" in headend.ask(device.device_serial)


def test_a_superseded_certificate_is_rejected(
    server: RunningServer, headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """A headend that says what it was shown hears it at once; another gets the serial to compare."""
    again = replace(device, challenge=server.new_challenge(device.device_serial))
    message = pkcs_req(server, again, key=device.next_key)
    renewed = certificate_in(server, server.post(message), again, key=device.next_key)
    pairs = {each: f'Cisco-AVPair = "pki:cert-serial={hexadecimal(each)}"' for each in (certificate, renewed)}
    assert "Access-Reject" in headend.ask(device.device_serial, pairs[certificate])
    assert "Access-Accept" in headend.ask(device.device_serial, pairs[renewed])
    assert pairs[renewed] in headend.ask(device.device_serial)


def test_a_wrong_secret_and_a_missing_signature_are_not_answered(
    server: RunningServer, headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """And told in the log, without the secret."""
    impatient = replace(headend, patience_s=0.5)
    assert "No reply" in replace(impatient, secret="another").ask(device.device_serial)
    unsigned = impatient("auth", f'User-Name = "{device.device_serial}"', 'User-Password = "cisco"')
    assert "No reply" in unsigned
    reasons = {event["reason"] for event in server.log.events("radius_dropped")}
    assert {"there is no Message-Authenticator, see require_message_authenticator"} < reasons
    assert SECRET.decode() not in server.log.text()


def test_a_headend_learns_that_we_are_alive(headend: Headend) -> None:
    """By Status-Server."""
    assert "Access-Accept" in headend("status", SIGNED)


def test_another_worker_takes_the_place_of_one_that_dies(server: RunningServer, headend: Headend) -> None:
    """Ports and all, and only one answers at a time."""
    first = server.log.wait_for("worker_ready", worker=1)
    os.kill(first["pid"], signal.SIGKILL)
    server.log.wait_for("radius_ready", times=2)
    assert "Access-Accept" in headend("status", SIGNED)
    assert {event["worker"] for event in server.log.events("radius_ready")} == {1}


def test_a_session_is_known_from_its_start_to_its_stop(
    server: RunningServer, headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """With the device that its name means."""
    session = (f'User-Name = "CN={device.device_serial}"', 'Acct-Session-Id = "0A1B"', "Framed-IP-Address = 192.0.2.9")
    for status, expected in (("Start", 1), ("Interim-Update", 1), ("Stop", 0)):
        assert "Accounting-Response" in headend("acct", f"Acct-Status-Type = {status}", *session)
        listed = json.loads(server.run("session", "list", "--device", device.device_serial, "--json"))
        assert [each["session_id"] for each in listed] == ["0A1B"] * expected


def test_a_restart_of_the_headend_ends_its_sessions(server: RunningServer, headend: Headend) -> None:
    """Of devices of ours and of others."""
    headend("acct", "Acct-Status-Type = Start", 'User-Name = "alice"', 'Acct-Session-Id = "0C"')
    assert "0C" in server.run("session", "list")
    assert "Accounting-Response" in headend("acct", "Acct-Status-Type = Accounting-On")
    assert server.run("session", "list") == ""


def test_the_script_of_the_documentation_asks_for_openvpn_and_ocserv(
    headend: Headend, device: Registered, certificate: Certificate
) -> None:
    """As it stands in docs/aaa.md: a yes for the device and its certificate, a no for all else."""
    script = headend.directory / "ask-scep-ra"
    (found,) = re.findall(r"```sh\n(#!/bin/sh\n# ask-scep-ra .*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    script.write_text(found)
    script.chmod(0o700)
    write_secret(headend.directory)
    ask = Program(path=str(script))
    environment = {
        "SCEP_RA": f"127.0.0.1:{headend.auth_port}",
        "SCEP_RA_SECRET": str(headend.directory / "headend.secret"),
    }
    colons = certificate.certificate_serial.to_bytes(20).lstrip(b"\0").hex(":")
    injection = f'{device.device_serial}"\nReply-Message = "'
    for arguments, status in (
        ([device.device_serial], 0),
        ([device.device_serial, colons], 0),
        ([device.device_serial, "0a:0b"], 1),
        (["SN-NOBODY"], 1),
        ([injection], 1),
        ([device.device_serial, "0a\n"], 1),
    ):
        assert ask(*arguments, cwd=headend.directory, env=environment).returncode == status, arguments
