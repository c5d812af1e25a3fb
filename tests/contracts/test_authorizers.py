"""What every authorizer must do, whatever system is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Reject
from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from tests.support.authorizer_benches import BENCHES, Bench, Can, guarded
from tests.support.authorizers import question

CROWD: Final = 50
KNOWN: Final = DeviceID(kind=DeviceIDKind.SERIAL, value="SN1")
# What somebody may write into a request to be taken for somebody else, or to break what it is put into.
HOSTILE: Final = (
    "*",
    "SN*",
    "*)(cn=*",
    "SN1)(|(cn=*",
    "' OR 1=1--",
    "SN1' OR '1'='1",
    '"; DROP TABLE devices; --',
    "$(id)",
    "`id`",
    "; true #",
    "--help",
    "../SN1",
    "%{User-Password}",
    "{profile}",
    "${jndi:ldap://127.0.0.1/x}",
    "\u017fn1",  # long s, which upper case turns into S
    "\uff33\uff2e\uff11",  # SN1 in full width
    "\xc4B" * 126,  # 252 characters, more octets than an attribute of RADIUS holds
    "X0" * 125,
    "\U0001f600",
)
# Identities refuse these; a backend is to hold all the same.
IMPOSSIBLE: Final = ("SN1\n", "SN1\nSN2", "SN1\0", "\0", "SN1\r\nallow: true", "SN1\u202e", "")


def benches(*abilities: Can) -> pytest.MarkDecorator:
    """Play a claim on every bench that is able to."""
    names = [name for name, (able, _) in BENCHES.items() if able.issuperset(abilities)]
    return pytest.mark.parametrize("bench", names, indirect=True)


@pytest.fixture
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    _, make = BENCHES[request.param]
    async with make(tmp_path) as made:
        yield made


def impossible(value: str) -> AccessRequest:
    """Return a question about a device whose ID went around every check."""
    device_id = replace(KNOWN)
    object.__setattr__(device_id, "value", value)
    return replace(question(), device_id=device_id)


async def permitted(bench: Bench) -> bool:
    return isinstance(await bench.authorizer.authorize(question()), Accept)


@benches()
async def test_a_device_that_is_known_is_accepted(bench: Bench) -> None:
    """And the check finds nothing wrong."""
    await bench.permit(KNOWN)
    await bench.authorizer.check()
    assert await permitted(bench)


@benches(Can.REFUSE)
async def test_an_unknown_device_is_rejected_with_a_reason(bench: Bench) -> None:
    """Deny by default."""
    await bench.permit(KNOWN)
    decision = await bench.authorizer.authorize(question("SN2"))
    assert isinstance(decision, Reject)
    assert decision.reason


@benches(Can.REFUSE)
async def test_a_device_that_the_peer_refuses_is_rejected(bench: Bench) -> None:
    """Being known is not enough."""
    await bench.refuse(KNOWN)
    assert isinstance(await bench.authorizer.authorize(question()), Reject)


@benches(Can.SHAPE)
async def test_attributes_mean_the_same_everywhere(bench: Bench) -> None:
    """Certificates do not depend on where their attributes came from."""
    await bench.permit(
        KNOWN,
        {
            "user": ["alice"],
            "dns": ["a.example"],
            "profile": ["long"],
            "services": ["vpn, wifi"],
            "valid_until": ["2027-12-31T18:00:00Z"],
            "approval": ["true"],
        },
    )
    accepted = await bench.authorizer.authorize(question())
    assert isinstance(accepted, Accept)
    assert {name: accepted.attributes.get(name) for name in ("user", "dns")} == {"user": "alice", "dns": "a.example"}
    assert accepted.not_after == datetime(2027, 12, 31, 18, tzinfo=UTC)
    assert (accepted.profile, accepted.services, accepted.approval) == ("long", frozenset({"vpn", "wifi"}), True)


@benches(Can.REFUSE)
async def test_no_name_is_taken_for_another_or_breaks_the_next_question(bench: Bench) -> None:
    """Whatever a request calls its device; at worst there is no answer."""
    await bench.permit(KNOWN)
    for value in HOSTILE:
        device_id = DeviceID(kind=DeviceIDKind.PERMANENT_IDENTIFIER, value=f":{value}")
        await refuse(bench.authorizer, replace(question(), device_id=device_id))
        if value.strip() != KNOWN.value:
            await refuse(
                bench.authorizer, replace(question(), device_id=DeviceID(kind=DeviceIDKind.SERIAL, value=value))
            )
    assert await permitted(bench)


@benches(Can.REFUSE)
async def test_names_that_cannot_be_are_no_yes_either(bench: Bench) -> None:
    """A second line of defence, and the next question is answered."""
    await bench.permit(KNOWN)
    for value in IMPOSSIBLE:
        await refuse(bench.authorizer, impossible(value))
    assert await permitted(bench)


async def refuse(authorizer: Authorizer, hostile: AccessRequest) -> None:
    """Insist that a question gets no yes; no answer is fine."""
    decision = None
    with suppress(Unavailable):
        decision = await authorizer.authorize(hostile)
    assert not isinstance(decision, Accept), hostile.device_id


@benches(Can.REFUSE, Can.SHAPE)
async def test_many_questions_at_once_get_each_its_own_answer(bench: Bench) -> None:
    """Half of them about devices that nobody knows."""
    for number in range(0, CROWD, 2):
        await bench.permit(DeviceID(kind=DeviceIDKind.SERIAL, value=f"SN{number}"), {"user": [f"user{number}"]})
    answers = await asyncio.gather(*(bench.authorizer.authorize(question(f"SN{number}")) for number in range(CROWD)))
    users = [answer.attributes.get("user") if isinstance(answer, Accept) else None for answer in answers]
    assert users == [None if number % 2 else f"user{number}" for number in range(CROWD)]


@benches(Can.LEAVE)
async def test_a_peer_that_is_away_has_not_answered(bench: Bench) -> None:
    """And when it is back nobody has to start anything again."""
    await bench.permit(KNOWN)
    assert await permitted(bench)
    await bench.leave()
    with pytest.raises(Unavailable):
        await bench.authorizer.authorize(question())
    with pytest.raises(Unavailable):
        await bench.authorizer.check()
    await bench.come_back()
    await bench.authorizer.check()
    assert await permitted(bench)


@benches(Can.HUSH)
async def test_a_peer_that_says_nothing_is_given_up_in_time(bench: Bench) -> None:
    """The question is cancelled cleanly: when the peer speaks again, answers belong to their questions."""
    await bench.permit(KNOWN, {"user": ["alice"]})
    impatient = guarded("bench", bench.authorizer, timeout_s=0.2)
    await bench.hush()
    for device in ("SN1", "SN2", "SN1"):
        with pytest.raises(Unavailable, match=r"^aaa\.bench"):
            await impatient.authorize(question(device))
    await bench.speak()
    assert isinstance(await bench.authorizer.authorize(question("SN2")), Reject)
    assert await permitted(bench)
