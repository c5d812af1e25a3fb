"""Schema files: their order, their splitting, and that all of them are applied or none."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scep_ra.errors import Misconfigured
from scep_ra.storage.migrations import (
    Migration,
    Upgrade,
    load_migrations,
    migrate,
    prepare_schema,
    schema_version,
    split_statements,
)
from scep_ra.storage.sqlite import SqliteDatabase

PRESENT = load_migrations()
NEXT = PRESENT[-1].version + 1


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await SqliteDatabase.open(tmp_path / "store.sqlite")
    yield database
    await database.close()


async def versions(database: SqliteDatabase) -> list[int]:
    rows = await database.read(lambda session: session.fetch("SELECT version FROM schema_version ORDER BY version"))
    return [row["version"] for row in rows]


def test_the_packaged_files_are_numbered_without_gaps() -> None:
    """From 1 on."""
    assert [migration.version for migration in PRESENT] == list(range(1, len(PRESENT) + 1))


def test_a_script_is_split_at_semicolons_that_end_a_line() -> None:
    """Others belong to a value or a comment; nothing empty is left."""
    script = "-- a; b\nCREATE TABLE a (x TEXT DEFAULT ';', y TEXT);\n\nCREATE INDEX b ON a (x);\n\n"
    assert split_statements(script) == (
        "-- a; b\nCREATE TABLE a (x TEXT DEFAULT ';', y TEXT)",
        "CREATE INDEX b ON a (x)",
    )


async def test_what_is_missing_is_applied_once(database: SqliteDatabase) -> None:
    """Applying again changes nothing; versions before stay recorded."""
    extended = (*PRESENT, Migration(version=NEXT, statements=("CREATE TABLE more (x TEXT)",)))
    await migrate(database, extended)
    await migrate(database, extended)
    assert await versions(database) == [*range(1, NEXT), NEXT]
    await database.read(lambda session: session.fetch("SELECT x FROM more"))


async def test_the_versions_before_and_after_are_returned(tmp_path: Path) -> None:
    """0 is an empty database."""
    database = await SqliteDatabase.open(tmp_path / "empty.sqlite", upgrade=Upgrade.NEVER)
    assert await migrate(database, PRESENT) == (0, NEXT - 1)
    assert await migrate(database, PRESENT) == (NEXT - 1, NEXT - 1)
    await database.close()


async def test_where_several_nodes_run_only_an_empty_database_is_touched(
    database: SqliteDatabase, tmp_path: Path
) -> None:
    """An older schema is refused with the command that upgrades it, a newer one as well; the present one is taken."""
    empty = await SqliteDatabase.open(tmp_path / "empty.sqlite", upgrade=Upgrade.WHEN_EMPTY)
    assert await empty.read(schema_version) == NEXT - 1
    await empty.close()
    await prepare_schema(database, Upgrade.WHEN_EMPTY)
    await database.write(lambda session: session.execute("DELETE FROM schema_version WHERE version > 1"))
    with pytest.raises(Misconfigured, match=rf"version 1, this program needs {NEXT - 1}.*run scep-ra db upgrade"):
        await prepare_schema(database, Upgrade.WHEN_EMPTY)
    await database.write(lambda session: session.execute("INSERT INTO schema_version (version) VALUES (9999)"))
    with pytest.raises(Misconfigured, match="schema version 9999"):
        await prepare_schema(database, Upgrade.WHEN_EMPTY)


async def test_a_migration_that_fails_halfway_leaves_the_old_schema(database: SqliteDatabase) -> None:
    """Tables of its first statements are gone, those of the migration before it as well."""
    good = Migration(version=NEXT, statements=("CREATE TABLE good (x TEXT)",))
    bad = Migration(version=NEXT + 1, statements=("CREATE TABLE half (x TEXT)", "CREATE TABLE half (x TEXT)"))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        await migrate(database, (*PRESENT, good, bad))
    assert await versions(database) == [migration.version for migration in PRESENT]
    tables = await database.read(lambda session: session.fetch("SELECT name FROM sqlite_master"))
    assert {row["name"] for row in tables}.isdisjoint({"good", "half"})


async def test_a_newer_schema_is_refused_with_both_versions_and_the_mend(database: SqliteDatabase) -> None:
    """And nothing is changed."""
    await migrate(database, (*PRESENT, Migration(version=NEXT, statements=())))
    with pytest.raises(Misconfigured, match=rf"version {NEXT}.*up to {NEXT - 1}.*restore a backup"):
        await migrate(database, PRESENT)
    assert (await versions(database))[-1] == NEXT
