"""Claims about what a server does beside serving: it empties the outbox, keeps in sync with AAA, forgets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from scep_ra import app
from scep_ra.app import bind_socket
from scep_ra.headend.forgetting import Forgetting
from scep_ra.headend.outbox import Outbox
from scep_ra.headend.sync import AccessSync, DeletionCap
from tests.support.composition import configured, running


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """Return the arguments of every job that was started; none of them does anything."""
    jobs: dict[str, tuple[Any, ...]] = {}
    for kind in (Outbox, AccessSync, Forgetting):

        async def run(_self: object, *arguments: Any, name: str = kind.__name__) -> None:
            jobs[name] = arguments
            await asyncio.Event().wait()

        monkeypatch.setattr(kind, "run", run)
    return jobs


async def test_by_default_only_the_outbox_is_emptied(tmp_path: Path, started: dict[str, tuple[Any, ...]]) -> None:
    """A disconnect from the command line may have left something."""
    async with running(configured(tmp_path)):
        await asyncio.sleep(0)
    assert started == {"Outbox": ()}


async def test_the_sync_runs_as_often_and_as_boldly_as_configured(
    tmp_path: Path, started: dict[str, tuple[Any, ...]]
) -> None:
    """Minutes in the file, seconds within."""
    settings = configured(tmp_path, aaa_sync={"interval_min": 5, "max_deletions": "7%"})
    async with running(settings):
        await asyncio.sleep(0)
    assert started["AccessSync"] == (300.0, DeletionCap(number=0, percent=7.0))


async def test_of_the_processes_of_a_node_one_keeps_in_sync(
    tmp_path: Path, started: dict[str, tuple[Any, ...]]
) -> None:
    """AAA is asked once about each device."""
    settings = configured(tmp_path, aaa_sync={"interval_min": 5})
    async with AsyncExitStack() as stack:
        sock = stack.enter_context(bind_socket("127.0.0.1", 0))
        await stack.enter_async_context(app._running(settings, sock, "http://127.0.0.1", is_first=False))
        await asyncio.sleep(0)
    assert set(started) == {"Outbox"}


async def test_who_remembers_answers_listens_to_disconnects_of_others(
    tmp_path: Path, started: dict[str, tuple[Any, ...]]
) -> None:
    """The command line is another process."""
    async with running(configured(tmp_path, aaa={"registry": {"type": "registry", "cache_s": 60.0}})):
        await asyncio.sleep(0)
    assert set(started) == {"Outbox", "Forgetting"}


async def test_http_and_radius_are_drained_side_by_side() -> None:
    """A supervisor kills a worker that takes longer than one patience and a little."""
    everywhere = asyncio.Barrier(2)

    async def drain(patience_s: float) -> None:
        async with asyncio.timeout(patience_s):
            await everywhere.wait()

    await app._drain([drain, drain], 10.0)
