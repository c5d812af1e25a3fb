"""Claims about how configuration becomes what answers headends, on a server in this process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scep_ra.app import Server
from scep_ra.config import Settings
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.headend_parts import make_access_engine, start_radius
from scep_ra.parts import load_authorizers, open_store, utc_now
from scep_ra.radius.packets import Code, Packet
from scep_ra.radius.transport import Address, RadiusClient, Rules
from tests.support.composition import configured, running
from tests.support.headends import SECRET, access_request, accounting_request, free_udp_ports, write_secret
from tests.support.records import make_certificate, make_device, make_enrollment, make_session

HEADEND: Mapping[str, Any] = {"address": "127.0.0.1", "secret_file": "headend.secret"}


@pytest.fixture
def ports() -> list[int]:
    return free_udp_ports(2)


@pytest.fixture
def settings(tmp_path: Path, ports: list[int]) -> Settings:
    data = tmp_path / "var"
    write_secret(data)
    radius = {"bind": "127.0.0.1", "auth_port": ports[0], "accounting_port": ports[1]}
    headend = {**HEADEND, "trustpoint": "RA-TP", "profile": "default", "cert_lifetime_end": True}
    return configured(data, radius=radius, headend={"vpn": headend})


async def ask(port: int, packet: Packet) -> Packet:
    client = RadiusClient([Address(host="127.0.0.1", port=port)], SECRET, Rules())
    try:
        return await client.exchange(packet)
    finally:
        await client.close()


async def issue(server: Server) -> None:
    """Give the registered device a certificate that is good now."""
    now = utc_now()
    enrollment = make_enrollment()
    await server.parts.store.add_device(make_device())
    await server.parts.store.insert_enrollment(enrollment, spend=None)
    certificate = make_certificate(not_before=now, not_after=now + timedelta(days=1), issued_at=now)
    assert await server.parts.store.complete(enrollment.enrollment_id, certificate, now)


async def test_headends_are_answered_while_the_server_runs(settings: Settings, ports: list[int]) -> None:
    """By what their tables say, with the decision of the profile's AAA."""
    async with running(settings) as (server, _):
        assert (await ask(ports[0], access_request())).code is Code.ACCESS_REJECT
        await issue(server)
        accept = await ask(ports[0], access_request())
        assert accept.code is Code.ACCESS_ACCEPT
        pairs = accept.texts("Cisco-AVPair")
        assert [pair.partition("=")[0] for pair in pairs] == [
            "pki:cert-application",
            "pki:cert-trustpoint",
            "pki:cert-serial",
            "pki:cert-lifetime-end",
        ]
        (account,) = accept.values("Class")
        start = accounting_request(1, ("User-Name", "SN123"), ("Acct-Session-Id", "1"), ("Class", account))
        assert (await ask(ports[1], start)).code is Code.ACCOUNTING_RESPONSE
        (session,) = await server.parts.store.list_sessions()
        assert (session.headend, str(session.device_id)) == ("vpn", "serial:SN123")
    with pytest.raises(Unavailable):
        await ask(ports[0], access_request())


async def test_housekeeping_forgets_sessions_that_nobody_speaks_of(settings: Settings) -> None:
    """As long as [radius] says after the last news."""
    async with running(settings) as (server, _):
        now = utc_now()
        for session_id, hours in (("old", 169), ("new", 167)):
            await server.parts.store.record_session(make_session(session_id, updated_at=now - timedelta(hours=hours)))
        await server.keep_house_once()
        assert [each.session_id for each in await server.parts.store.list_sessions()] == ["new"]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda file: file.unlink(), "is not there: write it"),
        (lambda file: file.chmod(0o644), "open to other users"),
        (lambda file: file.write_bytes(b""), "is empty"),
    ],
)
async def test_a_secret_that_is_none_is_told_at_the_start(settings: Settings, spoil: Any, complaint: str) -> None:
    """With the file."""
    spoil(settings.data_dir / "headend.secret")
    with pytest.raises(Misconfigured, match=f"headend.secret .*{complaint}"):
        async with running(settings):
            pytest.fail("it came up")


async def test_without_the_library_the_start_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra."""
    monkeypatch.delitem(sys.modules, "scep_ra.radius_parts", raising=False)
    monkeypatch.setitem(sys.modules, "scep_ra.headend.server", None)
    async with open_store(settings) as store, load_authorizers(settings, store) as authorizers:
        engine = make_access_engine(settings, store, authorizers)
        with pytest.raises(Misconfigured, match=r'pip install "scep-ra\[radius\]"'):
            await start_radius(settings, store, engine)


async def test_without_an_address_no_radius_is_served(tmp_path: Path) -> None:
    """As it comes."""
    async with running(configured(tmp_path / "var")) as (server, _):
        assert server.parts.settings.config.radius.bind == ""


async def test_no_answer_of_aaa_is_not_taken_for_not_yet(tmp_path: Path) -> None:
    """Devices that enroll wait; a headend has to know that nobody could be asked."""
    settings = configured(
        tmp_path / "var",
        aaa={"away": {"type": "command", "argv": ("/nowhere/authorize",)}},
        profile={"default": {"authorizer": "away"}},
    )
    async with open_store(settings) as store, load_authorizers(settings, store) as authorizers:
        engine = make_access_engine(settings, store, authorizers)
        now = utc_now()
        await store.insert_enrollment(make_enrollment(), spend=None)
        certificate = make_certificate(not_before=now, not_after=now + timedelta(days=1), issued_at=now)
        await store.complete(make_enrollment().enrollment_id, certificate, now)
        with pytest.raises((Unavailable, Misconfigured)):
            await engine.decide("SN123", headend="vpn")
