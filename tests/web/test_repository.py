"""Claims about what relying parties fetch: CRLs and issuing certificates, under the URLs that certificates name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from scep_ra.errors import Unavailable
from scep_ra.revocation.service import RevocationService
from scep_ra.storage.base import Store, StoredCRL
from scep_ra.web.repository import certificate_url, crl_url, repository_routes
from tests.support.enrollment import Clock, local_ca, open_store, run_here
from tests.support.pki import make_ca

CA = make_ca("ec-p256")
Fetcher = TestClient[web.Request, web.Application]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def crls(store: Store) -> RevocationService:
    return RevocationService(store=store, cas={"default": local_ca(now=Clock())}, now=Clock(), run=run_here)


@pytest.fixture
async def client(crls: RevocationService) -> AsyncIterator[Fetcher]:
    app = web.Application()
    app.add_routes(repository_routes(crls, {"default": CA.chain[0]}))
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        yield client


def path_of(url: str) -> str:
    return url.removeprefix("http://ra.example")


async def test_the_crl_is_under_the_url_that_certificates_name(client: Fetcher, crls: RevocationService) -> None:
    """RFC 5280 4.2.1.13; the media type of RFC 2585."""
    async with client.get(path_of(crl_url("http://ra.example/", "default"))) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/pkix-crl")
        assert await answer.read() == (await crls.current_crl("default")).der


async def test_the_issuers_certificate_is_under_the_url_that_certificates_name(client: Fetcher) -> None:
    """RFC 5280 4.2.2.1: one DER certificate."""
    async with client.get(path_of(certificate_url("http://ra.example", "default"))) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/pkix-cert")
        assert await answer.read() == CA.chain[0].der


@pytest.mark.parametrize("path", ["/crl/other.crl", "/certs/other.cer", "/crl/default", "/crl/..%2Fdefault.crl"])
async def test_other_cas_are_not_found(client: Fetcher, path: str) -> None:
    """Names are looked up and never become paths."""
    async with client.get(path) as answer:
        assert answer.status == 404


async def test_there_is_nothing_to_write(client: Fetcher) -> None:
    """GET and HEAD only."""
    async with client.head("/crl/default.crl") as head, client.post("/crl/default.crl") as post:
        assert (head.status, post.status) == (200, 405)


async def test_a_crl_that_cannot_be_made_now_may_be_asked_for_again() -> None:
    """503 with Retry-After; the reason stays in the log."""

    class Away:
        async def current_crl(self, ca: str) -> StoredCRL:
            raise Unavailable(f"the key of {ca} is on a token that is not there")

    app = web.Application()
    app.add_routes(repository_routes(Away(), {"default": CA.chain[0]}))
    with capture_logs() as log:
        async with TestClient(TestServer(app, host="127.0.0.1")) as client, client.get("/crl/default.crl") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "token" not in await answer.text()
    assert [line["event"] for line in log] == ["crl_unavailable"]
