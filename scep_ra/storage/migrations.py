"""Bring a database to the schema that this version of the code knows.

Schema files are named NUMBER_what.sql and are applied in the order of their numbers, all that are missing in one
transaction. A file that was released is never changed; the next one mends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from importlib import resources
from typing import assert_never

from scep_ra.errors import Misconfigured
from scep_ra.storage.database import Database, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One schema file."""

    version: int
    statements: tuple[str, ...]


def load_migrations() -> tuple[Migration, ...]:
    """Return the packaged schema files by rising version."""
    files = [entry for entry in (resources.files(__package__) / "schema").iterdir() if entry.name.endswith(".sql")]
    return tuple(
        Migration(version=int(file.name.partition("_")[0]), statements=split_statements(file.read_text("utf-8")))
        for file in sorted(files, key=lambda file: file.name)
    )


def split_statements(script: str) -> tuple[str, ...]:
    """Split at semicolons that end a line; drivers take one statement at a time inside a transaction."""
    return tuple(statement for part in script.split(";\n") if (statement := part.strip()))


class Upgrade(Enum):
    """What opening a database may do to its schema."""

    ALWAYS = auto()  # SQLite: one node, so nobody is surprised
    WHEN_EMPTY = auto()  # PostgreSQL: nodes of two versions may share it, and an operator says when it changes
    NEVER = auto()  # commands that upgrade, check or restore, and look at it themselves


async def prepare_schema(database: Database, upgrade: Upgrade) -> None:
    """Bring the schema to what this program knows, or make sure that it is there already.

    Raise Misconfigured for a schema that is newer, or older and not to be changed here.
    """
    match upgrade:
        case Upgrade.NEVER:
            pass
        case Upgrade.ALWAYS:
            await migrate(database, load_migrations())
        case Upgrade.WHEN_EMPTY:
            await _fill_or_compare(database, load_migrations())
        case _:
            assert_never(upgrade)


async def _fill_or_compare(database: Database, migrations: tuple[Migration, ...]) -> None:
    present, known = await database.read(schema_version), migrations[-1].version
    if present == 0:
        await migrate(database, migrations)
    elif present < known:
        raise Misconfigured(
            f"the database has schema version {present}, this program needs {known}: make a backup (scep-ra db backup),"
            " then run scep-ra db upgrade"
        )
    else:
        _check_known(present, known)


async def schema_version(session: Session) -> int:
    """Return the version of the schema, 0 for a database without tables of ours; a unit of work."""
    if all(table.name != "schema_version" for table in await session.tables()):
        return 0
    rows = await session.fetch("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version")
    present: int = rows[0]["version"]
    return present


async def migrate(database: Database, migrations: tuple[Migration, ...]) -> tuple[int, int]:
    """Apply what is missing and return the versions before and after.

    Raise Misconfigured when the database is newer than `migrations`.
    """
    return await database.write(lambda session: apply_migrations(session, migrations))


async def apply_migrations(session: Session, migrations: tuple[Migration, ...]) -> tuple[int, int]:
    """Apply what is missing, inside a unit of work, and return the versions before and after; raise Misconfigured."""
    # Nodes that start together: the first makes the tables, the others find them.
    await session.serialise("schema_version")
    present, known = await schema_version(session), migrations[-1].version
    _check_known(present, known)
    if present == 0:
        await session.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)")
    for migration in migrations:
        if migration.version > present:
            for statement in migration.statements:
                await session.execute(statement)
            await session.execute("INSERT INTO schema_version (version) VALUES ($1)", migration.version)
    return present, known


def _check_known(present: int, known: int) -> None:
    if present > known:
        raise Misconfigured(
            f"the database has schema version {present}, this program knows versions up to {known}: "
            "install the version of the program that wrote it, or restore a backup made before the upgrade"
        )
