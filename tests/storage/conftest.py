"""A database that holds something, of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scep_ra.storage.database import Database
from scep_ra.storage.sql import SqlStore
from tests.support.databases import KINDS, database_opener, fill_store


@pytest.fixture(params=KINDS)
async def source(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    database = await database_opener(request.param, request)()
    try:
        await fill_store(SqlStore(database))
        yield database
    finally:
        await database.close()
