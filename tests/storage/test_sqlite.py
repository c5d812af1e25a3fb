"""SQLite in particular: the file and its rights, durability, locks, and what becomes of its errors."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.storage.base import IssuanceLimits, Retirement
from scep_ra.storage.database import Result, Row, Session, Table, UniqueViolation, Work
from scep_ra.storage.migrations import load_migrations
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import BUSY_TIMEOUT_S, SqliteDatabase, _use_write_ahead_log
from tests.support.records import (
    NOW,
    SERIAL,
    device_id,
    disconnect_device,
    make_certificate,
    make_challenge,
    make_decision,
    make_device,
    make_enrollment,
    make_key,
    make_pending,
    make_session,
)

# Besides those of primary keys and unique constraints.
INDEXES = {
    "certificate_by_device",
    "certificate_by_key",
    "certificate_to_revoke",
    "certificate_revoked",
    "challenge_sealed",
    "challenge_spent",
    "challenge_unused",
    "decision_by_time",
    "device_by_value",
    "disconnection_by_time",
    "enrollment_by_device",
    "enrollment_by_key",
    "enrollment_by_key_and_csr",
    "enrollment_by_renewal",
    "enrollment_by_state",
    "live_session_by_device",
    "live_session_by_time",
    "outbox_due",
    "outbox_settled",
    "outbox_unsettled",
}

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""

CRASHER = """
import asyncio, os, signal, sys
from pathlib import Path
from scep_ra.storage.sqlite import SqliteDatabase

async def main():
    database = await SqliteDatabase.open(Path(sys.argv[1]))
    insert = "INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ($1, 1)"
    await database.write(lambda session: session.execute(insert, "committed"))

    async def die(session):
        await session.execute(insert, "open")
        os.kill(os.getpid(), signal.SIGKILL)

    await database.write(die)

asyncio.run(main())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


Opener = Callable[..., Awaitable[SqliteDatabase]]


@pytest.fixture
async def open_database(path: Path) -> AsyncIterator[Opener]:
    """Open the file as often as a test likes; whatever is open at its end is closed, or its threads would stay."""
    opened: list[SqliteDatabase] = []

    async def open_one(file: Path = path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> SqliteDatabase:
        database = await SqliteDatabase.open(file, busy_timeout_s=busy_timeout_s)
        opened.append(database)
        return database

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def database(open_database: Opener) -> SqliteDatabase:
    return await open_database(busy_timeout_s=0.02)


async def insert_counter(session: Session, ca: str = "default") -> int:
    return await session.execute("INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ($1, 1)", ca)


async def counters(database: SqliteDatabase) -> list[str]:
    rows = await database.read(lambda session: session.fetch("SELECT ca FROM revocation_counter ORDER BY ca"))
    return [row["ca"] for row in rows]


async def pragma(database: SqliteDatabase, name: str) -> object:
    """Ask the writer's connection, outside of what the database itself remembers."""
    rows = await database.write(lambda session: session.fetch(f"PRAGMA {name}"))
    return rows[0][name]


def put_file(path: Path, content: bytes, mode: int) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def get_file(path: Path) -> bytes:
    return path.read_bytes()


def database_threads(besides: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that do not end by themselves; asyncio's pool, which opening used, is nobody's leak."""
    started = [thread for thread in threading.enumerate() if thread not in besides and "asyncio" not in thread.name]
    for thread in started:
        thread.join(5)
    return [thread for thread in started if thread.is_alive()]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


class TestFile:
    async def test_file_log_and_shared_memory_are_for_the_owner_alone(self, path: Path, open_database: Opener) -> None:
        """Whatever the umask lets through."""
        with umask(0):
            database = await open_database()
            await database.write(insert_counter)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == {"store.sqlite": 0o600, "store.sqlite-wal": 0o600, "store.sqlite-shm": 0o600}

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
    async def test_a_file_open_to_others_is_refused_with_the_mend(
        self, path: Path, open_database: Opener, mode: int
    ) -> None:
        """Somebody may have copied it: the operator must know."""
        put_file(path, b"", mode)
        with pytest.raises(Misconfigured, match=f"mode {mode:04o}.*chmod 600 {path}"):
            await open_database()

    async def test_a_directory_in_place_of_the_file_is_refused(self, tmp_path: Path, open_database: Opener) -> None:
        """The message names the key."""
        with pytest.raises(Misconfigured, match="is not a file"):
            await open_database(tmp_path)

    async def test_a_missing_directory_is_named(self, tmp_path: Path, open_database: Opener) -> None:
        """Only the data directory's owner makes directories."""
        with pytest.raises(Misconfigured, match=r"gone/store.sqlite: No such file or directory"):
            await open_database(tmp_path / "gone" / "store.sqlite")

    async def test_a_file_that_is_no_database_is_refused_and_left_alone(
        self, path: Path, open_database: Opener
    ) -> None:
        """No thread stays behind either."""
        content = b"certainly not a database" * 100
        put_file(path, content, 0o600)
        before = set(threading.enumerate())
        with pytest.raises(Misconfigured, match="not a database"):
            await open_database()
        assert database_threads(besides=before) == []
        assert get_file(path) == content

    async def test_a_database_newer_than_the_program_is_refused(self, open_database: Opener) -> None:
        """Half-understood data would be damaged."""
        database = await open_database()
        await database.write(lambda session: session.execute("INSERT INTO schema_version (version) VALUES (9999)"))
        await database.close()
        with pytest.raises(Misconfigured, match="schema version 9999"):
            await open_database()

    async def test_closing_folds_the_log_into_the_file(self, path: Path, open_database: Opener) -> None:
        """A stopped server's data is one file to copy."""
        database = await open_database()
        await database.write(insert_counter)
        await database.close()
        assert [file.name for file in path.parent.iterdir()] == ["store.sqlite"]

    @pytest.mark.parametrize("count", range(4, 9))
    async def test_many_may_open_a_new_file_at_once(self, path: Path, open_database: Opener, count: int) -> None:
        """The schema is applied by one of them, and none leaves a file of its own."""
        databases = await asyncio.gather(*(open_database() for _ in range(count)))
        rows = await databases[0].read(lambda session: session.fetch("SELECT version FROM schema_version"))
        await asyncio.gather(*(database.close() for database in databases))
        assert [row["version"] for row in rows] == [migration.version for migration in load_migrations()]
        # When several close at the same moment none of them may be the last that folds the log in; the next one does.
        left = {file.name for file in path.parent.iterdir()}
        assert left - {"store.sqlite-wal", "store.sqlite-shm"} == {"store.sqlite"}

    async def test_an_empty_file_of_the_owner_becomes_the_database(self, path: Path, open_database: Opener) -> None:
        """As an installer may have made it."""
        put_file(path, b"", 0o600)
        assert await pragma(await open_database(), "journal_mode") == "wal"


class TestDurability:
    async def test_commits_are_synced_to_a_write_ahead_log(self, database: SqliteDatabase) -> None:
        """FULL is 2: with WAL, anything less may lose the last commits with the power."""
        assert await pragma(database, "journal_mode") == "wal"
        assert await pragma(database, "synchronous") == 2
        assert await pragma(database, "foreign_keys") == 1

    async def test_other_processes_are_waited_for(self, open_database: Opener) -> None:
        """A device import holds the lock for a moment."""
        database = await open_database()
        rows = await database.write(lambda session: session.fetch("PRAGMA busy_timeout"))
        assert rows[0]["timeout"] == 5000

    def test_no_log_no_service(self) -> None:
        """A database in memory stands for a file system without shared memory."""
        connection = sqlite3.connect(":memory:")
        with pytest.raises(Misconfigured, match="journal mode memory"):
            _use_write_ahead_log(connection)
        connection.close()

    async def test_a_killed_process_loses_nothing_committed_and_keeps_nothing_open(
        self, path: Path, open_database: Opener
    ) -> None:
        """Killed in the middle of its second unit of work."""
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASHER, str(path))
        assert await process.wait() == -signal.SIGKILL
        assert await counters(await open_database()) == ["committed"]


class TestExamination:
    async def test_a_sound_file_has_nothing_to_tell(self, database: SqliteDatabase) -> None:
        """Pages, indexes and references are as they should be."""
        assert await database.examine() == []

    async def test_an_index_that_lacks_a_row_is_told(self, path: Path, open_database: Opener) -> None:
        """As a failing disk may leave it; here the definition of an index was changed under its content."""
        database = await open_database()
        await database.write(insert_counter)
        await database.write(lambda session: session.execute("CREATE INDEX extra ON revocation_counter (ca) WHERE 0"))
        await database.close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' WHERE 0', '') WHERE name = 'extra'")
            connection.commit()
        found = await (await open_database()).examine()
        assert "the file is damaged: row 1 missing from index extra" in found

    async def test_a_reference_to_nothing_is_told(self, path: Path, database: SqliteDatabase) -> None:
        """Another program may have written it, with foreign keys off."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("INSERT INTO challenge VALUES (x'00', 'serial', 'SN1', 'default', 0, 0, 'gone', NULL)")
            connection.commit()
        assert await database.examine() == ["a row of challenge points to a row of enrollment that is not there"]


class TestCatalogue:
    async def test_it_tells_tables_columns_types_and_references(self, database: SqliteDatabase) -> None:
        """As the schema files do, and nothing of SQLite's own."""
        tables = {table.name: table for table in await database.read(lambda session: session.tables())}
        assert tables["challenge"].references == {"enrollment"}
        assert tables["challenge"].columns["digest"] == "bytea"
        assert tables["device"].columns["enabled"] == "boolean"
        assert list(tables["revocation_counter"].columns) == ["ca", "revocation_sequence"]
        assert not any(name.startswith("sqlite") for name in tables)

    async def test_a_stream_brings_all_rows(self, database: SqliteDatabase) -> None:
        """One at a time, in the order of the query."""

        async def work(session: Session) -> list[str]:
            for name in ("b", "a", "c"):
                await insert_counter(session, name)
            return [row["ca"] async for row in session.stream("SELECT ca FROM revocation_counter ORDER BY ca")]

        assert await database.write(work) == ["a", "b", "c"]


class TestUnitsOfWork:
    async def test_a_unit_that_fails_leaves_nothing_behind(self, database: SqliteDatabase) -> None:
        """The exception comes out as it is."""

        async def work(session: Session) -> None:
            await insert_counter(session)
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(work)
        assert await counters(database) == []

    async def test_a_unit_that_suspends_is_undone(self, database: SqliteDatabase) -> None:
        """It would hold the write lock for as long as it pleases."""

        async def work(session: Session) -> None:
            await insert_counter(session)
            await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="suspended"):
            await database.write(work)
        assert await counters(database) == []

    async def test_a_unit_sees_one_snapshot(self, database: SqliteDatabase, path: Path) -> None:
        """What another process commits meanwhile appears in the next unit."""

        async def work(session: Session) -> tuple[int, int]:
            first = await session.fetch("SELECT ca FROM revocation_counter")
            other = sqlite3.connect(path)
            other.execute("INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ('other', 1)")
            other.commit()
            other.close()
            return len(first), len(await session.fetch("SELECT ca FROM revocation_counter"))

        assert await database.read(work) == (0, 0)
        assert await counters(database) == ["other"]

    async def test_a_reading_unit_cannot_write(self, database: SqliteDatabase) -> None:
        """A mistake of ours shows in the first test, not as a rare lock."""
        with pytest.raises(Misconfigured, match="readonly"):
            await database.read(insert_counter)

    async def test_a_unique_violation_is_told_from_other_constraints(self, database: SqliteDatabase) -> None:
        """Only the first is an answer; the others are mistakes of ours."""
        await database.write(insert_counter)
        with pytest.raises(UniqueViolation, match=r"revocation_counter\.ca"):
            await database.write(insert_counter)
        null = "INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ('x', $1)"
        with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
            await database.write(lambda session: session.execute(null, None))

    async def test_a_challenge_cannot_be_used_by_an_enrollment_that_is_not_there(
        self, database: SqliteDatabase
    ) -> None:
        """Foreign keys are enforced."""
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            await SqlStore(database).add_challenge(make_challenge(used_by="0" * 32))

    async def test_a_mistake_in_a_statement_is_not_an_outage(self, database: SqliteDatabase) -> None:
        """Retrying would not help."""
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await database.read(lambda session: session.fetch("SELECT * FROM absent"))


class TestOutages:
    async def test_a_lock_held_by_another_process_is_unavailable_until_it_ends(
        self, database: SqliteDatabase, path: Path
    ) -> None:
        """Readers do not notice."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            LOCKER,
            str(path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"locked\n"
            with pytest.raises(Unavailable, match=f"{path}.*locked"):
                await database.write(insert_counter)
            with pytest.raises(Unavailable):
                await database.check()
            assert await counters(database) == []
        finally:
            await process.communicate(b"")
        await database.check()
        await database.write(insert_counter)
        assert await counters(database) == ["default"]

    @pytest.mark.usefixtures("database")
    async def test_a_lock_held_at_the_start_is_unavailable(self, path: Path, open_database: Opener) -> None:
        """The migration needs the lock for a moment; no thread stays behind."""
        before = set(threading.enumerate())
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await open_database(busy_timeout_s=0.02)
        holder.close()
        assert database_threads(besides=before) == []

    async def test_a_full_disk_is_unavailable_until_there_is_room(self, database: SqliteDatabase) -> None:
        """Nothing of the failed unit stays, and the connection is usable afterwards."""
        pages = await pragma(database, "page_count")
        await database.write(lambda session: session.fetch(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(Unavailable, match="full"):
            await SqlStore(database).add_device(make_device(note="x" * 1_000_000))
        assert await SqlStore(database).list_devices() == []
        await database.write(lambda session: session.fetch("PRAGMA max_page_count = 100000"))
        await SqlStore(database).add_device(make_device(note="x" * 1_000_000))

    async def test_a_rollback_by_sqlite_itself_is_not_repeated(self, database: SqliteDatabase) -> None:
        """As after an I/O error: the first exception is the one that is told."""

        async def work(session: Session) -> None:
            await session.execute("ROLLBACK")
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(work)
        await database.check()


class Recorder:
    """A database that notes every statement that passes."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self.statements: dict[str, tuple[object, ...]] = {}

    async def read(self, work: Work[Result]) -> Result:
        return await self._database.read(lambda session: work(_RecordingSession(session, self.statements)))

    async def write(self, work: Work[Result]) -> Result:
        return await self._database.write(lambda session: work(_RecordingSession(session, self.statements)))

    async def check(self) -> None:
        await self._database.check()

    async def examine(self) -> Sequence[str]:
        return await self._database.examine()

    async def close(self) -> None:
        await self._database.close()


class _RecordingSession:
    def __init__(self, session: Session, statements: dict[str, tuple[object, ...]]) -> None:
        self._session = session
        self._statements = statements

    async def fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        self._statements[sql] = parameters
        return await self._session.fetch(sql, *parameters)

    async def execute(self, sql: str, *parameters: object) -> int:
        self._statements[sql] = parameters
        return await self._session.execute(sql, *parameters)

    async def serialise(self, *names: str) -> None:
        await self._session.serialise(*names)

    def stream(self, sql: str) -> AsyncIterator[Row]:
        return self._session.stream(sql)

    async def tables(self) -> Sequence[Table]:
        return await self._session.tables()


async def plan(database: SqliteDatabase, sql: str, parameters: tuple[object, ...]) -> list[str]:
    steps = await database.write(lambda session: session.fetch(f"EXPLAIN QUERY PLAN {sql}", *parameters))
    return [step["detail"] for step in steps]


async def test_no_statement_of_the_enrollment_path_walks_through_a_table(database: SqliteDatabase) -> None:
    """A million certificates must not slow it: every search is by an index, and every index serves a search."""
    recorder = Recorder(database)
    store = SqlStore(recorder)
    await store.add_device(make_device())
    await store.device(device_id())
    await store.devices_by_value("SN123")
    await store.add_challenge(make_challenge())
    await store.sealed_challenges("default", NOW, 10)
    await store.sealed_challenge_of(make_key())
    renewal, limits = make_enrollment(renewal_of=SERIAL), IssuanceLimits(max_active=2, second_key=False)
    decision, retirement = make_decision(), Retirement(renewed_at=NOW, others_at=NOW)
    await store.insert_enrollment(renewal, spend=make_challenge().digest, decision=decision, limits=limits)
    await store.complete(renewal.enrollment_id, make_certificate(), NOW, retirement=retirement)
    await store.due_revocations(NOW)
    await store.dossier(make_key(), b"another CSR", make_challenge().digest)
    await store.latest_enrollment(make_key())
    await store.insert_enrollment(make_pending(2), spend=None)
    await store.advance(make_pending(2).enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.REJECT, NOW)
    await store.find_enrollments("00")
    await store.find_decisions("00")
    for device in (None, device_id()):
        await store.list_enrollments(tuple(EnrollmentState), device_id=device)
        await store.list_decisions(device_id=device)
    await store.expire_waiting("default", NOW, NOW)
    await store.open_intents()
    await store.list_certificates(device_id())
    await store.revoke_certificate("default", SERIAL + 1, NOW, 0)
    assert [entry async for entry in store.revocations("default", NOW)] != []
    await store.remove_device(device_id(), NOW)
    await store.record_session(make_session())
    await disconnect_device(store)
    await store.claim_messages(NOW, NOW, 10)
    await store.prune_messages(NOW)
    await store.expire_sessions(NOW)
    await store.certificate_holders(NOW, None, 10)
    await store.disconnected_since(NOW)
    assert len(recorder.statements) >= 20
    steps = [step for item in recorder.statements.items() for step in await plan(database, *item)]
    assert [step for step in steps if step.startswith("SCAN")] == []
    used = {word for step in steps for word in step.split()} & INDEXES
    made = await database.read(
        lambda session: session.fetch("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    )
    assert used == {row["name"] for row in made} == INDEXES


INSERT = "INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ($1, 1)"


async def insert(session: Session, name: str) -> int:
    return await session.execute(INSERT, name)


async def test_units_of_work_that_wait_together_share_one_commit(tmp_path: Path) -> None:
    """Ten writes at once cost one or two commits, and all of them are there."""
    database = await SqliteDatabase.open(tmp_path / "db")
    statements: list[str] = []
    await database._writer.run(lambda connection: connection.set_trace_callback(statements.append))
    await asyncio.gather(*(database.write(partial(insert, name=f"ca{number}")) for number in range(10)))
    rows = await database.read(lambda session: session.fetch("SELECT ca FROM revocation_counter"))
    await database.close()
    assert len(rows) == 10
    assert statements.count("COMMIT") <= 2


async def test_a_unit_that_fails_takes_nothing_of_its_neighbours_with_it(tmp_path: Path) -> None:
    """Each unit of a shared transaction stands or falls alone."""
    database = await SqliteDatabase.open(tmp_path / "db")

    async def insert_twice(session: Session) -> None:
        await session.execute(INSERT, "lost")
        await session.execute(INSERT, "lost")

    outcomes = await asyncio.gather(
        database.write(partial(insert, name="alone")),  # those after it wait for it, and make one batch
        database.write(partial(insert, name="before")),
        database.write(insert_twice),
        database.write(partial(insert, name="after")),
        return_exceptions=True,
    )
    rows = await database.read(lambda session: session.fetch("SELECT ca FROM revocation_counter ORDER BY ca"))
    await database.close()
    assert [type(outcome) for outcome in outcomes] == [int, int, UniqueViolation, int]
    assert [row["ca"] for row in rows] == ["after", "alone", "before"]


async def test_whoever_gives_up_waiting_does_not_disturb_the_batch(tmp_path: Path) -> None:
    """A cancelled caller leaves its work to be done and its neighbours their answers."""
    database = await SqliteDatabase.open(tmp_path / "db")
    first = asyncio.ensure_future(database.write(partial(insert, name="first")))
    given_up = asyncio.ensure_future(database.write(partial(insert, name="given up")))
    kept = asyncio.ensure_future(database.write(partial(insert, name="kept")))
    await asyncio.sleep(0)  # the first is under way, the others are waiting now
    given_up.cancel()
    assert await kept == await first == 1
    rows = await database.read(lambda session: session.fetch("SELECT ca FROM revocation_counter"))
    await database.close()
    assert len(rows) == 3


async def test_a_transaction_that_sqlite_gives_up_fails_all_its_units(tmp_path: Path) -> None:
    """After a rollback that nobody asked for, no unit of the batch is told that it was stored."""
    database = await SqliteDatabase.open(tmp_path / "db")

    async def lose_everything(session: Session) -> None:
        await session.execute("INSERT OR ROLLBACK INTO revocation_counter (ca, revocation_sequence) VALUES (NULL, 1)")

    outcomes = await asyncio.gather(
        database.write(partial(insert, name="alone")),  # the two after it wait for it, and for each other
        database.write(partial(insert, name="before")),
        database.write(lose_everything),
        return_exceptions=True,
    )
    rows = await database.read(lambda session: session.fetch("SELECT ca FROM revocation_counter"))
    await database.close()
    assert [type(outcome) for outcome in outcomes] == [int, sqlite3.IntegrityError, sqlite3.IntegrityError]
    assert [row["ca"] for row in rows] == ["alone"]
