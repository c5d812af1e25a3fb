"""The whole server in this process, from settings with small keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession

from scep_ra import app
from scep_ra.app import Server, bind_socket
from scep_ra.config import Config, Settings
from scep_ra.parts import utc_now
from scep_ra.storage.base import Device as RegisteredDevice
from scep_ra.storage.base import Store
from tests.support.enrollment import Clock, device_id
from tests.support.front import Profile, Site

SMALL: Final[dict[str, Any]] = {
    "server": {"port": 0, "shutdown_timeout_s": 5.0},
    "ca": {"default": {"key_type": "ec-p256", "tiers": 1}},
}


def configured(data: Path, **tables: Any) -> Settings:
    """Return settings with these tables in place of the small ones."""
    return Settings(config=Config.model_validate({**SMALL, **tables}), config_file=None, data_dir=data)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Server, Site]]:
    """Bring the server up on a free port, with a client beside it."""
    with bind_socket("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        async with app._running(settings, sock, f"http://127.0.0.1:{port}") as server, ClientSession() as session:
            yield server, Site(port=port, session=session)


async def register(store: Store, profile: str = "default") -> str:
    """Register the device, with the common name that it asks for, and return a challenge for it."""
    device = RegisteredDevice(device_id=device_id(), attributes={"CN": "router-1"}, created_at=utc_now())
    await store.add_device(device)
    return await Profile(store=store, clock=Clock(), name=profile).challenge()
