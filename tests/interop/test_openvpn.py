"""An OpenVPN server asks us about the certificates of its clients, set up as docs/aaa.md says.

Without a tunnel device (`dev null`), so that nobody has to be root: whom it lets in is decided during the handshake.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

import pytest

from tests.support.documentation import shown
from tests.support.enrolling import certificate_in, enroll, pkcs_req
from tests.support.headends import free_udp_ports, write_secret
from tests.support.key_files import write_key
from tests.support.openssl import write_pem
from tests.support.programs import require_program
from tests.support.radclient import require_radclient
from tests.support.server import RunningServer, make_data_directory, running_server
from tests.support.tls import write_server_files

_TOML: Final = """
[radius]
bind = "127.0.0.1"
auth_port = {0}
accounting_port = {1}

[headend.openvpn]
address = "127.0.0.1"
secret_file = "headend.secret"
"""
_GATEWAY: Final = """
dev null
local 127.0.0.1
port {port}
tls-server
cert gateway.pem
key gateway.key
dh none
setenv SCEP_RA 127.0.0.1:{auth_port}
setenv SCEP_RA_SECRET {directory}/headend.secret
"""
_CLIENT: Final = """
dev null
remote 127.0.0.1 {port}
nobind
tls-client
ca gateway-ca.pem
cert device.pem
key device.key
"""
_PATIENCE_S: Final = 40.0
_LISTENS: Final = "link remote"
_VERDICTS: Final = {"Peer Connection Initiated": True, "TLS handshake failed": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """An OpenVPN server and one client of it: their configurations, in one directory."""

    program: str
    directory: Path

    def admits(self) -> bool:
        """Have the client connect, and say whether the server lets it in."""
        with self._running("gateway.conf") as gateway:
            _first_said(gateway, [_LISTENS])
            with self._running("client.conf"):
                return _VERDICTS[_first_said(gateway, _VERDICTS)]

    @contextmanager
    def _running(self, configuration: str) -> Iterator[IO[str]]:
        """Run one of them, for a while at most, and return what it says."""
        command = [self.program, "--config", configuration]
        with subprocess.Popen(
            command, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            impatience = threading.Timer(_PATIENCE_S, process.kill)
            impatience.start()
            try:
                yield process.stdout
            finally:
                impatience.cancel()
                process.kill()


def _first_said(said: IO[str], texts: Iterable[str]) -> str:
    """Return which of these texts comes first."""
    lines = []
    for line in said:
        lines.append(line)
        for text in texts:
            if text in line:
                return text
    pytest.fail("".join(lines))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    data = make_data_directory(tmp_path, _TOML.format(*free_udp_ports(2)))
    write_secret(data.path)
    with running_server(data) as running:
        yield running


@pytest.fixture
def gateway(server: RunningServer, tmp_path: Path) -> Gateway:
    require_radclient()
    write_server_files(tmp_path, owner="gateway")
    write_secret(tmp_path)
    write_pem(tmp_path / "ca.pem", server.ca.chain)
    for name, beginning in (("ask-scep-ra", "#!/bin/sh\n# ask-scep-ra"), ("verify-device", '#!/bin/sh\n[ "$1" = 0 ]')):
        script = tmp_path / name
        script.write_text(shown("aaa.md", beginning).replace("/usr/local/sbin", str(tmp_path)))
        script.chmod(0o700)
    (port,) = free_udp_ports(1)
    auth_port = server.log.wait_for("radius_ready")["auth_port"]
    own = _GATEWAY.format(port=port, auth_port=auth_port, directory=tmp_path)
    documented = shown("aaa.md", "ca ca.pem\n").replace("/usr/local/sbin", str(tmp_path))
    (tmp_path / "gateway.conf").write_text(documented + own)
    (tmp_path / "client.conf").write_text(_CLIENT.format(port=port))
    return Gateway(program=require_program("openvpn", package="openvpn").path, directory=tmp_path)


def test_a_disabled_device_does_not_connect_any_more(server: RunningServer, gateway: Gateway) -> None:
    """OpenVPN's script asks by RADIUS, and hears yes before and no after."""
    device = server.register()
    write_key(gateway.directory / "device.key", device.key)
    write_pem(gateway.directory / "device.pem", [enroll(server, device)])
    assert gateway.admits()
    server.run("device", "disable", device.device_serial)
    assert not gateway.admits()
    denied = server.log.wait_for("access_denied")
    assert (denied["headend"], denied["user_name"]) == ("openvpn", device.device_serial)


def test_a_revoked_certificate_does_not_connect_though_there_is_another(
    server: RunningServer, gateway: Gateway
) -> None:
    """OpenVPN says which one it was shown, and the device would be let in with the other."""
    device = server.register()
    write_key(gateway.directory / "device.key", device.key)
    certificate = enroll(server, device)
    write_pem(gateway.directory / "device.pem", [certificate])
    again = replace(device, challenge=server.new_challenge(device.device_serial))
    certificate_in(server, server.post(pkcs_req(server, again, key=device.next_key)), again, key=device.next_key)
    server.run("certificate", "revoke", f"{certificate.certificate_serial:x}")
    assert not gateway.admits()
    assert server.log.wait_for("access_denied")["user_name"] == device.device_serial
