"""Claims about the composition root: what waits is approved, refusals are put on record, and guessing locks out.

The clients here are real and the server runs in this process.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs

from scep_ra import app
from scep_ra.app import Server, bind_socket
from scep_ra.config import Config, ProfileConfig, Settings
from scep_ra.endpoints import _lockout
from scep_ra.enrollment.approval import ApprovalDesk
from scep_ra.enrollment.decisions import DecisionRecord, decode_record, encode_record
from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.parts import open_store, utc_now
from scep_ra.pki import oids
from scep_ra.scep.client import IssuedCertificate, StillPending
from scep_ra.storage.base import DecisionOutcome, StoredDecision
from scep_ra.storage.base import Device as RegisteredDevice
from tests.support.enrollment import Clock, device_id
from tests.support.front import Device, Profile, Site
from tests.support.scep_replies import read_reply

STATIC = {"challenge": "static", "static_challenge_sha256": hashlib.sha256(b"lab-secret").hexdigest()}


def configured(data: Path, **tables: Any) -> Settings:
    small = {"server": {"port": 0}, "ca": {"default": {"key_type": "ec-p256", "tiers": 1}}}
    return Settings(config=Config.model_validate({**small, **tables}), config_file=None, data_dir=data)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Server, Site]]:
    with bind_socket("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        async with app._running(settings, sock, f"http://127.0.0.1:{port}") as server, ClientSession() as session:
            yield server, Site(port=port, session=session)


def refusal(number: int, age: timedelta) -> StoredDecision:
    return StoredDecision(
        decision_id=f"{number:032x}",
        decided_at=utc_now() - age,
        profile="default",
        transaction_id="TX1",
        source="192.0.2.1",
        device_id=None,
        outcome=DecisionOutcome.REFUSED,
        code="integrity",
        record=encode_record(DecisionRecord(signer="x")),
    )


async def test_a_device_polls_until_an_operator_has_approved(tmp_path: Path) -> None:
    """Whoever sends the request again instead of polling, as scepclient does, gets the same certificate."""
    settings = configured(tmp_path / "var", profile={"default": {"approval": "first", "subject_unchecked": True}})
    async with running(settings) as (server, site):
        store, authorizers = server.parts.store, server.parts.authorizers
        desk = ApprovalDesk(store=store, authorizers={"default": authorizers["registry"]}, now=utc_now)
        await store.add_device(RegisteredDevice(device_id=device_id(), created_at=utc_now()))
        device, secret = Device(site=site), await Profile(store=store, clock=Clock()).challenge()
        transaction = await device.transaction()
        call = transaction.enroll(device.csr(secret))
        assert isinstance(await device.ask(transaction, call), StillPending)
        assert isinstance(await device.ask(transaction, transaction.poll()), StillPending)

        (waits,) = await desk.waiting()
        assert waits.hold == "the profile demands approval"
        await desk.approve(waits.enrollment_id, by="alice")

        polled = await device.ask(transaction, transaction.poll())
        sent_again = await device.send(call)
        (issued,) = await store.list_certificates()
    assert isinstance(polled, IssuedCertificate)
    assert polled.certificate.der == issued.der
    reply = read_reply(sent_again.body, server.parts.ras["default"].certificate)
    assert reply.text(oids.PKI_STATUS) == "0"


async def test_what_was_refused_is_on_record_when_the_server_has_ended(tmp_path: Path) -> None:
    """The last one, too: it is written before the store is closed."""
    settings = configured(tmp_path / "var")
    async with running(settings) as (_, site):
        await Device(site=site).enroll("wrong")

    async with open_store(settings) as store:
        (decision,) = await store.list_decisions()
    assert (decision.outcome, decision.code, decision.source) == (
        DecisionOutcome.REFUSED, "not_authorized", "127.0.0.1",
    )  # fmt: skip


async def test_old_refusals_are_let_go(tmp_path: Path) -> None:
    """After the configured days, and beyond the configured number the oldest first."""
    settings = configured(tmp_path / "var", storage={"keep_refusals_days": 2, "keep_refusals": 3})
    async with running(settings) as (server, _):
        ages = [timedelta(hours=hours) for hours in (1, 47, 49, 90)]
        await server._store.add_decisions([refusal(number, age) for number, age in enumerate(ages)])
        await server.keep_house_once()
        kept = [decision.decision_id for decision in await server._store.list_decisions()]
        assert kept == [f"{number:032x}" for number in (0, 1)]

        await server._store.add_decisions([refusal(number, timedelta(minutes=number)) for number in (7, 8)])
        await server.keep_house_once()
        kept = [decision.decision_id for decision in await server._store.list_decisions()]
        assert kept == [f"{number:032x}" for number in (7, 8, 0)]


async def test_whoever_guesses_a_static_challenge_is_locked_out(tmp_path: Path) -> None:
    """Even the right one is then refused, and the record says why; the lock is a security event."""
    settings = configured(tmp_path / "var", profile={"default": {**STATIC, "lockout_attempts": 2}})
    with capture_logs() as log:
        async with running(settings) as (server, site):
            device = Device(site=site)
            wrong = [await device.enroll(guess) for guess in ("wrong", "worse", "lab-secret")]
            await server.parts.refusals.close()
            records = [decode_record(each.record) for each in await server._store.list_decisions()]

    assert len(set(wrong)) == 1
    assert [line["locked"] for line in log if line["event"] == "lockout"] == ["device", "source"]
    assert len(records) == 2
    assert "missing or wrong" in records[0].reason


async def test_the_limit_of_an_address_reaches_the_endpoint(tmp_path: Path) -> None:
    """Ten at once are always free."""
    settings = configured(tmp_path / "var", limits={"max_requests_per_address_per_s": 0.001})
    async with running(settings) as (_, site):
        statuses = [(await site.get("/scep?operation=GetCACaps")).status for _ in range(11)]

    assert statuses == [200] * 10 + [503]


@pytest.mark.parametrize(("attempts", "workers", "share"), [(10, 1, 10), (10, 4, 2), (3, 8, 1)])
def test_workers_share_the_attempts_of_a_lockout(attempts: int, workers: int, share: int) -> None:
    """At least one for each."""
    lockout = _lockout(ProfileConfig(lockout_attempts=attempts, lockout_window_s=60.0), workers)
    for _ in range(share):
        lockout.check("192.0.2.1", device_id())
        assert not lockout.failed("192.0.2.1", device_id())
    with pytest.raises(NotAuthorized, match=f"after {share} wrong"):
        lockout.check("192.0.2.1", device_id())


def test_no_attempts_are_shared_as_none() -> None:
    """The lock stays off, however many workers there are."""
    lockout = _lockout(ProfileConfig(lockout_attempts=0), 4)
    assert not any(lockout.failed("192.0.2.1", device_id()) for _ in range(100))
    lockout.check("192.0.2.1", device_id())
