"""Claims about what authorizers hear of requests, those that want to."""

from __future__ import annotations

import pytest

from scep_ra.aaa.base import Notice, Reject
from scep_ra.enrollment.challenges import AskedChallenge
from scep_ra.enrollment.errors import IdentityRefused, IssuanceRefused, NotAuthorized
from scep_ra.errors import Refused
from scep_ra.pki.names import parse_name
from tests.support.authorizers import Scripted
from tests.support.enrollment import Office, ScriptedCA, device_id, fail, granted, make_request


@pytest.fixture
def listener() -> Scripted:
    return Scripted()


@pytest.fixture
def heard(office: Office, listener: Scripted) -> Office:
    """Return a profile whose authorizer wants to hear what becomes of requests."""
    return office.other(authorizer=listener)


async def test_a_certificate_is_told_of_when_it_is_stored(heard: Office, listener: Scripted) -> None:
    """Once, however often the device asks for it."""
    request = await heard.request()
    certificate = granted(await heard.submit(request))
    await heard.submit(request)
    assert listener.notices == [
        Notice(
            device_id=device_id(),
            profile="default",
            transaction_id="TX1",
            source="192.0.2.1",
            csr=request.csr.without_challenge(),
            certificate=certificate.der,
        )
    ]


async def test_a_refusal_is_told_of_with_its_reason(heard: Office, listener: Scripted) -> None:
    """The challenge is not told."""
    request = make_request(challenge="a guess")
    with pytest.raises(NotAuthorized):
        await heard.submit(request)
    (told,) = listener.notices
    assert (told.device_id, told.reason) == (device_id(), "the challenge is missing or unknown")
    assert b"a guess" not in told.csr


async def test_a_request_that_names_no_device_is_told_of_without_one(heard: Office, listener: Scripted) -> None:
    """There is none to tell."""
    with pytest.raises(IdentityRefused):
        await heard.submit(make_request(subject=parse_name("O=Test")))
    assert [told.device_id for told in listener.notices] == [None]


async def test_the_refusal_of_a_ca_is_told_of(heard: Office, listener: Scripted, ca: ScriptedCA) -> None:
    """AAA had said yes, and would believe that there is a certificate."""
    ca.script = [fail(Refused("name constraints"))]
    with pytest.raises(IssuanceRefused):
        await heard.enroll()
    assert [(told.device_id, told.reason) for told in listener.notices] == [(device_id(), "name constraints")]


async def test_whoever_judges_challenges_hears_it_too(office: Office, listener: Scripted) -> None:
    """What AAA itself refused included; an authorizer that hears nothing is not told."""
    office = office.other(authorizer=Scripted(answer=Reject(reason="stolen")))
    with pytest.raises(NotAuthorized):
        await office.with_rules(challenge=AskedChallenge(authorizer=listener)).submit(make_request(challenge="x"))
    assert [told.reason for told in listener.notices] == ["stolen"]
