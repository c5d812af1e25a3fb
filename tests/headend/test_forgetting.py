"""Claims about what a process forgets because another one has cut a device off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from scep_ra.errors import Unavailable
from scep_ra.headend import forgetting
from scep_ra.headend.forgetting import Forgetting
from scep_ra.identity.types import DeviceID
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.records import NOW, device_id, disconnect_device, make_device


class Cache:
    """An authorizer that remembers."""

    def __init__(self) -> None:
        self.flushed: asyncio.Queue[DeviceID] = asyncio.Queue()

    def flush(self, device_id: DeviceID) -> None:
        self.flushed.put_nowait(device_id)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqlStore]:
    monkeypatch.setattr(forgetting, "_INTERVAL_S", 0.001)
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite"))
    await store.add_device(make_device())
    yield store
    await store.close()


async def first_flush(store: SqlStore, cache: Cache) -> DeviceID:
    """Run until the cache has forgotten a device."""
    task = asyncio.create_task(Forgetting(store=store, authorizers=[cache, object()], now=lambda: NOW).run())
    try:
        async with asyncio.timeout(10):
            return await cache.flushed.get()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_device_that_another_process_cut_off_is_forgotten(store: SqlStore) -> None:
    """Whatever this one was told to remember."""
    await disconnect_device(store)
    assert await first_flush(store, Cache()) == device_id()


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_what_was_missed_is_made_up_for(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """When the store is back it is asked about the same time again."""
    read, errors, asked = store.disconnected_since, [error], list[datetime]()

    async def fail_once(moment: datetime) -> Sequence[DeviceID]:
        asked.append(moment)
        if errors:
            raise errors.pop()
        return await read(moment)

    await disconnect_device(store)
    monkeypatch.setattr(store, "disconnected_since", fail_once)
    assert await first_flush(store, Cache()) == device_id()
    assert asked[0] == asked[1]
