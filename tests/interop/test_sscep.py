"""Claims about sscep: it renews with messageType 19, and tells failInfo by its exit status, 70 and upwards."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from cryptography import x509

from scep_ra.pki.certificates import Certificate
from tests.support.key_files import write_key
from tests.support.keys import spki
from tests.support.openssl import read_pem, verify_strictly, write_pem
from tests.support.programs import Program, require_program
from tests.support.server import Registered, RunningServer

BAD_ALG, BAD_REQUEST = 70, 72

_CONFIGURATION = """\
[req]
prompt = no
distinguished_name = subject
attributes = attributes
[subject]
O = Test
serialNumber = {device_serial}
CN = {device_serial}
[attributes]
challengePassword = {challenge}
"""


@pytest.fixture(scope="module")
def sscep() -> Program:
    return require_program("sscep", package=None)


class Client:
    """A directory with the server's certificates."""

    def __init__(self, sscep: Program, openssl: Program, server: RunningServer, directory: Path) -> None:
        self._sscep = sscep
        self._openssl = openssl
        self.server = server
        self.directory = directory
        assert self("getca", "-c", "ca.pem").returncode == 0

    def __call__(self, operation: str, *options: str, profile: str = "default") -> CompletedProcess[str]:
        return self._sscep(operation, "-u", self.server.url(profile), *options, cwd=self.directory)

    def request(
        self,
        device: Registered,
        *options: str,
        key: str = "first",
        output: str = "device.pem",
        profile: str = "default",
    ) -> CompletedProcess[str]:
        """Make a PKCS #10 request with openssl and send it."""
        write_key(self.directory / "first.key", device.key)
        write_key(self.directory / "second.key", device.next_key)
        (self.directory / "request.cnf").write_text(
            _CONFIGURATION.format(device_serial=device.device_serial, challenge=device.challenge)
        )
        made = self._openssl(
            *("req", "-new", "-config", "request.cnf", "-key", f"{key}.key", "-out", "request.pem"), cwd=self.directory
        )
        assert made.returncode == 0, made.stderr
        files = ("-c", "ca.pem-0", "-k", f"{key}.key", "-r", "request.pem", "-l", output)
        return self("enroll", *files, "-t", "1", "-n", "3", *options, profile=profile)

    def enroll(self, device: Registered) -> Certificate:
        outcome = self.request(device)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return self.check_issued("device.pem")

    def check_issued(self, output: str) -> Certificate:
        certificate = read_pem(self.directory / output)[0]
        verify_strictly(self.directory, certificate, self.server.ca.chain)
        return certificate


@pytest.fixture
def client(sscep: Program, openssl: Program, server: RunningServer, tmp_path: Path) -> Client:
    return Client(sscep, openssl, server, tmp_path)


def test_it_reads_the_capabilities(client: Client) -> None:
    """I-01."""
    outcome = client("getcaps")
    assert outcome.returncode == 0
    assert "AES" in outcome.stdout + outcome.stderr


def test_it_stores_the_ra_first_and_the_cas_behind(client: Client) -> None:
    """I-01: -0 is what the other commands want as -c."""
    issuing, root = client.server.ca.chain
    stored = [read_pem(client.directory / f"ca.pem-{number}")[0] for number in range(3)]
    assert stored[0] == client.server.ra_certificate
    assert {each.der for each in stored[1:]} == {issuing.der, root.der}


def test_it_enrolls(client: Client) -> None:
    """I-02: by POST, with AES and the strongest digest announced."""
    device = client.server.register()
    certificate = client.enroll(device)
    assert certificate.spki == spki(device.key)
    assert device.device_serial.encode() in certificate.subject


def test_it_enrolls_with_3des_and_sha1_where_they_are_allowed_only(client: Client) -> None:
    """I-03: otherwise badAlg."""
    device, old_device = client.server.register(), client.server.register(profile="legacy")
    assert client.request(device, "-E", "3des", "-S", "sha1").returncode == BAD_ALG
    assert client.request(old_device, "-E", "3des", "-S", "sha1", profile="legacy").returncode == 0


def test_a_wrong_challenge_is_refused(client: Client) -> None:
    """I-04: badRequest."""
    device = client.server.register()
    wrong = Registered(device_serial=device.device_serial, challenge="wrong")
    assert client.request(wrong).returncode == BAD_REQUEST


def test_it_renews_with_the_old_certificate(client: Client) -> None:
    """I-06: a PKCSReq with another signer is a renewal, and a challenge in it has to be right."""
    device = client.server.register()
    old = client.enroll(device)
    again = Registered(device_serial=device.device_serial, challenge=client.server.new_challenge(device.device_serial))
    outcome = client.request(again, "-O", "device.pem", "-K", "first.key", key="second", output="new.pem")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    new = client.check_issued("new.pem")
    assert (new.spki, new.subject) == (spki(device.next_key), old.subject)


def test_it_fetches_the_crl_and_its_certificate(client: Client) -> None:
    """Under the constant transactionID that it uses for both."""
    certificate = client.enroll(client.server.register())
    write_pem(client.directory / "issuing.pem", client.server.ca.chain[:1])
    common = ("-c", "ca.pem-0", "-k", "first.key", "-l", "device.pem")
    crl = client("getcrl", *common, "-w", "crl.pem")
    assert crl.returncode == 0, crl.stdout + crl.stderr
    issuer = x509.load_pem_x509_crl((client.directory / "crl.pem").read_bytes()).issuer
    assert issuer.public_bytes() == client.server.ca.chain[0].subject
    serial = str(certificate.certificate_serial)
    found = client("getcert", *common, "-s", serial, "-O", "issuing.pem", "-w", "found.pem")
    assert found.returncode == 0, found.stdout + found.stderr
    assert read_pem(client.directory / "found.pem") == (certificate,)
