"""Claims about what survives SIGKILL at each point of an enrollment; `scripts/crash-test` kills more often."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.crash_harness import CLIENTS, find_faults, plan_kills, run_drill
from tests.support.crashing_server import CrashDirectory, CrashPoint
from tests.support.fleet import Fleet, register
from tests.support.node import Node, make_site
from tests.support.postgresql import PostgresqlServer

# Together 25; each store meets each point twice.
KILLS: Final = {"sqlite": 13, "postgresql": 12}
SEED: Final = 8894


@pytest.mark.slow
@pytest.mark.parametrize("kind", KILLS)
async def test_what_a_killed_server_has_answered_is_kept_and_nothing_is_done_twice(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SIGKILL at each of six points: 0 certificates lost or doubled, 0 intents open after the restart."""
    dsn = request.getfixturevalue("postgresql_dsn") if kind == "postgresql" else None
    report = await run_drill(make_site(tmp_path, dsn=dsn), plan_kills(KILLS[kind], SEED))
    assert report.faults == []
    assert sum(point.kills for point in report.points.values()) == KILLS[kind]
    # A drill in which nothing was at stake would prove nothing.
    assert report.acknowledged > CLIENTS
    assert all(point.cut_off for point in report.points.values())
    assert report.points[CrashPoint.INTENDED].resolved > 0


@asynccontextmanager
async def enrolling(fleet: Fleet, node: Node) -> AsyncIterator[None]:
    """Have clients enroll during the block; after it all of them have their answers."""
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.work(CLIENTS))
        fleet.go(node.base_url)
        yield
        fleet.finish()


@pytest.mark.slow
async def test_a_killed_worker_is_replaced_and_its_clients_get_their_certificates(tmp_path: Path) -> None:
    """One of two workers dies, twice: the other one goes on meanwhile, and nothing is lost or doubled."""
    site, crash = make_site(tmp_path), CrashDirectory(tmp_path)
    async with Node.running(site, "--workers", "2", crash=crash) as node:
        fleet = Fleet(await register(site, 400), site.ra_certificate)
        async with enrolling(fleet, node):
            for deaths, point in enumerate((CrashPoint.SIGNED, CrashPoint.STORED), start=1):
                await fleet.wait_acknowledged(5)
                crash.order_crash(point, 1)
                died = await node.log.wait_for("worker_died", times=deaths)
                assert died[-1]["exit_status"] == -signal.SIGKILL
                await fleet.wait_acknowledged(5)
                fleet.hold()
                await node.log.wait_for("worker_ready", times=2 + deaths)
                fleet.go(node.base_url)
    assert await find_faults(site, fleet.acknowledged, crash) == []


@pytest.mark.slow
async def test_a_crash_of_the_database_server_only_delays(
    tmp_path: Path, postgresql_server: PostgresqlServer, postgresql_dsn: str
) -> None:
    """While PostgreSQL is away devices are told 503; then the same requests succeed, without a restart of ours."""
    site, crash = make_site(tmp_path, dsn=postgresql_dsn), CrashDirectory(tmp_path)
    async with Node.running(site, crash=crash) as node:
        fleet = Fleet(await register(site, 400), site.ra_certificate)
        async with enrolling(fleet, node):
            await fleet.wait_acknowledged(10)
            await asyncio.to_thread(postgresql_server.stop, "immediate")
            await fleet.wait_put_off()
            await asyncio.to_thread(postgresql_server.start)
            await fleet.wait_acknowledged(10)
    assert fleet.put_off <= fleet.acknowledged.keys()
    assert await find_faults(site, fleet.acknowledged, crash) == []
