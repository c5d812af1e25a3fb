"""`scep-ra db`: the database as a whole, whatever is in it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import echo_record, timestamp
from scep_ra.cli.parameters import json_option
from scep_ra.cli.session import say_if_new, settings_of
from scep_ra.errors import ScepRaError
from scep_ra.parts import open_database, utc_now
from scep_ra.storage.archive import CRL_NUMBER_GAP, Progress, count_rows, restore_archive, write_archive
from scep_ra.storage.consistency import find_breaches
from scep_ra.storage.database import Database
from scep_ra.storage.migrations import Upgrade, load_migrations, migrate, schema_version

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

_T = TypeVar("_T")


class DatabaseUnsound(ScepRaError):
    """The database was looked over, and something in it is not as it must be."""


@click.group(cls=Group)
def db() -> None:
    """Upgrade, check, back up and restore the database."""


@db.command(epilog="Example:  scep-ra db upgrade")
@click.pass_obj
def upgrade(invocation: Invocation) -> None:
    """Bring the schema to what this version of scep-ra needs.

    SQLite is upgraded by every start. For PostgreSQL make a backup, upgrade, then restart one node after the other with
    the new version; those that run meanwhile go on.
    """
    before, after = _with_database(invocation, lambda database: migrate(database, load_migrations()))
    change = "is up to date" if before == after else f"was {before or 'missing'} before"
    click.echo(f"schema version {after}, {change}")


@db.command(epilog="Example:  scep-ra db check --json | jq .certificate")
@json_option
@click.pass_obj
def check(invocation: Invocation, *, as_json: bool) -> None:
    """Check the schema, the database itself, and that its rows fit together.

    Exit status 1 says that something is wrong. Every row is read: choose a quiet hour for a large store.
    """
    known = load_migrations()[-1].version

    async def work(database: Database) -> tuple[dict[str, int], list[str]]:
        present = await database.read(schema_version)
        facts = {"schema_version": present, **await database.read(count_rows)}
        if present != known:
            return facts, [f"schema version is {present}, this program needs {known}: run scep-ra db upgrade"]
        await database.check()
        return facts, [*await database.examine(), *await database.read(find_breaches)]

    facts, problems = _with_database(invocation, work)
    echo_record(facts, as_json=as_json)
    if problems:
        raise DatabaseUnsound("\n".join(["the database is not sound:", *problems]))


@db.command(epilog="Example:  scep-ra db backup /backup/scep-ra-$(date +%F).gz")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def backup(invocation: Invocation, file: Path) -> None:
    """Write all rows to FILE while the server runs; FILE restores into SQLite and PostgreSQL.

    It holds what the database holds. The keys of CAs and RAs are files of the data directory: save these as well, once.
    """

    async def work(database: Database) -> int:
        with _progress("Saving") as progress:
            return (await write_archive(database, file, now=utc_now(), progress=progress)).total

    click.echo(f"saved {_with_database(invocation, work)} rows to {file}")


@db.command(epilog="Example:  scep-ra db restore /backup/scep-ra-2026-03-01.gz --data /srv/new")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--keep-challenges",
    is_flag=True,
    help="Keep open challenges; right only when no server has run since, as when moving to another database.",
)
@click.pass_obj
def restore(invocation: Invocation, file: Path, *, keep_challenges: bool) -> None:
    """Put the rows of FILE into an empty database, all of them or none.

    Open challenges are voided, because they may have been spent after the backup: make new ones.
    """

    async def work(database: Database) -> None:
        with _progress("Restoring") as progress:
            restored = await restore_archive(database, file, keep_challenges=keep_challenges, progress=progress)
        saved_at = timestamp(restored.contents.created_at)
        click.echo(f"restored {restored.contents.total} rows as of {saved_at}")
        click.echo(f"voided challenges: {restored.voided_challenges}")
        click.echo(f"raised CRL numbers by {CRL_NUMBER_GAP}, above those of CRLs made since")
        click.echo(
            f"Certificates issued and revocations made after {saved_at} are not in this database: a certificate that"
            " it does not know cannot be renewed or revoked here. Revoke again what was revoked since.",
            err=True,
        )

    _with_database(invocation, work)


def _with_database(invocation: Invocation, work: Callable[[Database], Awaitable[_T]]) -> _T:
    """Run a coroutine function with the database open, its schema as it is."""
    settings = settings_of(invocation)
    say_if_new(settings)

    async def run() -> _T:
        database = await open_database(settings, Upgrade.NEVER)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(run())


@contextmanager
def _progress(label: str) -> Iterator[Progress]:
    """Lend what draws a bar on a terminal; how many rows there are shows with the first."""
    with ExitStack() as stack:
        bar: ProgressBar[int] | None = None

        def step(rows: int, total: int) -> None:
            nonlocal bar
            if bar is None and sys.stderr.isatty():
                bar = stack.enter_context(click.progressbar(length=total, label=label, file=sys.stderr))
            if bar is not None:
                bar.update(rows)

        yield step
