"""What every store must do when it is asked which certificates a device may show, whatever database is under it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import Retirement, Store
from scep_ra.storage.sql import SqlStore
from tests.support.databases import KINDS, database_opener
from tests.support.records import CESSATION, HOUR, NOW, SERIAL, device_id, make_certificate, make_enrollment, make_key

SECOND = timedelta(seconds=1)
MAC = DeviceID(kind=DeviceIDKind.MAC, value="02:00:5e:10:00:01")


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    store = SqlStore(await database_opener(request.param, request)())
    yield store
    await store.close()


async def issue(
    store: Store,
    number: int = 1,
    *,
    device: DeviceID | None = None,
    renewal_of: int | None = None,
    retirement: Retirement | None = None,
    **fields: Any,
) -> None:
    """Take an enrollment all the way to its certificate, a second later than the one before."""
    holder = device or device_id()
    enrollment = make_enrollment(number, key=make_key(f"TX{number}"), device_id=holder, renewal_of=renewal_of)
    await store.insert_enrollment(enrollment, spend=None)
    certificate = make_certificate(number, device_id=holder, issued_at=NOW + number * SECOND, **fields)
    assert await store.complete(enrollment.enrollment_id, certificate, NOW, retirement=retirement or Retirement())


async def current(store: Store, *devices: DeviceID, at: timedelta = timedelta()) -> list[int]:
    """Return the numbers of the certificates that are current."""
    found = await store.current_certificates(devices or [device_id()], NOW + at)
    return [each.certificate_serial - SERIAL for each in found]


async def test_the_newest_certificate_comes_first(store: Store) -> None:
    """Of all the devices that were asked about, and of no other."""
    await issue(store, 1)
    await issue(store, 2, device=MAC)
    await issue(store, 3)
    await issue(store, 4, device=device_id("SN9"))
    assert await current(store, device_id(), MAC) == [3, 2, 1]
    assert await current(store, MAC) == [2]
    assert await store.current_certificates([], NOW) == []


async def test_an_expired_certificate_is_not_current(store: Store) -> None:
    """From the second of its end on."""
    await issue(store, not_after=NOW + HOUR)
    assert await current(store, at=HOUR - SECOND) == [1]
    assert await current(store, at=HOUR) == []


async def test_a_revoked_certificate_is_not_current(store: Store) -> None:
    """The one beside it is."""
    await issue(store, 1)
    await issue(store, 2)
    await store.revoke_certificate("default", SERIAL + 2, NOW, CESSATION)
    assert await current(store) == [1]


async def test_a_renewed_certificate_is_not_current(store: Store) -> None:
    """Not even when its successor was revoked."""
    await issue(store, 1)
    await issue(store, 2, renewal_of=SERIAL + 1)
    assert await current(store) == [2]
    await store.revoke_certificate("default", SERIAL + 2, NOW, CESSATION)
    assert await current(store) == []


async def test_a_replaced_certificate_is_current_until_it_is_to_be_revoked(store: Store) -> None:
    """It does not wait for the housekeeping that revokes it."""
    await issue(store, 1)
    await issue(store, 2, retirement=Retirement(others_at=NOW + HOUR))
    assert await current(store, at=HOUR - SECOND) == [2, 1]
    assert await current(store, at=HOUR) == [2]
