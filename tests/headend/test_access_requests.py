"""Claims about Access-Requests: what is asked of the engine, and what an IOS router reads in the answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, Reject
from scep_ra.errors import Unavailable
from scep_ra.headend.access_requests import AccessRequests
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.radius.packets import Code, Packet, Value
from tests.support.headends import Gate, access_request, make_headend
from tests.support.records import HOUR, NOW, device_id

PASSWORD = "hunter2"


async def answer(gate: Gate, request: Packet, *, reject_on_error: bool = False, **headend: Any) -> Packet:
    handler = AccessRequests(engine=gate.engine, reject_on_error=reject_on_error)
    return await handler.answer(request, make_headend(**headend), "192.0.2.1")


def shown(serial: str) -> tuple[str, Value]:
    return "Cisco-AVPair", f"pki:cert-serial={serial}"


async def test_a_permit_pins_the_current_certificate(gate: Gate) -> None:
    """And names the device for the accounts."""
    serial = await gate.issue()
    accept = await answer(gate, access_request())
    assert accept.code is Code.ACCESS_ACCEPT
    assert accept.attributes == (
        ("Cisco-AVPair", "pki:cert-application=all"),
        ("Cisco-AVPair", f"pki:cert-serial={serial:X}"),
        ("Class", b"serial:SN123"),
    )


async def test_a_headend_hears_its_trustpoint_and_the_end_if_it_wants(gate: Gate) -> None:
    """In the words of IOS, which reads UTC if its clock does."""
    await gate.issue()
    gate.aaa.script = [Accept(not_after=datetime(2026, 3, 2, 9, 5, tzinfo=UTC))]
    accept = await answer(gate, access_request(), trustpoint="RA-TP", send_lifetime_end=True)
    assert accept.values("Cisco-AVPair")[1::2] == (
        "pki:cert-trustpoint=RA-TP",
        "pki:cert-lifetime-end=09:05 Mar 2, 2026",
    )


@pytest.mark.parametrize(("number", "written"), [(-1, "00"), (10, "0B"), (0x0ABC, "0ABD")])
async def test_a_serial_is_whole_octets(gate: Gate, number: int, written: str) -> None:
    """As IOS prints it."""
    await gate.issue(certificate_serial=number + 1)
    pairs = (await answer(gate, access_request())).values("Cisco-AVPair")
    assert pairs[-1] == f"pki:cert-serial={written}"


async def test_a_device_of_a_long_name_has_no_class(gate: Gate) -> None:
    """An attribute ends at 253 octets, and a permit does not depend on it."""
    long = DeviceID(kind=DeviceIDKind.SERIAL, value="SN" + "1" * 248)
    await gate.issue(device=long)
    accept = await answer(gate, access_request(long.value))
    assert accept.code is Code.ACCESS_ACCEPT
    assert accept.values("Class") == ()


async def test_a_no_says_nothing_more(gate: Gate) -> None:
    """The reason is in our log."""
    await gate.issue()
    gate.aaa.script = [Reject(reason="device is disabled")]
    assert await answer(gate, access_request()) == Packet(code=Code.ACCESS_REJECT)


@pytest.mark.parametrize("spell", ["{:x}", "{:X}", "0{:x}"])
async def test_the_certificate_that_was_shown_has_to_be_current(gate: Gate, spell: str) -> None:
    """Its serial in any spelling of hexadecimal digits."""
    old = await gate.issue(1)
    new = await gate.issue(2, renewal_of=old, issued_at=NOW + HOUR)
    for serial, expected in ((old, Code.ACCESS_REJECT), (new, Code.ACCESS_ACCEPT)):
        assert (await answer(gate, access_request("SN123", shown(spell.format(serial))))).code is expected


async def test_a_serial_may_have_colons(gate: Gate) -> None:
    """As OpenVPN and GnuTLS write it."""
    serial = await gate.issue()
    colons = serial.to_bytes((serial.bit_length() + 7) // 8).hex(":")
    assert (await answer(gate, access_request("SN123", shown(colons)))).code is Code.ACCESS_ACCEPT


@pytest.mark.parametrize("serials", [["zz"], [""], ["0A", "0B"], ["1" * 41]])
async def test_what_is_no_serial_is_no_reason_to_look_away(gate: Gate, serials: list[str]) -> None:
    """The request is refused."""
    await gate.issue()
    request = access_request("SN123", *map(shown, serials))
    assert (await answer(gate, request)).code is Code.ACCESS_REJECT


async def test_a_headend_of_a_profile_takes_its_certificates_only(gate: Gate) -> None:
    """Those of the others are rejected."""
    await gate.issue(profile="wifi")
    assert (await answer(gate, access_request(), profile="wifi")).code is Code.ACCESS_ACCEPT
    assert (await answer(gate, access_request(), profile="default")).code is Code.ACCESS_REJECT


def logging_in(password: str, *names: str) -> Packet:
    users = tuple(("User-Name", name) for name in names)
    return Packet(code=Code.ACCESS_REQUEST, attributes=(*users, ("User-Password", password)))


@pytest.mark.parametrize(
    "request_",
    [
        logging_in(PASSWORD, "SN123"),
        logging_in("cisco"),
        logging_in("cisco", "SN123", "SN124"),
        Packet(code=Code.ACCESS_REQUEST, attributes=(("User-Name", "SN123"), ("EAP-Message", b"\2"))),
    ],
)
async def test_what_is_no_question_of_pki_aaa_is_rejected(gate: Gate, request_: Packet) -> None:
    """A person who logs in is not let in as a device; whatever was typed is not logged."""
    await gate.issue()
    with capture_logs() as log:
        assert (await answer(gate, request_)).code is Code.ACCESS_REJECT
    assert [line["event"] for line in log] == ["access_denied"]
    assert PASSWORD not in str(log)
    assert gate.aaa.requests == []


async def test_the_password_may_be_another_or_anything(gate: Gate) -> None:
    """As the table of the headend says."""
    await gate.issue()
    request = logging_in(PASSWORD, "SN123")
    assert (await answer(gate, request, password=PASSWORD)).code is Code.ACCESS_ACCEPT
    assert (await answer(gate, request, password="")).code is Code.ACCESS_ACCEPT
    assert (await answer(gate, access_request(), password=PASSWORD)).code is Code.ACCESS_REJECT


async def test_no_answer_of_aaa_is_silence_or_a_reject(gate: Gate) -> None:
    """As the configuration says, and never an Accept."""
    await gate.issue()
    gate.aaa.script = [Unavailable("the directory is away")]
    with pytest.raises(Unavailable):
        await answer(gate, access_request())
    assert (await answer(gate, access_request(), reject_on_error=True)).code is Code.ACCESS_REJECT


async def test_the_address_of_the_headend_goes_to_aaa(gate: Gate) -> None:
    """It may weigh it."""
    await gate.issue()
    await answer(gate, access_request())
    (question,) = gate.aaa.requests
    assert (question.source, question.device_id) == ("192.0.2.1", device_id())
