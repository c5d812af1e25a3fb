"""A phone is lost: who does what with its certificate before and after, all of it asked by programs of other people.

It enrolls with strongSwan, FreeRADIUS knows it, radclient and FreeRADIUS are the headend, openssl asks about its
certificate. What is measured is from the start of the command, in this process, to each effect as seen from outside.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from scep_ra.cli.main import main
from scep_ra.cli.scep_client import STILL_PENDING
from scep_ra.pki.certificates import Certificate
from tests.support.freeradius import FreeRadius, device_entry, running_freeradius
from tests.support.headends import SECRET, free_udp_ports, write_secret
from tests.support.key_files import write_key
from tests.support.openssl_ocsp import Asker
from tests.support.programs import Program
from tests.support.radclient import Headend, hexadecimal, require_radclient
from tests.support.server import Registered, RunningServer, make_data_directory, running_server
from tests.support.strongswan import Client, require_strongswan

# Issue 4 promises it; on two processors all of it takes a fifth of that.
MAX_ELAPSED_S: Final = 1.0

_TOML: Final = """
[aaa.registry]

[aaa.acs]
type = "radius"
servers = ["{acs}"]

[aaa.both]
type = "all"
members = ["registry", "acs"]

[profile.default]
authorizer = "both"

[profile.approved]
authorizer = "both"
approval = "first"

[radius]
bind = "127.0.0.1"
auth_port = {auth_port}
accounting_port = {accounting_port}

[headend.vpn]
address = "127.0.0.1"
secret_file = "headend.secret"
disconnect_port = {disconnect_port}
"""
# FreeRADIUS as a headend that takes Disconnect-Requests, and writes down whose sessions it was to end.
_MODULES: Final = """
    linelog disconnected {{
        filename = "{directory}/disconnected"
        format = "%{{Packet-Type}} %{{User-Name}} %{{Acct-Session-Id}}"
    }}
"""
_HEADEND: Final = """
server headend {{
    listen {{
        type = coa
        ipaddr = 127.0.0.1
        port = {port}
    }}
    recv-coa {{
        disconnected
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    """A device that has a certificate and a session, and another request that waits; and all who deal with it."""

    device: Registered
    certificate: Certificate
    server: RunningServer
    freeradius: FreeRadius
    headend: Headend
    client: Client
    asker: Asker

    def is_let_in(self) -> None:
        """Insist that the headend may let it in, with this certificate."""
        answer = self.headend.ask(self.device.device_serial)
        for line in ("Access-Accept", "pki:cert-application=all", f"pki:cert-serial={hexadecimal(self.certificate)}"):
            assert line in answer

    def is_kept_out(self) -> None:
        assert "Access-Reject" in self.headend.ask(self.device.device_serial)

    def has_been_disconnected(self) -> None:
        """Insist that the headend was told to end the session, once, and that nobody takes it for alive."""
        told = (self.freeradius.directory / "disconnected").read_text().splitlines()
        assert told == [f"Disconnect-Request {self.device.device_serial} 0A1B"]
        assert self.server.run("session", "list", "--device", self.device.device_serial) == ""

    def is_revoked_by_ocsp(self) -> None:
        assert self.asker.status(self.certificate) == "revoked"

    def is_revoked_by_crl(self) -> None:
        assert "certificate revoked" in self.verified()

    def verified(self) -> str:
        """Return what `openssl verify` says of its certificate with the CRL of this moment."""
        (self.asker.directory / "crl.der").write_bytes(self.server.get("/crl/default.crl")[1])
        answer = self.asker.openssl(
            *("verify", "-CAfile", "chain.pem", "-crl_check", "-CRLfile", "crl.der", "certificate.pem"),
            cwd=self.asker.directory,
        )
        return answer.stdout + answer.stderr

    def cannot_renew(self) -> None:
        old = ("--cert", "device.der", "--key", "device.key")
        refused = self.client.request(self.device, *old, key=self.device.next_key, output="renewed.der")
        assert "failInfo:     badRequest" in refused.stderr

    def waits(self) -> None:
        assert self._ask_for_approval() == STILL_PENDING

    def waits_no_more(self) -> None:
        assert self._ask_for_approval() == 1

    def _ask_for_approval(self) -> int:
        """Ask for its other certificate, then by CertPoll; return the exit status."""
        other = self.client.directory / "other"
        other.mkdir(exist_ok=True)
        key = write_key(other / "other.key", self.device.next_key)
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    *("enroll", self.server.url("approved"), "--subject", self.device.subject),
                    *("--challenge", self.device.challenge, "--key", str(key), "-o", str(other)),
                    *("--poll-interval", "0.01", "--max-poll-time", "0.01"),
                ]
            )
        return int(ended.value.code or 0)

    @property
    def effects(self) -> Mapping[str, Callable[[], None]]:
        """What everybody notices once it is cut off."""
        return {
            "headend told to end the session": self.has_been_disconnected,
            "headend hears Access-Reject": self.is_kept_out,
            "OCSP says revoked": self.is_revoked_by_ocsp,
            "CRL says revoked": self.is_revoked_by_crl,
            "poll refused": self.waits_no_more,
            "renewal refused": self.cannot_renew,
        }


@pytest.fixture
def freeradius(tmp_path: Path) -> Iterator[tuple[FreeRadius, int]]:
    """Return a FreeRADIUS, and the port where it takes Disconnect-Requests."""
    (port,) = free_udp_ports(1)
    directory = tmp_path / "freeradius"
    more = {"modules": _MODULES.format(directory=directory), "servers": _HEADEND.format(port=port)}
    with running_freeradius(directory, "", **more) as running:
        yield running, port


@pytest.fixture
def server(tmp_path: Path, freeradius: tuple[FreeRadius, int]) -> Iterator[RunningServer]:
    acs, disconnect_port = freeradius
    auth_port, accounting_port = free_udp_ports(2)
    ports = {"auth_port": auth_port, "accounting_port": accounting_port, "disconnect_port": disconnect_port}
    data = make_data_directory(tmp_path, _TOML.format(acs=acs.address, **ports))
    write_secret(data.path)
    write_secret(data.path, "radius.secret")
    with running_server(data) as running:
        yield running


@pytest.fixture
def phone(server: RunningServer, freeradius: tuple[FreeRadius, int], openssl: Program, tmp_path: Path) -> Phone:
    """Return a phone that everybody lets in, and that waits for an operator's word about a second certificate."""
    device = server.register()
    freeradius[0].write_users(device_entry(device.device_serial, "scep-ra:user=alice"))
    radius = server.log.wait_for("radius_ready")
    ports = {name: int(radius[name]) for name in ("auth_port", "accounting_port")}
    client = Client(require_strongswan(), server, tmp_path)
    phone = Phone(
        certificate=client.enroll(device),
        device=replace(device, challenge=server.new_challenge(device.device_serial, profile="approved")),
        server=server,
        freeradius=freeradius[0],
        headend=Headend(program=require_radclient(), directory=tmp_path, secret=SECRET.decode(), **ports),
        client=client,
        asker=Asker(openssl, server, tmp_path),
    )
    phone.waits()
    phone.is_let_in()
    assert phone.asker.status(phone.certificate) == "good"
    assert phone.verified() == "certificate.pem: OK\n"
    _connect(phone)
    return phone


def _connect(phone: Phone) -> None:
    attributes = (f'User-Name = "{phone.device.device_serial}"', 'Acct-Session-Id = "0A1B"')
    answer = phone.headend("acct", "Acct-Status-Type = Start", *attributes, "NAS-IP-Address = 192.0.2.1")
    assert "Accounting-Response" in answer
    sessions = json.loads(phone.server.run("session", "list", "--device", phone.device.device_serial, "--json"))
    assert [each["session_id"] for each in sessions] == ["0A1B"]


def test_a_lost_phone_is_cut_off_everywhere_within_a_second(phone: Phone, capsys: pytest.CaptureFixture[str]) -> None:
    """By one command; printed is when, after its start, each effect was there."""
    began = time.perf_counter()
    printed = phone.server.run("device", "disable", phone.device.device_serial)
    elapsed = {"command has ended": time.perf_counter() - began}
    for effect, check in phone.effects.items():
        check()
        elapsed[effect] = time.perf_counter() - began

    with capsys.disabled():
        lines = [f"{seconds * 1000:5.0f} ms  {effect}\n" for effect, seconds in elapsed.items()]
        sys.stdout.writelines(["\n", *lines])
    assert "headend vpn, session 0A1B: ack" in printed
    assert "rejected requests: 1\nrevoked certificates: 1" in printed
    assert max(elapsed.values()) < MAX_ELAPSED_S


def test_a_phone_that_is_deleted_in_freeradius_alone_is_cut_off_by_the_next_sync(phone: Phone) -> None:
    """Its entry is gone there: nothing new at once, and everything else when AAA is asked again."""
    phone.freeradius.write_users("")
    phone.cannot_renew()
    phone.is_kept_out()
    assert phone.asker.status(phone.certificate) == "good"

    printed = phone.server.run("aaa", "sync")
    assert f"serial:{phone.device.device_serial}" in printed
    for check in phone.effects.values():
        check()
