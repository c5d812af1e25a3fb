"""Two nodes on one database, of each kind that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from scep_ra.storage.sql import SqlStore
from tests.support.databases import KINDS, Opener, database_opener


@asynccontextmanager
async def _open_store(opener: Opener) -> AsyncIterator[SqlStore]:
    store = SqlStore(await opener())
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=KINDS)
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    """Two nodes on one database."""
    opener = database_opener(request.param, request)
    async with _open_store(opener) as first, _open_store(opener) as second:
        yield first, second


@pytest.fixture
def store(stores: tuple[SqlStore, SqlStore]) -> SqlStore:
    return stores[0]
