"""Claims about backups: complete, of one moment, for either kind of database, and restored whole or not at all."""

from __future__ import annotations

import asyncio
import gzip
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from scep_ra.errors import Misconfigured, Refused, Unavailable
from scep_ra.storage.archive import CRL_NUMBER_GAP, FORMAT, Restored, count_rows, restore_archive, write_archive
from scep_ra.storage.consistency import find_breaches
from scep_ra.storage.database import Database, Row, Session
from scep_ra.storage.migrations import Upgrade, load_migrations, migrate, schema_version
from scep_ra.storage.sql import SqlStore
from tests.support.databases import KINDS, database_opener, fill_store
from tests.support.records import make_challenge, make_enrollment, make_key

VERSION = load_migrations()[-1].version
SAVED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Rows = dict[str, list[tuple[Any, ...]]]


def ignore(rows: int, total: int) -> None:
    """Take note of no progress."""


@pytest.fixture
async def open_empty(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Make databases without rows, of PostgreSQL just one; they are closed at the end."""
    numbers = count()
    async with AsyncExitStack() as stack:

        async def open_one(kind: str = "sqlite", upgrade: Upgrade = Upgrade.NEVER) -> Database:
            name = f"{next(numbers)}.sqlite"
            database = await database_opener(kind, request, name=name, upgrade=upgrade)()
            stack.push_async_callback(database.close)
            return database

        yield open_one


async def everything(database: Database) -> Rows:
    """Return all rows of all tables as the kinds of database agree on them."""

    async def work(session: Session) -> Rows:
        return {
            table.name: sorted(
                (plain(row, table.columns) for row in await session.fetch(f'SELECT * FROM "{table.name}"')), key=repr
            )
            for table in await session.tables()
        }

    return await database.read(work)


def plain(row: Row, columns: dict[str, str]) -> tuple[Any, ...]:
    return tuple(bool(row[name]) if kind == "boolean" else row[name] for name, kind in columns.items())


async def backup(database: Database, path: Path) -> None:
    await write_archive(database, path, now=SAVED_AT, progress=ignore)


async def restore(database: Database, path: Path, *, keep_challenges: bool = True) -> Restored:
    return await restore_archive(database, path, keep_challenges=keep_challenges, progress=ignore)


def lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().rstrip("\n").split("\n")


def hidden_files(directory: Path) -> list[Path]:
    return [file for file in directory.iterdir() if file.name.startswith(".")]


def change(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def rewrite(path: Path, changed: list[str], *, digest: bool = True) -> None:
    """Replace the lines of an archive, with a digest that is right again if asked for."""
    content = "".join(f"{line}\n" for line in changed[:-1]).encode()
    end = json.dumps({"sha256": sha256(content).hexdigest()}) if digest else changed[-1]
    path.write_bytes(gzip.compress(content + end.encode() + b"\n"))


class TestBackup:
    async def test_it_is_a_private_file_of_json_lines_that_says_what_it_holds(
        self, source: Database, tmp_path: Path
    ) -> None:
        """A header, a line for each row, a digest; no other file stays behind."""
        (tmp_path / "backups").mkdir()
        path = tmp_path / "backups" / "a.gz"
        contents = await write_archive(source, path, now=SAVED_AT, progress=ignore)
        header, *rows, end = map(json.loads, lines(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(path.parent.iterdir()) == [path]
        assert (header["format"], header["schema_version"]) == (FORMAT, VERSION)
        assert header["created_at"] == "2026-03-01T12:00:00+00:00"
        assert header["rows"] == contents.rows == await source.read(count_rows)
        assert contents.total == len(rows)
        assert list(end) == ["sha256"]

    async def test_it_is_of_one_moment_while_others_write(self, source: Database, tmp_path: Path) -> None:
        """Counted rows and saved rows agree, and every spent challenge has its enrollment."""
        store, path = SqlStore(source), tmp_path / "a.gz"
        started, stopped = asyncio.Event(), False

        async def write_on() -> None:
            number = 100
            while not stopped:
                await store.add_challenge(make_challenge(f"secret {number}"))
                await store.insert_enrollment(
                    make_enrollment(number, key=make_key(f"TX{number}")),
                    spend=make_challenge(f"secret {number}").digest,
                )
                number += 1
                if number == 110:
                    started.set()

        writer = asyncio.create_task(write_on())
        await started.wait()
        contents = await write_archive(source, path, now=SAVED_AT, progress=ignore)
        stopped = True
        await writer
        saved = [json.loads(line) for line in lines(path)[1:-1]]
        enrollments = {row["enrollment_id"] for table, row in saved if table == "enrollment"}
        spenders = {row["used_by"] for table, row in saved if table == "challenge" and row["used_by"]}
        assert len(saved) == contents.total
        assert len(spenders) >= 10
        assert spenders <= enrollments

    async def test_it_never_replaces_a_file(self, source: Database, tmp_path: Path) -> None:
        """Yesterday's backup may be the last that is whole."""
        path = tmp_path / "a.gz"
        path.write_text("precious")
        with pytest.raises(Refused, match="is there already"):
            await backup(source, path)
        assert path.read_text() == "precious"

    async def test_of_two_at_once_one_gets_the_name(self, source: Database, tmp_path: Path) -> None:
        """The other is refused when it is done, and the file is whole."""
        path = tmp_path / "a.gz"

        def appear(_rows: int, _total: int) -> None:
            path.touch()

        with pytest.raises(Refused, match="is there already"):
            await write_archive(source, path, now=SAVED_AT, progress=appear)
        assert hidden_files(tmp_path) == []

    async def test_a_missing_directory_is_named(self, source: Database, tmp_path: Path) -> None:
        """Before anything is read."""
        with pytest.raises(Misconfigured, match=r"gone/a\.gz cannot be written: No such file"):
            await backup(source, tmp_path / "gone" / "a.gz")

    async def test_an_outage_in_the_middle_is_not_laid_on_the_file(self, source: Database, tmp_path: Path) -> None:
        """The database's own error comes out, and no half of an archive stays."""

        def break_off(_rows: int, _total: int) -> None:
            raise TimeoutError

        with pytest.raises((Unavailable, TimeoutError)):
            await write_archive(source, tmp_path / "a.gz", now=SAVED_AT, progress=break_off)
        assert not (tmp_path / "a.gz").exists()

    async def test_a_database_without_tables_has_nothing_to_save(
        self, open_empty: Callable[..., Any], tmp_path: Path
    ) -> None:
        """A wrong --data would otherwise give an empty backup, day after day."""
        with pytest.raises(Refused, match="nothing to save"):
            await backup(await open_empty(), tmp_path / "a.gz")


class TestRestore:
    @pytest.mark.parametrize("upgrade", [Upgrade.NEVER, Upgrade.ALWAYS], ids=["no tables", "empty tables"])
    @pytest.mark.parametrize("kind", KINDS)
    async def test_every_row_comes_back_in_either_kind_of_database(
        self,
        tmp_path: Path,
        open_empty: Callable[..., Any],
        kind: str,
        upgrade: Upgrade,
    ) -> None:
        """Bytes, booleans, NULL, and text in every alphabet; what the CRL says of itself is the one difference."""
        other = KINDS[1 - KINDS.index(kind)]
        source = await open_empty(other, Upgrade.ALWAYS)
        await fill_store(SqlStore(source))
        await backup(source, tmp_path / "a.gz")
        target = await open_empty(kind, upgrade)
        restored = await restore(target, tmp_path / "a.gz")
        before, after = await everything(source), await everything(target)
        assert before.pop("crl") != after.pop("crl")
        assert before == after
        assert {name for name, rows in before.items() if rows} >= {"device", "challenge", "enrollment", "certificate"}
        assert restored.contents.created_at == SAVED_AT
        assert await target.read(find_breaches) == []

    async def test_open_challenges_are_voided_unless_kept(
        self, source: Database, tmp_path: Path, open_empty: Callable[..., Any]
    ) -> None:
        """They may have been spent after the backup; those that were spent before stay for retransmissions."""
        await backup(source, tmp_path / "a.gz")
        voided, kept = await open_empty(), await open_empty()
        assert (await restore(voided, tmp_path / "a.gz", keep_challenges=False)).voided_challenges == 1
        assert (await restore(kept, tmp_path / "a.gz")).voided_challenges == 0
        digests = [{row[0] for row in (await everything(database))["challenge"]} for database in (voided, kept)]
        assert digests[0] == {make_challenge("spent").digest}
        assert digests[1] == {make_challenge("spent").digest, make_challenge("open").digest}

    async def test_crl_numbers_never_run_backwards(
        self, source: Database, tmp_path: Path, open_empty: Callable[..., Any]
    ) -> None:
        """The next is above any that was made since, and is made at once."""
        await backup(source, tmp_path / "a.gz")
        target = await open_empty()
        await restore(target, tmp_path / "a.gz")
        state = await SqlStore(target).current_crl("default")
        assert state.crl is not None
        assert state.crl.crl_number == 7 + CRL_NUMBER_GAP
        assert state.outdated

    async def test_progress_reaches_all_rows(
        self, source: Database, tmp_path: Path, open_empty: Callable[..., Any]
    ) -> None:
        """On the way there and back."""
        saved: list[int] = []
        restored: list[int] = []
        path = tmp_path / "a.gz"
        contents = await write_archive(source, path, now=SAVED_AT, progress=lambda rows, _: saved.append(rows))
        await restore_archive(
            await open_empty(), path, keep_challenges=True, progress=lambda rows, _: restored.append(rows)
        )
        assert sum(saved) == sum(restored) == contents.total

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_store_with_rows_is_refused_and_left_alone(
        self, tmp_path: Path, open_empty: Callable[..., Any], kind: str
    ) -> None:
        """Nothing is mixed."""
        source = await open_empty(upgrade=Upgrade.ALWAYS)
        await backup(source, tmp_path / "a.gz")
        target = await open_empty(kind, Upgrade.ALWAYS)
        await target.write(lambda session: session.execute("INSERT INTO revocation_counter VALUES ($1, 1)", "other"))
        before = await everything(target)
        with pytest.raises(Refused, match="not empty, table revocation_counter has rows"):
            await restore(target, tmp_path / "a.gz")
        assert await everything(target) == before

    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_restore_that_fails_halfway_leaves_nothing(
        self,
        tmp_path: Path,
        open_empty: Callable[..., Any],
        kind: str,
    ) -> None:
        """Not even tables, and a second attempt succeeds."""
        path = tmp_path / "a.gz"
        source = await open_empty(upgrade=Upgrade.ALWAYS)
        await fill_store(SqlStore(source))
        await backup(source, path)
        target = await open_empty(kind)
        calls = 0

        def fail_late(_rows: int, _total: int) -> None:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise LookupError

        with pytest.raises(LookupError):
            await restore_archive(target, path, keep_challenges=True, progress=fail_late)
        assert await target.read(schema_version) == 0
        await restore(target, path)
        assert await target.read(schema_version) == VERSION

    async def test_an_archive_of_an_older_schema_is_restored_and_then_upgraded(
        self, tmp_path: Path, open_empty: Callable[..., Any]
    ) -> None:
        """Into a database without tables; one with the new tables is refused."""
        source = await open_empty()
        await migrate(source, load_migrations()[:1])
        await source.write(lambda session: session.execute("INSERT INTO revocation_counter VALUES ($1, 5)", "default"))
        await backup(source, tmp_path / "a.gz")
        with pytest.raises(Refused, match=f"archive has schema version 1, the store has {VERSION}"):
            await restore(await open_empty(upgrade=Upgrade.ALWAYS), tmp_path / "a.gz")
        target = await open_empty()
        await restore(target, tmp_path / "a.gz")
        assert await target.read(schema_version) == VERSION
        assert (await everything(target))["revocation_counter"] == [("default", 5)]


class TestDamage:
    @pytest.fixture
    async def archive(self, tmp_path: Path, open_empty: Callable[..., Any]) -> Path:
        source = await open_empty(upgrade=Upgrade.ALWAYS)
        await fill_store(SqlStore(source))
        await backup(source, tmp_path / "a.gz")
        return tmp_path / "a.gz"

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    async def test_a_truncated_archive_is_refused(
        self, archive: Path, open_empty: Callable[..., Any], share: float
    ) -> None:
        """Wherever a copy broke off; the database is not touched."""
        change(archive, lambda content: content[: int(len(content) * share)])
        target = await open_empty()
        with pytest.raises(Refused, match="nothing was changed"):
            await restore(target, archive)
        assert await target.read(schema_version) == 0

    @pytest.mark.parametrize("part", range(1, 8))
    async def test_a_changed_octet_is_refused(self, archive: Path, open_empty: Callable[..., Any], part: int) -> None:
        """In the compressed data."""

        def flip(content: bytes) -> bytes:
            place = len(content) * part // 8
            return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]

        change(archive, flip)
        with pytest.raises(Refused):
            await restore(await open_empty(), archive)

    @pytest.mark.parametrize(
        "edit",
        [
            lambda all_lines: all_lines[:3] + all_lines[4:],
            lambda all_lines: [*all_lines[:3], all_lines[4], all_lines[3], *all_lines[5:]],
            lambda all_lines: [line.replace("SN1", "SN7") for line in all_lines],
            lambda all_lines: all_lines[:-1],
            lambda all_lines: all_lines[:1],
        ],
        ids=["row lost", "rows swapped", "value changed", "digest lost", "header alone"],
    )
    async def test_changed_lines_are_refused(
        self, archive: Path, open_empty: Callable[..., Any], edit: Callable[[list[str]], list[str]]
    ) -> None:
        """Though the compression is whole."""
        rewrite(archive, edit(lines(archive)), digest=False)
        with pytest.raises(Refused, match="nothing was changed"):
            await restore(await open_empty(), archive)

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ('{"format": "another 1"}', "not an archive of this program"),
            ("[]", "not an archive of this program"),
            ("{}", "not an archive of this program"),
            ("nothing", "not an archive of this program"),
            (json.dumps({"format": FORMAT, "schema_version": 9999, "created_at": "2026-01-01", "rows": {}}), "9999"),
        ],
    )
    async def test_what_is_not_ours_or_newer_is_refused(
        self, archive: Path, open_empty: Callable[..., Any], header: str, reason: str
    ) -> None:
        """With a digest that is right."""
        rewrite(archive, [header, *lines(archive)[1:]])
        with pytest.raises(Refused, match=reason):
            await restore(await open_empty(), archive)

    async def test_rows_that_no_table_takes_are_refused(self, archive: Path, open_empty: Callable[..., Any]) -> None:
        """Somebody edited the archive and its digest."""
        rewrite(archive, [line.replace('["device",', '["gadget",') for line in lines(archive)])
        with pytest.raises(Refused, match="do not fit"):
            await restore(await open_empty(), archive)

    async def test_a_file_that_is_no_gzip_is_refused(self, archive: Path, open_empty: Callable[..., Any]) -> None:
        """The reason is told."""
        change(archive, lambda _: b"hello")
        with pytest.raises(Refused, match="not gzip"):
            await restore(await open_empty(), archive)

    async def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, open_empty: Callable[..., Any]) -> None:
        """A directory, for example."""
        with pytest.raises(Misconfigured, match="cannot be read: Is a directory"):
            await restore(await open_empty(), tmp_path)
