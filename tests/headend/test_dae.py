"""Claims about Disconnect-Requests (RFC 5176): what is sent, and what the answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from scep_ra.headend import dae
from scep_ra.headend.dae import DisconnectSender, DisconnectTarget, judge
from scep_ra.headend.outbox import Attempt, Verdict
from scep_ra.radius.packets import Code, Packet
from scep_ra.radius.transport import Rules
from scep_ra.storage.sessions import OutboxMessage
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.outbox import answering, read_request
from tests.support.radius_server import SECRET, FakeServer, fake_server, silent
from tests.support.records import NOW, device_id, disconnect_device, make_session


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite"))
    await store.record_session(make_session())
    yield store
    await store.close()


@pytest.fixture
async def message(store: SqlStore) -> OutboxMessage:
    return (await disconnect_device(store)).messages[0]


@asynccontextmanager
async def sending_to(
    store: SqlStore, server: FakeServer, *, network: str = "127.0.0.1"
) -> AsyncIterator[DisconnectSender]:
    target = DisconnectTarget(
        name="vpn", network=ip_network(network), port=server.address.port, read_secret=lambda: SECRET
    )
    sender = DisconnectSender([target], sessions=store, now=lambda: NOW)
    yield sender
    await sender.close()


async def test_a_request_names_the_session_and_nothing_else(store: SqlStore, message: OutboxMessage) -> None:
    """Signed, with its time; headends refuse attributes that they do not expect."""
    async with fake_server(answering(Code.DISCONNECT_ACK)) as server, sending_to(store, server) as sender:
        assert await sender.send(message) == Attempt(verdict=Verdict.DONE, result="ack")
        await sender.send(message)
    request = read_request(server.received[0])
    assert request.code is Code.DISCONNECT_REQUEST
    assert request.signed
    assert sorted(each for each in request.attributes if each[0] != "Message-Authenticator") == [
        ("Acct-Session-Id", "0A1B"),
        ("Calling-Station-Id", "203.0.113.5"),
        ("Event-Timestamp", int(NOW.timestamp())),
        ("NAS-IP-Address", "192.0.2.7"),
        ("NAS-Identifier", "vpn-1"),
        ("User-Name", "CN=laptop,serialNumber=SN123"),
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nas_address": "2001:db8::7"}, ("NAS-IPv6-Address", "2001:db8::7")),
        ({"nas_address": "", "nas_identifier": ""}, ("Acct-Session-Id", "0A1B")),
    ],
)
async def test_what_the_headend_did_not_report_is_left_out(
    store: SqlStore, message: OutboxMessage, changes: dict[str, str], named: tuple[str, str]
) -> None:
    """And an IPv6 address has an attribute of its own."""
    message = replace(message, payload={**message.payload, **changes})
    async with fake_server(answering(Code.DISCONNECT_ACK)) as server, sending_to(store, server) as sender:
        await sender.send(message)
    attributes = dict(read_request(server.received[0]).attributes)
    assert "NAS-IP-Address" not in attributes
    assert named in attributes.items()


async def test_the_session_ends_in_the_store_when_the_headend_says_so(store: SqlStore, message: OutboxMessage) -> None:
    """Its accounting stop may never come."""
    async with fake_server(answering(Code.DISCONNECT_ACK)) as server, sending_to(store, server) as sender:
        await sender.send(message)
    assert await store.list_sessions(device_id()) == []


async def test_a_headend_that_refuses_keeps_its_session(store: SqlStore, message: OutboxMessage) -> None:
    """It will be asked again."""
    script = answering(Code.DISCONNECT_NAK, ("Error-Cause", 506))
    async with fake_server(script) as server, sending_to(store, server) as sender:
        assert await sender.send(message) == Attempt(verdict=Verdict.REFUSED, result="nak 506 resources unavailable")
    assert len(await store.list_sessions(device_id())) == 1


@pytest.mark.parametrize(
    "script", [silent, answering(Code.DISCONNECT_ACK, secret=b"another")], ids=["silence", "wrong secret"]
)
async def test_silence_is_a_timeout_that_says_what_to_look_at(
    store: SqlStore, message: OutboxMessage, script: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer under another secret is none."""
    monkeypatch.setattr(dae, "_RULES", Rules(retransmit_s=0.05, tries=2, require_message_authenticator="no"))
    async with fake_server(script) as server, sending_to(store, server) as sender:  # type: ignore[arg-type]  # a Script
        attempt = await sender.send(message)
    assert attempt.verdict is Verdict.SILENT
    assert attempt.result.startswith("timeout (RADIUS server 127.0.0.1:")
    assert "secret" in attempt.result
    assert len(await store.list_sessions(device_id())) == 1
    assert len(set(server.received)) == 1


async def test_a_headend_that_left_the_configuration_is_refused_by_name(
    store: SqlStore, message: OutboxMessage
) -> None:
    """Whoever reads it knows what to mend."""
    sender = DisconnectSender([], sessions=store, now=lambda: NOW)
    attempt = await sender.send(message)
    assert attempt == Attempt(verdict=Verdict.REFUSED, result="no [headend.vpn] takes Disconnect-Requests")


async def test_of_a_network_of_headends_the_one_of_the_session_is_asked(
    store: SqlStore, message: OutboxMessage
) -> None:
    """By the address that it reported."""
    message = replace(message, payload={**message.payload, "nas_address": "127.0.0.1"})
    async with fake_server(answering(Code.DISCONNECT_ACK)) as server:
        async with sending_to(store, server, network="127.0.0.0/24") as sender:
            assert (await sender.send(message)).result == "ack"


@pytest.mark.parametrize(("address", "named"), [("192.0.2.7", "192.0.2.7"), ("", "its address")])
async def test_an_address_outside_of_the_network_gets_nothing(
    store: SqlStore, message: OutboxMessage, address: str, named: str
) -> None:
    """A headend must not send us, and what the secret has signed, to anybody."""
    message = replace(message, payload={**message.payload, "nas_address": address})
    async with fake_server(silent) as server, sending_to(store, server, network="127.0.0.0/24") as sender:
        attempt = await sender.send(message)
    assert attempt == Attempt(verdict=Verdict.REFUSED, result=f"{named} is not in [headend.vpn]")
    assert server.received == []


@pytest.mark.parametrize(
    ("code", "cause", "attempt"),
    [
        (Code.DISCONNECT_ACK, None, Attempt(verdict=Verdict.DONE, result="ack")),
        (Code.DISCONNECT_NAK, None, Attempt(verdict=Verdict.DONE, result="nak (no such session)")),
        (Code.DISCONNECT_NAK, 503, Attempt(verdict=Verdict.DONE, result="nak 503 session not found")),
        (Code.DISCONNECT_NAK, 403, Attempt(verdict=Verdict.REFUSED, result="nak 403 NAS identification mismatch")),
        (Code.DISCONNECT_NAK, 599, Attempt(verdict=Verdict.REFUSED, result="nak 599")),
    ],
)
def test_answers_are_judged_by_what_becomes_of_the_session(code: Code, cause: int | None, attempt: Attempt) -> None:
    """One that is not there is what we want."""
    attributes = () if cause is None else (("Error-Cause", cause),)
    assert judge(Packet(code=code, attributes=attributes)) == attempt
