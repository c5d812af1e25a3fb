"""Claims about the HTTP API as settings make it, with a device that the server has enrolled."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from scep_ra.parts import open_store
from scep_ra.scep.client import IssuedCertificate
from tests.support.composition import configured, register, running
from tests.support.enrollment import DEVICE
from tests.support.front import Device, Site
from tests.support.openapi import check_answer

TOKEN = "6b7e4d1c"
CLIENT = {"token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "scopes": ("authorize", "disconnect", "devices")}


async def call(site: Site, path: str, document: object) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"http://127.0.0.1:{site.port}{path}"
    async with ClientSession() as session, session.post(url, json=document, headers=headers) as response:
        body = await response.json()
        check_answer(path, response.status, body)
        return response.status, body


async def enrolled(site: Site, challenge: str) -> IssuedCertificate:
    answer = await Device(site=site).enroll(challenge)
    assert isinstance(answer, IssuedCertificate)
    return answer


async def test_what_a_headend_hears_follows_a_disconnect(tmp_path: Path) -> None:
    """One decision, however it is asked for: yes while the certificate is good, no from then on."""
    settings = configured(tmp_path, api={"admin": {**CLIENT, "trustpoint": "RA-TP"}})
    async with open_store(settings) as store:
        challenge = await register(store)
    async with running(settings) as (_, site):
        issued = await enrolled(site, challenge)
        serial = f"{issued.certificate.certificate_serial:x}"

        status, body = await call(site, "/api/v1/authorize", {"device": DEVICE, "certificate_serial": serial})
        assert (status, body["certificate_serial"]) == (200, serial)
        status, body = await call(site, "/api/v1/authorize", {"User-Name": {"value": [DEVICE]}})
        assert "pki:cert-trustpoint=RA-TP" in body["reply:Cisco-AVPair"]["value"]

        status, body = await call(site, "/api/v1/disconnect", {"device": DEVICE})
        assert (status, body["entry_changed"]) == (200, True)
        assert body["certificates_revoked"] == [{"ca": "default", "certificate_serial": serial}]

        status, body = await call(site, "/api/v1/authorize", {"device": DEVICE})
        assert (status, body["error"]["code"]) == (401, "rejected")


@pytest.mark.parametrize(("cap", "expected"), [("", 200), ("0", 409)])
async def test_a_reported_deletion_revokes_unless_it_is_beyond_the_cap(tmp_path: Path, cap: str, expected: int) -> None:
    """The entry, which is somebody else's, stays as it is."""
    settings = configured(tmp_path, api={"aaa": {**CLIENT, "max_deletions": cap}})
    async with open_store(settings) as store:
        challenge = await register(store)
    async with running(settings) as (server, site):
        await enrolled(site, challenge)
        status, _ = await call(site, "/api/v1/aaa/deleted", {"devices": [DEVICE]})
        assert status == expected
        (row,) = await server.parts.store.list_certificates()
        assert (row.revoked_at is not None) == (expected == 200)


async def test_without_a_client_there_is_no_api(tmp_path: Path) -> None:
    """Not even its description."""
    async with running(configured(tmp_path)) as (_, site):
        url = f"http://127.0.0.1:{site.port}/api/v1/openapi.json"
        async with ClientSession() as session, session.get(url) as response:
            assert response.status == 404
