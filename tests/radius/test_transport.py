"""The RADIUS client: one answer to each question, its own, whoever sends what else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from scep_ra.errors import Unavailable
from scep_ra.radius import transport
from scep_ra.radius.errors import UnfitAttribute
from scep_ra.radius.packets import Code, Packet
from scep_ra.radius.sockets import IDENTIFIERS
from scep_ra.radius.transport import Address, RadiusClient, Rules, waits
from tests.support.radius_server import SECRET, FakeServer, accepting, fake_server, reply_to, silent

HASTY = Rules(retransmit_s=0.05, tries=2)


def ask(name: str = "SN1") -> Packet:
    return Packet(code=Code.ACCESS_REQUEST, attributes=(("User-Name", name),))


@asynccontextmanager
async def client_of(*servers: FakeServer | Address, rules: Rules = HASTY) -> AsyncIterator[RadiusClient]:
    addresses = [each.address if isinstance(each, FakeServer) else each for each in servers]
    client = RadiusClient(addresses, SECRET, rules)
    try:
        yield client
    finally:
        await client.close()


def closed_port() -> Address:
    """Return an address where nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return Address(host=host, port=port)


# --- asking --------------------------------------------------------------------------------------------------------


async def test_the_answer_to_the_question_is_returned() -> None:
    """Signed, and with what the server says."""
    async with fake_server(accepting) as server, client_of(server) as client:
        reply = await client.exchange(ask())
    assert (reply.code, reply.signed, reply.text("Reply-Message")) == (Code.ACCESS_ACCEPT, True, "SN1")


@pytest.mark.parametrize("count", [300, 1000])
async def test_more_questions_than_identifiers_get_each_its_own_answer(count: int) -> None:
    """An identifier has 8 bits, so further sockets are opened; the answers come in reverse order."""
    held: list[tuple[bytes, tuple[str, int]]] = []

    async with fake_server(silent) as server, client_of(server, rules=Rules(retransmit_s=8)) as client:
        questions = [asyncio.create_task(client.exchange(ask(f"SN{number}"))) for number in range(count)]
        await server.wait_for(count)
        held = list(zip(server.received, server.senders, strict=True))
        for octets, sender in reversed(held):
            server.transport.sendto(reply_to(octets), sender)
        replies = await asyncio.gather(*questions)

    assert [reply.text("Reply-Message") for reply in replies] == [f"SN{number}" for number in range(count)]
    assert len({sender for _, sender in held}) == -(-count // IDENTIFIERS)


async def test_answered_identifiers_are_used_again() -> None:
    """A thousand questions one after the other need one socket."""
    async with fake_server(accepting) as server, client_of(server) as client:
        for number in range(IDENTIFIERS + 10):
            assert (await client.exchange(ask(f"SN{number}"))).text("Reply-Message") == f"SN{number}"
    assert len(set(server.senders)) == 1


async def test_a_question_that_does_not_fit_is_not_sent() -> None:
    """And its identifier is not lost."""
    async with fake_server(accepting) as server, client_of(server) as client:
        for _ in range(IDENTIFIERS + 1):
            with pytest.raises(UnfitAttribute):
                await client.exchange(ask("x" * 254))
        await client.exchange(ask())
    assert len(server.received) == 1


async def test_no_more_sockets_are_opened_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers nothing must not cost us all our descriptors."""
    monkeypatch.setattr(transport, "MAX_SOCKETS", 1)
    async with fake_server(silent) as server, client_of(server, rules=Rules(retransmit_s=0.3, tries=1)) as client:
        questions = [asyncio.create_task(client.exchange(ask())) for _ in range(IDENTIFIERS + 1)]
        answers = await asyncio.gather(*questions, return_exceptions=True)
    assert sum("256 questions are open" in str(answer) for answer in answers) == 1


# --- sending again -------------------------------------------------------------------------------------------------


async def test_a_lost_packet_is_sent_again_as_it_was() -> None:
    """Same octets from the same port, so that the server knows it again (RFC 5080 2.2.2)."""

    def second_time(octets: bytes, count: int) -> Sequence[bytes]:
        return [reply_to(octets)] if count else []

    async with fake_server(second_time) as server, client_of(server) as client:
        assert (await client.exchange(ask())).code is Code.ACCESS_ACCEPT
    assert len(server.received) == 2
    assert len(set(server.received)) == len(set(server.senders)) == 1


def test_waits_double_and_differ() -> None:
    """Clients that lost packets together do not send again together (RFC 5080 2.2.1)."""
    rules = Rules(retransmit_s=1, tries=4)
    first, second, third, fourth = waits(rules)
    assert 0.9 <= first <= 1.1
    for before, after in ((first, second), (second, third), (third, fourth)):
        assert 1.9 * before <= after <= 2.1 * before
    assert list(waits(rules)) != list(waits(rules))
    assert sum(waits(rules)) <= rules.longest_s < 20


# --- what is no answer ---------------------------------------------------------------------------------------------


def _truncated(octets: bytes) -> bytes:
    return reply_to(octets)[:-1]


def _oversized(octets: bytes) -> bytes:
    return octets[:2] + (5000).to_bytes(2) + bytes(4996)


def _other_identifier(octets: bytes) -> bytes:
    reply = reply_to(octets)
    return reply[:1] + bytes([reply[1] ^ 1]) + reply[2:]


def _wrong_authenticator(octets: bytes) -> bytes:
    reply = reply_to(octets)
    return reply[:4] + bytes(16) + reply[20:]


def _wrong_signature(octets: bytes) -> bytes:
    reply = reply_to(octets)
    return reply[:22] + bytes(16) + reply[38:]


BAD_ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "one octet": lambda _: b"\x02",
    "truncated": _truncated,
    "oversized": _oversized,
    "the request itself": lambda octets: octets,
    "another identifier": _other_identifier,
    "wrong authenticator": _wrong_authenticator,
    "wrong signature": _wrong_signature,
    "unsigned": lambda octets: reply_to(octets, sign=False),
    "another secret": lambda octets: reply_to(octets, secret=b"other"),
    "another kind": lambda octets: reply_to(octets, code=Code.ACCOUNTING_RESPONSE),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_what_is_no_answer_is_dropped_and_waiting_goes_on(bad: Callable[[bytes], bytes]) -> None:
    """A hundred of them before the right one change nothing: nobody may end a wait who cannot sign."""

    def script(octets: bytes, _count: int) -> Sequence[bytes]:
        return [*([bad(octets)] * 100), reply_to(octets)]

    async with fake_server(script) as server, client_of(server, rules=Rules(retransmit_s=5)) as client:
        assert (await client.exchange(ask())).text("Reply-Message") == "SN1"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (BAD_ANSWERS["unsigned"], "there is no Message-Authenticator"),
        (BAD_ANSWERS["another secret"], "another secret, or no answer to this request"),
    ],
)
async def test_who_gets_only_bad_answers_learns_why(bad: Callable[[bytes], bytes], reason: str) -> None:
    """A server that does not sign, and one that has another secret, need different cures."""
    async with fake_server(lambda octets, _: [bad(octets)]) as server, client_of(server) as client:
        with pytest.raises(Unavailable, match=f"no acceptable answer in 2 tries; 2 dropped, .*{reason}"):
            await client.exchange(ask())


async def test_a_reply_from_another_port_is_not_seen() -> None:
    """The socket is connected."""
    async with fake_server(silent) as server, fake_server(silent) as stranger, client_of(server) as client:
        question = asyncio.create_task(client.exchange(ask()))
        await server.wait_for(1)
        stranger.transport.sendto(reply_to(server.received[0]), server.senders[0])
        with pytest.raises(Unavailable, match="no answer in 2 tries: is it running"):
            await question


async def test_a_second_answer_to_the_same_question_is_dropped() -> None:
    """Servers repeat themselves when packets are."""
    async with (
        fake_server(lambda octets, _: [reply_to(octets), reply_to(octets, code=Code.ACCESS_REJECT)]) as server,
        client_of(server) as client,
    ):
        assert {(await client.exchange(ask())).code for _ in range(5)} == {Code.ACCESS_ACCEPT}


async def test_a_late_answer_meets_no_later_question() -> None:
    """Identifiers of cancelled questions rest; and were one used again, the answer would not verify."""
    async with fake_server(silent) as server, client_of(server, rules=Rules(retransmit_s=5)) as client:
        given_up = asyncio.create_task(client.exchange(ask("SN1")))
        await server.wait_for(1)
        given_up.cancel()
        await asyncio.wait([given_up])
        later = [asyncio.create_task(client.exchange(ask("SN2"))) for _ in range(IDENTIFIERS)]
        await server.wait_for(1 + IDENTIFIERS)
        for octets, sender in zip(server.received, server.senders, strict=True):
            server.transport.sendto(reply_to(octets), sender)
        replies = await asyncio.gather(*later)

    asked_under = [(sender, octets[1]) for octets, sender in zip(server.received, server.senders, strict=True)]
    assert given_up.cancelled()
    assert {reply.text("Reply-Message") for reply in replies} == {"SN2"}
    assert asked_under.count(asked_under[0]) == 1


async def test_an_identifier_that_rested_long_enough_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each silence would cost one for good."""
    monkeypatch.setattr(transport, "QUARANTINE_S", 0.0)
    rules = Rules(retransmit_s=5)
    async with fake_server(silent) as server, client_of(server, rules=rules) as client:
        for count in range(1, IDENTIFIERS + 2):
            question = asyncio.create_task(client.exchange(ask()))
            await server.wait_for(count)
            question.cancel()
            await asyncio.wait([question])
    assert len(set(server.senders)) == 1
    assert server.received[0][1] == server.received[-1][1]


async def test_auto_demands_signatures_of_who_has_signed_once() -> None:
    """An attacker cannot take back what the server has shown; a server that never signs is believed."""
    signs = [False, True, False, False]

    def script(octets: bytes, count: int) -> Sequence[bytes]:
        return [reply_to(octets, sign=signs[count])]

    rules = Rules(retransmit_s=0.05, tries=2, require_message_authenticator="auto")
    async with fake_server(script) as server, client_of(server, rules=rules) as client:
        assert not (await client.exchange(ask())).signed
        assert (await client.exchange(ask())).signed
        with pytest.raises(Unavailable, match="no Message-Authenticator"):
            await client.exchange(ask())


async def test_no_believes_unsigned_answers_always() -> None:
    """The operator's word."""
    rules = Rules(retransmit_s=5, require_message_authenticator="no")
    scripted = [True, False]
    async with (
        fake_server(lambda octets, count: [reply_to(octets, sign=scripted[count])]) as server,
        client_of(server, rules=rules) as client,
    ):
        assert [(await client.exchange(ask())).signed for _ in scripted] == scripted


# --- several servers -----------------------------------------------------------------------------------------------


async def test_a_silent_server_is_passed_over_and_then_asked_last() -> None:
    """The first question pays for the failover, the next does not; both are in the log."""
    async with fake_server(silent) as first, fake_server(accepting) as second, client_of(first, second) as client:
        with capture_logs() as logs:
            await client.exchange(ask())
            await client.exchange(ask())
    assert (len(first.received), len(second.received)) == (2, 2)
    assert first.received[0][4:20] != second.received[0][4:20], "a new server gets a new packet"
    assert [(entry["event"], entry["server"]) for entry in logs] == [("radius_server_dead", str(first.address))]


async def test_a_failover_takes_as_long_as_the_rules_say() -> None:
    """2.4 s by default, give or take a tenth of each wait."""
    async with (
        fake_server(silent) as first,
        fake_server(accepting) as second,
        client_of(first, second, rules=Rules()) as client,
    ):
        started_at = asyncio.get_running_loop().time()
        await client.exchange(ask())
        took_s = asyncio.get_running_loop().time() - started_at
    assert 2.0 < took_s < Rules().longest_s + 0.5


async def test_a_dead_server_is_first_again_when_its_time_is_over() -> None:
    """And that it is back is in the log."""
    answers = iter([False, False])

    def script(octets: bytes, _count: int) -> Sequence[bytes]:
        return [reply_to(octets)] if next(answers, True) else []

    rules = Rules(retransmit_s=0.05, tries=2, dead_s=0)
    async with fake_server(script) as first, fake_server(accepting) as second:
        async with client_of(first, second, rules=rules) as client:
            with capture_logs() as logs:
                await client.exchange(ask())
                await client.exchange(ask())
    assert (len(first.received), len(second.received)) == (3, 1)
    assert [entry["event"] for entry in logs] == ["radius_server_dead", "radius_server_back"]


async def test_where_nobody_listens_the_next_is_asked_at_once() -> None:
    """The kernel tells (ICMP), so nothing is waited for."""
    async with (
        fake_server(accepting) as second,
        client_of(closed_port(), second, rules=Rules(retransmit_s=8)) as client,
    ):
        started_at = asyncio.get_running_loop().time()
        await client.exchange(ask())
        assert asyncio.get_running_loop().time() - started_at < 4


async def test_when_all_are_dead_all_are_asked() -> None:
    """The last resort; the message tells of each."""
    first, second = closed_port(), closed_port()
    async with client_of(first, second) as client:
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await client.exchange(ask())
    parts = str(caught.value).split("; ")
    assert [part.split(": ")[0] for part in parts] == [f"RADIUS server {first}", f"RADIUS server {second}"]
    assert all("Connection refused" in part for part in parts)


async def test_a_server_that_answers_others_is_not_dead() -> None:
    """One question that it cannot answer must not move all the others."""

    def all_but_one(octets: bytes, _count: int) -> Sequence[bytes]:
        return [] if b"hard" in octets else [reply_to(octets)]

    async with fake_server(all_but_one) as server, client_of(server, rules=Rules(retransmit_s=0.3, tries=1)) as client:
        with capture_logs() as logs:
            hard = asyncio.create_task(client.exchange(ask("hard")))
            await server.wait_for(1)
            await client.exchange(ask())
            with pytest.raises(Unavailable):
                await hard
    assert not logs


async def test_a_server_that_comes_back_is_reached_through_a_new_socket() -> None:
    """Its name or the route to it may have changed, so both are looked up again."""
    address = closed_port()
    async with client_of(address) as client:
        with pytest.raises(Unavailable, match="Connection refused"):
            await client.exchange(ask())
        async with fake_server(accepting, port=address.port):
            assert (await client.exchange(ask())).code is Code.ACCESS_ACCEPT


async def test_a_name_that_does_not_exist_is_told() -> None:
    """With the system's reason."""
    async with client_of(Address(host="no-such-host.invalid", port=1812)) as client:
        with pytest.raises(Unavailable, match=r"^RADIUS server no-such-host.invalid:1812: cannot be reached: \[Errno"):
            await client.exchange(ask())


async def test_a_name_that_is_not_looked_up_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs must not hang us."""
    monkeypatch.setattr(transport, "_OPEN_S", 0.0)
    async with fake_server(silent) as server, client_of(server) as client:
        with pytest.raises(Unavailable, match="its address is not found within 0 s"):
            await client.exchange(ask())


async def test_closing_ends_what_is_under_way() -> None:
    """Nobody waits for a client that is no more, and none of its sockets stays."""
    async with fake_server(silent) as server, client_of(server, rules=Rules(retransmit_s=8)) as client:
        question = asyncio.create_task(client.exchange(ask()))
        await server.wait_for(1)
        with capture_logs() as logs:
            await client.close()
            with pytest.raises(Unavailable, match="the socket was closed"):
                await question
        with pytest.raises(Unavailable, match="the client was closed"):
            await client.exchange(ask())
    assert not logs


def test_addresses_are_written_as_in_the_configuration() -> None:
    """IPv6 in brackets."""
    assert str(Address(host="192.0.2.1", port=1812)) == "192.0.2.1:1812"
    assert str(Address(host="2001:db8::1", port=1812)) == "[2001:db8::1]:1812"


async def test_no_secret_is_shown() -> None:
    """Of a client in a traceback, for instance."""
    client = RadiusClient([Address(host="127.0.0.1", port=1)], SECRET, HASTY)
    assert SECRET.decode() not in repr(vars(client))
