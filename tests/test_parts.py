"""Claims about the parts that server and command line share: which database the configuration opens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scep_ra.config import Config, Settings, StorageConfig
from scep_ra.errors import Misconfigured
from scep_ra.parts import open_database, open_store
from scep_ra.storage.migrations import Upgrade, schema_version
from scep_ra.storage.postgresql import PostgresqlDatabase
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.postgresql import PostgresqlServer


def settings(directory: Path, storage: StorageConfig) -> Settings:
    return Settings(config=Config(storage=storage), config_file=None, data_dir=directory / "var")


async def test_without_a_word_the_store_is_a_file_in_the_data_directory(tmp_path: Path) -> None:
    """Made with its tables."""
    database = await open_database(settings(tmp_path, StorageConfig()))
    assert isinstance(database, SqliteDatabase)
    assert await database.read(schema_version) > 0
    await database.close()
    assert (tmp_path / "var" / "scep-ra.sqlite").exists()


async def test_the_schema_is_left_alone_where_the_caller_says_so(tmp_path: Path) -> None:
    """For commands that look at it themselves."""
    database = await open_database(settings(tmp_path, StorageConfig()), Upgrade.NEVER)
    assert await database.read(schema_version) == 0
    await database.close()


async def test_a_url_opens_postgresql_with_the_password_from_a_file(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    """The file is relative to the data directory."""
    dsn = postgresql_server.new_guarded_database("parts", password="right")
    (tmp_path / "var").mkdir(mode=0o700)
    (tmp_path / "var" / "password").touch(mode=0o600)
    (tmp_path / "var" / "password").write_text("right\n")
    storage = StorageConfig(type="postgresql", dsn=dsn, password_file="password")
    database = await open_database(settings(tmp_path, storage))
    assert isinstance(database, PostgresqlDatabase)
    await database.close()


async def test_a_store_on_postgresql_works(tmp_path: Path, postgresql_dsn: str) -> None:
    """Without a password file, as the role that the server trusts."""
    async with open_store(settings(tmp_path, StorageConfig(type="postgresql", dsn=postgresql_dsn))) as store:
        await store.check()


async def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra, because most set-ups need none."""
    monkeypatch.delitem(sys.modules, "scep_ra.storage.postgresql")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    storage = StorageConfig(type="postgresql", dsn="postgresql://u@/d")
    with pytest.raises(Misconfigured, match=r'needs asyncpg: run pip install "scep-ra\[postgresql\]"'):
        await open_database(settings(tmp_path, storage))
