"""Claims about `scep-ra device disable` and `device remove`: who is cut off, and what is said of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scep_ra.cli.session import Session
from scep_ra.headend import dae
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.parts import utc_now
from scep_ra.radius.packets import Code
from scep_ra.radius.transport import Rules
from scep_ra.storage.sessions import OutboxMessage
from tests.support.command_line import CommandLine
from tests.support.disconnects import configure, threaded_headend
from tests.support.outbox import answering, read_request
from tests.support.radius_server import silent
from tests.support.records import HOUR, SERIAL, make_certificate, make_challenge, make_enrollment, make_session

X1 = DeviceID(kind=DeviceIDKind.SERIAL, value="X1")


def issue(scep_ra: CommandLine, device_id: DeviceID = X1) -> None:
    """Give the device a certificate, as far as the store is concerned."""
    now = utc_now()
    certificate = make_certificate(1, device_id=device_id, not_after=now + HOUR)
    scep_ra.in_store(
        lambda session: session.store.insert_enrollment(
            make_enrollment(1, device_id=device_id, created_at=now), spend=None
        )
    )
    scep_ra.in_store(lambda session: session.store.complete(make_enrollment(1).enrollment_id, certificate, now))


def connect(scep_ra: CommandLine, *headends: str, device_id: DeviceID = X1) -> None:
    async def work(session: Session) -> None:
        for headend in headends:
            live = make_session(headend=headend, device_id=device_id, nas_address="127.0.0.1")
            await session.store.record_session(live)

    scep_ra.in_store(work)


def lines(text: str) -> list[str]:
    """Return the lines without their milliseconds."""
    return re.sub(r"[0-9]+ ms", "N ms", text).splitlines()


def left_behind(scep_ra: CommandLine) -> list[OutboxMessage]:
    """Return what the server will send."""
    later = utc_now() + 24 * HOUR
    return list(scep_ra.in_store(lambda session: session.store.claim_messages(later, later, 99)))


def test_a_lost_device_is_cut_off_line_by_line(scep_ra: CommandLine) -> None:
    """Everything that was done, the headend's answer, and how long it took."""
    with threaded_headend() as headend:
        configure(scep_ra.data, {"vpn": headend.port})
        scep_ra.ok("device", "add", "X1")
        challenge = make_challenge(device_id=X1, expires_at=utc_now() + HOUR)
        scep_ra.in_store(lambda session: session.store.add_challenge(challenge))
        issue(scep_ra)
        connect(scep_ra, "vpn")
        outcome = scep_ra.ok("device", "disable", "X1")
    assert lines(outcome.out) == [
        "disabled serial:X1",
        "voided challenges: 1",
        "rejected requests: 0",
        "revoked certificates: 1",
        f"  {SERIAL + 1:x} of CA default",
        "CRL 1 of CA default lists them",
        "headend vpn, session 0A1B: ack (N ms)",
        "done in N ms",
    ]
    assert dict(read_request(headend.received[0]).attributes)["Acct-Session-Id"] == "0A1B"
    assert left_behind(scep_ra) == []
    assert scep_ra.ok("device", "show", "X1", "--json").json["enabled"] is False
    assert scep_ra.in_store(lambda session: session.store.list_sessions()) == []


def test_without_headends_it_just_tells_the_rest(scep_ra: CommandLine) -> None:
    """Twice does no harm."""
    scep_ra.ok("device", "add", "X1")
    expected = ["voided challenges: 0", "rejected requests: 0", "revoked certificates: 0", "done in N ms"]
    assert lines(scep_ra.ok("device", "disable", "X1").out) == ["disabled serial:X1", *expected]
    head, *rest = lines(scep_ra.ok("device", "disable", "X1").out)
    assert head.startswith("serial:X1 is not registered here, or was disabled before")
    assert rest == expected


def test_a_dead_headend_is_left_to_the_server_and_no_failure(
    scep_ra: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told at once; the exit status is 0."""
    monkeypatch.setattr(dae, "_RULES", Rules(retransmit_s=0.05, tries=2, require_message_authenticator="no"))
    refusing = answering(Code.DISCONNECT_NAK, ("Error-Cause", 504))
    with threaded_headend() as alive, threaded_headend(silent) as dead, threaded_headend(refusing) as stubborn:
        configure(scep_ra.data, {"alive": alive.port})
        with (scep_ra.data / "scep-ra.toml").open("a") as file:
            for name, headend in (("dead", dead), ("stubborn", stubborn)):
                file.write(
                    f'[headend.{name}]\naddress = "127.0.0.0/{24 if name == "dead" else 25}"\n'
                    f'secret_file = "headend.secret"\ndisconnect_port = {headend.port}\n'
                )
        scep_ra.ok("device", "add", "X1")
        connect(scep_ra, "alive", "dead", "stubborn")
        out = scep_ra.ok("device", "disable", "X1").out
    told = {line.partition(",")[0]: line for line in lines(out) if line.startswith("headend")}
    assert told["headend alive"].endswith(": ack (N ms)")
    assert told["headend stubborn"].endswith(": nak 504 session cannot be removed")
    assert "timeout (RADIUS server 127.0.0.1:" in told["headend dead"]
    assert "not delivered yet: 2; will be retried by the server" in out
    assert sorted(message.target for message in left_behind(scep_ra)) == ["dead", "stubborn"]


def test_a_webhook_that_is_away_is_left_to_the_server(scep_ra: CommandLine, unused_tcp_port: int) -> None:
    """It is told from the headends in what is printed."""
    configure(scep_ra.data, {}, f'[webhook.siem]\nurl = "http://127.0.0.1:{unused_tcp_port}/"\n')
    scep_ra.ok("device", "add", "X1")
    out = scep_ra.ok("device", "disable", "X1").out
    assert "webhook siem: ClientConnectorError: Cannot connect" in out
    assert [message.target for message in left_behind(scep_ra)] == ["siem"]


def test_a_headend_without_its_secret_does_not_hold_up_the_rest(scep_ra: CommandLine) -> None:
    """The device is off; what is wrong is said where it went wrong."""
    with threaded_headend() as headend:
        configure(scep_ra.data, {"vpn": headend.port})
        (scep_ra.data / "headend.secret").unlink()
        scep_ra.ok("device", "add", "X1")
        connect(scep_ra, "vpn")
        out = scep_ra.ok("device", "disable", "X1").out
    assert out.startswith("disabled serial:X1\n")
    assert "headend.secret should hold a secret and is not there" in out


def test_removing_removes_the_entry_and_does_the_same(scep_ra: CommandLine) -> None:
    """The second time there is nothing left that the name could mean."""
    scep_ra.ok("device", "add", "X1")
    issue(scep_ra)
    outcome = scep_ra.ok("device", "remove", "X1", "--reason", "key_compromise")
    assert lines(outcome.out)[0] == "removed serial:X1"
    certificate = scep_ra.in_store(lambda session: session.store.certificate("default", SERIAL + 1))
    assert certificate is not None
    assert certificate.revocation_reason == 1
    assert scep_ra.ok("device", "list").out == ""


@pytest.mark.parametrize(("command", "verb"), [("disable", "disabled"), ("remove", "removed")])
def test_certificates_are_kept_by_those_who_say_so(scep_ra: CommandLine, command: str, verb: str) -> None:
    """Only the entry changes."""
    scep_ra.ok("device", "add", "X1")
    issue(scep_ra)
    outcome = scep_ra.ok("device", command, "X1", "--keep-certificates")
    assert outcome.out == f"{verb} serial:X1; its certificates stay valid\n"
    certificate = scep_ra.in_store(lambda session: session.store.certificate("default", SERIAL + 1))
    assert certificate is not None
    assert certificate.revoked_at is None


@pytest.mark.parametrize("trace", ["certificate", "session"])
def test_a_device_that_only_another_aaa_knows_is_cut_off_too(scep_ra: CommandLine, trace: str) -> None:
    """By what it holds here, or where it is connected."""
    if trace == "certificate":
        issue(scep_ra)
    else:
        connect(scep_ra, "vpn")
    head, *rest = lines(scep_ra.ok("device", "disable", "X1").out)
    assert head.startswith("serial:X1 is not registered here")
    assert ("revoked certificates: 1" in rest) is (trace == "certificate")
    assert ("headend vpn, session 0A1B: no [headend.NAME] in the configuration" in rest) is (trace == "session")


def test_a_device_that_is_nowhere_is_not_found(scep_ra: CommandLine) -> None:
    """A slip must not look like success."""
    outcome = scep_ra("device", "disable", "X1")
    assert (outcome.status, "no device 'X1' is registered" in outcome.err) == (1, True)


def test_a_value_that_two_devices_go_by_must_be_told_apart(scep_ra: CommandLine) -> None:
    """The wrong one would be cut off."""
    digits = "490154203237518"
    for kind in (DeviceIDKind.SERIAL, DeviceIDKind.IMEI):
        connect(scep_ra, kind.value, device_id=DeviceID(kind=kind, value=digits))
    assert scep_ra("device", "disable", digits).status == 1
    assert scep_ra("device", "disable", digits, "--kind", "imei").status == 0


def test_cas_are_not_made_for_a_device_without_certificates(scep_ra: CommandLine, tmp_path: Path) -> None:
    """Keys of CAs take seconds to make, and nobody asked for one."""
    scep_ra.ok("device", "add", "X1")
    scep_ra.ok("device", "disable", "X1")
    assert not (tmp_path / "var" / "ca").exists()
