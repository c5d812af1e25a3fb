"""The embedded registry decides by its entries alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Reject
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import Device, Store
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.records import HOUR, NOW, device_id, make_device

DIGITS = "490154203237518"  # a serial and an IMEI alike


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = SqlStore(await SqliteDatabase.open(tmp_path / "store.sqlite", busy_timeout_s=0.02))
    yield store
    await store.close()


@pytest.fixture
def authorizer(store: Store) -> Authorizer:
    return RegistryAuthorizer(store, lambda: NOW)


def ask(device: DeviceID, profile: str = "default") -> AccessRequest:
    return AccessRequest(device_id=device, profile=profile, source="127.0.0.1", renewal=False)


async def test_an_unknown_device_is_rejected(authorizer: Authorizer) -> None:
    """Deny by default."""
    assert await authorizer.authorize(ask(device_id())) == Reject(reason="device not registered")


async def test_a_registered_device_is_accepted_with_what_is_known_of_it(authorizer: Authorizer, store: Store) -> None:
    """Empty fields are left out."""
    await store.add_device(make_device("SN1"))
    await store.add_device(make_device("SN2", user="alice", note="spare", profile="default"))
    assert await authorizer.authorize(ask(device_id("SN1"))) == Accept(attributes={"device": "serial:SN1"})
    assert await authorizer.authorize(ask(device_id("SN2"))) == Accept(
        attributes={"device": "serial:SN2", "user": "alice", "note": "spare"}
    )


async def test_what_the_entry_says_shapes_the_certificate(authorizer: Authorizer, store: Store) -> None:
    """End, services, approval and free attributes; one of these names the profile of the contents."""
    device = make_device(
        valid_until=NOW + HOUR,
        services=("vpn", "wifi"),
        approval=True,
        attributes={"department": "sales", "certificate_profile": "long"},
    )
    await store.add_device(device)
    assert await authorizer.authorize(ask(device_id())) == Accept(
        attributes={"department": "sales", "certificate_profile": "long", "device": "serial:SN123"},
        not_after=NOW + HOUR,
        profile="long",
        services=frozenset({"vpn", "wifi"}),
        approval=True,
    )


async def test_a_free_attribute_cannot_pass_for_a_field_of_the_entry(authorizer: Authorizer, store: Store) -> None:
    """Whoever may only note facts about a device cannot make it another one, nor another user's."""
    attributes = {"device": "serial:SN999", "user": "mallory", "note": "trusted"}
    await store.add_device(make_device(user="alice", attributes=attributes))
    decision = await authorizer.authorize(ask(device_id()))
    assert decision == Accept(attributes={"device": "serial:SN123", "user": "alice"})


async def test_a_device_is_rejected_from_its_end_on(store: Store) -> None:
    """At that very moment its certificate would already have ended."""
    await store.add_device(make_device(valid_until=NOW))
    before = RegistryAuthorizer(store, lambda: NOW - timedelta(microseconds=1))
    assert isinstance(await before.authorize(ask(device_id())), Accept)
    at_end = RegistryAuthorizer(store, lambda: NOW)
    assert await at_end.authorize(ask(device_id())) == Reject(reason="device was registered until 2026-03-01 12:00:00Z")


async def test_a_disabled_device_is_rejected(authorizer: Authorizer, store: Store) -> None:
    """From the moment it is disabled, without a cache."""
    await store.add_device(make_device())
    assert isinstance(await authorizer.authorize(ask(device_id())), Accept)
    await store.set_device_enabled(device_id(), False, NOW)
    assert await authorizer.authorize(ask(device_id())) == Reject(reason="device is disabled")


async def test_a_device_of_another_profile_is_rejected(authorizer: Authorizer, store: Store) -> None:
    """The reason names the profile that it is bound to."""
    await store.add_device(make_device(profile="vpn"))
    assert await authorizer.authorize(ask(device_id())) == Reject(reason="device is bound to profile vpn")
    assert isinstance(await authorizer.authorize(ask(device_id(), "vpn")), Accept)


async def test_a_device_registered_under_another_kind_is_found_by_its_value(
    authorizer: Authorizer, store: Store
) -> None:
    """Its entry decides as if it had been asked for by its kind."""
    await store.add_device(make_device(device_id=device_id(DIGITS, DeviceIDKind.IMEI)))
    found = await authorizer.authorize(ask(device_id(DIGITS)))
    assert found == Accept(attributes={"device": f"imei:{DIGITS}"})
    await store.set_device_enabled(device_id(DIGITS, DeviceIDKind.IMEI), False, NOW)
    assert await authorizer.authorize(ask(device_id(DIGITS))) == Reject(reason="device is disabled")


async def test_the_exact_kind_wins_over_the_same_value_of_another(authorizer: Authorizer, store: Store) -> None:
    """A disabled exact entry is not outvoted."""
    await store.add_device(make_device(DIGITS, enabled=False))
    await store.add_device(make_device(device_id=device_id(DIGITS, DeviceIDKind.IMEI)))
    assert await authorizer.authorize(ask(device_id(DIGITS))) == Reject(reason="device is disabled")


async def test_a_value_that_several_devices_share_is_rejected(authorizer: Authorizer, store: Store) -> None:
    """Guessing could hand one device the other's certificate; the operator reads which they are."""
    value = "1.3.6.1.4.1.9:AB12"
    await store.add_device(make_device(value))
    await store.add_device(make_device(device_id=device_id(value, DeviceIDKind.HARDWARE_MODULE)))
    decision = await authorizer.authorize(ask(device_id(value, DeviceIDKind.PERMANENT_IDENTIFIER)))
    assert isinstance(decision, Reject)
    assert decision.reason.endswith(f"hwmodule:{value}, serial:{value}")


async def test_the_check_reads_the_registry(authorizer: Authorizer, store: Store) -> None:
    """Passes on an empty registry, and passes an outage on."""

    class Down(SqlStore):
        async def devices_by_value(self, value: str) -> Sequence[Device]:
            raise Unavailable(value)

    await authorizer.check()
    with pytest.raises(Unavailable):
        await RegistryAuthorizer(Down.__new__(Down), lambda: NOW).check()
