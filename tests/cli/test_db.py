"""Claims about `scep-ra db`."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scep_ra.cli.session import Session
from scep_ra.storage.archive import CRL_NUMBER_GAP
from scep_ra.storage.migrations import load_migrations
from tests.support.command_line import CommandLine
from tests.support.databases import fill_store
from tests.support.postgresql import PostgresqlServer

VERSION = load_migrations()[-1].version


async def fill(session: Session) -> None:
    await fill_store(session.store)


@contextmanager
def database_file(scep_ra: CommandLine) -> Iterator[sqlite3.Connection]:
    """Change the file behind the program's back."""
    with closing(sqlite3.connect(scep_ra.data / "scep-ra.sqlite")) as connection:
        yield connection
        connection.commit()


def use_postgresql(scep_ra: CommandLine, dsn: str) -> CommandLine:
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(f"[storage]\ntype = 'postgresql'\ndsn = '{dsn}'\n")
    return scep_ra


class TestUpgrade:
    def test_it_says_from_where_to_where(self, scep_ra: CommandLine) -> None:
        """A second time there is nothing to do."""
        assert scep_ra.ok("db", "upgrade").out == f"schema version {VERSION}, was missing before\n"
        assert scep_ra.ok("db", "upgrade").out == f"schema version {VERSION}, is up to date\n"

    def test_postgresql_waits_for_it(
        self, scep_ra: CommandLine, postgresql_server: PostgresqlServer, postgresql_dsn: str
    ) -> None:
        """Other commands refuse an older schema and name this one."""
        use_postgresql(scep_ra, postgresql_dsn)
        first = load_migrations()[0]
        table = "CREATE TABLE schema_version (version BIGINT NOT NULL PRIMARY KEY)"
        make_old = [table, *first.statements, "INSERT INTO schema_version VALUES (1)"]
        postgresql_server.sql(";\n".join(make_old), dsn=postgresql_dsn)
        outcome = scep_ra("device", "list")
        assert outcome.status == 2
        assert "run scep-ra db upgrade" in outcome.err
        assert scep_ra.ok("db", "upgrade").out == f"schema version {VERSION}, was 1 before\n"
        assert scep_ra.ok("device", "list", "--json").json == []


class TestCheck:
    def test_a_sound_database_is_counted(self, scep_ra: CommandLine) -> None:
        """In words or JSON."""
        scep_ra.in_store(fill)
        facts = scep_ra.ok("db", "check", "--json").json
        assert (facts["schema_version"], facts["device"], facts["certificate"]) == (VERSION, 2, 1)
        assert f"schema_version:     {VERSION}" in scep_ra.ok("db", "check").out

    def test_postgresql_is_checked_as_well(self, scep_ra: CommandLine, postgresql_dsn: str) -> None:
        """With the same words."""
        use_postgresql(scep_ra, postgresql_dsn).in_store(fill)
        assert scep_ra.ok("db", "check", "--json").json["device"] == 2

    def test_what_is_wrong_is_said_with_status_1(self, scep_ra: CommandLine) -> None:
        """Each on a line of its own."""
        scep_ra.in_store(fill)
        with database_file(scep_ra) as connection:
            connection.execute("DELETE FROM certificate")
            connection.execute("UPDATE challenge SET used_by = 'nobody'")
        outcome = scep_ra("db", "check")
        assert outcome.status == 1
        assert "enrollment is issued without a certificate: 0" in outcome.err
        assert "a row of challenge points to a row of enrollment that is not there\n" in outcome.err

    @pytest.mark.parametrize("version", ["missing", "older"])
    def test_another_schema_is_told_and_left(self, scep_ra: CommandLine, version: str) -> None:
        """The mend is named."""
        if version == "older":
            scep_ra.ok("db", "upgrade")
            with database_file(scep_ra) as connection:
                connection.execute("DELETE FROM schema_version WHERE version > 1")
        outcome = scep_ra("db", "check")
        assert outcome.status == 1
        present = 0 if version == "missing" else 1
        assert f"schema version is {present}, this program needs {VERSION}: run scep-ra db upgrade" in outcome.err


class TestBackupAndRestore:
    def test_what_was_saved_comes_back_in_another_data_directory(self, scep_ra: CommandLine, tmp_path: Path) -> None:
        """Open challenges are voided, and what that means is said."""
        scep_ra.in_store(fill)
        file = tmp_path / "a.gz"
        saved = scep_ra.ok("db", "backup", str(file)).out
        assert saved.endswith(f" rows to {file}\n")
        scep_ra.data = tmp_path / "other"
        outcome = scep_ra.ok("db", "restore", str(file))
        assert outcome.out.splitlines()[1:] == [
            "voided challenges: 1",
            f"raised CRL numbers by {CRL_NUMBER_GAP}, above those of CRLs made since",
        ]
        assert "Certificates issued and revocations made after" in outcome.err
        assert len(scep_ra.ok("device", "list", "--json").json) == 2
        scep_ra.ok("db", "check")

    def test_a_store_moves_to_postgresql_with_its_challenges(
        self, scep_ra: CommandLine, tmp_path: Path, postgresql_dsn: str
    ) -> None:
        """No server ran in between, so nothing can have been spent."""
        scep_ra.in_store(fill)
        file = tmp_path / "a.gz"
        scep_ra.ok("db", "backup", str(file))
        before = scep_ra.ok("db", "check", "--json").json
        scep_ra.data = tmp_path / "other"
        use_postgresql(scep_ra, postgresql_dsn)
        assert "voided challenges: 0" in scep_ra.ok("db", "restore", "--keep-challenges", str(file)).out
        assert scep_ra.ok("db", "check", "--json").json == before

    def test_a_store_in_use_is_not_restored_into(self, scep_ra: CommandLine, tmp_path: Path) -> None:
        """Status 1, and nothing is changed."""
        scep_ra.in_store(fill)
        scep_ra.ok("db", "backup", str(tmp_path / "a.gz"))
        outcome = scep_ra("db", "restore", str(tmp_path / "a.gz"))
        assert outcome.status == 1
        assert "not empty" in outcome.err

    def test_a_missing_archive_is_a_wrong_command_line(self, scep_ra: CommandLine, tmp_path: Path) -> None:
        """Nothing is opened."""
        assert scep_ra("db", "restore", str(tmp_path / "gone.gz")).status == 2
        assert not scep_ra.data.exists()

    def test_long_work_shows_a_bar_on_a_terminal(
        self, scep_ra: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On standard error, so that standard output stays for the result."""
        scep_ra.in_store(fill)
        monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
        outcome = scep_ra.ok("db", "backup", str(tmp_path / "a.gz"))
        assert "Saving" in outcome.err
        assert "100%" in outcome.err
        assert outcome.out.count("\n") == 1
