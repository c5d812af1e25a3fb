"""What SQL units of work need from a database, and how our values look in it.

A unit of work is a coroutine function that takes a Session and awaits nothing else: SQLite drives it to its end in
one hop on its thread, a driver with asynchronous I/O simply awaits it. No SQL and no driver belongs here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

Result = TypeVar("Result")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# RFC 5280 4.1.2.2: at most 20 octets and no sign.
CERTIFICATE_SERIALS: Final = range(1 << 160)


class UniqueViolation(Exception):
    """A statement broke a unique index; a signal that never leaves the store.

    It ends the unit of work, because PostgreSQL takes no further statement then. A unit that means to go on writes
    ON CONFLICT DO NOTHING and looks at the number of rows.
    """


class Row(Protocol):
    """A result row, read by column name."""

    def __getitem__(self, column: str, /) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What the catalogue says of a table."""

    name: str
    columns: dict[str, str]  # name -> type as in the schema files, lower case
    references: frozenset[str]  # tables that its foreign keys point to


class Session(Protocol):
    """One open transaction; parameters are `$1`, `$2`, ... in the statement."""

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        """Run one statement and return its rows; raise UniqueViolation."""
        ...

    async def execute(self, sql: str, *parameters: object) -> int:
        """Run one statement and return how many rows it changed; raise UniqueViolation."""
        ...

    def stream(self, sql: str) -> AsyncIterator[Row]:
        """Iterate over the rows of a query that may be more than memory holds."""
        ...

    async def tables(self) -> Sequence[Table]:
        """Return the tables of the schema by name."""
        ...

    async def serialise(self, *names: str) -> None:
        """Wait until no other transaction that names one of these is under way; held until the commit.

        For a rule over several rows, which no unique index can keep. Name everything in one call per unit of work, so
        that no two units wait for each other.
        """
        ...


Work = Callable[[Session], Coroutine[Any, Any, Result]]


class Database(Protocol):
    """Runs units of work, each as one transaction; an exception leaving the work rolls it back and goes on.

    A unit of work that did not commit may be run again, so it keeps nothing outside of itself.
    """

    async def read(self, work: Work[Result]) -> Result:
        """Run work that only reads, on one snapshot; raise Unavailable or Misconfigured."""
        ...

    async def write(self, work: Work[Result]) -> Result:
        """Run work and commit it to disk; raise Unavailable or Misconfigured."""
        ...

    async def check(self) -> None:
        """Verify that reading and writing work; raise Unavailable or Misconfigured."""
        ...

    async def examine(self) -> Sequence[str]:
        """Return what the database finds damaged in itself, a sentence each; may read all of it."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""
        ...


def collect_tables(columns: Iterable[Row], references: Iterable[Row]) -> Sequence[Table]:
    """Return tables by name from rows (table_name, column_name, kind) in order and (table_name, target)."""
    kinds: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in columns:
        kinds[row["table_name"]][row["column_name"]] = row["kind"]
    targets: defaultdict[str, set[str]] = defaultdict(set)
    for row in references:
        targets[row["table_name"]].add(row["target"])
    return [Table(name=name, columns=kinds[name], references=frozenset(targets[name])) for name in sorted(kinds)]


def encode_time(time: datetime) -> int:
    """Return microseconds since 1970; raise TypeError for a naive time."""
    return (time - _EPOCH) // _MICROSECOND


def decode_time(microseconds: int) -> datetime:
    """Return an aware time in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def encode_serial(certificate_serial: int) -> str:
    """Return 40 hexadecimal digits, which sort like the numbers; raise ValueError when it has more than 20 octets."""
    if certificate_serial not in CERTIFICATE_SERIALS:
        raise ValueError("a certificate serial has at most 20 octets and no sign (RFC 5280 4.1.2.2)")
    return f"{certificate_serial:040x}"


def decode_serial(text: str) -> int:
    """Return the number."""
    return int(text, 16)
