"""Databases of every kind for tests that must hold on each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from scep_ra.storage.base import Store, StoredCRL
from scep_ra.storage.database import Database
from scep_ra.storage.migrations import Upgrade
from scep_ra.storage.postgresql import PostgresqlDatabase
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.records import (
    HOUR,
    NOW,
    SERIAL,
    make_certificate,
    make_challenge,
    make_device,
    make_enrollment,
    make_key,
    make_pending,
)

KINDS: Final = ("sqlite", "postgresql")
Opener = Callable[[], Awaitable[Database]]


def database_opener(
    kind: str, request: pytest.FixtureRequest, *, name: str = "store.sqlite", upgrade: Upgrade = Upgrade.ALWAYS
) -> Opener:
    """Return what opens the test's own database of this kind, as often as it has nodes."""
    if kind == "sqlite":
        path = request.getfixturevalue("tmp_path") / name
        return lambda: SqliteDatabase.open(path, upgrade=upgrade)
    dsn = request.getfixturevalue("postgresql_dsn")
    return lambda: PostgresqlDatabase.open(dsn, upgrade=upgrade)


async def fill_store(store: Store) -> None:
    """Put rows into the tables that matter: one of each sort, with bytes, booleans, NULL and text of every alphabet."""
    await store.import_devices([make_device("SN1", note="Zürich\n\u2028"), make_device("SN2", enabled=False)])
    await store.add_challenge(make_challenge("open", sealed=bytes(range(256))))
    await store.add_challenge(make_challenge("spent"))
    await store.insert_enrollment(make_enrollment(1), spend=make_challenge("spent").digest)
    await store.complete(make_enrollment(1).enrollment_id, make_certificate(1), NOW)
    await store.insert_enrollment(make_pending(2, key=make_key("TX2")), spend=None)
    await store.revoke_certificate("default", SERIAL + 1, NOW, 1)
    await store.save_crl(
        StoredCRL(
            ca="default", crl_number=7, der=b"crl", this_update=NOW, next_update=NOW + HOUR, revocation_sequence=1
        )
    )
