"""A store in a file, and one profile over it whose AAA and CA say yes until a test says otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scep_ra.storage.base import Store
from tests.support.enrollment import Clock, Office, ScriptedAuthorizer, ScriptedCA, local_ca, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def second_store(tmp_path: Path, store: Store) -> AsyncIterator[Store]:
    """Another node on the same database."""
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aaa() -> ScriptedAuthorizer:
    return ScriptedAuthorizer()


@pytest.fixture
def ca(clock: Clock) -> ScriptedCA:
    return ScriptedCA(local_ca(now=clock))


@pytest.fixture
def office(store: Store, aaa: ScriptedAuthorizer, ca: ScriptedCA, clock: Clock) -> Office:
    return Office(store=store, authorizer=aaa, ca=ca, clock=clock)
