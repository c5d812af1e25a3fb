"""Backups that do not depend on the kind of database: gzip'ed JSON lines, read and written in one transaction.

The first line says what follows, then comes a line for each row, then the SHA-256 of all lines before. Which tables
there are says the catalogue, so nothing has to be entered here for a new one. Keys of CAs and RAs are files of the data
directory and not in it.
"""

from __future__ import annotations

import gzip
import json
import os
import secrets
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, Final, Self

from scep_ra.errors import Misconfigured, Refused
from scep_ra.storage.database import Database, Row, Session, Table
from scep_ra.storage.migrations import apply_migrations, load_migrations, schema_version

FORMAT: Final = "scep-ra backup 1"
# CRLs that were made after the backup have higher numbers, and a number must never come back with another content
# (RFC 5280 5.2.3). One CRL a minute for two years.
CRL_NUMBER_GAP: Final = 1 << 20

# What one statement takes in SQLite, see sqlite._PARAMETER_NAMES.
_MAX_PARAMETERS: Final = 99
_PRIVATE_FILE: Final = 0o600

Progress = Callable[[int, int], None]
"""Told of rows that were done, and of how many there are in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an archive holds."""

    schema_version: int
    created_at: datetime
    rows: Mapping[str, int]  # by table

    @property
    def total(self) -> int:
        """Return the number of rows of all tables."""
        return sum(self.rows.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did."""

    contents: Contents
    voided_challenges: int


async def write_archive(database: Database, path: Path, *, now: datetime, progress: Progress) -> Contents:
    """Write all rows as of one moment to a new file of mode 0600; others may go on writing to the database.

    Raise Refused when there is such a file or nothing to save, Misconfigured when the file cannot be written.
    """

    async def work(session: Session) -> Contents:
        tables = await _data_tables(session)
        contents = Contents(
            schema_version=await schema_version(session),
            created_at=now,
            rows={table.name: await _count(session, table) for table in tables},
        )
        if not tables:
            raise Refused("the store has no tables: there is nothing to save")
        with _new_file(path) as file, _LineWriter(file) as writer:
            writer.write(_encode_header(contents))
            for table in tables:
                async for row in session.stream(_select(table)):
                    writer.write([table.name, _encode_row(table, row)])
                    progress(1, contents.total)
        return contents

    return await database.read(work)


async def restore_archive(database: Database, path: Path, *, keep_challenges: bool, progress: Progress) -> Restored:
    """Put the rows of an archive into an empty database of any kind, all or none.

    Challenges that were open are voided unless they are to be kept, because they may have been spent since. Raise
    Refused when the file is damaged or not ours, when the database is not empty, or when their schemas differ.
    """
    contents = _verify(path)

    async def work(session: Session) -> Restored:
        await session.serialise("schema_version")
        await _prepare_tables(session, contents)
        await _insert_rows(session, path, contents, progress)
        await apply_migrations(session, load_migrations())
        voided = 0 if keep_challenges else await session.execute("DELETE FROM challenge WHERE used_by IS NULL")
        # No count of revocations is negative: the next CRL is made at once.
        await session.execute("UPDATE crl SET crl_number = crl_number + $1, revocation_sequence = -1", CRL_NUMBER_GAP)
        return Restored(contents=contents, voided_challenges=voided)

    return await database.write(work)


async def count_rows(session: Session) -> Mapping[str, int]:
    """Return the number of rows by table; a unit of work."""
    return {table.name: await _count(session, table) for table in await _data_tables(session)}


# --- tables --------------------------------------------------------------------------------------------------------


async def _data_tables(session: Session) -> Sequence[Table]:
    """Return the tables that hold data, each after those that it refers to."""
    tables = {table.name: table for table in await session.tables()}
    graph = {name: sorted(table.references) for name, table in tables.items()}
    return [tables[name] for name in TopologicalSorter(graph).static_order() if name != "schema_version"]


async def _count(session: Session, table: Table) -> int:
    rows = await session.fetch(f"SELECT COUNT(*) AS count FROM {_quote(table.name)}")  # noqa: S608 - of the catalogue
    count: int = rows[0]["count"]
    return count


def _select(table: Table) -> str:
    return f"SELECT {', '.join(map(_quote, table.columns))} FROM {_quote(table.name)}"  # noqa: S608 - of the catalogue


def _insert(table: Table, rows: int) -> str:
    width = len(table.columns)
    places = [f"({', '.join(f'${row * width + column + 1}' for column in range(width))})" for row in range(rows)]
    columns = ", ".join(map(_quote, table.columns))
    return f"INSERT INTO {_quote(table.name)} ({columns}) VALUES {', '.join(places)}"  # noqa: S608 - of the catalogue


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _prepare_tables(session: Session, contents: Contents) -> None:
    """Make the tables as the archive had them, or check that they are there and empty; raise Refused."""
    present, wanted = await schema_version(session), contents.schema_version
    if present == 0:
        known = load_migrations()
        if wanted > known[-1].version:
            raise Refused(
                f"the archive has schema version {wanted}, this program knows versions up to {known[-1].version}: "
                "restore it with the version of the program that wrote it, or a newer one"
            )
        await apply_migrations(session, tuple(each for each in known if each.version <= wanted))
    elif present != wanted:
        raise Refused(
            f"the archive has schema version {wanted}, the store has {present}: restore into a new data directory or"
            " database, which gets the right one"
        )
    for table in await _data_tables(session):
        if await _count(session, table):
            raise Refused(
                f"the store is not empty, table {table.name} has rows: restore into a new data directory or database"
            )


async def _insert_rows(session: Session, path: Path, contents: Contents, progress: Progress) -> None:
    tables = {table.name: table for table in await _data_tables(session)}
    for name, rows in groupby(_read_rows(path), key=lambda entry: entry[0]):
        if name not in tables:
            raise _damaged(path, f"its rows of {name} do not fit this program")
        table = tables[name]
        while batch := list(islice(rows, _MAX_PARAMETERS // len(table.columns))):
            values = (value for _, row in batch for value in _decode_row(table, row))
            await session.execute(_insert(table, len(batch)), *values)
            progress(len(batch), contents.total)


# --- lines ---------------------------------------------------------------------------------------------------------


def _encode_header(contents: Contents) -> dict[str, object]:
    return {
        "format": FORMAT,
        "schema_version": contents.schema_version,
        "created_at": contents.created_at.isoformat(),
        "rows": dict(contents.rows),
    }


def _decode_header(line: bytes) -> Contents:
    header = json.loads(line)
    if header["format"] != FORMAT:
        raise ValueError("unknown format")
    return Contents(
        schema_version=header["schema_version"],
        created_at=datetime.fromisoformat(header["created_at"]),
        rows=header["rows"],
    )


def _encode_row(table: Table, row: Row) -> dict[str, object]:
    return {column: _encode(kind, row[column]) for column, kind in table.columns.items()}


def _encode(kind: str, value: Any) -> object:
    match kind:
        case _ if value is None:
            return None
        case "bytea":
            return b64encode(value).decode()
        case "boolean":
            return bool(value)  # SQLite has 0 and 1
        case _:
            return value  # text and whole numbers


def _decode_row(table: Table, row: Mapping[str, Any]) -> list[object]:
    return [
        b64decode(row[column]) if kind == "bytea" and row[column] is not None else row[column]
        for column, kind in table.columns.items()
    ]


class _LineWriter:
    """Lines of JSON into a gzip file, with their digest at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._gzip = gzip.GzipFile(fileobj=file, mode="wb", filename="")
        self._digest = sha256()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:
            self.write({"sha256": self._digest.hexdigest()})
        self._gzip.close()

    def write(self, value: object) -> None:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._digest.update(line)
        self._gzip.write(line)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Lend a private file, which gets its name when all is on disk; raise Refused when the name is taken."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        if path.exists():
            raise FileExistsError  # noqa: TRY301 - said once, below: another process may be faster than this check
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        raise Refused(f"{path} is there already: name another file, or remove it") from None
    except (ConnectionError, TimeoutError):
        raise  # of the database, which knows what to say
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read_lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) as file:
            yield from file
    except gzip.BadGzipFile as error:
        raise _damaged(path, "it is not gzip") from error
    except (EOFError, zlib.error) as error:
        raise _damaged(path, "it breaks off, or was changed") from error
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error


def _read_rows(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield the table and the values of each row of an archive that was verified."""
    for line in islice(_read_lines(path), 1, None):
        entry = json.loads(line)
        if isinstance(entry, list):
            yield entry[0], entry[1]


def _verify(path: Path) -> Contents:
    """Return what the archive holds when its digest is right; raise Refused."""
    digest = sha256()
    lines = _read_lines(path)
    first = last = next(lines, b"")
    for line in lines:
        digest.update(last)
        last = line
    try:
        contents, end = _decode_header(first), json.loads(last)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "it is not an archive of this program") from error
    if end != {"sha256": digest.hexdigest()}:
        raise _damaged(path, "its lines do not give its digest")
    return contents


def _damaged(path: Path, reason: str) -> Refused:
    return Refused(f"{path} cannot be restored: {reason}; nothing was changed, try another backup")
