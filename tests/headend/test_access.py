"""Claims about whether a device may connect: its current certificate and AAA together, and nobody else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, AccessRequest, Defer, Reject
from scep_ra.errors import Unavailable
from scep_ra.headend.access import Deny, Permit
from scep_ra.identity.types import DeviceID, DeviceIDKind
from tests.support.headends import Gate
from tests.support.records import CESSATION, HOUR, NOW, SERIAL, device_id

IMEI = DeviceID(kind=DeviceIDKind.IMEI, value="490154203237518")
SAME_AS_SERIAL = device_id("490154203237518")


async def denied(gate: Gate, user_name: str = "SN123", **facts: str | int) -> str:
    """Ask and return the reason of the no."""
    answer = await gate.engine.decide(user_name, headend="vpn", **facts)  # type: ignore[arg-type] # of either type
    assert isinstance(answer, Deny)
    return answer.reason


async def permitted(gate: Gate, user_name: str = "SN123", **facts: str | int) -> Permit:
    answer = await gate.engine.decide(user_name, headend="vpn", **facts)  # type: ignore[arg-type] # of either type
    assert isinstance(answer, Permit), answer
    return answer


# --- yes -----------------------------------------------------------------------------------------------------------


async def test_a_device_with_a_certificate_is_permitted_if_aaa_says_so(gate: Gate) -> None:
    """What AAA says of it goes with the permit."""
    serial = await gate.issue()
    gate.aaa.script = [Accept(attributes={"user": "alice"}, services=frozenset({"vpn"}))]
    assert await permitted(gate, source="192.0.2.1") == Permit(
        device_id=device_id(),
        ca="default",
        certificate_serial=serial,
        not_after=NOW + 24 * HOUR,
        profile="default",
        attributes={"user": "alice"},
        services=frozenset({"vpn"}),
    )
    (question,) = gate.aaa.requests
    assert question == AccessRequest(
        device_id=device_id(),
        profile="default",
        source="192.0.2.1",
        renewal=True,
        certificate_serial=serial,
        recheck=True,
    )


@pytest.mark.parametrize("user_name", ["CN=laptop,serialNumber=SN123", "/serialNumber=SN123/CN=laptop", "sn123"])
async def test_the_subject_in_either_order_means_the_device(gate: Gate, user_name: str) -> None:
    """As headends write it."""
    await gate.issue()
    assert (await permitted(gate, user_name)).device_id == device_id()


async def test_the_newest_certificate_counts(gate: Gate) -> None:
    """Which pins it: a headend refuses any older one."""
    await gate.issue(1)
    newest = await gate.issue(2, issued_at=NOW + HOUR)
    assert (await permitted(gate)).certificate_serial == newest


async def test_a_headend_for_a_profile_sees_the_certificates_of_that_profile(gate: Gate) -> None:
    """A newer one of another profile does not count."""
    first = await gate.issue(1)
    await gate.issue(2, profile="wifi", issued_at=NOW + HOUR)
    assert (await permitted(gate, profile="default")).certificate_serial == first


async def test_a_certificate_that_is_shown_has_to_be_current(gate: Gate) -> None:
    """Any current one will do then."""
    older = await gate.issue(1)
    newer = await gate.issue(2, issued_at=NOW + HOUR)
    assert (await permitted(gate, certificate_serial=older)).certificate_serial == older
    assert await denied(gate, certificate_serial=7) == f"certificate 7 is not the current one, which is {newer:x}"


@pytest.mark.parametrize(("hours", "expected"), [(1, 1), (48, 24)])
async def test_a_permit_ends_with_the_certificate_or_when_aaa_says(gate: Gate, hours: int, expected: int) -> None:
    """Whichever is earlier."""
    await gate.issue()
    gate.aaa.script = [Accept(not_after=NOW + hours * HOUR)]
    assert (await permitted(gate)).not_after == NOW + expected * HOUR


# --- no ------------------------------------------------------------------------------------------------------------


async def test_a_device_without_a_certificate_is_denied(gate: Gate) -> None:
    """AAA is not even asked."""
    assert await denied(gate) == "there is no current certificate"
    assert gate.aaa.requests == []


async def test_a_device_without_a_certificate_of_the_profile_is_denied(gate: Gate) -> None:
    """A headend of one profile takes no others."""
    await gate.issue()
    assert await denied(gate, profile="wifi") == "there is no current certificate of profile wifi"


async def test_a_revoked_certificate_is_denied(gate: Gate) -> None:
    """From the moment of its revocation."""
    await gate.store.revoke_certificate("default", await gate.issue(), NOW, CESSATION)
    assert await denied(gate) == "there is no current certificate"


async def test_an_expired_certificate_is_denied(gate: Gate) -> None:
    """Though nobody revoked it."""
    await gate.issue()
    gate.now = NOW + timedelta(days=2)
    assert await denied(gate) == "there is no current certificate"


async def test_a_superseded_certificate_is_denied(gate: Gate) -> None:
    """Its successor is what the device has to show."""
    old = await gate.issue(1)
    new = await gate.issue(2, renewal_of=old, issued_at=NOW + HOUR)
    assert await denied(gate, certificate_serial=old) == f"certificate {old:x} is not the current one, which is {new:x}"
    assert (await permitted(gate)).certificate_serial == new


@pytest.mark.parametrize("answer", [Reject(reason="device is disabled"), Defer(reason="device is disabled")])
async def test_what_aaa_does_not_accept_is_denied(gate: Gate, answer: Reject | Defer) -> None:
    """Also what it has put off."""
    await gate.issue()
    gate.aaa.script = [answer]
    assert await gate.engine.decide("SN123", headend="vpn") == Deny(reason="device is disabled", device_id=device_id())


async def test_a_service_that_aaa_does_not_grant_any_more_is_denied(gate: Gate) -> None:
    """As at enrollment."""
    await gate.issue()
    gate.service = "vpn"
    assert await denied(gate) == "AAA does not grant the device service 'vpn'"
    gate.aaa.script = [Accept(services=frozenset({"vpn"}))]
    await permitted(gate)


async def test_a_device_that_aaa_has_let_go_is_denied(gate: Gate) -> None:
    """Even by an AAA that says yes with an end in the past."""
    await gate.issue()
    gate.aaa.script = [Accept(not_after=NOW)]
    assert await denied(gate) == "AAA let the device go at 2026-03-01 12:00:00Z"


async def test_a_certificate_of_a_profile_that_is_gone_is_denied(gate: Gate) -> None:
    """Nobody can say who decides about it."""
    await gate.issue(profile="old")
    assert await denied(gate) == "there is no profile old any more"


@pytest.mark.parametrize("user_name", ["", "x" * 2000, "O=Example", "CN=a/serialNumber=SN123,CN=b", "*", "SN123\x00"])
async def test_a_hostile_name_is_denied(gate: Gate, user_name: str) -> None:
    """And nothing but the log hears why."""
    await gate.issue()
    await denied(gate, user_name)
    assert gate.aaa.requests == []


async def test_no_answer_of_aaa_is_no_yes(gate: Gate) -> None:
    """Nor a no: whoever asks has to decide what it means."""
    await gate.issue()
    gate.aaa.script = [Unavailable("the directory is away")]
    with pytest.raises(Unavailable):
        await gate.engine.decide("SN123", headend="vpn")


# --- which device --------------------------------------------------------------------------------------------------


async def test_a_bare_value_finds_the_device_of_any_kind(gate: Gate) -> None:
    """Names do not tell the kind."""
    await gate.issue(device=IMEI)
    assert (await permitted(gate, "490154203237518")).device_id == IMEI
    assert await gate.engine.identify("CN=49015420323751") == IMEI


async def test_the_likeliest_of_several_devices_is_meant(gate: Gate) -> None:
    """What the same text in a certificate request would mean; the other has to be named with its kind."""
    await gate.issue(1, IMEI)
    await gate.issue(2, SAME_AS_SERIAL)
    assert (await permitted(gate, IMEI.value)).device_id == SAME_AS_SERIAL
    assert (await permitted(gate, str(IMEI))).device_id == IMEI


async def test_the_certificate_that_was_shown_tells_which_of_several_devices_it_is(gate: Gate) -> None:
    """And the answer names that one, so that the session ends with it and with nobody else."""
    serials = await gate.issue(1, IMEI), await gate.issue(2, SAME_AS_SERIAL)
    for certificate_serial, device in zip(serials, (IMEI, SAME_AS_SERIAL), strict=True):
        permit = await permitted(gate, IMEI.value, certificate_serial=certificate_serial)
        assert (permit.device_id, permit.certificate_serial) == (device, certificate_serial)
    assert "is not the current one" in await denied(gate, IMEI.value, certificate_serial=SERIAL + 9)


async def test_a_name_of_several_devices_of_which_none_is_likelier_is_denied(gate: Gate) -> None:
    """The headend has to say which."""
    decimal_meid = "990000862471854"  # 15 digits are an IMEI as well
    await gate.issue(1, DeviceID(kind=DeviceIDKind.IMEI, value=decimal_meid[:14]))
    await gate.issue(2, DeviceID(kind=DeviceIDKind.MEID, value=decimal_meid[:14]))
    assert (await denied(gate, decimal_meid[:14])).startswith("the user name means several devices: imei:")
    assert await gate.engine.identify(decimal_meid[:14]) is None


async def test_a_device_is_known_by_its_old_certificates(gate: Gate) -> None:
    """Sessions outlive them."""
    await gate.store.revoke_certificate("default", await gate.issue(), NOW, CESSATION)
    assert await gate.engine.identify("SN123") == device_id()


@pytest.mark.parametrize("user_name", ["", "SN999"])
async def test_nobody_is_known_by_a_name_without_certificates(gate: Gate, user_name: str) -> None:
    """Readable or not."""
    assert await gate.engine.identify(user_name) is None


# --- on record -----------------------------------------------------------------------------------------------------


async def test_every_decision_is_logged(gate: Gate) -> None:
    """A no as a security event, with the name that was asked for."""
    await gate.issue()
    with capture_logs() as log:
        await gate.engine.decide("SN123", headend="vpn", source="192.0.2.1")
        await gate.engine.decide("SN9", headend="vpn", source="192.0.2.1")
    facts = {"headend": "vpn", "source": "192.0.2.1", "user_name": "SN123", "device_id": "serial:SN123"}
    serial = f"{SERIAL + 1:x}"
    assert log == [
        {
            "event": "access_permitted",
            "log_level": "info",
            **facts,
            "certificate_serial": serial,
            "profile": "default",
        },
        {
            "event": "access_denied",
            "log_level": "warning",
            **facts,
            "user_name": "SN9",
            "device_id": "serial:SN9",
            "reason": "there is no current certificate",
        },
    ]
