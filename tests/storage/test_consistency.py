"""Claims about what must hold between rows, and that each breach is found."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from scep_ra.storage.consistency import find_breaches
from scep_ra.storage.database import Database
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.records import make_challenge


async def test_what_the_store_writes_is_consistent(source: Database) -> None:
    """No fact is broken by work as usual."""
    assert await source.read(find_breaches) == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DELETE FROM certificate", "enrollment is issued without a certificate: 0"),
        ("UPDATE enrollment SET state = 'issuing', signing_order = NULL WHERE certificate_serial IS NOT NULL",
         "enrollment is being issued without a serial or an order: 0"),
        ("UPDATE enrollment SET certificate_serial = NULL", "certificate was issued for no enrollment: 0"),
        ("UPDATE enrollment SET state = 'issued', certificate_serial = '0'",
     "serial was given to two enrollments: 0"),
        ("UPDATE certificate SET successor = 'gone'", "certificate has a successor that is not there: 0"),
        ("UPDATE certificate SET revocation_reason = NULL", "certificate is revoked without a reason: 0"),
        ("DELETE FROM revocation_counter", "CA has more revoked certificates than it counted: default"),
    ],
)  # fmt: skip
async def test_each_breach_is_told_with_a_row(source: Database, damage: str, sentence: str) -> None:
    """So that an operator can look at it."""
    await source.write(lambda session: session.execute(damage))
    assert any(breach.startswith(sentence) for breach in await source.read(find_breaches))


async def test_a_challenge_that_nobody_spent_is_told(tmp_path: Path) -> None:
    """Only with foreign keys off; several breaches are counted."""
    database = await SqliteDatabase.open(tmp_path / "store.sqlite")
    store = SqlStore(database)
    for number in range(3):
        await store.add_challenge(make_challenge(f"{number}"))
    connection = sqlite3.connect(tmp_path / "store.sqlite")
    connection.execute("UPDATE challenge SET used_by = 'nobody'")
    connection.commit()
    connection.close()
    (breach,) = await database.read(find_breaches)
    await database.close()
    assert breach == "challenge was spent by an enrollment that is not there: nobody and 2 more"
