"""Claims about micromdm's `scepclient`: it speaks single DES and SHA-1, and puts the device ID into the CN."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scep_ra.pki.certificates import Certificate
from tests.support.enrolling import enroll
from tests.support.key_files import write_key
from tests.support.keys import spki
from tests.support.openssl import read_pem, verify_strictly
from tests.support.programs import Program, require_program
from tests.support.server import Registered, RunningServer


@pytest.fixture(scope="module")
def scepclient() -> Program:
    return require_program("scepclient", package="scep")


class Client:
    """A directory with a key and, later, a certificate."""

    def __init__(self, scepclient: Program, server: RunningServer, directory: Path) -> None:
        self._scepclient = scepclient
        self.server = server
        self.directory = directory
        self.certificate = directory / "client.pem"

    def request(
        self, device: Registered, *options: str, challenge: str | None = None, profile: str = "legacy"
    ) -> CompletedProcess[str]:
        """Ask for a certificate; with one present already this is a renewal."""
        # It would send the request it has kept, challenge and all, once more.
        (self.directory / "csr.pem").unlink(missing_ok=True)
        return self._scepclient(*self._arguments(device, challenge, profile), *options, cwd=self.directory)

    def wait_for_approval(self, device: Registered) -> None:
        """Ask until the answer is PENDING; it would ask again after 30 s."""
        self._scepclient.until("pkiStatus=PENDING", *self._arguments(device, None, "approved"), cwd=self.directory)

    def ask_again(self, device: Registered) -> CompletedProcess[str]:
        """Send the request that it has kept."""
        return self._scepclient(*self._arguments(device, None, "approved"), cwd=self.directory)

    def _arguments(self, device: Registered, challenge: str | None, profile: str) -> tuple[str | Path, ...]:
        key = write_key(self.directory / "client.key", device.key)
        return (
            *("-server-url", self.server.url(profile), "-private-key", key, "-certificate", self.certificate),
            *("-challenge", device.challenge if challenge is None else challenge, "-cn", device.device_serial),
            *("-organization", "Test", "-ou", ""),
        )

    def issued(self) -> Certificate:
        """Return the first certificate that it has stored."""
        return read_pem(self.certificate)[0]


@pytest.fixture
def client(scepclient: Program, server: RunningServer, tmp_path: Path) -> Client:
    return Client(scepclient, server, tmp_path)


def test_without_the_legacy_settings_it_is_refused_with_bad_alg(client: Client) -> None:
    """I-08: it is told why, and its challenge stays good."""
    device = client.server.register()
    outcome = client.request(device, profile="default")
    assert outcome.returncode == 1
    assert "badAlg" in outcome.stdout + outcome.stderr
    assert not client.certificate.exists()
    assert enroll(client.server, device).spki == spki(device.key)


def test_with_the_legacy_settings_it_enrolls_and_the_log_warns(client: Client) -> None:
    """I-07: the certificate it stores is the device's and not the CA's."""
    device = client.server.register(profile="legacy")
    before = len(client.server.log.events("insecure_algorithm", profile="legacy"))
    outcome = client.request(device)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    certificate = client.issued()
    assert certificate.spki == spki(device.key)
    assert device.device_serial.encode() in certificate.subject
    verify_strictly(client.directory, certificate, client.server.ca.chain)
    client.server.log.wait_for("certificate_issued", device_id=f"serial:{device.device_serial}")
    warnings = client.server.log.events("insecure_algorithm", level="warning", profile="legacy")
    assert "des-cbc" in warnings[before]["algorithms"]


@pytest.mark.parametrize("challenge", ["wrong", ""])
def test_a_wrong_or_missing_challenge_is_refused_with_bad_request(client: Client, challenge: str) -> None:
    """And nothing is stored."""
    device = client.server.register(profile="legacy")
    outcome = client.request(device, challenge=challenge)
    assert outcome.returncode == 1
    assert "badRequest" in outcome.stdout + outcome.stderr
    assert not client.certificate.exists()


def test_it_gets_its_certificate_after_an_approval(client: Client) -> None:
    """It sends its request again rather than poll: the spent challenge in it does no harm."""
    device = client.server.register(profile="approved")
    client.wait_for_approval(device)
    client.server.run("request", "approve", client.server.waiting(device))
    outcome = client.ask_again(device)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert client.issued().spki == spki(device.key)


def test_it_is_refused_after_a_rejection(client: Client) -> None:
    """However often it asks."""
    device = client.server.register(profile="approved")
    client.wait_for_approval(device)
    client.server.run("request", "reject", client.server.waiting(device))
    for outcome in (client.ask_again(device), client.ask_again(device)):
        assert outcome.returncode == 1
        assert "badRequest" in outcome.stdout + outcome.stderr
    assert not client.certificate.exists()


def test_it_renews_with_the_key_it_has_where_that_is_allowed(client: Client) -> None:
    """It sends messageType 17 and has no challenge any more."""
    device = client.server.register(profile="legacy")
    assert client.request(device).returncode == 0
    first = client.issued()
    outcome = client.request(device, challenge="")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    renewed = client.issued()
    assert renewed.certificate_serial != first.certificate_serial
    assert (renewed.spki, renewed.subject) == (first.spki, first.subject)
    assert len(client.server.certificates_of(device.device_serial)) == 2


def test_a_fingerprint_picks_the_certificate_that_it_encrypts_to(client: Client) -> None:
    """Otherwise it encrypts to every certificate of GetCACert, which the tests above show to work, too."""
    device = client.server.register(profile="legacy")
    outcome = client.request(device, "-ca-fingerprint", client.server.ra_certificate.fingerprint())
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert client.issued().spki == spki(device.key)
