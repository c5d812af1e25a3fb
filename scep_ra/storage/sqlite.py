"""SQLite under the store: one file, one writer and one reader connection, each with its own thread.

Units of work that wait at the same time make one hop to the thread and one transaction; each runs there to its end,
its awaits never suspend. A commit is on disk before `write` returns. Statements do not belong here, except those that
SQLite alone knows.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import aiosqlite

from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.storage.database import Result, Row, Session, Table, UniqueViolation, Work, collect_tables
from scep_ra.storage.migrations import Upgrade, prepare_schema

# Commands of another process (a device import, a backup) hold the write lock for well under this.
BUSY_TIMEOUT_S: Final = 5.0

# More than there are statements, so that each is compiled once per connection.
_CACHED_STATEMENTS: Final = 128
# A bound on how long one reader or writer is kept waiting by others; 32 commits in one are a gain of nearly 32 times.
_MAX_BATCH: Final = 32
_PARAMETER: Final = re.compile(r"\$(?=[0-9])")
_UNIQUE: Final = frozenset({sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY})
# Primary result codes (https://www.sqlite.org/rescode.html) that time or free space can mend ...
_MENDS_ITSELF: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
# ... and those that need a person. What is in neither set is a mistake of ours and passes as it is.
_NEEDS_MENDING: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)

_COLUMNS: Final = r"""
SELECT t.name AS table_name, c.name AS column_name, lower(c.type) AS kind
FROM sqlite_master AS t, pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY t.name, c.cid"""
_REFERENCES: Final = """
SELECT t.name AS table_name, k."table" AS target
FROM sqlite_master AS t, pragma_foreign_key_list(t.name) AS k WHERE t.type = 'table'"""


class SqliteDatabase:
    """A database.Database in one file; other processes may have the same file open."""

    def __init__(self, path: Path, writer: _Connection, reader: _Connection) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._writes = _Batches(writer, "BEGIN IMMEDIATE")
        self._reads = _Batches(reader, "BEGIN")

    @classmethod
    async def open(
        cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S, upgrade: Upgrade = Upgrade.ALWAYS
    ) -> Self:
        """Open the file, creating it (mode 0600) and its tables as needed; raise Unavailable or Misconfigured."""
        with _translated(path):
            await asyncio.to_thread(_prepare_file, path)
        writer, reader = (_Connection(lambda: _connect(path, busy_timeout_s), iter_chunk_size=1) for _ in range(2))
        database = cls(path, writer, reader)
        try:
            with _translated(path):
                await writer
                await writer.run(_use_write_ahead_log)
                await reader
                await reader.run(_forbid_writing)
                await prepare_schema(database, upgrade)
        except BaseException:
            await database.close()
            raise
        return database

    async def read(self, work: Work[Result]) -> Result:
        """Run work that only reads, on one snapshot; raise Unavailable or Misconfigured."""
        with _translated(self._path):
            return await self._reads.run(work)

    async def write(self, work: Work[Result]) -> Result:
        """Run work and commit it to disk; raise Unavailable or Misconfigured."""
        with _translated(self._path):
            return await self._writes.run(work)

    async def check(self) -> None:
        """Verify that reading and writing work; raise Unavailable or Misconfigured."""
        await self.read(lambda session: session.fetch("SELECT version FROM schema_version"))
        # Changes nothing, and yet SQLite writes the page: a full disk shows.
        await self.write(lambda session: session.execute("UPDATE schema_version SET version = version"))

    async def examine(self) -> Sequence[str]:
        """Return what PRAGMA integrity_check and foreign_key_check find; reads the whole file."""

        async def work(session: Session) -> list[str]:
            pages = await session.fetch("SELECT integrity_check AS finding FROM pragma_integrity_check")
            keys = await session.fetch('SELECT "table" AS name, parent FROM pragma_foreign_key_check')
            return [
                *(f"the file is damaged: {row['finding']}" for row in pages if row["finding"] != "ok"),
                *(f"a row of {row['name']} points to a row of {row['parent']} that is not there" for row in keys),
            ]

        return await self.read(work)

    async def close(self) -> None:
        """Finish what is under way, fold the log into the file and close it."""
        # The writer last: whoever closes last folds the log in, and the reader may not write.
        await self._reader.close()
        await self._writer.close()


class _Connection(aiosqlite.Connection):
    """aiosqlite's thread and queue, without a hop for every statement."""

    async def run(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a function with the sqlite3 connection on its thread."""
        result: Result = await self._execute(function, self._conn)  # type: ignore[no-untyped-call]
        return result


class _SqliteSession:
    """A database.Session on the connection's own thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        return self._run(sql, parameters).fetchall()

    async def execute(self, sql: str, *parameters: object) -> int:
        return self._run(sql, parameters).rowcount

    async def stream(self, sql: str) -> AsyncIterator[Row]:
        for row in self._run(sql, ()):
            yield row

    async def tables(self) -> Sequence[Table]:
        return collect_tables(await self.fetch(_COLUMNS), await self.fetch(_REFERENCES))

    async def serialise(self, *names: str) -> None:
        """Do nothing: BEGIN IMMEDIATE lets one writer in at a time."""

    def _run(self, sql: str, parameters: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(_numbered(sql), parameters)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in _UNIQUE:
                raise UniqueViolation(str(error)) from None
            raise


@lru_cache(maxsize=_CACHED_STATEMENTS)
def _numbered(sql: str) -> str:
    """Write `$1` as `?1`: sqlite3 takes the first for a name, and looks names up in a dictionary one by one."""
    return _PARAMETER.sub("?", sql)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A unit of work and whoever waits for it."""

    work: Work[Any]
    future: asyncio.Future[Any]


class _Batches:
    """Take units of work to the thread: the first at once, those that come meanwhile together, as one transaction.

    A commit to disk costs more than the statements before it, and so does waking a thread: under load both are shared.
    Each unit of a batch has a savepoint, so one that fails takes nothing with it.
    """

    def __init__(self, connection: _Connection, begin: str) -> None:
        self._connection = connection
        self._begin = begin
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._batch: asyncio.Task[None] | None = None

    async def run(self, work: Work[Result]) -> Result:
        """Run a unit of work and return its result, once that is committed."""
        if self._busy:
            future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(work=work, future=future))
            return await future
        self._busy = True
        try:
            return await self._connection.run(lambda connection: _transact(connection, self._begin, work))
        finally:
            self._go_on()

    def _go_on(self) -> None:
        """Take the next batch, if anybody waits."""
        self._busy = bool(self._waiting)
        if self._waiting:
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            self._batch = asyncio.create_task(self._run_batch(batch))

    def _transact_all(self, connection: sqlite3.Connection, batch: Sequence[_Waiting]) -> list[_Done | Exception]:
        with _transaction(connection, self._begin):
            return [_attempt(connection, waiting.work) for waiting in batch]

    async def _run_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            outcomes = await self._connection.run(lambda connection: self._transact_all(connection, batch))
        except Exception as error:  # noqa: BLE001 - it goes to everybody in the batch
            outcomes = [error] * len(batch)
        finally:
            self._go_on()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            _settle(waiting.future, outcome)


@dataclass(frozen=True, slots=True)
class _Done:
    """What a unit of work returned."""

    result: Any


def _settle(future: asyncio.Future[Any], outcome: _Done | Exception) -> None:
    if future.done():  # whoever asked went away
        return
    if isinstance(outcome, _Done):
        future.set_result(outcome.result)
    else:
        future.set_exception(outcome)


def _transact(connection: sqlite3.Connection, begin: str, work: Work[Result]) -> Result:
    """Run a unit of work as one transaction and return its result."""
    with _transaction(connection, begin):
        return _drive(work, _SqliteSession(connection))


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself has rolled back after some errors (disk full, I/O).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _attempt(connection: sqlite3.Connection, work: Work[Any]) -> _Done | Exception:
    connection.execute("SAVEPOINT unit")
    try:
        outcome: _Done | Exception = _Done(_drive(work, _SqliteSession(connection)))
    except Exception as error:
        if not connection.in_transaction:
            raise  # SQLite gave up the whole transaction
        connection.execute("ROLLBACK TO unit")
        outcome = error
    connection.execute("RELEASE unit")
    return outcome


def _drive(work: Work[Result], session: Session) -> Result:
    """Run a coroutine that never suspends to its end; raise RuntimeError when it does suspend."""
    coroutine = work(session)
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: Result = finished.value
        return result
    coroutine.close()
    raise RuntimeError("a unit of work suspended: it may await its session only")


def _prepare_file(path: Path) -> None:
    """Create the file for its owner alone, or check that it is so; raise Misconfigured."""
    try:
        if not path.exists():
            _create_file(path)
        # Not opened to look at it: POSIX drops all locks that a process has on a file when it closes any descriptor.
        mode = path.stat().st_mode
    except OSError as error:
        raise Misconfigured(f"cannot use the database file {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise Misconfigured(f"the database {path} is not a file: give the path of a file in [storage] path")
    if mode & 0o077:
        raise Misconfigured(
            f"the database file {path} is open to other users (mode {stat.S_IMODE(mode):04o}): run chmod 600 {path}"
        )


def _create_file(path: Path) -> None:
    """Put an empty database in place that has its log already.

    The switch to a log needs the file alone and does not wait for it: two processes at their first start would get in
    each other's way. So each makes its own, and the first to link it wins.
    """
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
    os.close(descriptor)
    try:
        with closing(_connect(Path(name), BUSY_TIMEOUT_S)) as connection:
            _use_write_ahead_log(connection)
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


def _connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_timeout_s, isolation_level=None, cached_statements=_CACHED_STATEMENTS
    )
    connection.row_factory = sqlite3.Row
    return connection


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Make commits survive power loss without making readers wait; raise Misconfigured."""
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise Misconfigured(f"write-ahead logging is not possible here (journal mode {mode}): use a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _forbid_writing(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only = ON")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's refusals into ours; raise Unavailable or Misconfigured."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        # The low byte is the primary code; errors that Python's own module finds have none.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _MENDS_ITSELF:
            raise Unavailable(f"the database {path} cannot be used now: {error}") from error
        if code in _NEEDS_MENDING:
            raise Misconfigured(
                f"the database {path} cannot be used: {error}; check the file and its rights, or restore a backup"
            ) from error
        raise
