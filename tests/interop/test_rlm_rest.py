"""FreeRADIUS asks our HTTP API with rlm_rest, set up as docs/aaa.md says; radclient asks it as a router would."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.support.enrolling import enroll
from tests.support.freeradius import SECRET, SIGNING, running_freeradius
from tests.support.headends import free_udp_ports
from tests.support.programs import require_file
from tests.support.radclient import SIGNED, Headend, hexadecimal, require_radclient
from tests.support.server import RunningServer, make_data_directory, running_server

DOCUMENTATION: Final = Path(__file__).parent.parent.parent / "docs/aaa.md"
TOKEN: Final = "6b7e4d1c0f3a9e55"
# Of the modules that Debian's configuration has, the one that the page uses.
_STOCK: Final = "always handled {\n rcode = handled\n }\n"
# A trustpoint that FreeRADIUS would expand if it were let to.
_TOML: Final = f"""
[api.freeradius]
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
trustpoint = "%{{User-Name}}"
scopes = ["authorize"]
"""


def snippets() -> tuple[str, str]:
    """Return what docs/aaa.md shows of FreeRADIUS' configuration: the module, and the virtual server."""
    section = DOCUMENTATION.read_text("utf-8").partition("\n### Ask: FreeRADIUS by HTTP\n")[2].partition("\n### ")[0]
    module, server = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    return module, server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(make_data_directory(tmp_path_factory.mktemp("server"), _TOML)) as running:
        yield running


@contextmanager
def asking(base_url: str, directory: Path) -> Iterator[Headend]:
    """Run FreeRADIUS with what the page shows, and lend radclient before it."""
    require_file(Path("/usr/lib/freeradius/rlm_rest.so"), package="freeradius-rest")
    module, policy = snippets()
    module = module.replace("https://scep-ra.example.com", base_url).replace("the-token", TOKEN)
    (port,) = free_udp_ports(1)
    listen = f"listen {{\n type = auth\n ipaddr = 127.0.0.1\n port = {port}\n }}"
    servers = f"server pki {{\n{listen}\n{policy}\n{SIGNING}\n}}\n"
    with running_freeradius(directory / "freeradius", "", modules=_STOCK + module, servers=servers):
        yield Headend(
            program=require_radclient(), directory=directory, auth_port=port, accounting_port=0, secret=SECRET
        )


@pytest.fixture
def headend(server: RunningServer, tmp_path: Path) -> Iterator[Headend]:
    with asking(server.base_url, tmp_path) as opened:
        yield opened


def test_freeradius_lets_in_whom_we_let_in_until_we_do_not(server: RunningServer, headend: Headend) -> None:
    """At once: nothing is kept between two questions."""
    device = server.register()
    assert "Access-Reject" in headend.ask(device.device_serial)
    certificate = enroll(server, device)

    said = headend.ask(device.device_serial)
    assert "Access-Accept" in said
    assert 'Cisco-AVPair = "pki:cert-application=all"' in said
    assert 'Cisco-AVPair = "pki:cert-trustpoint=%{User-Name}"' in said
    assert f'Cisco-AVPair = "pki:cert-serial={hexadecimal(certificate)}"' in said

    server.run("device", "disable", device.device_serial)
    assert "Access-Reject" in headend.ask(device.device_serial)


def test_the_password_of_the_convention_is_compared(server: RunningServer, headend: Headend) -> None:
    """By FreeRADIUS, with the one that we tell it."""
    device = server.register()
    enroll(server, device)
    wrong = headend("auth", f'User-Name = "{device.device_serial}"', 'User-Password = "juniper"', SIGNED)
    assert "Access-Reject" in wrong


def test_a_certificate_that_is_not_the_current_one_is_not_let_in(server: RunningServer, headend: Headend) -> None:
    """Where FreeRADIUS is told which one it is."""
    device = server.register()
    certificate = enroll(server, device)
    current, other = hexadecimal(certificate), "0ABC"
    assert "Access-Accept" in headend.ask(device.device_serial, f'Cisco-AVPair = "pki:cert-serial={current}"')
    assert "Access-Reject" in headend.ask(device.device_serial, f'Cisco-AVPair = "pki:cert-serial={other}"')


@pytest.mark.parametrize("name", ["%{config:client}", "x' OR '1'='1", "*)(cn=*", "../../etc/passwd", "SN1&device=SN2"])
def test_no_name_gets_anybody_in(headend: Headend, name: str) -> None:
    """Whatever it means to others."""
    assert "Access-Reject" in headend.ask(name)


def test_without_an_answer_of_ours_there_is_none(tmp_path: Path) -> None:
    """The router asks its next server, or waits; nobody is let in, and nobody is told no."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with asking(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path) as headend:
            assert "No reply" in replace(headend, patience_s=1.0).ask("SN1")
