"""Connections that are kept, and when they are not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from scep_ra.aaa.pool import Pool


class Broken(Exception):
    """The connection ended."""


@dataclass(kw_only=True)
class Connection:
    number: int
    is_alive: bool = True
    ended: str = ""

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


@dataclass(kw_only=True)
class Server:
    """Makes connections; those in `broken` end under a question."""

    made: list[Connection] = field(default_factory=list)
    broken: set[int] = field(default_factory=set)

    async def connect(self) -> Connection:
        self.made.append(Connection(number=len(self.made)))
        return self.made[-1]

    async def answer(self, connection: Connection) -> int:
        if connection.number in self.broken:
            raise Broken
        return connection.number


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def pool(server: Server) -> Pool[Connection]:
    return Pool(2, server.connect, broken=Broken)


async def test_a_connection_is_used_again(pool: Pool[Connection], server: Server) -> None:
    """And closed in the end."""
    assert [await pool.ask(server.answer) for _ in range(3)] == [0, 0, 0]
    pool.close()
    assert [each.ended for each in server.made] == ["closed"]


async def test_one_that_has_ended_is_passed_over(pool: Pool[Connection], server: Server) -> None:
    """As far as one can tell beforehand."""
    await pool.ask(server.answer)
    server.made[0].is_alive = False
    assert await pool.ask(server.answer) == 1
    assert server.made[0].ended == "aborted"


async def test_a_kept_one_that_breaks_is_replaced_once(pool: Pool[Connection], server: Server) -> None:
    """A new one that breaks as well is the server's last word."""
    await pool.ask(server.answer)
    server.broken = {0}
    assert await pool.ask(server.answer) == 1
    server.broken = {1, 2}
    with pytest.raises(Broken):
        await pool.ask(server.answer)
    assert [each.ended for each in server.made] == ["aborted"] * 3


async def test_one_whose_question_was_given_up_is_not_used_again(pool: Pool[Connection], server: Server) -> None:
    """An answer may be on its way that would pass for the next."""
    asked = asyncio.Event()

    async def wait(_connection: Connection) -> None:
        asked.set()
        await asyncio.Event().wait()

    waiting = asyncio.create_task(pool.ask(wait))
    await asked.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert server.made[0].ended == "aborted"
    assert await pool.ask(server.answer) == 1


async def test_there_are_no_more_than_its_size(pool: Pool[Connection], server: Server) -> None:
    """Further questions wait for one to be free."""
    free = asyncio.Event()

    async def hold(_connection: Connection) -> None:
        await free.wait()

    waiting = [asyncio.create_task(pool.ask(hold)) for _ in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(server.made) == 2
    free.set()
    await asyncio.gather(*waiting)
    assert len(server.made) == 2
