"""Claims about a disconnect that is interrupted: what the transaction has promised is sent by whoever runs next."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from scep_ra.config import Settings
from scep_ra.parts import open_store
from scep_ra.radius.packets import Code
from scep_ra.storage.sessions import OutboxMessage
from scep_ra.storage.sql import SqlStore
from tests.support.composition import configured, running
from tests.support.databases import KINDS
from tests.support.outbox import answering, read_request
from tests.support.radius_server import SECRET, FakeServer, fake_server, silent
from tests.support.records import device_id, make_device, make_session

# Dies between the commit and the first datagram.
CRASHER = """
import asyncio, os, signal, sys
from scep_ra.config import Settings
from scep_ra.headend.outbox import Outbox
from scep_ra.disconnect_parts import LateCRLs, make_disconnects, make_outbox
from scep_ra.identity.types import parse_device_id
from scep_ra.parts import open_store
from scep_ra.storage.sessions import EntryChange

async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    settings = Settings.model_validate_json(sys.argv[1])
    Outbox.start_sending = die
    async with open_store(settings) as store:
        outbox = make_outbox(settings, store)
        service = make_disconnects(settings, store, outbox, LateCRLs(settings, store), {})
        await service.disconnect(parse_device_id("serial:SN123"), entry=EntryChange.DISABLE, by="alice")

asyncio.run(main())
"""


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return the [storage] of a node, the same for all nodes of a test."""
    if request.param == "sqlite":
        return {"type": "sqlite"}
    return {"type": "postgresql", "dsn": request.getfixturevalue("postgresql_dsn")}


def settings_for(data: Path, storage: dict[str, object], headend: FakeServer) -> Settings:
    data.mkdir(mode=0o700, exist_ok=True)
    secret = data / "headend.secret"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET)
    vpn = {
        "address": "127.0.0.1",
        "secret_file": "headend.secret",
        "disconnect_port": headend.address.port,
    }
    return configured(data, storage=storage, headend={"vpn": vpn})


@pytest.fixture
async def headend() -> AsyncIterator[FakeServer]:
    async with fake_server(answering(Code.DISCONNECT_ACK)) as server:
        yield server


async def connect(settings: Settings) -> None:
    async with open_store(settings) as store:
        await store.add_device(make_device())
        await store.record_session(make_session(nas_address="127.0.0.1"))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[str]:
    """Return where the ID of each message is put once it is settled, by whatever node."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    settle = SqlStore.settle_message

    async def settle_and_tell(store: SqlStore, message_id: str, now: datetime, result: str) -> None:
        await settle(store, message_id, now, result)
        await queue.put(message_id)

    monkeypatch.setattr(SqlStore, "settle_message", settle_and_tell)
    return queue


async def outcome(settings: Settings, settled: asyncio.Queue[str]) -> OutboxMessage:
    """Wait until the message is settled and return it."""
    async with asyncio.timeout(20), open_store(settings) as store:
        (message,) = await store.messages_of([await settled.get()])
        return message


async def crash(settings: Settings) -> None:
    command = [sys.executable, "-c", CRASHER, settings.model_dump_json()]
    done = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


async def test_a_process_killed_after_the_commit_leaves_the_sending_to_the_server(
    tmp_path: Path, storage: dict[str, object], headend: FakeServer, settled: asyncio.Queue[str]
) -> None:
    """The device is off by then; the headend hears of it once."""
    settings = settings_for(tmp_path / "var", storage, headend)
    await connect(settings)
    await crash(settings)
    assert headend.received == []
    async with open_store(settings) as store:
        assert await store.device(device_id()) == make_device(enabled=False)
    async with running(settings):
        message = await outcome(settings, settled)
    assert (message.result, message.attempts) == ("ack", 1)
    assert [read_request(each).text("Acct-Session-Id") for each in headend.received] == ["0A1B"]


async def test_of_two_nodes_one_sends(
    tmp_path: Path, storage: dict[str, object], headend: FakeServer, settled: asyncio.Queue[str]
) -> None:
    """Both run when the message comes; a second one would reach a session that is gone."""
    settings = settings_for(tmp_path / "var", storage, headend)
    await connect(settings)
    async with running(settings), running(settings):
        await crash(settings)
        assert (await outcome(settings, settled)).attempts == 1
    assert len(headend.received) == 1


async def test_a_headend_that_was_away_hears_of_it_after_a_restart_of_the_server(
    tmp_path: Path, storage: dict[str, object], settled: asyncio.Queue[str]
) -> None:
    """It comes back at the same address, to a server that has forgotten everything but its store."""
    async with fake_server(silent) as dead:
        port = dead.address.port
        settings = settings_for(tmp_path / "var", storage, dead)
        await connect(settings)
        await crash(settings)
        async with running(settings):
            await dead.wait_for(1)
    async with fake_server(answering(Code.DISCONNECT_ACK), port=port), running(settings):
        message = await outcome(settings, settled)
    assert (message.result, message.attempts) == ("ack", 2)
