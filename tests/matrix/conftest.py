"""One world for all cells, and a bench for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.matrix.bench import Bench, bench_in
from tests.matrix.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return asyncio.run(make_world(tmp_path_factory.mktemp("world")))


@pytest.fixture
async def bench(world: World, tmp_path: Path) -> AsyncIterator[Bench]:
    with capture_logs():  # thousands of refusals, and nobody to read of them
        async with bench_in(world, tmp_path) as bench:
            yield bench
