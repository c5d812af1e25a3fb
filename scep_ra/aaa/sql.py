"""Authorize by a statement of the operator's against a database: a table of devices, or a stored procedure.

The statement is the configuration's, its values are bound (`statements`). What columns mean says `attributes`. How
to reach a database is the business of `sql_sqlite` and `sql_postgresql`, which have nothing to do with our own store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import AccessRequest, Decision, Defer, Reject
from scep_ra.aaa.statements import Statement, named, numbered
from scep_ra.aaa.values import is_yes, texts
from scep_ra.dsn import check_protected
from scep_ra.errors import ConfigurationError

# One more than there may be: enough to see that there are several.
MAX_ROWS: Final = 2
# Columns that say more than a yes.
_ALLOW: Final = "allow"
_DEFER: Final = "defer"
_REASON: Final = "reason"
_VERDICTS: Final = frozenset({_ALLOW, _DEFER, _REASON})
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSettings:
    """What an [aaa.NAME] of type "sql" says; raises ConfigurationError when made."""

    statement: Statement
    dsn: str = ""  # "" = SQLite
    password_file: Path | None = None
    path: Path = Path()
    pool_size: int = 4
    timeout_s: float = 5.0


def sql_settings(options: Mapping[str, Any], *, data_directory: Path, timeout_s: float) -> SqlSettings:
    """Return the settings that the keys of a table make; raise ConfigurationError."""
    dsn, password_file, text = options["dsn"], options["password_file"], options["authorize"]
    if dsn and (urlsplit(dsn).scheme not in {"postgresql", "postgres"} or urlsplit(dsn).password is not None):
        raise ConfigurationError("dsn is not postgresql://USER@HOST:PORT/DATABASE (a password goes into password_file)")
    if dsn:
        check_protected(dsn)
    return SqlSettings(
        statement=numbered(text) if dsn else named(text),
        dsn=dsn,
        password_file=data_directory / password_file if password_file else None,
        path=data_directory / options["path"],
        pool_size=options["pool_size"],
        timeout_s=timeout_s,
    )


class Source(Protocol):
    """A database that answers the statement."""

    async def rows(self, values: Mapping[str, str | bool]) -> Sequence[Row]:
        """Return at most two rows; raise Unavailable or Misconfigured."""
        ...

    async def prepare(self) -> None:
        """Have the database look at the statement without carrying it out; raise Unavailable or Misconfigured."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...


class SqlAuthorizer:
    """aaa.base.Authorizer over a database."""

    def __init__(self, settings: SqlSettings, source: Source) -> None:
        self._statement = settings.statement
        self._source = source

    async def authorize(self, request: AccessRequest) -> Decision:
        """Accept a device that has one row; raise Unavailable, MalformedAnswer or Misconfigured."""
        match await self._source.rows(self._statement.values(request)):
            case []:
                return Reject(reason="the database has no row for the device")
            case [row]:
                return _judge(row)
            case _:
                return Reject(reason="the database has several rows for the device: make the statement choose one")

    async def check(self) -> None:
        """Verify that the database knows what the statement names; raise Unavailable or Misconfigured."""
        await self._source.prepare()

    async def close(self) -> None:
        """Close the connections."""
        await self._source.close()


def _judge(row: Row) -> Decision:
    reason = " ".join(texts(_REASON, row.get(_REASON)))
    if _ALLOW in row and not is_yes(_ALLOW, row[_ALLOW]):
        return Reject(reason=reason or "the row of the device does not allow it")
    if is_yes(_DEFER, row.get(_DEFER)):
        return Defer(reason=reason or "the row of the device says not yet")
    return accept_from({name: texts(name, value) for name, value in row.items() if name not in _VERDICTS})
