"""Claims about the composition root: that the parts are joined as the configuration says, come up, and go down.

The clients here are real and the server runs in this process; `tests/cli` starts it as a command.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs

from scep_ra import app
from scep_ra.aaa.base import Accept, Defer
from scep_ra.app import Health, Server, bind_socket
from scep_ra.config import Settings
from scep_ra.enrollment.service import EnrollmentService
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.parts import load_cas, load_ras, open_store, utc_now
from scep_ra.pki.certificates import Certificate
from scep_ra.revocation.crl import RevocationReason
from scep_ra.scep.client import IssuedCertificate
from tests.support.composition import configured, register, running
from tests.support.enrollment import DEVICE, RULES, Clock, Office, ScriptedAuthorizer, ScriptedCA, device_id, fail
from tests.support.front import Device
from tests.support.ocsp import ask, statuses
from tests.support.raw_http import connect


@pytest.fixture(scope="session")
def made_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data directory whose keys are made once for all tests."""
    data = tmp_path_factory.mktemp("made before") / "var"
    load_cas(configured(data))
    load_ras(configured(data))
    return data


@pytest.fixture
def data(made_before: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_before, tmp_path / "var")


@pytest.fixture
def settings(data: Path) -> Settings:
    return configured(data)


def extensions(certificate: Certificate) -> bytes:
    return b"".join(extension.value for extension in certificate.extensions)


async def closed(port: int) -> None:
    """Wait until nobody is let in any more."""
    try:
        while True:
            async with connect(port):
                pass
    except ConnectionError:
        return


# --- up and down ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_from_the_announcement_to_the_signal(settings: Settings, number: signal.Signals) -> None:
    """And ends without complaint, the port free for the next."""
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(app.serve(settings, lambda parts: announced.set_result(parts.public_url)))
    url = await announced
    async with ClientSession() as session, session.get(f"{url}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, [])

    os.kill(os.getpid(), number)
    await serving

    bind_socket("127.0.0.1", int(url.rpartition(":")[2])).close()


async def test_a_request_that_has_begun_is_answered_before_the_end(settings: Settings) -> None:
    """A supervisor's SIGTERM costs no device its certificate."""
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(app.serve(settings, lambda parts: announced.set_result(parts.public_url)))
    port = int((await announced).rpartition(":")[2])
    async with connect(port) as client:
        client.send(b"POST /scep HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await client.answer()).status == 100
        os.kill(os.getpid(), signal.SIGTERM)
        await closed(port)
        client.send(b"abc")
        assert (await client.answer()).status == 400
    await serving


async def test_the_first_start_makes_everything(tmp_path: Path) -> None:
    """From no directory at all to a server that is ready, with the keys private."""
    settings = configured(tmp_path / "var")
    async with running(settings) as (_, site):
        assert (await site.get("/readyz")).status == 200

    names = {str(path.relative_to(settings.data_dir)) for path in settings.data_dir.rglob("*") if path.is_file()}
    assert names == {
        "scep-ra.toml",
        "scep-ra.sqlite",
        "ca/default/issuing.key",
        "ca/default/issuing.pem",
        "ca/default/ocsp.key",
        "ra/default/ra.key",
        "ra/default/ra.pem",
    }
    assert not [path for path in settings.data_dir.rglob("*") if path.stat().st_mode & 0o077]


async def test_a_port_that_is_taken_is_said_before_anything_is_made(tmp_path: Path) -> None:
    """Which one, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = configured(tmp_path / "var", server={"port": port})
        with pytest.raises(Misconfigured, match=f"cannot listen on 127.0.0.1 port {port}: .*--bind or --port"):
            await app.serve(settings, lambda _: None)
    assert not (tmp_path / "var").exists()


def test_an_address_that_is_not_ours_is_said() -> None:
    """TEST-NET-1 belongs to nobody."""
    with pytest.raises(Misconfigured, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        bind_socket("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://ra.example:80"),
        ("::", "http://ra.example:80"),
    ],
)
def test_without_a_public_url_it_is_put_together(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a wildcard the machine's name stands."""
    monkeypatch.setattr(socket, "getfqdn", lambda: "ra.example")

    assert app._own_url(host, 80) == url


# --- joined --------------------------------------------------------------------------------------------------------


async def test_a_registered_device_enrolls_and_its_certificate_leads_to_the_crl(settings: Settings) -> None:
    """From HTTP to the key on disk; the URLs in the certificate are served."""
    async with running(settings) as (server, site):
        challenge = await register(server.parts.store)
        answer = await Device(site=site).enroll(challenge)

        assert isinstance(answer, IssuedCertificate)
        for path in ("/crl/default.crl", "/certs/default.cer"):
            assert f"http://127.0.0.1:{site.port}{path}".encode() in extensions(answer.certificate)
            assert (await site.get(path)).status == 200
        assert (await site.get("/certs/default.cer")).body == server.parts.chains["default"][0].der
        assert (await site.get("/crl/other.crl")).status == 404


async def test_a_certificate_leads_to_ocsp_and_its_revocation_counts_at_once(settings: Settings) -> None:
    """As for the CRL, and readiness says whether answers can be signed."""
    async with running(settings) as (server, site):
        answer = await Device(site=site).enroll(await register(server.parts.store))
        assert isinstance(answer, IssuedCertificate)
        assert f"http://127.0.0.1:{site.port}/ocsp/default".encode() in extensions(answer.certificate)

        serial, issuer = answer.certificate.certificate_serial, server.parts.chains["default"][0]
        before = await site.send("POST", "/ocsp/default", ask(issuer, serial))
        await server.parts.revocations.revoke("default", serial, RevocationReason.KEY_COMPROMISE)
        after = await site.send("POST", "/ocsp/default", ask(issuer, serial))

        assert (statuses(before.body), statuses(after.body)) == ([(serial, "good")], [(serial, "revoked")])
        assert server.health.checks(["ocsp.default"])["ocsp.default"]() is None


async def test_a_ca_without_ocsp_leaves_no_trace_of_it(data: Path) -> None:
    """No URL in certificates, nobody who answers, no key."""
    small = {"key_type": "ec-p256", "tiers": 1, "ocsp": False}
    async with running(configured(data, ca={"default": small})) as (server, site):
        answer = await Device(site=site).enroll(await register(server.parts.store))

        assert isinstance(answer, IssuedCertificate)
        assert b"/ocsp" not in extensions(answer.certificate)
        assert (await site.send("POST", "/ocsp/default", b"\x30\x00")).status == 404
    assert not (data / "ca/default/ocsp.key").exists()


async def test_a_device_that_is_not_registered_does_not(settings: Settings) -> None:
    """A challenge alone is not enough."""
    async with running(settings) as (server, site):
        challenge = await register(server.parts.store)
        await server.parts.store.set_device_enabled(device_id(), False, utc_now())

        assert not isinstance(await Device(site=site).enroll(challenge), IssuedCertificate)


async def test_messages_are_bounded_as_configured(data: Path) -> None:
    """Base64 of a message of full size still fits."""
    async with running(configured(data, limits={"max_message_bytes": 16384})) as (_, site):
        for size, status in ((16384, 400), (16385, 413), (16384 * 3, 413)):
            answer = await site.send("POST", "/scep?operation=PKIOperation", b"\x30".ljust(size, b"\x00"))
            assert answer.status == status


# --- health --------------------------------------------------------------------------------------------------------


def test_nothing_is_well_before_it_was_checked() -> None:
    """Least of all the start."""
    health = Health()
    checks = health.checks(["start", "store"])
    assert {name: check() for name, check in checks.items()} == {"start": "not started yet", "store": "not checked yet"}

    health.note("start", None)
    health.note("store", "disk full")
    assert {name: check() for name, check in checks.items()} == {"start": None, "store": "disk full"}


async def test_readiness_follows_store_aaa_and_ca(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one round of checks to the next; liveness does not care."""
    async with running(settings) as (server, site):

        async def broken() -> None:
            raise Unavailable("out of order")

        with monkeypatch.context() as patch, capture_logs() as log:
            for part in (server._store, server.parts.authorities["default"], server.parts.authorizers["registry"]):
                patch.setattr(part, "check", broken)
            await server.keep_house_once()
            answer = await site.get("/readyz")
            assert (answer.status, (await site.get("/healthz")).status) == (503, 200)
        names = ["store", "aaa.registry", "ca.default"]
        assert [line["check"] for line in log if line["event"] == "check_failed"] == names
        assert all(name.encode() in answer.body for name in names)

        await server.keep_house_once()
        assert (await site.get("/readyz")).status == 200


# --- unfinished business -------------------------------------------------------------------------------------------


async def leave_an_intent(settings: Settings, *, profile: str = "default", owner: str = "device") -> None:
    """Enroll up to the moment between intent and signature, as a process that is killed there."""
    async with open_store(settings) as store:
        authority: Any = load_cas(settings)["default"]
        office = Office(
            store=store,
            authorizer=ScriptedAuthorizer(),
            ca=ScriptedCA(authority, fail(asyncio.CancelledError())),
            clock=Clock(),
        ).with_rules(profile=profile)
        with pytest.raises(asyncio.CancelledError):
            await office.submit(await office.request(owner=owner))


async def test_the_start_carries_out_what_a_crash_left(settings: Settings) -> None:
    """Before the first request is answered."""
    await leave_an_intent(settings)

    async with running(settings) as (server, _):
        assert await server._store.open_intents() == []
        (certificate,) = await server._store.list_certificates()

    assert str(certificate.device_id) == f"serial:{DEVICE}"


async def test_what_cannot_be_carried_out_is_logged_and_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that is gone, a backend that fails, a bug: none keeps the others from being carried out."""
    await leave_an_intent(settings, profile="gone")
    for owner in ("first", "second", "third"):
        await leave_an_intent(settings, owner=owner)
    script: list[Exception | None] = [Unavailable("the disk is full"), KeyError("bug"), None]
    honest = EnrollmentService.resume

    async def resume(service: Any, enrollment: Any) -> Any:
        error = script.pop(0)
        if error is not None:
            raise error
        return await honest(service, enrollment)

    monkeypatch.setattr(EnrollmentService, "resume", resume)
    with capture_logs() as log:
        async with running(settings) as (server, _):
            assert len(await server._store.open_intents()) == 3
            assert len(await server._store.list_certificates()) == 1

    failed = [line for line in log if line["event"] in ("intent_without_profile", "intent_failed")]
    assert [line["log_level"] for line in failed] == ["warning", "warning", "error"]
    assert all(line["enrollment_id"] for line in failed)


# --- housekeeping --------------------------------------------------------------------------------------------------


async def test_requests_that_nobody_approved_expire(settings: Settings) -> None:
    """After the days that their profile keeps them."""
    async with running(settings) as (server, _):
        clock = Clock()
        clock.advance(-timedelta(days=9))
        authority: Any = server.parts.authorities["default"]
        office = Office(
            store=server._store,
            authorizer=ScriptedAuthorizer(Defer(reason="wait"), Accept()),
            ca=authority,
            clock=clock,
            rules=RULES,
        )
        request = await office.request()
        await office.submit(request)
        await server.keep_house_once()

        assert (await office.enrollment(request)).state is EnrollmentState.EXPIRED


@pytest.mark.parametrize(("error", "level"), [(Unavailable("the disk is full"), "warning"), (KeyError("bug"), "error")])
async def test_a_round_that_fails_is_logged_and_ends_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception, level: str
) -> None:
    """A bug with its traceback."""
    async with running(settings) as (server, _):

        async def broken(*_: object) -> int:
            raise error

        monkeypatch.setattr(server._store, "expire_waiting", broken)
        with capture_logs() as log:
            await server.keep_house_once()

    (line,) = [line for line in log if line["event"] == "housekeeping_failed"]
    assert line["log_level"] == level


async def test_rounds_go_on_until_the_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other."""
    monkeypatch.setattr(app, "_HOUSEKEEPING_S", 0)
    rounds = asyncio.Semaphore(0)

    async def once(_server: Server) -> None:
        rounds.release()

    monkeypatch.setattr(Server, "keep_house_once", once)
    async with running(settings):
        for _ in range(3):
            assert await rounds.acquire()


def test_a_second_server_is_kept_off_before_the_first_is_ready() -> None:
    """Two starts within milliseconds: one of them ends with a clear message."""
    with bind_socket("127.0.0.1", 0) as first, pytest.raises(Misconfigured, match="choose another"):
        bind_socket("127.0.0.1", first.getsockname()[1])
