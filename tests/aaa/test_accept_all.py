"""The authorizer of a lab."""

from __future__ import annotations

import pytest

from scep_ra.aaa.base import Accept, AccessRequest
from scep_ra.aaa.registry import Parts, load_authorizer
from scep_ra.errors import ConfigurationError
from scep_ra.identity.types import parse_device_id
from scep_ra.storage.sql import SqlStore
from tests.support.records import NOW


async def test_everybody_is_accepted() -> None:
    """Whatever the device, the profile and the source."""
    authorizer = load_authorizer("accept-all", Parts(devices=SqlStore.__new__(SqlStore), now=lambda: NOW), {})
    request = AccessRequest(device_id=parse_device_id("SN123"), profile="default", source="192.0.2.1", renewal=False)
    await authorizer.check()
    assert await authorizer.authorize(request) == Accept()


def test_options_are_refused() -> None:
    """There is nothing to set."""
    with pytest.raises(ConfigurationError, match="remove only"):
        load_authorizer("accept-all", Parts(devices=SqlStore.__new__(SqlStore), now=lambda: NOW), {"only": "SN123"})
