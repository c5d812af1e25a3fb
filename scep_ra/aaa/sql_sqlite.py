"""An SQLite file of somebody else's as the source of authorizations (`sql`); only read."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiosqlite

from scep_ra.aaa.sql import MAX_ROWS, Row, SqlSettings
from scep_ra.errors import Misconfigured, Unavailable

# A writer holds the file for milliseconds.
_BUSY_TIMEOUT_S: Final = 1.0
# Primary result codes (https://www.sqlite.org/rescode.html) that time can mend.
_MENDS_ITSELF: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR})


class SqliteSource:
    """A Source in a file, which is opened for each question: so one that was put in its place is noticed."""

    def __init__(self, settings: SqlSettings) -> None:
        self._path = settings.path
        self._statement = settings.statement

    async def rows(self, values: Mapping[str, str | bool]) -> Sequence[Row]:
        """Return at most two rows; raise Unavailable or Misconfigured."""
        return await self._fetch(self._statement.sql, values)

    async def prepare(self) -> None:
        """Have SQLite compile the statement; raise Unavailable or Misconfigured."""
        await self._fetch(f"EXPLAIN {self._statement.sql}", dict.fromkeys(self._statement.parameters, ""))

    async def close(self) -> None:
        """Do nothing: no connection is kept."""

    async def _fetch(self, sql: str, values: Mapping[str, str | bool]) -> Sequence[Row]:
        with _translated(self._path):
            # Read only by the way it is opened: the statement is the operator's, and yet it is asked by strangers.
            async with aiosqlite.connect(
                f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S
            ) as connection:
                connection.row_factory = sqlite3.Row
                try:
                    cursor = await connection.execute(sql, values)
                    return [dict(row) for row in await cursor.fetchmany(MAX_ROWS)]
                except asyncio.CancelledError:
                    await connection.interrupt()  # nobody waits any more: let it not compute on
                    raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the primary code; errors that Python's own module finds have none.
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _MENDS_ITSELF:
            raise Unavailable(f"the database {path} cannot be read now: {error}") from error
        raise Misconfigured(f"the database {path} cannot answer: {error}; look at path and authorize") from error
