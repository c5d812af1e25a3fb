"""Databases of every kind for tests that must hold on each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from scep_ra.storage.database import Database
from scep_ra.storage.migrations import Upgrade
from scep_ra.storage.postgresql import PostgresqlDatabase
from scep_ra.storage.sqlite import SqliteDatabase

KINDS: Final = ("sqlite", "postgresql")
Opener = Callable[[], Awaitable[Database]]


def database_opener(kind: str, request: pytest.FixtureRequest, *, upgrade: Upgrade = Upgrade.ALWAYS) -> Opener:
    """Return what opens the test's own database of this kind, as often as it has nodes."""
    if kind == "sqlite":
        path = request.getfixturevalue("tmp_path") / "store.sqlite"
        return lambda: SqliteDatabase.open(path, upgrade=upgrade)
    dsn = request.getfixturevalue("postgresql_dsn")
    return lambda: PostgresqlDatabase.open(dsn, upgrade=upgrade)
