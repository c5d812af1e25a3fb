"""One socket of the RADIUS client: who is told what, and when it closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from scep_ra.radius.packets import Code, Packet
from scep_ra.radius.sockets import IDENTIFIERS, ClientSocket

REPLY = Packet(code=Code.ACCESS_ACCEPT)


@pytest.fixture
async def client_socket() -> AsyncIterator[ClientSocket]:
    """Return a socket for which every datagram is the right answer."""
    loop = asyncio.get_running_loop()
    _, found = await loop.create_datagram_endpoint(
        lambda: ClientSocket(lambda _reply, _request: REPLY, quarantine_s=60), remote_addr=("127.0.0.1", 9)
    )
    yield found
    found.close()
    await found.closed.wait()


def answer(client_socket: ClientSocket, identifier: int) -> None:
    client_socket.datagram_received(bytes([2, identifier]), ("127.0.0.1", 9))


async def test_it_lends_each_identifier_once(client_socket: ClientSocket) -> None:
    """There are 256."""
    lent = [client_socket.take() for _ in range(IDENTIFIERS)]
    assert {waiting.identifier for waiting in lent if waiting} == set(range(IDENTIFIERS))
    assert client_socket.take() is None


async def test_an_answered_identifier_is_lent_again_and_a_silent_one_rests(client_socket: ClientSocket) -> None:
    """An answer may still be on its way to the second."""
    lent = [waiting for _ in range(IDENTIFIERS) if (waiting := client_socket.take())]
    answer(client_socket, 7)
    client_socket.give_back(lent[7])
    client_socket.give_back(lent[8])
    again = client_socket.take()
    assert again is not None
    assert again.identifier == 7
    assert client_socket.take() is None


async def test_an_error_is_told_to_all_who_wait_and_takes_no_answer_back(client_socket: ClientSocket) -> None:
    """The answer that came before it is good."""
    answered, waiting = client_socket.take(), client_socket.take()
    assert answered is not None
    assert waiting is not None
    answer(client_socket, answered.identifier)
    error = ConnectionRefusedError()
    client_socket.error_received(error)
    assert answered.outcome.result() is REPLY
    assert waiting.outcome.result() is error


async def test_a_retired_socket_closes_when_the_last_who_waits_is_through(client_socket: ClientSocket) -> None:
    """Until then it lends nothing and its answers still count."""
    first, second = client_socket.take(), client_socket.take()
    assert first is not None
    assert second is not None
    client_socket.retire()
    assert client_socket.take() is None
    client_socket.give_back(first)
    answer(client_socket, second.identifier)
    assert second.outcome.result() is REPLY
    assert not client_socket.closed.is_set()
    client_socket.give_back(second)
    await asyncio.wait_for(client_socket.closed.wait(), 10)


async def test_a_retired_socket_that_nobody_waits_at_closes_at_once(client_socket: ClientSocket) -> None:
    """Nothing else would close it."""
    client_socket.retire()
    await asyncio.wait_for(client_socket.closed.wait(), 10)
