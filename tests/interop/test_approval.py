"""Claims about approval as an operator sees it, with our own client: what waits, why, and what a decision does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scep_ra.cli.main import main
from scep_ra.cli.scep_client import STILL_PENDING
from scep_ra.pki.certificates import Certificate
from tests.support.key_files import write_key
from tests.support.openssl import read_pem, verify_strictly
from tests.support.server import Registered, RunningServer


class Client:
    """`scep-ra enroll` for one device, in a directory of its own."""

    def __init__(self, server: RunningServer, device: Registered, directory: Path, *, profile: str) -> None:
        self.server = server
        self._profile = profile
        self.device = device
        self._directory = directory
        self._key = write_key(directory / "device.key", device.key)

    def enroll(self) -> int:
        """Ask once, and once more by CertPoll; return the exit status."""
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    *("enroll", self.server.url(self._profile), "--subject", self.device.subject),
                    *("--challenge", self.device.challenge, "--key", str(self._key), "-o", str(self._directory)),
                    *("--poll-interval", "0.01", "--max-poll-time", "0.01"),
                ]
            )
        return int(ended.value.code or 0)

    def issued(self) -> Certificate:
        certificate = read_pem(self._directory / "device.pem")[0]
        verify_strictly(self._directory, certificate, self.server.ca.chain)
        return certificate

    def requests(self, *options: str) -> list[dict[str, Any]]:
        """Return what `request list` says of the device."""
        printed = self.server.run("request", "list", "--device", self.device.device_serial, "--json", *options)
        lines: list[dict[str, Any]] = json.loads(printed)
        return lines


@pytest.fixture
def client(server: RunningServer, tmp_path: Path) -> Client:
    return Client(server, server.register(profile="approved"), tmp_path, profile="approved")


def test_an_approved_request_gets_its_certificate_when_the_device_asks_again(client: Client) -> None:
    """Pending exits with 4; the operator finds the request, approves it by the ID that was listed, and sees the end."""
    assert client.enroll() == STILL_PENDING
    (line,) = client.requests()
    assert line["why"] == "the profile demands approval"
    story = client.server.run("request", "show", line["id"])
    assert "the peer is told PENDING" in story
    assert "proved by one-time challenge" in story

    client.server.run("request", "approve", line["id"], "--as", "alice", "--note", "called the branch office")
    assert client.requests() == []
    assert client.enroll() == 0
    serial = f"{client.issued().certificate_serial:x}"
    story = client.server.run("request", "show", line["id"])
    assert "approved by alice" in story
    assert "called the branch office" in story
    assert f"certificate {serial} is valid" in story


def test_a_rejected_request_stays_refused_and_with_a_new_challenge_there_is_another(client: Client) -> None:
    """The note is the operator's: the device is told no more than that it is refused."""
    assert client.enroll() == STILL_PENDING
    (line,) = client.requests()
    client.server.run("request", "reject", line["id"], "--note", "was reported stolen")
    assert client.enroll() == 1
    assert client.server.certificates_of(client.device.device_serial) == []
    assert "was reported stolen" in client.server.run("request", "show", line["id"])
    challenge = client.server.new_challenge(client.device.device_serial, profile="approved")
    client.device = replace(client.device, challenge=challenge)
    assert client.enroll() == STILL_PENDING
    assert [each["state"] for each in client.requests("--all")] == ["pending", "rejected"]


def test_an_approval_does_not_outlive_the_word_of_aaa(client: Client) -> None:
    """A device that was disabled after an operator's yes gets nothing, then or ever."""
    assert client.enroll() == STILL_PENDING
    client.server.run("request", "approve", client.server.waiting(client.device))
    client.server.run("device", "disable", client.device.device_serial)
    assert client.enroll() == 1
    client.server.run("device", "enable", client.device.device_serial)
    assert client.enroll() == 1
    assert client.server.certificates_of(client.device.device_serial) == []


def test_a_single_device_is_marked_for_approval(server: RunningServer, tmp_path: Path) -> None:
    """`device add --approval`, in a profile that demands none of the others."""
    devices = {"marked": server.register("--approval"), "other": server.register()}
    for name in devices:
        (tmp_path / name).mkdir()
    ended = {
        name: Client(server, device, tmp_path / name, profile="default").enroll() for name, device in devices.items()
    }
    assert ended == {"marked": STILL_PENDING, "other": 0}
