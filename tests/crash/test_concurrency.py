"""Claims about many requests at the same moment, at one server and at two nodes over one PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from tests.support.crash_harness import find_faults
from tests.support.databases import KINDS
from tests.support.fleet import Applicant, enroll_at_once, register
from tests.support.node import Node, Site, make_site, make_twin
from tests.support.related_keys import related_keys

CROWD: Final = 256
# All clients have one address here.
MANY_CONNECTIONS: Final = "[limits]\nmax_connections_per_address = 1000\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Two nodes that serve one store."""

    site: Site
    base_urls: Sequence[str]


@asynccontextmanager
async def running_cluster(tmp_path: Path, dsn: str, toml: str = "") -> AsyncIterator[Cluster]:
    site = make_site(tmp_path / "first", dsn=dsn, toml=toml)
    async with Node.running(site) as first, Node.running(make_twin(site, tmp_path / "second")) as second:
        yield Cluster(site=site, base_urls=[first.base_url, second.base_url])


def new_site(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    dsn = request.getfixturevalue("postgresql_dsn") if kind == "postgresql" else None
    return make_site(tmp_path, dsn=dsn, toml=MANY_CONNECTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_every_device_of_a_crowd_gets_its_own_certificate(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """256 clients at once: no serial is lost, none is given twice, and each device has what the store has for it."""
    site = new_site(kind, tmp_path, request)
    async with Node.running(site) as node:
        got = await enroll_at_once([node.base_url], await register(site, CROWD), site.ra_certificate)
    acknowledged = {applicant.device_serial: der for applicant, der in got if der is not None}
    assert len(acknowledged) == CROWD
    assert await find_faults(site, acknowledged, None) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_one_challenge_is_worth_one_certificate(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """100 requests at once with one challenge and a key each: one is granted, 99 are refused."""
    site = new_site(kind, tmp_path, request)
    async with Node.running(site) as node:
        (honest,) = await register(site, 1)
        thieves = [replace(honest, key=key) for key in related_keys(100)]
        got = await enroll_at_once([node.base_url], thieves, site.ra_certificate)
    (certificate,) = [der for _, der in got if der is not None]
    assert await find_faults(site, {honest.device_serial: certificate}, None) == []


@pytest.mark.slow
async def test_two_nodes_that_get_one_request_issue_once(tmp_path: Path, postgresql_dsn: str) -> None:
    """The same request at two nodes at the same moment: both answer with the one certificate."""
    async with running_cluster(tmp_path, postgresql_dsn) as cluster:
        applicants = await register(cluster.site, 40)
        got = await enroll_at_once(cluster.base_urls, applicants, cluster.site.ra_certificate)
    answers = _by_device(got)
    assert {len(certificates) for certificates in answers.values()} == {2}
    assert all(len(set(certificates)) == 1 for certificates in answers.values())
    acknowledged = {device_serial: certificates[0] for device_serial, certificates in answers.items()}
    assert await find_faults(cluster.site, acknowledged, None) == []


@pytest.mark.slow
@pytest.mark.parametrize("rule", ['second_key = "refuse"', "max_active_certificates = 1"])
async def test_two_nodes_keep_the_limit_of_a_device_together(rule: str, tmp_path: Path, postgresql_dsn: str) -> None:
    """A device that may have one certificate asks for two under two keys, at both nodes: it gets one."""
    async with running_cluster(tmp_path, postgresql_dsn, f"[profile.default]\n{rule}\n") as cluster:
        applicants = await register(cluster.site, 20, challenges=2)
        got = await enroll_at_once(cluster.base_urls, applicants, cluster.site.ra_certificate)
    answers = _by_device(got)
    assert len(answers) == 20
    assert all(len(set(certificates)) == 1 for certificates in answers.values())
    acknowledged = {device_serial: certificates[0] for device_serial, certificates in answers.items()}
    assert await find_faults(cluster.site, acknowledged, None) == []


def _by_device(got: Sequence[tuple[Applicant, bytes | None]]) -> dict[str, list[bytes]]:
    """Return the certificates that each device was given, in the order of the answers."""
    answers: dict[str, list[bytes]] = {}
    for applicant, der in got:
        if der is not None:
            answers.setdefault(applicant.device_serial, []).append(der)
    return answers
