"""Claims about what the endpoint leaves behind of requests that it refuses, and about how many it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scep_ra.enrollment.decisions import decode_record
from scep_ra.pki import oids
from scep_ra.pki.algorithms import Cipher
from scep_ra.scep.client import ClientRules, Failed, IssuedCertificate
from scep_ra.scep.terms import FailInfo
from scep_ra.storage.base import DecisionOutcome, Store
from tests.support.enrollment import DEVICE, Clock, device_id, open_store
from tests.support.front import Device, Profile, Site, serving
from tests.support.pki import NOW
from tests.support.scep_replies import read_reply

CAPS = "/scep?operation=GetCACaps"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def profile(store: Store) -> Profile:
    return Profile(store=store, clock=Clock())


@pytest.fixture
async def site(profile: Profile) -> AsyncIterator[Site]:
    async with serving(profile) as running:
        yield running


async def test_a_message_that_the_protocol_ends_leaves_a_record(profile: Profile, site: Site) -> None:
    """Who signed, from where, under which transactionID, and the reason that the peer does not hear."""
    device = Device(site=site, rules=ClientRules(cipher=Cipher.TRIPLE_DES))
    device.transaction_id = "TX7"

    answer = await device.enroll("whatever")

    assert isinstance(answer, Failed)
    assert answer.fail_info is FailInfo.BAD_ALG
    (decision,) = profile.refusals.decisions
    assert (decision.profile, decision.transaction_id, decision.source) == ("default", "TX7", "127.0.0.1")
    assert (decision.outcome, decision.code, decision.device_id) == (DecisionOutcome.REFUSED, "algorithm", None)
    assert decision.decided_at == NOW
    assert len(decision.decision_id) == 32
    record = decode_record(decision.record)
    assert f"serialNumber={DEVICE}" in record.signer
    assert "des-ede3-cbc" in record.reason


async def test_a_broken_signature_leaves_a_record_too(profile: Profile, site: Site) -> None:
    """The signer's name is then only a claim."""
    device = Device(site=site)
    transaction = await device.transaction()
    octets = bytearray(transaction.enroll(device.csr("whatever")).message)
    octets[-1] ^= 1

    reply = read_reply((await site.send("POST", "/scep", bytes(octets))).body, profile.ra.certificate)

    assert reply.text(oids.FAIL_INFO) == "1"
    assert [decision.code for decision in profile.refusals.decisions] == ["integrity"]


async def test_a_rule_of_ours_that_says_no_leaves_one_record_only(profile: Profile, site: Site) -> None:
    """The service writes it, with every check."""
    await Device(site=site).enroll("wrong")

    (decision,) = profile.refusals.decisions
    assert (decision.code, decision.device_id) == ("not_authorized", device_id())
    assert decode_record(decision.record).checks


async def test_a_request_that_is_granted_leaves_no_refusal(profile: Profile, site: Site) -> None:
    """Its record is with its enrollment."""
    assert isinstance(await Device(site=site).enroll(await profile.challenge()), IssuedCertificate)

    assert profile.refusals.decisions == []
    (decision,) = await profile.store.list_decisions()
    assert decision.outcome is DecisionOutcome.AUTHORIZED


async def test_one_address_cannot_ask_for_ever(profile: Profile) -> None:
    """Ten at once, then its rate: 503 with Retry-After, which clients know to wait for."""
    async with serving(profile, max_requests_per_address_per_s=0.001) as site:
        for _ in range(10):
            assert (await site.get(CAPS)).status == 200
        with capture_logs() as log:
            busy = await site.get(CAPS)

    assert (busy.status, busy.headers["Retry-After"], busy.body) == (503, "5", b"busy\n")
    assert [(line["event"], line["source"]) for line in log] == [("overloaded", "127.0.0.1")]
    assert "max_requests_per_address_per_s" in log[0]["reason"]


async def test_what_is_not_limited_is_not_counted(profile: Profile) -> None:
    """The default: a gateway speaks for many devices."""
    async with serving(replace(profile)) as site:
        assert {(await site.get(CAPS)).status for _ in range(50)} == {200}
