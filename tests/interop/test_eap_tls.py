"""A device logs in with our certificate by EAP-TLS (eapol_test) at FreeRADIUS, which is set up as docs/aaa.md says.

Once FreeRADIUS asks our API about the device, once our OCSP responder about the certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from scep_ra.pki.certificates import Certificate
from tests.support.documentation import shown
from tests.support.enrolling import certificate_in, enroll, pkcs_req
from tests.support.freeradius import SECRET, running_freeradius
from tests.support.headends import free_udp_ports
from tests.support.key_files import write_key
from tests.support.openssl import write_pem
from tests.support.programs import Program, require_file, require_program
from tests.support.server import RunningServer, make_data_directory, running_server
from tests.support.tls import write_server_files

REST_MODULE: Final = Path("/usr/lib/freeradius/rlm_rest.so")
TOKEN: Final = "known to FreeRADIUS"
_TOML: Final = f"""
[api.freeradius]
token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"

[profile.default]
second_key = "replace"
"""
_ACCESS_POINT: Final = """
server access_point {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        eap
    }}
    authenticate {{
        eap
    }}
}}
"""
_SUPPLICANT: Final = """
network={{
    key_mgmt=WPA-EAP
    eap=TLS
    identity="anybody"
    ca_cert="{ca}"
    client_cert="device.pem"
    private_key="device.key"
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where devices log in."""

    program: Program
    directory: Path
    port: int

    def answer(self, certificate: Certificate, key: rsa.RSAPrivateKey) -> str:
        """Log in with a certificate, and return SUCCESS or FAILURE; fail when FreeRADIUS did not get to see it."""
        write_pem(self.directory / "device.pem", [certificate])
        write_key(self.directory / "device.key", key)
        where = ("-a", "127.0.0.1", "-p", str(self.port), "-s", SECRET)
        done = self.program("-c", "supplicant.conf", *where, "-r", "0", "-t", "10", cwd=self.directory)
        assert "remote certificate verification (param=success)" in done.stdout, done.stdout
        return done.stdout.rstrip().rpartition("\n")[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(make_data_directory(tmp_path_factory.mktemp("server"), _TOML)) as running:
        yield running


@pytest.fixture
def asking_the_api(server: RunningServer, tmp_path: Path) -> Iterator[Network]:
    require_file(REST_MODULE, package="freeradius-rest")
    rest = (
        shown("aaa.md", "rest {\n").replace("https://scep-ra.example.com", server.base_url).replace("the-token", TOKEN)
    )
    with network(
        server, tmp_path, modules=rest + shown("aaa.md", "eap {\n"), servers=shown("aaa.md", "server check_tls {\n")
    ) as made:
        yield made


@pytest.fixture
def asking_ocsp(server: RunningServer, tmp_path: Path) -> Iterator[Network]:
    eap = shown("aaa.md", "eap {\n").replace("virtual_server = check_tls\n", "")
    eap = eap.replace("tls_min_version", shown("aaa.md", "ocsp {\n") + "tls_min_version")
    with network(server, tmp_path, modules=eap) as made:
        yield made


@contextmanager
def network(server: RunningServer, directory: Path, *, modules: str, servers: str = "") -> Iterator[Network]:
    """Serve EAP-TLS with these parts of a configuration until the end of the block."""
    program = require_program("eapol_test", package="eapoltest")
    certificates = directory / "freeradius"
    certificates.mkdir(mode=0o700)
    ca = write_server_files(certificates, owner="radius").ca
    write_pem(certificates / "scep-ra.pem", server.ca.chain)
    (directory / "supplicant.conf").write_text(_SUPPLICANT.format(ca=ca))
    (port,) = free_udp_ports(1)
    modules, servers = (text.replace("${certdir}", str(certificates)) for text in (modules, servers))
    with running_freeradius(certificates, "", modules=modules, servers=servers + _ACCESS_POINT.format(port=port)):
        yield Network(program=program, directory=directory, port=port)


def test_the_banner_says_where_freeradius_asks(server: RunningServer) -> None:
    """By HTTP, and by OCSP unless somebody has turned it off."""
    assert f"Headends are answered by HTTP at\n  {server.base_url}/api/v1\n" in server.banner
    assert f"OCSP (RFC 6960) is answered at\n  {server.base_url}/ocsp/default\n" in server.banner


def test_a_disabled_device_does_not_log_in_any_more(server: RunningServer, asking_the_api: Network) -> None:
    """The API says so the next time, and nobody else is kept out."""
    lost, other = server.register(), server.register()
    certificates = {device: enroll(server, device) for device in (lost, other)}
    for device, certificate in certificates.items():
        assert asking_the_api.answer(certificate, device.key) == "SUCCESS"
    server.run("device", "disable", lost.device_serial)
    assert asking_the_api.answer(certificates[lost], lost.key) == "FAILURE"
    server.log.wait_for("access_denied", headend="api:freeradius", user_name=lost.device_serial)
    assert asking_the_api.answer(certificates[other], other.key) == "SUCCESS"


def test_a_replaced_certificate_does_not_log_in_any_more(server: RunningServer, asking_the_api: Network) -> None:
    """FreeRADIUS says which one it was shown."""
    device = server.register()
    old = enroll(server, device)
    again = replace(device, challenge=server.new_challenge(device.device_serial))
    new = certificate_in(server, server.post(pkcs_req(server, again, key=device.next_key)), again, key=device.next_key)
    assert asking_the_api.answer(old, device.key) == "FAILURE"
    assert asking_the_api.answer(new, device.next_key) == "SUCCESS"


def test_ocsp_keeps_a_disabled_device_out_as_well(server: RunningServer, asking_ocsp: Network) -> None:
    """For its certificate is revoked."""
    lost, other = server.register(), server.register()
    certificates = {device: enroll(server, device) for device in (lost, other)}
    assert asking_ocsp.answer(certificates[lost], lost.key) == "SUCCESS"
    server.run("device", "disable", lost.device_serial)
    assert asking_ocsp.answer(certificates[lost], lost.key) == "FAILURE"
    assert asking_ocsp.answer(certificates[other], other.key) == "SUCCESS"
