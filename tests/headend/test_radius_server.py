"""Claims about the RADIUS server: who is answered, who is not, and that nothing is done twice or without bound.

UDP on one machine keeps its order, so "not answered" is seen from the answer to what was sent next.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyrad import packet as oracle
from pyrad.dictionary import Dictionary
from structlog.testing import capture_logs

from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.headend import server as server_module
from scep_ra.headend.radius_headends import RadiusHeadend, RadiusHeadends
from scep_ra.headend.server import Binding, RadiusServer
from scep_ra.radius.packets import Code, Packet, decode_reply, encode_request
from scep_ra.radius.transport import Address, RadiusClient, Rules
from tests.support.headends import SECRET, Peer, access_request, accounting_request, make_headend, peer_of

ANYWHERE = Binding(address="127.0.0.1", access_port=0, accounting_port=0)
STATUS = Packet(code=Code.STATUS_SERVER, identifier=250)
STRANGER = "127.0.0.99"


@dataclass(kw_only=True)
class Scripted:
    """A handler that answers as told, and waits for as long as its gate is closed."""

    code: Code
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Queue[Packet] = field(default_factory=asyncio.Queue)
    answers: int = 0
    error: Exception | None = None
    attributes: tuple[Any, ...] = ()

    async def answer(self, request: Packet, headend: RadiusHeadend, source: str) -> Packet:
        assert (headend.name, source) in {("vpn", "127.0.0.1"), ("wifi", "127.0.0.2")}
        self.asked.put_nowait(request)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.answers += 1
        return Packet(code=self.code, attributes=self.attributes or (("Reply-Message", str(self.answers)),))


@dataclass(kw_only=True)
class World:
    """A server, its handlers, and a headend's socket to each port."""

    server: RadiusServer
    access: Scripted
    accounting: Scripted
    asking: Peer
    reporting: Peer


@pytest.fixture
async def world() -> AsyncIterator[World]:
    access, accounting = Scripted(code=Code.ACCESS_ACCEPT), Scripted(code=Code.ACCOUNTING_RESPONSE)
    access.gate.set()
    accounting.gate.set()
    headends = RadiusHeadends([make_headend()])
    server = await RadiusServer.start(ANYWHERE, headends, access=access, accounting=accounting)
    async with peer_of(server.access.port) as asking, peer_of(server.accounting.port) as reporting:
        yield World(server=server, access=access, accounting=accounting, asking=asking, reporting=reporting)
    await server.drain(1)


async def ask_status(peer: Peer) -> Packet:
    """Ask whether the server is alive; in an Accounting-Response no Message-Authenticator is due."""
    octets = encode_request(STATUS, SECRET)
    return decode_reply(await peer.ask(octets), octets, SECRET, require_message_authenticator=False)


async def settle(peer: Peer) -> None:
    """Wait until everything that the peer has sent was read, and nothing of it answered."""
    reply = await ask_status(peer)
    assert reply.identifier == STATUS.identifier
    assert peer.unread == 0


# --- answers -------------------------------------------------------------------------------------------------------


async def test_our_own_client_is_answered_and_believes_it(world: World) -> None:
    """It demands signed answers."""
    client = RadiusClient([Address(host="127.0.0.1", port=world.server.access.port)], SECRET, Rules())
    reply = await client.exchange(access_request())
    assert (reply.code, reply.text("Reply-Message"), reply.signed) == (Code.ACCESS_ACCEPT, "1", True)
    await client.close()


async def test_pyrad_reads_what_we_answer(world: World) -> None:
    """Response Authenticator and Message-Authenticator, which comes first."""
    request = oracle.AuthPacket(
        code=oracle.AccessRequest, id=9, secret=SECRET, dict=Dictionary(), authenticator=bytes(range(16))
    )
    request[1] = [b"SN123"]
    request[2] = [request.PwCrypt("cisco")]
    request.add_message_authenticator()
    octets = await world.asking.ask(request.RequestPacket())
    reply = oracle.Packet(packet=octets, secret=SECRET, dict=Dictionary())
    assert request.VerifyReply(reply)
    assert reply.verify_message_authenticator(secret=SECRET, original_authenticator=request.authenticator)
    assert octets[20] == 80
    assert (reply.code, reply[18]) == (oracle.AccessAccept, [b"1"])


async def test_pyrads_accounts_are_acknowledged(world: World) -> None:
    """As RFC 2866 has it."""
    request = oracle.AcctPacket(id=9, secret=SECRET, dict=Dictionary())
    request[40] = [struct.pack("!I", 1)]
    reply = oracle.Packet(packet=await world.reporting.ask(request.RequestPacket()), secret=SECRET, dict=Dictionary())
    assert request.VerifyReply(reply)
    assert reply.code == oracle.AccountingResponse


async def test_proxies_get_their_state_back(world: World) -> None:
    """All of it, in its order (RFC 2865 5.33)."""
    octets = encode_request(access_request("SN123", ("Proxy-State", b"1"), ("Proxy-State", b"2")), SECRET)
    reply = decode_reply(await world.asking.ask(octets), octets, SECRET)
    assert reply.values("Proxy-State") == (b"1", b"2")


@pytest.mark.parametrize("accounting", [False, True])
async def test_a_headend_learns_that_we_are_alive(world: World, accounting: bool) -> None:
    """By Status-Server (RFC 5997), on both ports; nobody is asked."""
    peer = world.reporting if accounting else world.asking
    reply = await ask_status(peer)
    assert reply.code is (Code.ACCOUNTING_RESPONSE if accounting else Code.ACCESS_ACCEPT)
    assert reply.signed is not accounting
    assert world.access.asked.empty()


# --- no answers ----------------------------------------------------------------------------------------------------


def resigned(secret: bytes, **changes: Any) -> bytes:
    return encode_request(replace(access_request(), **changes), secret)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (resigned(b"another"), "Message-Authenticator is wrong"),
        (encode_request(access_request(), SECRET, sign=False), "there is no Message-Authenticator"),
        (encode_request(accounting_request(1), SECRET), "ACCOUNTING_REQUEST does not belong on this port"),
        (b"\1", "less than a header"),
        (b"garbage" * 600, "length field"),
        (bytes([2, 1, 0, 20]) + bytes(16), "the code is 2"),
    ],
)
async def test_what_proves_nothing_is_dropped(world: World, octets: bytes, reason: str) -> None:
    """And told, without the secret, to whoever watches."""
    with capture_logs() as log:
        world.asking.send(octets)
        await settle(world.asking)
    (event,) = log
    assert (event["event"], event["source"], event["headend"]) == ("radius_dropped", "127.0.0.1", "vpn")
    assert reason in event["reason"]
    assert SECRET.decode() not in str(log)
    assert world.access.asked.empty()


async def test_accounts_with_a_wrong_secret_are_dropped(world: World) -> None:
    """Nobody else can end or make up sessions."""
    world.reporting.send(encode_request(accounting_request(7), b"another"))
    world.reporting.send(resigned(SECRET))
    await settle(world.reporting)
    assert world.accounting.asked.empty()


async def test_strangers_are_dropped(world: World) -> None:
    """Even those who know the secret."""
    with capture_logs() as log:
        async with peer_of(world.server.access.port, STRANGER) as stranger:
            stranger.send(resigned(SECRET))
            await settle(world.asking)
            assert stranger.unread == 0
    assert [(line["event"], line["source"]) for line in log] == [("radius_dropped", STRANGER)]


async def test_what_a_handler_cannot_read_is_dropped(world: World) -> None:
    """A value of ours that does not fit is one of these, too."""
    world.access.attributes = (("Reply-Message", "x" * 300),)
    with capture_logs() as log:
        world.asking.send(resigned(SECRET))
        await settle(world.asking)
    assert [line["event"] for line in log] == ["radius_dropped"]


@pytest.mark.parametrize(
    ("error", "event"), [(Unavailable("AAA is away"), "radius_unanswered"), (ValueError("a bug"), "radius_failed")]
)
async def test_no_decision_is_no_answer(world: World, error: Exception, event: str) -> None:
    """The headend asks again, and is heard; a bug does not end the server."""
    world.access.error = error
    octets = resigned(SECRET)
    with capture_logs() as log:
        world.asking.send(octets)
        await settle(world.asking)
    assert [line["event"] for line in log] == [event]
    world.access.error = None
    assert decode_reply(await world.asking.ask(octets), octets, SECRET).code is Code.ACCESS_ACCEPT


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"\1\1\0\x14" + bytes(16) + rest))
def test_no_octets_disturb_the_server(octets: bytes) -> None:
    """Whatever comes; the next request is answered."""

    async def flood() -> None:
        handler = Scripted(code=Code.ACCESS_ACCEPT)
        server = await RadiusServer.start(
            ANYWHERE, RadiusHeadends([make_headend()]), access=handler, accounting=handler
        )
        with capture_logs():
            async with peer_of(server.access.port) as peer:
                peer.send(octets)
                await settle(peer)
        await server.drain(1)

    asyncio.run(flood())


# --- again, and many -----------------------------------------------------------------------------------------------


async def test_a_request_that_is_sent_again_gets_the_same_answer(world: World) -> None:
    """Octet by octet, and nobody decides twice."""
    octets = resigned(SECRET)
    first = await world.asking.ask(octets)
    assert await world.asking.ask(octets) == first
    assert world.access.answers == 1


async def test_a_request_that_is_sent_again_too_early_is_answered_once(world: World) -> None:
    """While the first is under way."""
    world.access.gate.clear()
    octets = resigned(SECRET)
    world.asking.send(octets)
    world.asking.send(octets)
    await settle(world.asking)
    world.access.gate.set()
    await world.asking.receive()
    await settle(world.asking)
    assert world.access.answers == 1


async def test_another_request_under_the_same_identifier_is_another_question(world: World) -> None:
    """So is the same from another port."""
    replies = [await world.asking.ask(resigned(SECRET)) for _ in range(2)]
    octets = resigned(SECRET)
    async with peer_of(world.server.access.port) as other:
        replies += [await world.asking.ask(octets), await other.ask(octets)]
    assert (len(set(replies)), world.access.answers) == (4, 4)


async def test_more_than_can_be_carried_is_left_to_be_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken on is finished."""
    monkeypatch.setattr(server_module, "MAX_AT_WORK", 2)
    world.access.gate.clear()
    asked = [resigned(SECRET, identifier=number) for number in range(3)]
    with capture_logs() as log:
        for octets in asked:
            world.asking.send(octets)
        await settle(world.asking)
    assert [line["event"] for line in log] == ["radius_overloaded"]
    world.access.gate.set()
    assert {(await world.asking.receive())[1] for _ in range(2)} == {0, 1}
    assert decode_reply(await world.asking.ask(asked[2]), asked[2], SECRET).code is Code.ACCESS_ACCEPT


async def test_a_headend_that_runs_wild_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where signatures are not required, whoever sends under its address could otherwise silence all of them."""
    monkeypatch.setattr(server_module, "MAX_AT_WORK_OF_ONE", 2)
    handler, idle = Scripted(code=Code.ACCESS_ACCEPT), Scripted(code=Code.ACCOUNTING_RESPONSE)
    headends = RadiusHeadends([make_headend(), make_headend("wifi", network="127.0.0.2")])
    server = await RadiusServer.start(ANYWHERE, headends, access=handler, accounting=idle)
    async with peer_of(server.access.port) as wild, peer_of(server.access.port, "127.0.0.2") as other:
        with capture_logs() as log:
            for number in range(3):
                wild.send(resigned(SECRET, identifier=number))
            await settle(wild)
        assert [(line["event"], line["headend"]) for line in log] == [("radius_overloaded", "vpn")]
        asked = resigned(SECRET, identifier=9)
        other.send(asked)
        async with asyncio.timeout(10):
            taken_on = [(await handler.asked.get()).identifier for _ in range(3)]
        assert taken_on == [0, 1, 9]
        handler.gate.set()
        assert decode_reply(await other.receive(), asked, SECRET).code is Code.ACCESS_ACCEPT
        assert {(await wild.receive())[1] for _ in range(2)} == {0, 1}
        # What is finished counts no more.
        asked = resigned(SECRET, identifier=7)
        assert decode_reply(await wild.ask(asked), asked, SECRET).code is Code.ACCESS_ACCEPT
    await server.drain(1)


async def test_hundreds_of_questions_at_a_time_are_answered_each(world: World) -> None:
    """More than one socket of a headend has identifiers."""
    client = RadiusClient([Address(host="127.0.0.1", port=world.server.access.port)], SECRET, Rules())
    replies = await asyncio.gather(*(client.exchange(access_request(f"SN{number}")) for number in range(300)))
    assert {int(reply.text("Reply-Message")) for reply in replies} == set(range(1, 301))
    await client.close()


# --- up and down ---------------------------------------------------------------------------------------------------


async def test_what_is_under_way_is_answered_before_the_end(world: World) -> None:
    """What comes after the end has begun is not taken on."""
    world.access.gate.clear()
    world.asking.send(resigned(SECRET))
    await world.access.asked.get()
    ending = asyncio.create_task(world.server.drain(10))
    await asyncio.sleep(0)
    world.asking.send(resigned(SECRET, identifier=77))
    world.access.gate.set()
    assert (await world.asking.receive())[1] == 1
    await ending
    assert world.access.answers == 1


async def test_the_end_comes_though_a_handler_hangs(world: World) -> None:
    """Patience is limited."""
    world.access.gate.clear()
    world.asking.send(resigned(SECRET))
    await world.access.asked.get()
    await world.server.drain(0)
    assert world.access.answers == 0


@pytest.mark.parametrize("taken", ["access_port", "accounting_port"])
async def test_a_port_that_is_taken_is_told(taken: str, tmp_path: Path) -> None:
    """And the other one is free again."""
    handler = Scripted(code=Code.ACCESS_ACCEPT)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free,
    ):
        for each in (sock, free):
            each.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
        free.close()
        binding = replace(
            Binding(address="127.0.0.1", access_port=other, accounting_port=other), **{taken: sock.getsockname()[1]}
        )
        with pytest.raises(Misconfigured, match=r"cannot listen for RADIUS on 127.0.0.1 port [0-9]+/udp"):
            await RadiusServer.start(binding, RadiusHeadends([]), access=handler, accounting=handler)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", other))


async def test_an_answer_that_cannot_be_delivered_is_let_go(world: World) -> None:
    """The headend that went away sent an ICMP message."""
    world.server.access.error_received(ConnectionRefusedError("Connection refused"))
    await settle(world.asking)
