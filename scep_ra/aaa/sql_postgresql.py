"""A PostgreSQL server of somebody else's as the source of authorizations (`sql`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import asyncpg

from scep_ra.aaa.pool import Pool
from scep_ra.aaa.sql import MAX_ROWS, Row, SqlSettings
from scep_ra.dsn import describe_dsn, reason_of
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.secret_files import read_secret

# Classes of https://www.postgresql.org/docs/current/errcodes-appendix.html that need a person ...
_NEEDS_MENDING: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.SyntaxOrAccessError,
    asyncpg.ClientConfigurationError,
    asyncpg.UnsupportedClientFeatureError,
)
# ... those that end a connection, as a restart of the server does ...
_ENDS_CONNECTION: Final = (
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
)
# ... and all the rest: a value that the statement cannot take, a procedure that raised, a full disk.
_NO_ANSWER: Final = (OSError, asyncpg.PostgresError, asyncpg.InternalClientError)


class PostgresqlSource:
    """An aaa.sql.Source on a PostgreSQL server."""

    def __init__(self, settings: SqlSettings) -> None:
        self._settings = settings
        self._where = describe_dsn(settings.dsn)
        self._pool = Pool(settings.pool_size, self._connect, broken=_Broken)

    async def rows(self, values: Mapping[str, str | bool]) -> Sequence[Row]:
        """Return at most two rows; raise Unavailable or Misconfigured.

        The statement may run twice where the server ends the connection under it.
        """

        async def fetch(connection: _Connection) -> Sequence[Row]:
            with _translated(self._where):
                return await connection.rows(self._settings.statement.sql, list(values.values()))

        return await self._pool.ask(fetch)

    async def prepare(self) -> None:
        """Have the server plan the statement; raise Unavailable or Misconfigured."""

        async def prepare(connection: _Connection) -> None:
            with _translated(self._where):
                await connection.prepare(self._settings.statement.sql)

        await self._pool.ask(prepare)

    async def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    async def _connect(self) -> _Connection:
        settings = self._settings
        # Read for each connection, so that it can be changed while we run; None: as for psql.
        password = partial(asyncio.to_thread, read_secret, settings.password_file) if settings.password_file else None
        server_settings = {
            "application_name": "scep-ra-aaa",
            # What we have given up the server gives up, too.
            "statement_timeout": str(round(settings.timeout_s * 1000)),
        }
        with _translated(self._where):
            connection = await asyncpg.connect(
                settings.dsn,
                password=password,
                timeout=settings.timeout_s,
                statement_cache_size=0,  # a kept one would fail once when its table has been changed
                server_settings=server_settings,
            )
        return _Connection(connection)


class _Broken(Unavailable):
    """The connection ended before there was an answer."""


class _Connection:
    """An aaa.pool.PooledConnection of asyncpg's."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @property
    def is_alive(self) -> bool:
        return not self._connection.is_closed()

    async def rows(self, sql: str, values: Sequence[str | bool]) -> Sequence[Row]:
        # A cursor, because a statement without WHERE would bring the whole table. After an error nothing is rolled
        # back here: the pool ends the connection, and a server that stands still would not answer that either.
        transaction = self._connection.transaction()
        await transaction.start()
        cursor = await self._connection.cursor(sql, *values)
        rows = [dict(row) for row in await cursor.fetch(MAX_ROWS)]
        await transaction.commit()
        return rows

    async def prepare(self, sql: str) -> None:
        await self._connection.prepare(sql)

    def close(self) -> None:
        self._connection.terminate()

    def abort(self) -> None:
        self._connection.terminate()


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Turn refusals of driver, network and server into ours; raise Unavailable or Misconfigured."""
    try:
        yield
    except _NEEDS_MENDING as error:
        raise Misconfigured(
            f"{where} cannot answer: {reason_of(error)}; look at dsn, password_file and authorize"
        ) from error
    except _ENDS_CONNECTION as error:
        raise _Broken(f"{where} gives no answer: {reason_of(error)}") from error
    except _NO_ANSWER as error:
        raise Unavailable(f"{where} gives no answer: {reason_of(error)}") from error
