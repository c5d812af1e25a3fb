"""Bring a database to the schema that this version of the code knows.

Schema files are named NUMBER_what.sql and are applied in the order of their numbers, all that are missing in one
transaction. A file that was released is never changed; the next one mends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

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


async def migrate(database: Database, migrations: tuple[Migration, ...]) -> None:
    """Apply what is missing; raise Misconfigured when the database is newer than `migrations`."""
    known = migrations[-1].version

    async def apply(session: Session) -> None:
        await session.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)")
        rows = await session.fetch("SELECT COALESCE(MAX(version), 0) AS version FROM schema_version")
        present: int = rows[0]["version"]
        if present > known:
            raise Misconfigured(
                f"the database has schema version {present}, this program knows versions up to {known}: "
                "install the version of the program that wrote it, or restore a backup made before the upgrade"
            )
        for migration in migrations:
            if migration.version > present:
                for statement in migration.statements:
                    await session.execute(statement)
                await session.execute("INSERT INTO schema_version (version) VALUES ($1)", migration.version)

    await database.write(apply)
