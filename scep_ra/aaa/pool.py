"""Connections kept for the next question, for backends whose servers are asked over and over.

One rule: a connection on which anything went wrong, giving up included, is thrown away. What travels over them is
their owners' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class PooledConnection(Protocol):
    """What the pool wants to know of a connection."""

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, as far as one can tell without asking."""
        ...

    def close(self) -> None:
        """Close it while nothing is under way."""
        ...

    def abort(self) -> None:
        """Close it whatever is under way, at once."""
        ...


_Connection = TypeVar("_Connection", bound=PooledConnection)
_Answer = TypeVar("_Answer")


class Pool(Generic[_Connection]):
    """At most `size` connections, made when they are needed."""

    def __init__(self, size: int, connect: Callable[[], Awaitable[_Connection]], *, broken: type[Exception]) -> None:
        """`broken` is what a question raises whose connection ended before there was an answer."""
        self._slots = asyncio.Semaphore(size)
        self._connect = connect
        self._broken = broken
        self._idle: list[_Connection] = []

    async def ask(self, question: Callable[[_Connection], Awaitable[_Answer]]) -> _Answer:
        """Put a question on a connection, and once more on a new one where a kept one turns out to be broken.

        That is how the server's restart looks: it closed what it had, and would answer.
        """
        async with self._slots:
            kept = self._take()
            if kept is not None:
                try:
                    return await self._use(kept, question)
                except self._broken:
                    pass
            return await self._use(await self._connect(), question)

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive:
                return connection
            connection.abort()
        return None

    async def _use(self, connection: _Connection, question: Callable[[_Connection], Awaitable[_Answer]]) -> _Answer:
        try:
            answer = await question(connection)
        except BaseException:
            connection.abort()
            raise
        self._idle.append(connection)
        return answer
