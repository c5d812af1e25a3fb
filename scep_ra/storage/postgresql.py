"""PostgreSQL under the store: a pool of connections, for several nodes over one database.

Units of work are transactions at READ COMMITTED, reads snapshots that the server knows to be read only. A commit is on
disk before `write` returns, where the server's settings let it (`check`). Works behind PgBouncer in session mode: what
is set for a connection and the prepared statements last as long as the session. Statements do not belong here, except
those that PostgreSQL alone knows.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal, Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from asyncpg.transaction import Transaction

from scep_ra.dsn import describe_dsn, reason_of
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.storage.database import Result, Row, Table, UniqueViolation, Work, collect_tables
from scep_ra.storage.migrations import Upgrade, prepare_schema

_Isolation = Literal["read_committed", "repeatable_read"]

POOL_SIZE: Final = 8
TIMEOUT_S: Final = 10.0

# A deadlock costs a second before the server tells (deadlock_timeout), and its winner is through by then.
_ATTEMPTS: Final = 3
# Rows that a stream holds at a time.
_PAGE: Final = 500
_REPEATABLE: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    # The schema was upgraded by another node; the statement is prepared anew next time.
    asyncpg.InvalidCachedStatementError,
)
# Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html that need a person ...
_NEEDS_MENDING: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.DataCorruptedError,
    asyncpg.IndexCorruptedError,
    asyncpg.ClientConfigurationError,
    asyncpg.UnsupportedClientFeatureError,
    asyncpg.UnsupportedServerFeatureError,
    ssl.SSLCertVerificationError,
)
# ... and those that time can mend. What is in neither is a mistake of ours and passes as it is.
_MENDS_ITSELF: Final = (
    *_REPEATABLE,
    OSError,  # refused, unknown host, and every TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, until it is promoted
    asyncpg.InterfaceError,  # the connection was closed before the statement ...
    asyncpg.InternalClientError,  # ... or in a moment when the driver did not expect it; or there are standbys only
)
_SETTINGS: Final = """
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS server_encoding"""
_WANTED: Final = {
    "fsync": ("off", "a power failure destroys the database: set fsync = on in postgresql.conf"),
    "full_page_writes": ("off", "a power failure may destroy pages: set full_page_writes = on in postgresql.conf"),
    "synchronous_commit": (
        "off",
        "a crash loses certificates that devices have already: run ALTER ROLE ... SET synchronous_commit = on",
    ),
    "server_encoding": ("SQL_ASCII", "names in other alphabets are not kept safely: make the database with UTF8"),
}
_COLUMNS: Final = """
SELECT table_name, column_name, data_type AS kind FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name, ordinal_position"""
_REFERENCES: Final = """
SELECT source.relname AS table_name, target.relname AS target FROM pg_constraint
JOIN pg_class AS source ON source.oid = conrelid JOIN pg_class AS target ON target.oid = confrelid
WHERE contype = 'f' AND connamespace = current_schema()::regnamespace"""
_DAMAGE: Final = """
SELECT 'page checksums failed ' || checksum_failures || ' times since ' || stats_reset::date AS what
FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0
UNION ALL SELECT 'index ' || indexrelid::regclass || ' is not valid: run REINDEX' FROM pg_index WHERE NOT indisvalid"""


class PostgresqlDatabase:
    """A database.Database on a PostgreSQL server; other nodes may use the same."""

    def __init__(self, pool: asyncpg.Pool, where: str, timeout_s: float) -> None:
        self._pool = pool
        self._where = where
        self._timeout_s = timeout_s

    @classmethod
    async def open(
        cls,
        dsn: str,
        *,
        password_file: Path | None = None,
        pool_size: int = POOL_SIZE,
        timeout_s: float = TIMEOUT_S,
        upgrade: Upgrade = Upgrade.WHEN_EMPTY,
    ) -> Self:
        """Connect to the server, and make the tables as `upgrade` allows; raise Unavailable or Misconfigured.

        `dsn` is a postgresql:// URL without a password: that comes from the file, else as for psql from PGPASSWORD or
        the user's password file.
        """
        where = describe_dsn(dsn)
        with _translated(where):
            pool = await asyncpg.create_pool(
                dsn,
                password=None if password_file is None else partial(_read_password, password_file),
                min_size=0,  # or the pool would log a traceback for each connection that it fails to replace
                max_size=pool_size,
                timeout=timeout_s,
                command_timeout=timeout_s,
                init=partial(_bound_pauses, timeout_s),
                # A unit of work leaves nothing behind in its session: saves a round trip for each.
                reset=_leave_as_it_is,
                server_settings={"application_name": "scep-ra"},
            )
        database = cls(pool, where, timeout_s)
        try:
            await prepare_schema(database, upgrade)
        except BaseException:
            await database.close()
            raise
        return database

    async def read(self, work: Work[Result]) -> Result:
        """Run work that only reads, on one snapshot; raise Unavailable or Misconfigured."""
        return await self._run(work, "repeatable_read", readonly=True)

    async def write(self, work: Work[Result]) -> Result:
        """Run work and commit it to disk; raise Unavailable or Misconfigured.

        When the connection breaks during the commit nobody knows its outcome: that is Unavailable as well.
        """
        return await self._run(work, "read_committed", readonly=False)

    async def check(self) -> None:
        """Verify that reading and writing work and that commits last; raise Unavailable or Misconfigured."""
        rows = await self.read(lambda session: session.fetch(_SETTINGS))
        for name, (refused, mend) in _WANTED.items():
            if rows[0][name] == refused:
                raise Misconfigured(f"{self._where} has {name} = {refused}: {mend}")
        await self.write(lambda session: session.execute("UPDATE schema_version SET version = version"))

    async def examine(self) -> Sequence[str]:
        """Return what the server has noticed: failed checksums, invalid indexes. It reads no table; pg_amcheck does."""
        return [row["what"] for row in await self.read(lambda session: session.fetch(_DAMAGE))]

    async def close(self) -> None:
        """Finish what is under way and close the connections."""
        await self._pool.close()

    async def _run(self, work: Work[Result], isolation: _Isolation, *, readonly: bool) -> Result:
        with _translated(self._where):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return await self._transact(work, isolation, readonly=readonly)
                except _REPEATABLE:
                    continue  # it was rolled back
            return await self._transact(work, isolation, readonly=readonly)

    async def _transact(self, work: Work[Result], isolation: _Isolation, *, readonly: bool) -> Result:
        async with self._pool.acquire(timeout=self._timeout_s) as connection:
            session = _PostgresqlSession(connection)
            async with _transaction(connection, isolation, readonly=readonly):
                result = await work(session)
                session.check()
                return result


class _PostgresqlSession:
    """A database.Session on one connection of the pool."""

    def __init__(self, connection: PoolConnectionProxy) -> None:
        self._connection = connection
        self._is_broken = False

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        with self._watched():
            rows: Sequence[Row] = await self._connection.fetch(sql, *parameters)
        return rows

    async def execute(self, sql: str, *parameters: object) -> int:
        with self._watched():
            tag = await self._connection.execute(sql, *parameters)
        count = tag.rpartition(" ")[2]  # "INSERT 0 1", "UPDATE 3", "CREATE TABLE"
        return int(count) if count.isdecimal() else 0

    async def stream(self, sql: str) -> AsyncIterator[Row]:
        with self._watched():
            async for row in self._connection.cursor(sql, prefetch=_PAGE):
                yield row

    async def tables(self) -> Sequence[Table]:
        return collect_tables(await self.fetch(_COLUMNS), await self.fetch(_REFERENCES))

    async def serialise(self, *names: str) -> None:
        # In one order, so that two units that name the same never wait for each other.
        for name in sorted(set(names)):
            await self.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", name)

    def check(self) -> None:
        """Raise RuntimeError after a statement that failed: COMMIT would be a ROLLBACK, and not say so."""
        if self._is_broken:
            raise RuntimeError("a unit of work went on after an error: nothing of it can be committed")

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except asyncpg.UniqueViolationError as error:
            self._is_broken = True
            raise UniqueViolation(reason_of(error)) from None
        except Exception:
            self._is_broken = True
            raise


@asynccontextmanager
async def _transaction(
    connection: PoolConnectionProxy, isolation: _Isolation, *, readonly: bool
) -> AsyncIterator[None]:
    transaction = connection.transaction(isolation=isolation, readonly=readonly)
    try:
        await transaction.start()
        yield
        await transaction.commit()
    except BaseException:
        await _roll_back(connection, transaction)
        raise


async def _roll_back(connection: PoolConnectionProxy, transaction: Transaction) -> None:
    """Undo the transaction; where that fails end the connection, which undoes it as well, and keep the first error."""
    try:
        await transaction.rollback()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        with suppress(asyncpg.InterfaceError):  # it broke, and went back to the pool
            connection.terminate()


async def _bound_pauses(timeout_s: float, connection: asyncpg.Connection) -> None:
    """Have the server end a transaction whose node stands still, or its locks would stop all others."""
    milliseconds = str(round(timeout_s * 1000))
    await connection.execute("SELECT set_config('idle_in_transaction_session_timeout', $1, false)", milliseconds)


async def _leave_as_it_is(_connection: asyncpg.Connection) -> None:
    pass


def _read_password(file: Path) -> str:
    """Return the password for the next connection; read each time, so that it can be changed while we run."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise Misconfigured(f"the password file {file} is open to other users (mode {mode:04o}): chmod 600 {file}")
        return file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"[storage] password_file {file} cannot be read: {reason_of(error)}") from error


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Turn refusals of driver, network and server into ours; raise Unavailable or Misconfigured."""
    try:
        yield
    except _NEEDS_MENDING as error:
        raise Misconfigured(
            f"{where} cannot be used: {reason_of(error)}; check [storage] dsn and password, and the role and its rights"
        ) from error
    except _MENDS_ITSELF as error:
        raise Unavailable(f"{where} cannot be used now: {reason_of(error)}") from error
