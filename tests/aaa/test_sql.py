"""Tables and stored procedures authorize devices: an SQLite file and a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from scep_ra.aaa.base import Accept, Authorizer, Decision, Defer, MalformedAnswer, Reject
from scep_ra.aaa.sql import SqlAuthorizer, sql_settings
from scep_ra.aaa.sql_postgresql import PostgresqlSource
from scep_ra.aaa.sql_sqlite import SqliteSource
from scep_ra.config_aaa import GUARD_KEYS, SqlConfig
from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from tests.support.authorizers import question
from tests.support.postgresql import PostgresqlServer

TABLE = """
CREATE TABLE devices (serial text, owner text, imei text, until text, state integer);
INSERT INTO devices VALUES ('SN1', 'alice', '004999010640000', '2027-12-31', 1);
INSERT INTO devices VALUES ('SN-TWIN', 'bob', NULL, NULL, 1), ('SN-TWIN', 'eve', NULL, NULL, 1);
INSERT INTO devices VALUES ('SN-BLOCKED', 'bob', NULL, NULL, 0), ('SN-LATER', 'bob', NULL, NULL, 2);
"""
LOOKUP = 'SELECT owner AS "user", imei, until AS valid_until FROM devices WHERE serial = :device_value'
VERDICT = """
SELECT state > 0 AS allow, state = 2 AS defer, 'state ' || state AS reason, owner AS "user"
FROM devices WHERE serial = :device_value"""

DOCUMENTATION: Final = Path(__file__).parents[2] / "docs" / "aaa.md"

Make = Callable[..., SqlAuthorizer]


def make_settings(directory: Path, **options: Any) -> Any:
    table = SqlConfig(**options).model_dump(exclude=set(GUARD_KEYS))
    return sql_settings(table, data_directory=directory, timeout_s=5.0)


@pytest.fixture
async def made() -> AsyncIterator[list[SqlAuthorizer]]:
    made: list[SqlAuthorizer] = []
    yield made
    for each in made:
        await each.close()


@pytest.fixture
def make_sqlite(tmp_path: Path, made: list[SqlAuthorizer]) -> Make:
    with closing(sqlite3.connect(tmp_path / "devices.sqlite")) as connection:
        connection.executescript(TABLE)

    def make(authorize: str = LOOKUP, **options: Any) -> SqlAuthorizer:
        settings = make_settings(tmp_path, authorize=authorize, **options)
        made.append(SqlAuthorizer(settings, SqliteSource(settings)))
        return made[-1]

    return make


@pytest.fixture
def make_postgresql(
    postgresql_server: PostgresqlServer, postgresql_dsn: str, tmp_path: Path, made: list[SqlAuthorizer]
) -> Make:
    postgresql_server.sql(TABLE, dsn=postgresql_dsn)

    def make(authorize: str = LOOKUP, **options: Any) -> SqlAuthorizer:
        settings = make_settings(tmp_path, **{"authorize": authorize, "dsn": postgresql_dsn, **options})
        made.append(SqlAuthorizer(settings, PostgresqlSource(settings)))
        return made[-1]

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.getfixturevalue(f"make_{request.param}")
    return chosen


async def decide(authorizer: Authorizer, device: str = "SN1", profile: str = "default") -> Decision:
    async with asyncio.timeout(30):
        return await authorizer.authorize(question(device, profile=profile))


# --- both -----------------------------------------------------------------------------------------------------------


async def test_one_row_is_a_yes_and_its_columns_are_attributes(make: Make) -> None:
    """Texts stay texts, and nulls say nothing."""
    authorizer = make()
    assert await decide(authorizer) == Accept(
        attributes={"user": "alice", "imei": "004999010640000"},
        not_after=datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC),
    )


async def test_no_row_and_several_rows_are_a_no(make: Make) -> None:
    """Deny by default, and nobody can say which row holds."""
    assert await decide(make(), "SN-UNKNOWN") == Reject(reason="the database has no row for the device")
    several = await decide(make(), "SN-TWIN")
    assert isinstance(several, Reject)
    assert "several rows for the device" in several.reason


async def test_the_columns_allow_defer_and_reason_say_more(make: Make) -> None:
    """And are no attributes."""
    authorizer = make(VERDICT)
    assert await decide(authorizer) == Accept(attributes={"user": "alice"})
    assert await decide(authorizer, "SN-BLOCKED") == Reject(reason="state 0")
    assert await decide(authorizer, "SN-LATER") == Defer(reason="state 2")


async def test_without_a_reason_one_is_given(make: Make) -> None:
    """A null in `allow` is no yes."""
    assert await decide(make("SELECT NULL AS allow")) == Reject(reason="the row of the device does not allow it")
    assert await decide(make("SELECT 1 AS defer")) == Defer(reason="the row of the device says not yet")


async def test_a_column_that_cannot_be_read_is_no_answer(make: Make) -> None:
    """Half an answer is none."""
    with pytest.raises(MalformedAnswer, match="valid_until = 'soon'"):
        await decide(make("SELECT 'soon' AS valid_until"))


@pytest.mark.parametrize(
    "text",
    ["' OR '1'='1", "'; DROP TABLE devices; --", "SN1'--", '"', "%", "_", "\\", ":device_value", "$1", "{}", "é"],
)
async def test_nothing_in_a_question_changes_the_statement(make: Make, text: str) -> None:
    """Values are bound."""
    authorizer = make("SELECT owner FROM devices WHERE serial = :profile")
    assert await decide(authorizer, profile=text) == Reject(reason="the database has no row for the device")
    echo = make("SELECT :profile AS said")
    assert await decide(echo, profile=text) == Accept(attributes={"said": text})


async def test_a_table_without_where_is_not_read_to_its_end(make: Make) -> None:
    """The second row is enough to know."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert isinstance(await decide(make(endless)), Reject)


async def test_check_finds_what_a_statement_gets_wrong(make: Make) -> None:
    """Without carrying it out."""
    await make().check()
    await make("SELECT 1 WHERE :renewal").check()
    for wrong in ("SELECT no_such_column FROM devices", "SELECT 1 FROM no_such_table", "SELEC 1"):
        with pytest.raises(Misconfigured, match=r"cannot answer: .*look at"):
            await make(wrong).check()


async def test_who_gives_up_leaves_nothing_behind(make: Make) -> None:
    """The next question is answered as if nothing had been."""
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS c FROM n"
    authorizer = make(f"{slow} WHERE :device_value = 'SN-SLOW' UNION ALL SELECT 7 WHERE :device_value <> 'SN-SLOW'")
    asked = asyncio.create_task(decide(authorizer, "SN-SLOW"))
    done, _ = await asyncio.wait({asked}, timeout=0.3)
    assert not done
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    quick = make()
    assert isinstance(await decide(quick), Accept)


# --- SQLite ---------------------------------------------------------------------------------------------------------


async def test_an_sqlite_file_is_only_read(make_sqlite: Make) -> None:
    """Though the statement would write."""
    authorizer = make_sqlite("UPDATE devices SET owner = 'eve' RETURNING owner")
    with pytest.raises(Misconfigured, match="attempt to write a readonly database"):
        await decide(authorizer)


async def test_a_file_put_in_place_of_another_is_noticed(make_sqlite: Make, tmp_path: Path) -> None:
    """An export that replaces it takes effect with the next question."""
    authorizer = make_sqlite()
    assert isinstance(await decide(authorizer), Accept)
    with closing(sqlite3.connect(tmp_path / "new")) as connection:
        connection.execute("CREATE TABLE devices (serial, owner, imei, until)")
        connection.commit()
    (tmp_path / "new").replace(tmp_path / "devices.sqlite")
    assert isinstance(await decide(authorizer), Reject)


async def test_a_file_that_is_not_there_or_none_needs_mending(make_sqlite: Make, tmp_path: Path) -> None:
    """Nothing is created."""
    with pytest.raises(Misconfigured, match="unable to open database file; look at path"):
        await decide(make_sqlite(path="missing.sqlite"))
    assert not (tmp_path / "missing.sqlite").exists()
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(Misconfigured, match="not a database"):
        await decide(make_sqlite(path="text"))


async def test_a_file_that_somebody_holds_may_be_free_later(
    make_sqlite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer, for now."""
    monkeypatch.setattr("scep_ra.aaa.sql_sqlite._BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(tmp_path / "devices.sqlite", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="locked"):
            await decide(make_sqlite())


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


async def test_a_stored_procedure_decides_and_keeps_record(
    make_postgresql: Make, postgresql_server: PostgresqlServer, postgresql_dsn: str
) -> None:
    """It gets what it asks for, and what it writes is committed."""
    postgresql_server.sql(
        """
        CREATE TABLE asked (device text, renewal boolean);
        CREATE FUNCTION authorize(id text, renews boolean, OUT allow boolean, OUT reason text, OUT services text[],
            OUT valid_until timestamptz) LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO asked VALUES (id, renews);
            allow := id = 'serial:SN1';
            reason := 'not mine';
            services := ARRAY['vpn', 'wifi'];
            valid_until := '2027-01-01 12:00+00';
        END $$;
        CREATE PROCEDURE answer(id text, INOUT allow boolean) LANGUAGE plpgsql AS $$
        BEGIN allow := id = 'serial:SN1'; END $$""",
        dsn=postgresql_dsn,
    )
    authorizer = make_postgresql("SELECT * FROM authorize(:device, :renewal)")
    assert await decide(authorizer) == Accept(
        services=frozenset({"vpn", "wifi"}), not_after=datetime(2027, 1, 1, 12, tzinfo=UTC)
    )
    assert await decide(authorizer, "SN2") == Reject(reason="not mine")
    assert postgresql_server.sql("SELECT * FROM asked", dsn=postgresql_dsn) == "serial:SN1|f\nserial:SN2|f"
    called = make_postgresql("CALL answer(:device, NULL)")
    assert await decide(called) == Accept()
    assert isinstance(await decide(called, "SN2"), Reject)


async def test_the_function_of_the_documentation_works(
    make_postgresql: Make, postgresql_server: PostgresqlServer, postgresql_dsn: str
) -> None:
    """As it stands there."""
    section = DOCUMENTATION.read_text("utf-8").partition("\n## SQL\n")[2]
    function = section.partition("```sql\n")[2].partition("```")[0]
    tables = """CREATE TABLE asked (device text); CREATE TABLE assets (serial text, owner text, status text);
    INSERT INTO assets VALUES ('SN1', 'alice', 'active'), ('SN2', 'bob', 'lost');"""
    postgresql_server.sql(tables + function, dsn=postgresql_dsn)
    authorizer = make_postgresql("SELECT * FROM authorize_device(:device_value)")
    assert await decide(authorizer) == Accept(attributes={"user": "alice"})
    assert await decide(authorizer, "SN2") == Reject(reason="status is lost")
    assert await decide(authorizer, "SN3") == Reject(reason="the row of the device does not allow it")
    assert postgresql_server.sql("SELECT count(*) FROM asked", dsn=postgresql_dsn) == "3"


async def test_a_value_that_the_statement_cannot_take_is_no_answer(make_postgresql: Make) -> None:
    """The server's words, without the detail that may quote rows."""
    with pytest.raises(Unavailable, match="invalid input syntax for type bigint"):
        await decide(make_postgresql("SELECT :device_value::bigint AS number"))


async def test_a_restarted_server_is_asked_on_a_new_connection(
    make_postgresql: Make, postgresql_server: PostgresqlServer
) -> None:
    """Those that were kept ended with it; nobody notices."""
    authorizer = make_postgresql()
    await asyncio.gather(*(decide(authorizer) for _ in range(4)))
    await asyncio.to_thread(postgresql_server.stop)
    with pytest.raises(Unavailable, match="gives no answer"):
        await decide(authorizer)
    await asyncio.to_thread(postgresql_server.start)
    assert isinstance(await decide(authorizer), Accept)


async def test_a_connection_that_ends_under_the_question_is_replaced(make_postgresql: Make) -> None:
    """As when an administrator ends it."""
    suicide = make_postgresql("SELECT pg_terminate_backend(pg_backend_pid()) WHERE :device_value = 'SN-END'")
    assert isinstance(await decide(suicide), Reject)
    with pytest.raises(Unavailable, match="terminating connection"):
        await decide(suicide, "SN-END")
    assert isinstance(await decide(suicide), Reject)


async def test_a_server_that_stands_still_holds_up_nobody(
    make_postgresql: Make, postgresql_server: PostgresqlServer
) -> None:
    """Whoever asks gives up in time, also in the middle of a statement."""
    authorizer = make_postgresql("SELECT pg_backend_pid() AS pid")
    accepted = await decide(authorizer)
    assert isinstance(accepted, Accept)
    backend = int(accepted.attributes["pid"])
    os.kill(backend, signal.SIGSTOP)
    try:
        asked = asyncio.create_task(decide(authorizer))
        done, _ = await asyncio.wait({asked}, timeout=0.3)
        assert not done
        asked.cancel()
        done, _ = await asyncio.wait({asked}, timeout=5)
        assert done
        assert isinstance(await decide(authorizer), Accept)
    finally:
        os.kill(backend, signal.SIGCONT)


async def test_the_password_comes_from_its_file(
    make_postgresql: Make, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    """A wrong one needs mending."""
    role = f"role_{os.urandom(4).hex()}"
    dsn = postgresql_server.new_guarded_database(role, password="right")
    for name in ("right", "wrong"):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o600)
    authorizer = make_postgresql("SELECT current_user AS name", dsn=dsn, password_file="right")
    assert await decide(authorizer) == Accept(attributes={"name": role})
    with pytest.raises(Misconfigured, match=f"database {role} at .* password authentication failed.*password_file"):
        await decide(make_postgresql("SELECT 1", dsn=dsn, password_file="wrong"))


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u@db.example.com/d",
        "postgresql://u@192.0.2.1/d?sslmode=prefer",
        "postgresql://u@db.example.com/d?sslmode=require",
        "postgresql://u@localhost/d?host=192.0.2.1",
        "postgresql://u@localhost,192.0.2.1/d",
    ],
)
def test_a_server_elsewhere_has_to_prove_who_it_is(tmp_path: Path, dsn: str) -> None:
    """By default the driver takes an answer in the clear from whoever says that he has no TLS."""
    with pytest.raises(ConfigurationError, match=r"add [?]sslmode=verify-full"):
        make_settings(tmp_path, authorize="SELECT 1", dsn=dsn)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql:///d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://u@localhost/d",
        "postgresql://u@127.0.0.1:5433/d",
        "postgresql://u@[::1]/d",
        "postgresql://u@db.example.com/d?sslmode=verify-full",
        "postgresql://u@db.example.com/d?sslmode=verify-ca",
        "postgresql://u@db.example.com/d?sslmode=disable",
    ],
)
def test_a_server_here_or_one_that_is_verified_may_answer(tmp_path: Path, dsn: str) -> None:
    """Or one that somebody else protects, if the configuration says so in so many words."""
    assert make_settings(tmp_path, authorize="SELECT 1", dsn=dsn).dsn == dsn


@pytest.mark.parametrize("dsn", ["mysql://h/d", "postgresql://u:secret@h/d", "devices.sqlite"])
def test_a_dsn_of_another_kind_or_with_a_password_is_refused(tmp_path: Path, dsn: str) -> None:
    """The message does not repeat it."""
    with pytest.raises(ConfigurationError, match="dsn is not postgresql://") as refused:
        make_settings(tmp_path, authorize="SELECT 1", dsn=dsn)
    assert "secret" not in str(refused.value)
