"""PostgreSQL in particular: outages and what becomes of its errors, durability, locks, passwords."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from scep_ra.errors import BackendError, Misconfigured, Unavailable
from scep_ra.storage.base import ChallengeSpent, DuplicateEnrollment
from scep_ra.storage.database import Row, Session, UniqueViolation
from scep_ra.storage.migrations import Upgrade, load_migrations
from scep_ra.storage.postgresql import PostgresqlDatabase, _translated
from scep_ra.storage.sql import SqlStore
from tests.support.postgresql import PostgresqlServer
from tests.support.records import make_challenge, make_enrollment, make_key

SECRET = "Tr0ub4dor&3"
INSERT = "INSERT INTO revocation_counter (ca, revocation_sequence) VALUES ($1, 1)"

Opener = Callable[..., Awaitable[PostgresqlDatabase]]


@pytest.fixture
async def open_database(postgresql_dsn: str) -> AsyncIterator[Opener]:
    """Open the test's database as often as it likes; each is a node."""
    opened: list[PostgresqlDatabase] = []

    async def open_one(dsn: str = postgresql_dsn, **options: object) -> PostgresqlDatabase:
        database = await PostgresqlDatabase.open(dsn, **options)  # type: ignore[arg-type]  # the tests' own options
        opened.append(database)
        return database

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def database(open_database: Opener) -> PostgresqlDatabase:
    return await open_database()


async def counters(database: PostgresqlDatabase) -> list[str]:
    rows = await database.read(lambda session: session.fetch("SELECT ca FROM revocation_counter ORDER BY ca"))
    return [row["ca"] for row in rows]


async def one(session: Session) -> int:
    rows = await session.fetch("SELECT 1 AS one")
    value: int = rows[0]["one"]
    return value


class TestSessions:
    async def test_reads_are_snapshots_and_cannot_write(self, database: PostgresqlDatabase) -> None:
        """What another node commits in between stays out of sight."""

        async def look_twice(session: Session) -> tuple[int, int]:
            before = await session.fetch("SELECT ca FROM revocation_counter")
            await database.write(lambda other: other.execute(INSERT, "meanwhile"))
            return len(before), len(await session.fetch("SELECT ca FROM revocation_counter"))

        assert await database.read(look_twice) == (0, 0)
        assert await counters(database) == ["meanwhile"]
        with pytest.raises(Unavailable, match="read-only transaction"):
            await database.read(lambda session: session.execute(INSERT, "never"))

    async def test_each_statement_of_a_write_sees_what_is_committed(self, database: PostgresqlDatabase) -> None:
        """The units of work are written for READ COMMITTED."""

        async def level(session: Session) -> str:
            rows = await session.fetch("SELECT current_setting('transaction_isolation') AS level")
            return str(rows[0]["level"])

        assert await database.write(level) == "read committed"

    async def test_execute_counts_rows(self, database: PostgresqlDatabase) -> None:
        """A definition changes none."""

        async def work(session: Session) -> list[int]:
            return [
                await session.execute("CREATE TABLE more (x BIGINT)"),
                await session.execute("INSERT INTO more (x) VALUES ($1), ($2), ($1)", 1, 2),
                await session.execute("UPDATE more SET x = 3 WHERE x = $1", 1),
                await session.execute("DELETE FROM more WHERE x = $1", 1),
            ]

        assert await database.write(work) == [0, 3, 2, 0]

    async def test_a_unit_that_fails_leaves_nothing_behind(self, database: PostgresqlDatabase) -> None:
        """The exception comes out as it is, and the connection serves the next."""

        async def work(session: Session) -> None:
            await session.execute(INSERT, "default")
            raise LookupError

        with pytest.raises(LookupError):
            await database.write(work)
        assert await counters(database) == []

    async def test_a_unit_cannot_go_on_after_a_broken_index(self, database: PostgresqlDatabase) -> None:
        """The server would answer COMMIT with ROLLBACK, and the store would take that for done."""

        async def work(session: Session) -> None:
            await session.execute(INSERT, "twice")
            with pytest.raises(UniqueViolation, match="revocation_counter"):
                await session.execute(INSERT, "twice")

        with pytest.raises(RuntimeError, match="went on after an error"):
            await database.write(work)
        assert await counters(database) == []

    async def test_a_value_of_the_wrong_type_is_a_mistake_of_ours(self, database: PostgresqlDatabase) -> None:
        """It is not taken for an outage, and nobody is told to try again."""
        with pytest.raises(asyncpg.DataError):
            await database.write(lambda session: session.execute(INSERT, 1))

    async def test_a_stream_brings_more_rows_than_a_page(self, database: PostgresqlDatabase) -> None:
        """In order, each once."""

        async def work(session: Session) -> list[int]:
            return [row["n"] async for row in session.stream("SELECT n FROM generate_series(1, 1234) AS n")]

        assert await database.read(work) == list(range(1, 1235))

    async def test_the_catalogue_tells_tables_columns_types_and_references(self, database: PostgresqlDatabase) -> None:
        """As the schema files do."""
        tables = {table.name: table for table in await database.read(lambda session: session.tables())}
        assert tables["challenge"].references == {"enrollment"}
        assert tables["challenge"].columns["digest"] == "bytea"
        assert tables["device"].columns["enabled"] == "boolean"
        assert list(tables["revocation_counter"].columns) == ["ca", "revocation_sequence"]

    async def test_a_cancelled_unit_is_undone(self, database: PostgresqlDatabase) -> None:
        """Whoever asked went away in the middle."""
        entered = asyncio.Event()

        async def work(session: Session) -> None:
            await session.execute(INSERT, "default")
            entered.set()
            await session.fetch("SELECT pg_sleep(60)")

        task = asyncio.create_task(database.write(work))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await counters(database) == []


class TestRaces:
    async def test_two_nodes_racing_for_one_request_record_it_once(self, open_database: Opener) -> None:
        """One transactionID, key and CSR."""
        nodes = [SqlStore(await open_database()) for _ in range(2)]
        results = await asyncio.gather(
            *(
                nodes[number % 2].insert_enrollment(make_enrollment(enrollment_id=f"{number:032x}"), spend=None)
                for number in range(50)
            ),
            return_exceptions=True,
        )
        assert [type(each) for each in results if each is not None] == [DuplicateEnrollment] * 49
        assert len(await nodes[0].open_intents()) == 1

    async def test_fifty_parallel_uses_of_a_challenge_spend_it_once(self, open_database: Opener) -> None:
        """Each in a transaction of its own."""
        nodes = [SqlStore(await open_database()) for _ in range(2)]
        await nodes[0].add_challenge(make_challenge())
        results = await asyncio.gather(
            *(
                nodes[number % 2].insert_enrollment(
                    make_enrollment(number, key=make_key(f"TX{number}")), spend=make_challenge().digest
                )
                for number in range(50)
            ),
            return_exceptions=True,
        )
        assert [type(each) for each in results if each is not None] == [ChallengeSpent] * 49

    async def test_units_that_name_the_same_take_turns(self, open_database: Opener) -> None:
        """Each reads what the one before it wrote, although they lock in different orders; other names do not wait."""
        nodes = [await open_database(pool_size=4) for _ in range(2)]
        await nodes[0].write(lambda session: session.execute(INSERT, "shared"))

        async def count_up(session: Session, names: tuple[str, ...]) -> None:
            await session.serialise(*names)
            rows = await session.fetch("SELECT revocation_sequence AS n FROM revocation_counter")
            await session.fetch("SELECT pg_sleep(0.001)")
            await session.execute("UPDATE revocation_counter SET revocation_sequence = $1", rows[0]["n"] + 1)

        units = [partial(count_up, names=names) for names in (("a", "b"), ("b", "a"))]
        await asyncio.gather(*(nodes[number % 2].write(units[number % 2]) for number in range(40)))
        rows = await nodes[0].read(lambda session: session.fetch("SELECT revocation_sequence FROM revocation_counter"))
        assert rows[0]["revocation_sequence"] == 41

    async def test_other_names_do_not_wait(self, database: PostgresqlDatabase) -> None:
        """The second unit ends while the first holds its lock."""

        async def hold(session: Session) -> None:
            await session.serialise("a")
            await database.write(lambda other: other.serialise("b"))

        await database.write(hold)

    async def test_a_deadlock_is_tried_again(self, database: PostgresqlDatabase) -> None:
        """Both units end, each having run to its end once."""
        await database.write(lambda session: session.execute(INSERT, "a"))
        await database.write(lambda session: session.execute(INSERT, "b"))
        both_hold_one = asyncio.Barrier(2)
        runs: list[str] = []

        async def lock(session: Session, first: str, second: str) -> None:
            runs.append(first)
            bump = "UPDATE revocation_counter SET revocation_sequence = revocation_sequence + 1 WHERE ca = $1"
            await session.execute(bump, first)
            if len(runs) <= 2:
                await both_hold_one.wait()
            await session.execute(bump, second)

        await asyncio.gather(
            database.write(lambda session: lock(session, "a", "b")),
            database.write(lambda session: lock(session, "b", "a")),
        )
        rows = await database.read(lambda session: session.fetch("SELECT revocation_sequence FROM revocation_counter"))
        assert [row["revocation_sequence"] for row in rows] == [3, 3]
        assert len(runs) == 3

    async def test_after_three_times_it_is_unavailable(self, database: PostgresqlDatabase) -> None:
        """A conflict that does not end must not keep a device waiting."""
        runs = 0

        async def conflict(session: Session) -> None:
            nonlocal runs
            runs += 1
            await session.execute("DO $$ BEGIN RAISE SQLSTATE '40001' USING MESSAGE = 'conflict'; END $$")

        with pytest.raises(Unavailable, match="conflict"):
            await database.write(conflict)
        assert runs == 3

    async def test_nodes_that_start_together_make_the_tables_once(self, open_database: Opener) -> None:
        """The others wait and find them."""
        nodes = await asyncio.gather(*(open_database() for _ in range(6)))
        rows = await nodes[0].read(lambda session: session.fetch("SELECT version FROM schema_version ORDER BY version"))
        assert [row["version"] for row in rows] == [migration.version for migration in load_migrations()]


class TestOutages:
    async def test_a_crash_in_the_middle_is_unavailable_and_mends_itself(
        self, database: PostgresqlDatabase, postgresql_server: PostgresqlServer
    ) -> None:
        """What was under way is undone, what was committed is there, and nobody restarts the node."""
        await database.write(lambda session: session.execute(INSERT, "committed"))

        async def crash(session: Session) -> None:
            await session.execute(INSERT, "open")
            await asyncio.to_thread(postgresql_server.stop, "immediate")
            await session.execute(INSERT, "lost")

        with pytest.raises(Unavailable, match="cannot be used now"):
            await database.write(crash)
        with pytest.raises(Unavailable, match=r"at /.*: No such file or directory"):
            await database.read(one)
        await asyncio.to_thread(postgresql_server.start)
        assert await counters(database) == ["committed"]

    async def test_a_shutdown_during_the_commit_is_unavailable(
        self, database: PostgresqlDatabase, postgresql_server: PostgresqlServer
    ) -> None:
        """Nobody knows the outcome, so nobody may be told that it is done."""

        async def work(session: Session) -> None:
            await session.execute(INSERT, "unknown")
            await asyncio.to_thread(postgresql_server.stop)

        with pytest.raises(Unavailable):
            await database.write(work)

    async def test_a_session_that_an_administrator_ends_is_unavailable_once(
        self, database: PostgresqlDatabase, postgresql_server: PostgresqlServer
    ) -> None:
        """The next unit gets another connection."""

        async def work(session: Session) -> int:
            rows = await session.fetch("SELECT pg_backend_pid() AS pid")
            await asyncio.to_thread(postgresql_server.sql, f"SELECT pg_terminate_backend({rows[0]['pid']}, 5000)")
            return await one(session)

        with pytest.raises(Unavailable):
            await database.read(work)
        assert await database.read(one) == 1

    async def test_a_statement_that_takes_too_long_is_unavailable(self, open_database: Opener) -> None:
        """A lock that somebody forgot must not hold a request for ever."""
        database = await open_database(timeout_s=0.2)
        with pytest.raises(Unavailable, match="no answer in time"):
            await database.read(lambda session: session.fetch("SELECT pg_sleep(60)"))
        assert await database.read(one) == 1

    async def test_when_all_connections_are_busy_the_next_waits_for_its_time(self, open_database: Opener) -> None:
        """And is told so then."""
        database = await open_database(pool_size=1, timeout_s=0.2)

        async def nested(_session: Session) -> None:
            await database.read(one)

        with pytest.raises(Unavailable, match="no answer in time"):
            await database.read(nested)

    async def test_a_node_that_stands_still_loses_its_locks(self, open_database: Opener) -> None:
        """Or a stopped process would stop all others."""
        database, other = await open_database(timeout_s=0.2), await open_database()

        async def stand_still(session: Session) -> None:
            await session.serialise("lock")
            await other.write(lambda another: another.serialise("lock"))
            await one(session)

        with pytest.raises(Unavailable):
            await database.write(stand_still)

    async def test_too_many_connections_are_unavailable(
        self, open_database: Opener, postgresql_server: PostgresqlServer, postgresql_dsn: str
    ) -> None:
        """A limit of the server or of the role."""
        postgresql_server.sql("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
        with pytest.raises(Unavailable, match="too many connections"):
            await open_database(postgresql_dsn.replace("postgres@", "crowded@"))


class TestConfiguration:
    @pytest.mark.parametrize(
        ("setting", "mend"),
        [
            ("synchronous_commit", "SET synchronous_commit = on"),
            ("fsync", "set fsync = on"),
            ("full_page_writes", "set full_page_writes = on"),
        ],
    )
    async def test_a_server_that_may_lose_commits_is_refused_with_the_mend(
        self, open_database: Opener, postgresql_server: PostgresqlServer, setting: str, mend: str
    ) -> None:
        """A certificate that a device has must be in the store."""
        database = await open_database()
        postgresql_server.set(setting, "off")
        try:
            with pytest.raises(Misconfigured, match=rf"{setting} = off.*{mend}"):
                await database.check()
        finally:
            postgresql_server.set(setting, "on")
        # A new one: a connection that is open hears of a change at its own time.
        await (await open_database()).check()

    async def test_a_database_without_utf_8_is_refused(
        self, open_database: Opener, postgresql_server: PostgresqlServer
    ) -> None:
        """Names of users and devices come in every alphabet."""
        postgresql_server.sql("CREATE DATABASE ascii ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0")
        with pytest.raises(Misconfigured, match=r"server_encoding = SQL_ASCII.*UTF8"):
            await (await open_database(postgresql_server.dsn("ascii"))).check()

    async def test_an_unknown_database_needs_a_person(
        self, open_database: Opener, postgresql_server: PostgresqlServer
    ) -> None:
        """Both names are told."""
        with pytest.raises(Misconfigured, match=rf'database nowhere at {postgresql_server.directory}.*"nowhere" does'):
            await open_database(postgresql_server.dsn("nowhere"))

    async def test_a_role_without_rights_needs_a_person(
        self, open_database: Opener, postgresql_server: PostgresqlServer, postgresql_dsn: str
    ) -> None:
        """PostgreSQL 15 lets nobody but the owner make tables."""
        postgresql_server.sql("CREATE ROLE guest LOGIN")
        with pytest.raises(Misconfigured, match=r"permission denied.*the role and its rights"):
            await open_database(postgresql_dsn.replace("postgres@", "guest@"))

    async def test_a_wrong_password_is_refused_and_appears_nowhere(
        self,
        open_database: Opener,
        postgresql_server: PostgresqlServer,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Neither in the message, its causes, nor the log; the right one opens the door, changed while we run."""
        caplog.set_level(logging.DEBUG)
        file = tmp_path / "password"
        file.write_text(f"{SECRET}\n")
        file.chmod(0o600)
        dsn = postgresql_server.new_guarded_database("guarded", password="right")
        with pytest.raises(Misconfigured, match="password authentication failed") as caught:
            await open_database(dsn, password_file=file)
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in f"{error!r} {error}"
            error = error.__cause__ or error.__context__
        assert SECRET not in caplog.text
        file.write_text("right")
        assert await (await open_database(dsn, password_file=file)).read(one) == 1

    @pytest.mark.parametrize(
        ("content", "mode", "reason"),
        [(None, 0, "No such file"), (b"x", 0o640, "mode 0640.*chmod 600"), (b"\xff", 0o600, "codec")],
        ids=["missing", "open to others", "not UTF-8"],
    )
    async def test_a_password_file_must_be_there_and_private(
        self, open_database: Opener, tmp_path: Path, content: bytes | None, mode: int, reason: str
    ) -> None:
        """The message names it."""
        file = tmp_path / "password"
        if content is not None:
            file.write_bytes(content)
            file.chmod(mode)
        with pytest.raises(Misconfigured, match=f"{file}.*{reason}"):
            await open_database(password_file=file)

    async def test_nobody_listens(self, open_database: Opener) -> None:
        """Port 1 of this machine; it may come up later."""
        with pytest.raises(Unavailable, match=r"database a at 127\.0\.0\.1 cannot be used now"):
            await open_database("postgresql://b@127.0.0.1:1/a")

    async def test_an_option_that_the_driver_does_not_know_needs_a_person(self, open_database: Opener) -> None:
        """Before anything is connected."""
        with pytest.raises(Misconfigured, match="sslmode"):
            await open_database("postgresql://b@127.0.0.1:1/a?sslmode=perhaps")

    def test_a_certificate_that_does_not_hold_needs_a_person(self) -> None:
        """Though it is an OSError for Python."""
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        with pytest.raises(Misconfigured, match="certificate verify failed"), _translated("it"):
            raise error


class TestSchema:
    async def test_an_older_schema_waits_for_the_operator(
        self, open_database: Opener, database: PostgresqlDatabase
    ) -> None:
        """Other nodes may run the version before; the command that upgrades gets in."""
        await database.write(lambda session: session.execute("DELETE FROM schema_version WHERE version > 1"))
        known = load_migrations()[-1].version
        with pytest.raises(Misconfigured, match=rf"version 1, this program needs {known}.*scep-ra db upgrade"):
            await open_database()
        await open_database(upgrade=Upgrade.NEVER)

    async def test_a_newer_schema_is_refused(self, open_database: Opener, database: PostgresqlDatabase) -> None:
        """Half-understood data would be damaged."""
        await database.write(lambda session: session.execute("INSERT INTO schema_version (version) VALUES (9999)"))
        with pytest.raises(Misconfigured, match="schema version 9999"):
            await open_database()

    async def test_statements_go_on_after_another_node_changed_a_table(self, open_database: Opener) -> None:
        """A prepared SELECT * brings the new column, without an error in between."""
        node, other = await open_database(pool_size=1), await open_database()
        sql = "SELECT * FROM revocation_counter"
        await node.write(lambda session: session.execute(INSERT, "default"))
        await node.read(lambda session: session.fetch(sql))
        await other.write(lambda session: session.execute("ALTER TABLE revocation_counter ADD COLUMN more TEXT"))
        rows: list[Row] = list(await node.read(lambda session: session.fetch(sql)))
        assert rows[0]["more"] is None


class TestExamination:
    async def test_a_sound_database_has_nothing_to_tell(self, database: PostgresqlDatabase) -> None:
        """No failed checksums, no invalid index."""
        assert await database.examine() == []

    async def test_an_index_that_was_left_unfinished_is_told(
        self, database: PostgresqlDatabase, postgresql_server: PostgresqlServer, postgresql_dsn: str
    ) -> None:
        """An interrupted CREATE INDEX CONCURRENTLY leaves one, which keeps nothing unique."""
        mark = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'enrollment_by_renewal'::regclass"
        postgresql_server.sql(mark, dsn=postgresql_dsn)
        assert await database.examine() == ["index enrollment_by_renewal is not valid: run REINDEX"]


async def test_every_refusal_is_one_of_ours(database: PostgresqlDatabase) -> None:
    """A closed database included."""
    await database.close()
    with pytest.raises(BackendError, match="closed"):
        await database.read(one)
