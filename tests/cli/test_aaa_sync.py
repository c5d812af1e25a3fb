"""Claims about `scep-ra aaa sync`: what it does, what it says, and when it does nothing."""

from __future__ import annotations

import pytest

from scep_ra.cli.session import Session
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.parts import utc_now
from tests.support.command_line import CommandLine
from tests.support.disconnects import configure
from tests.support.records import HOUR, SERIAL, make_certificate, make_enrollment, make_key

EXTERNAL = (
    '[aaa.corp]\ntype = "tests.support.disconnects:ForgetfulAAA"\n[aaa.registry]\n[profile.vpn]\nauthorizer = "corp"\n'
)


async def issue_all(session: Session) -> None:
    """Give D1 to D12 a certificate, as far as the store is concerned."""
    now = utc_now()
    for number in range(1, 13):
        device_id = DeviceID(kind=DeviceIDKind.SERIAL, value=f"D{number}")
        enrollment = make_enrollment(number, key=make_key(f"TX{number}", "vpn"), device_id=device_id, created_at=now)
        await session.store.insert_enrollment(enrollment, spend=None)
        certificate = make_certificate(number, device_id=device_id, profile="vpn", not_after=now + HOUR, issued_at=now)
        await session.store.complete(enrollment.enrollment_id, certificate, now)


@pytest.fixture
def fleet(scep_ra: CommandLine) -> CommandLine:
    """Return the command line with twelve devices D1 to D12 that hold a certificate, all known to AAA."""
    configure(scep_ra.data, {}, EXTERNAL)
    know(scep_ra, range(1, 13))
    scep_ra.in_store(issue_all)
    return scep_ra


def know(scep_ra: CommandLine, numbers: range) -> None:
    """Have AAA know these devices and no others."""
    (scep_ra.data / "devices").write_text("\n".join(f"D{number}" for number in numbers))


def revoked(scep_ra: CommandLine) -> list[int]:
    """Return the numbers of the devices that lost their certificate."""
    certificates = scep_ra.in_store(lambda session: session.store.list_certificates())
    return sorted(each.certificate_serial - SERIAL for each in certificates if each.revoked_at is not None)


def test_devices_that_aaa_has_deleted_are_cut_off(fleet: CommandLine) -> None:
    """The others are not touched; the second time there is nobody left to ask about."""
    know(fleet, range(3, 13))
    out = fleet.ok("aaa", "sync").out
    assert "asked about 12 devices: 10 allowed, 2 rejected, 0 without an answer" in out
    assert out.count("disconnected serial:D") == 2
    assert "disconnected serial:D1: 1 certificates revoked, 0 messages, " in out
    assert revoked(fleet) == [1, 2]
    assert "asked about 10 devices: 10 allowed, 0 rejected" in fleet.ok("aaa", "sync").out


def test_a_dry_run_only_says_who_would_go(fleet: CommandLine) -> None:
    """With the reason of AAA."""
    know(fleet, range(2, 13))
    out = fleet.ok("aaa", "sync", "--dry-run").out
    assert out.splitlines()[:2] == ["REJECTED   REASON", "serial:D1  no entry"]
    assert "disconnected" not in out
    assert revoked(fleet) == []


def test_a_mass_deletion_is_refused_until_somebody_insists(fleet: CommandLine) -> None:
    """An empty answer of AAA must not end an enterprise."""
    know(fleet, range(12, 13))
    outcome = fleet("aaa", "sync")
    assert outcome.status == 1
    assert "AAA rejects 11 of 12 devices, and 10 is the most" in outcome.err
    assert revoked(fleet) == []
    assert fleet("aaa", "sync", "--max-deletions", "90%").status == 1
    fleet.ok("aaa", "sync", "--max-deletions", "11")
    assert revoked(fleet) == list(range(1, 12))


def test_an_aaa_that_is_away_deletes_nobody(fleet: CommandLine) -> None:
    """No answer is no deletion."""
    (fleet.data / "devices").unlink()
    out = fleet.ok("aaa", "sync").out
    assert out == "asked about 12 devices: 0 allowed, 0 rejected, 12 without an answer\n"
    assert revoked(fleet) == []


def test_why_nobody_is_asked_about_is_said(scep_ra: CommandLine) -> None:
    """The registry of this server deletes by command, and is not asked."""
    assert scep_ra.ok("aaa", "sync", "--dry-run").out.splitlines() == [
        "asked about 0 devices: 0 allowed, 0 rejected, 0 without an answer",
        "no live certificate is of a profile that asks an external AAA system; see `authorizer` of profiles",
    ]


def test_what_is_left_for_the_server_is_said(fleet: CommandLine, unused_tcp_port: int) -> None:
    """A webhook that is away, here."""
    configure(fleet.data, {}, f'{EXTERNAL}[webhook.siem]\nurl = "http://127.0.0.1:{unused_tcp_port}/"\n')
    know(fleet, range(2, 13))
    assert "1 certificates revoked, 1 messages, 1 not delivered yet, " in fleet.ok("aaa", "sync").out


def test_a_cap_that_is_none_is_a_usage_error(scep_ra: CommandLine) -> None:
    """A slip must not lift the cap."""
    outcome = scep_ra("aaa", "sync", "--max-deletions", "many")
    assert outcome.status == 2
    assert "'many' is neither a number nor a percentage; write a number such as 25" in outcome.err
