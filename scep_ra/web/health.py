"""Liveness and readiness for load balancers and supervisors.

Checks are cheap and look at what is known already: a probe never reaches a CA, an AAA backend or the disk, or a
backend's outage would be multiplied by everybody who watches for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import hdrs, web

Check = Callable[[], str | None]
"""Returns None when all is well, otherwise what is wrong; for the log, because it names hosts and files."""

# Anybody may ask, so the answer has names of the configuration and no more.
_SEE_LOG: Final = "see check_failed in the log"
_HEADERS: Final = {hdrs.CACHE_CONTROL: "no-store"}


def health_routes(checks: Mapping[str, Check]) -> list[web.RouteDef]:
    """Return the routes /healthz (the process turns) and /readyz (it can serve, else 503 and which checks fail)."""

    async def live(_request: web.Request) -> web.Response:
        return web.Response(body=b"ok\n", content_type="text/plain", headers=_HEADERS)

    async def ready(_request: web.Request) -> web.Response:
        failing = [{"check": name, "error": _SEE_LOG} for name, check in checks.items() if check() is not None]
        return web.json_response(failing, status=503 if failing else 200, headers=_HEADERS)

    return [web.get("/healthz", live), web.get("/readyz", ready)]
