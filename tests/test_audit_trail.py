"""Claims about what the server says of itself for the record."""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

import scep_ra
from scep_ra import app
from scep_ra.audit_trail import AuditTrail, configuration_digest
from scep_ra.config import Config, Settings
from scep_ra.endpoints import Parts
from scep_ra.errors import Unavailable
from scep_ra.parts import load_cas, load_ras, node_name, open_store, utc_now
from scep_ra.storage.audit_chain import AuditEvent, AuditHead, AuditRecord
from scep_ra.storage.sql import SqlStore

SMALL: dict[str, Any] = {
    "server": {"port": 0, "node": "ra1"},
    "ca": {"default": {"key_type": "ec-p256", "tiers": 1}},
}


def configured(data: Path, **tables: Any) -> Settings:
    return Settings(config=Config.model_validate({**SMALL, **tables}), config_file=None, data_dir=data)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[app.Server]:
    with app.bind_socket("127.0.0.1", 0) as sock:
        async with app._running(settings, sock, "http://127.0.0.1") as server:
            yield server


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory whose keys are made once for all tests."""
    data = tmp_path_factory.mktemp("made once") / "var"
    load_cas(configured(data))
    load_ras(configured(data))
    return data


@pytest.fixture
def settings(made_once: Path, tmp_path: Path) -> Settings:
    return configured(shutil.copytree(made_once, tmp_path / "var"))


@pytest.fixture
async def parts(settings: Settings) -> AsyncIterator[Parts]:
    """Return the parts of a server that has recorded its start."""
    async with running(settings) as server:
        yield server.parts


async def recorded(settings: Settings) -> list[AuditRecord]:
    async with open_store(settings) as store:
        return [record async for record in store.audit_records()]


async def test_a_run_is_recorded_from_start_to_stop(settings: Settings) -> None:
    """With the version, the configuration, and the certificate of every key in use."""
    async with running(settings) as server:
        chains, ras = server.parts.chains, server.parts.ras
    start, ca, ra, stop = await recorded(settings)

    assert [record.event for record in (start, ca, ra, stop)] == [
        "server_started",
        "key_loaded",
        "key_loaded",
        "server_stopped",
    ]
    assert {(record.chain, record.actor) for record in (start, ca, ra, stop)} == {("ra1", "server")}
    assert dict(start.facts) == {
        "version": scep_ra.__version__,
        "configuration_sha256": configuration_digest(settings.config),
    }
    assert dict(ca.facts) == {"key": "ca.default", "certificate_sha256": chains["default"][0].fingerprint()}
    assert dict(ra.facts) == {"key": "ra.default", "certificate_sha256": ras["default"].certificate.fingerprint()}


def test_any_option_that_differs_shows_in_the_digest(tmp_path: Path) -> None:
    """And the order in which tables stand in the file does not."""

    def digest(**tables: Any) -> str:
        return configuration_digest(configured(tmp_path, **tables).config)

    one = digest(profile={"a": {}, "b": {}})
    assert one == digest(profile={"b": {}, "a": {}})
    assert one != digest(profile={"a": {}, "b": {"validity_days": 364}})


async def test_a_node_that_is_not_named_is_called_as_its_host(settings: Settings) -> None:
    """Two hosts do not share a chain unless somebody says so; a worker's is given."""
    unnamed = configured(settings.data_dir, server={"port": 0})
    assert (node_name(unnamed), node_name(settings)) == (socket.gethostname(), "ra1")
    for chain in ("", "ra1/2"):
        async with open_store(settings, actor="cli:alice", chain=chain) as store:
            await store.record_audit(AuditEvent.KEY_LOADED, {}, utc_now())
    assert [(record.chain, record.actor) for record in await recorded(settings)] == [
        ("ra1", "cli:alice"),
        ("ra1/2", "cli:alice"),
    ]


async def test_heads_are_reported_when_they_moved(parts: Parts) -> None:
    """As the anchors that `scep-ra audit verify` takes; of all nodes on the store."""
    trail = AuditTrail(parts)
    await trail.report_heads()
    with capture_logs() as log:
        await trail.report_heads()
        await parts.store.record_audit(AuditEvent.KEY_LOADED, {}, utc_now())
        await trail.report_heads()
    [head] = await parts.store.audit_heads()

    assert [(line["event"], line["anchor"]) for line in log] == [("audit_head", str(head))]
    assert AuditHead.parse(log[0]["anchor"]) == head
    assert (log[0]["chain"], log[0]["sequence"], log[0]["digest"]) == ("ra1", 4, head.digest.hex())


async def test_housekeeping_start_and_stop_report_heads(settings: Settings) -> None:
    """Whoever collects the events always holds an anchor that is at most a round old."""
    with capture_logs() as log:
        async with running(settings) as server:
            await server.parts.store.record_audit(AuditEvent.KEY_LOADED, {}, utc_now())
            await server.keep_house_once()

    assert [line["sequence"] for line in log if line["event"] == "audit_head"] == [3, 4, 5]


async def test_an_authorizer_that_accepts_all_is_a_security_event(parts: Parts) -> None:
    """At every start."""
    open_lab = configured(parts.settings.data_dir, aaa={"lab": {"type": "accept-all"}, "registry": {}})
    with capture_logs() as log:
        await AuditTrail(replace(parts, settings=open_lab)).record_start()

    assert [line["authorizer"] for line in log if line["event"] == "accept_all"] == ["lab"]


async def test_nothing_is_served_without_a_record(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start fails; the end does not, and is told in the log."""

    async def fail(*_arguments: object) -> NoReturn:
        raise Unavailable("the database is away")

    monkeypatch.setattr(SqlStore, "record_audit", fail)
    trail = AuditTrail(parts)
    with pytest.raises(Unavailable):
        await trail.record_start()
    with capture_logs() as log:
        await trail.record_stop()

    assert [(line["event"], line["reason"]) for line in log] == [("stop_not_recorded", "the database is away")]
