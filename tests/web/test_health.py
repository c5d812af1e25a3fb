"""Tests of `scep_ra.web.health`."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from scep_ra.web.health import Check, health_routes


async def get(path: str, checks: dict[str, Check]) -> tuple[int, str, str]:
    app = web.Application()
    app.add_routes(health_routes(checks))
    async with TestClient(TestServer(app, host="127.0.0.1")) as client, client.get(path) as response:
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, response.headers["Content-Type"], await response.text()


async def test_liveness_asks_nothing() -> None:
    """A process whose checks fail is alive and must not be restarted for it."""
    assert await get("/healthz", {"storage": lambda: "disk full"}) == (200, "text/plain", "ok\n")


async def test_readiness_is_an_empty_list_when_all_is_well() -> None:
    """Ready means that no check has a complaint."""
    assert await get("/readyz", {"storage": lambda: None}) == (200, "application/json; charset=utf-8", "[]")


async def test_readiness_lists_what_fails() -> None:
    """503 takes the server out of a load balancer; strangers who ask hear no host names and paths of ours."""
    checks: dict[str, Check] = {"aaa.corp": lambda: "ldaps://dc7.corp.example cannot be reached", "ca": lambda: None}
    status, _, body = await get("/readyz", checks)

    assert (status, body) == (503, '[{"check": "aaa.corp", "error": "see check_failed in the log"}]')


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_are_read_only(path: str) -> None:
    """Nothing but GET and HEAD is served."""
    app = web.Application()
    app.add_routes(health_routes({}))
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        async with client.head(path) as head, client.post(path) as post:
            assert (head.status, post.status) == (200, 405)
