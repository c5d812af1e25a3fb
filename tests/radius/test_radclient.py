"""FreeRADIUS's radclient against our codec as the server: both read what the other writes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from scep_ra.radius.packets import Code, Packet, Value, decode_request, encode_reply
from tests.support.programs import require_program
from tests.support.radius_server import SECRET, FakeServer, fake_server

pytestmark = pytest.mark.interop


def answering(code: Code, *attributes: tuple[str, Value], secret: bytes = SECRET) -> FakeServer:
    def script(octets: bytes, _count: int) -> Sequence[bytes]:
        return [encode_reply(Packet(code=code, attributes=attributes), decode_request(octets, SECRET), secret)]

    return FakeServer(script=script)


async def radclient(server: FakeServer, command: str, attributes: str, directory: Path) -> str:
    """Let radclient send a request and return what it printed of the answer."""
    program = require_program("radclient", package="freeradius-utils")
    (directory / "request").write_text(attributes)
    async with fake_server(server.script) as running:
        arguments = ("-x", "-r", "1", "-t", "1", "-f", directory / "request", str(running.address), command)
        done: subprocess.CompletedProcess[str] = await asyncio.to_thread(
            program, *arguments, SECRET.decode(), cwd=directory
        )
    server.received = running.received
    return done.stdout.partition("Received")[2] + done.stderr


async def test_an_access_request_and_its_reply(tmp_path: Path) -> None:
    """With password, Message-Authenticator both ways, AV pairs, numbers and addresses."""
    server = answering(
        Code.ACCESS_ACCEPT,
        ("Cisco-AVPair", "pki:cert-application=all"),
        ("Cisco-AVPair", "pki:cert-serial=0A"),
        ("Session-Timeout", 3600),
        ("Framed-IP-Address", "192.0.2.9"),
        ("Class", b"0x41"),
    )
    asked = (
        'User-Name = "SN1"\nUser-Password = "a password of more than sixteen octets"\n'
        "NAS-IPv6-Address = 2001:db8::1\nProxy-State = 0x0102\nMessage-Authenticator = 0x00\n"
    )
    printed = await radclient(server, "auth", asked, tmp_path)
    for line in (
        "Access-Accept",
        'Cisco-AVPair = "pki:cert-application=all"',
        'Cisco-AVPair = "pki:cert-serial=0A"',
        "Session-Timeout = 3600",
        "Framed-IP-Address = 192.0.2.9",
        "Class = 0x30783431",
        "Proxy-State = 0x0102",
        "Message-Authenticator = 0x",
    ):
        assert line in printed
    request = decode_request(server.received[0], SECRET)
    assert request.signed
    assert request.text("User-Password") == "a password of more than sixteen octets"
    assert request.text("NAS-IPv6-Address") == "2001:db8::1"


@pytest.mark.parametrize(
    ("command", "code", "answer"),
    [
        ("acct", Code.ACCOUNTING_RESPONSE, "Accounting-Response"),
        ("disconnect", Code.DISCONNECT_ACK, "Disconnect-ACK"),
        ("coa", Code.COA_NAK, "CoA-NAK"),
        ("status", Code.ACCESS_ACCEPT, "Access-Accept"),
    ],
)
async def test_the_other_requests_and_their_replies(tmp_path: Path, command: str, code: Code, answer: str) -> None:
    """Each with its own rule for the authenticators."""
    attributes: tuple[tuple[str, Value], ...] = (("Error-Cause", 503),) if code is Code.COA_NAK else ()
    server = answering(code, *attributes)
    asked = 'Acct-Session-Id = "0A"\nEvent-Timestamp = 1790000000\nMessage-Authenticator = 0x00\n'
    printed = await radclient(server, command, asked, tmp_path)
    assert answer in printed
    request = decode_request(server.received[0], SECRET)
    assert request.text("Acct-Session-Id") == "0A"
    assert request.number("Event-Timestamp") == 1_790_000_000


async def test_a_reply_with_another_secret_is_refused_by_radclient(tmp_path: Path) -> None:
    """Our proofs are proofs to others."""
    server = answering(Code.ACCESS_ACCEPT, secret=b"other")
    printed = await radclient(server, "auth", 'User-Name = "SN1"\nMessage-Authenticator = 0x00\n', tmp_path)
    assert "Access-Accept" not in printed
    assert "Shared secret is incorrect" in printed
