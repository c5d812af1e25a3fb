"""Claims about certmonger: it only GETs, with AES-256, and reads a refusal only where the CertRep has empty content."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from tests.support.certmonger import SUBMIT_ISSUED, SUBMIT_REJECTED, Certmonger, submit
from tests.support.enrolling import pkcs_req
from tests.support.openssl import read_pem, verify_strictly, write_pem
from tests.support.server import Registered, RunningServer

# `refresh` returns at once and has no -w; each question takes the daemon some 20 ms.
AWAIT = "for _ in $(seq 500); do getcert list -i first | grep -qE 'MONITORING|CA_REJECTED' && break; done"


# --- the helper, which does one HTTP request ------------------------------------------------------------------------


class Helper:
    """`scep-submit` and the files that the daemon would give it."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self._submit = submit()
        self.server = server
        self._directory = directory
        issuing, root = server.ca.chain
        write_pem(directory / "ra.pem", [server.ra_certificate])
        write_pem(directory / "root.pem", [root])
        write_pem(directory / "others.pem", [issuing])

    def __call__(self, *options: str) -> CompletedProcess[str]:
        return self._submit("-u", self.server.url(), *options, cwd=self._directory)

    def send(self, message: bytes) -> CompletedProcess[str]:
        """Send a PKIMessage and have the answer verified."""
        text = base64.encodebytes(message).decode()
        (self._directory / "message.pem").write_text(f"-----BEGIN PKCS7-----\n{text}-----END PKCS7-----\n")
        return self("-p", "-r", "ra.pem", "-N", "root.pem", "-I", "others.pem", "message.pem")


@pytest.fixture
def helper(server: RunningServer, tmp_path: Path) -> Helper:
    return Helper(server, tmp_path)


def test_the_helper_reads_the_capabilities(helper: Helper) -> None:
    """I-13: -c prints them; it takes the first cipher for its own."""
    outcome = helper("-c")
    assert outcome.returncode == SUBMIT_ISSUED
    assert outcome.stdout.split()[0] == "AES"
    assert {"POSTPKIOperation", "Renewal", "SHA-256", "SCEPStandard"} <= set(outcome.stdout.split())


def test_the_helper_finds_ra_and_cas(helper: Helper, tmp_path: Path) -> None:
    """I-13: -C prints the RA's certificate first, then the root, then the rest."""
    outcome = helper("-C")
    assert outcome.returncode == SUBMIT_ISSUED
    (tmp_path / "printed.pem").write_text(outcome.stdout)
    issuing, root = helper.server.ca.chain
    assert read_pem(tmp_path / "printed.pem") == (helper.server.ra_certificate, root, issuing)


def test_the_helper_accepts_a_success(helper: Helper) -> None:
    """I-13: -p sends a message by GET and verifies the answer up to the root."""
    outcome = helper.send(pkcs_req(helper.server, helper.server.register()))
    assert outcome.returncode == SUBMIT_ISSUED, outcome.stdout
    assert "BEGIN PKCS7" in outcome.stdout


def test_the_helper_reads_a_refusal_as_a_refusal(helper: Helper) -> None:
    """I-14: exit status 2 is rejected; 3 would be unreachable, and the daemon would ask for ever."""
    device = helper.server.register()
    outcome = helper.send(pkcs_req(helper.server, replace(device, challenge="wrong")))
    assert outcome.returncode == SUBMIT_REJECTED, outcome.stdout
    assert "not permitted" in outcome.stdout


# --- the daemon -----------------------------------------------------------------------------------------------------


class Host:
    """A daemon that has its state, keys and certificates in one directory."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self._daemon = Certmonger(directory)
        self.server = server
        self.directory = directory

    def run(self, *lines: str) -> str:
        return self._daemon.run("\n".join(lines))

    def request(self, device: Registered) -> str:
        """Return the line that makes a key, asks for a certificate, and ends when it is there, refused or pending."""
        files = f"-k {self.directory}/device.key -f {self.directory}/device.pem"
        return (
            f"getcert request -c test -I first {files} -N {device.subject} -L {device.challenge} -w --wait-timeout 15"
        )

    def ask_for_approval(self, device: Registered) -> str:
        """Ask in the profile where an operator decides; return what getcert says of it then."""
        add = f"getcert add-scep-ca -c test -u {self.server.url('approved')}"
        return self.run(add, f"{self.request(device)} || true", "getcert list -i first")

    def issued(self) -> Certificate:
        certificate = read_pem(self.directory / "device.pem")[0]
        verify_strictly(self.directory, certificate, self.server.ca.chain)
        return certificate


@pytest.fixture
def host(server: RunningServer, tmp_path: Path) -> Host:
    return Host(server, tmp_path)


def test_the_daemon_enrolls_and_renews_with_a_new_key(host: Host) -> None:
    """`rekey` signs with the old certificate and needs no new challenge."""
    device = host.server.register()
    said = host.run(
        f"getcert add-scep-ca -c test -u {host.server.url()}", host.request(device), "getcert list -i first"
    )
    assert "status: MONITORING" in said, said
    first = host.issued()
    said = host.run("getcert rekey -i first -w --wait-timeout 15", "getcert list -i first")
    assert "status: MONITORING" in said, said
    second = host.issued()
    assert first.spki != second.spki
    assert first.subject == second.subject
    serials = {record["serial"] for record in host.server.certificates_of(device.device_serial)}
    assert serials == {f"{each.certificate_serial:x}" for each in (first, second)}


def test_the_daemon_polls_and_gets_its_certificate_after_an_approval(host: Host) -> None:
    """It shows CA_WORKING until `refresh`, or its own clock, has it ask by CertPoll."""
    device = host.server.register(profile="approved")
    assert "status: CA_WORKING" in host.ask_for_approval(device)
    host.server.run("request", "approve", host.server.waiting(device))
    said = host.run("getcert refresh -i first", AWAIT, "getcert list -i first")
    assert "status: MONITORING" in said, said
    assert host.issued().subject == parse_name(device.subject)


def test_the_daemon_stops_polling_after_a_rejection(host: Host) -> None:
    """The FAILURE has the form that it reads."""
    device = host.server.register(profile="approved")
    assert "status: CA_WORKING" in host.ask_for_approval(device)
    host.server.run("request", "reject", host.server.waiting(device), "--note", "unknown to the branch office")
    said = host.run("getcert refresh -i first", AWAIT, "getcert list -i first")
    assert "status: CA_REJECTED" in said, said
    assert host.server.certificates_of(device.device_serial) == []


def test_the_daemon_is_rejected_for_a_wrong_challenge_and_stops_asking(host: Host) -> None:
    """It shows CA_REJECTED, never CA_UNREACHABLE."""
    device = replace(host.server.register(), challenge="wrong")
    add = f"getcert add-scep-ca -c test -u {host.server.url()}"
    said = host.run(add, f"{host.request(device)} || true", "getcert list -i first")
    assert "status: CA_REJECTED" in said, said
    assert host.server.certificates_of(device.device_serial) == []
