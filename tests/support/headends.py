"""An access engine over a store with certificates, as headends meet it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from scep_ra.headend.access import AccessEngine, ProfileAccess
from scep_ra.headend.radius_headends import RadiusHeadend
from scep_ra.identity.types import DeviceID
from scep_ra.storage.base import Store
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.enrollment import ScriptedAuthorizer
from tests.support.records import NOW, SERIAL, device_id, make_certificate, make_enrollment, make_key

SECRET = b"testing123"


@dataclass(kw_only=True)
class Gate:
    """A store with certificates, an AAA that answers by a script, and the engine over both."""

    store: Store
    aaa: ScriptedAuthorizer = field(default_factory=ScriptedAuthorizer)
    now: datetime = NOW
    service: str = ""

    @property
    def engine(self) -> AccessEngine:
        access = ProfileAccess(authorizer=self.aaa, service=self.service)
        return AccessEngine(certificates=self.store, profiles={"default": access, "wifi": access}, now=lambda: self.now)

    async def issue(
        self, number: int = 1, device: DeviceID | None = None, *, renewal_of: int | None = None, **fields: Any
    ) -> int:
        """Store the certificate with this number, and return its serial."""
        holder = device or device_id()
        enrollment = make_enrollment(number, key=make_key(f"TX{number}"), device_id=holder, renewal_of=renewal_of)
        await self.store.insert_enrollment(enrollment, spend=None)
        certificate = make_certificate(number, device_id=holder, **fields)
        assert await self.store.complete(enrollment.enrollment_id, certificate, NOW)
        return SERIAL + number


@contextlib.asynccontextmanager
async def open_gate(directory: Path, **fields: Any) -> AsyncIterator[Gate]:
    """Open a gate over an empty SQLite store."""
    store = SqlStore(await SqliteDatabase.open(directory / "gate.sqlite"))
    try:
        yield Gate(store=store, **fields)
    finally:
        await store.close()


def make_headend(name: str = "vpn", network: str = "127.0.0.1", **fields: Any) -> RadiusHeadend:
    return replace(RadiusHeadend(name=name, network=ip_network(network), secret=SECRET), **fields)
