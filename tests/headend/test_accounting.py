"""Claims about Accounting-Requests: which sessions are known afterwards, and of which devices."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from scep_ra.headend import accounting
from scep_ra.headend.accounting import Accounting, StatusType
from scep_ra.headend.radius_headends import RadiusHeadend
from scep_ra.radius.errors import MalformedPacket
from scep_ra.radius.packets import Code, Value
from scep_ra.security_events import SecurityEvent
from scep_ra.storage.sessions import LiveSession, MessageKind, TooManySessions
from tests.support.headends import Gate, accounting_request, make_headend
from tests.support.records import NOW, device_id, disconnect_device

SESSION: tuple[tuple[str, Value], ...] = (
    ("User-Name", "CN=laptop,serialNumber=SN123"),
    ("Acct-Session-Id", "0A1B"),
    ("NAS-IP-Address", "192.0.2.7"),
    ("NAS-Identifier", "vpn-1"),
    ("Framed-IP-Address", "198.51.100.9"),
    ("Calling-Station-Id", "203.0.113.5"),
)


async def report(
    gate: Gate, status: int, *attributes: tuple[str, Value], headend: RadiusHeadend | None = None
) -> list[LiveSession]:
    """Report something and return the sessions that are known then."""
    handler = Accounting(engine=gate.engine, sessions=gate.store, now=lambda: gate.now)
    answer = await handler.answer(accounting_request(status, *attributes), headend or make_headend(), "127.0.0.1")
    assert answer.code is Code.ACCOUNTING_RESPONSE
    assert answer.attributes == ()
    return list(await gate.store.list_sessions())


async def test_a_session_begins_with_all_that_a_disconnect_needs(gate: Gate) -> None:
    """The name as the headend wrote it, and the device that it means."""
    await gate.issue()
    assert await report(gate, StatusType.START, *SESSION) == [
        LiveSession(
            headend="vpn",
            session_id="0A1B",
            user_name="CN=laptop,serialNumber=SN123",
            device_id=device_id(),
            nas_address="192.0.2.7",
            nas_identifier="vpn-1",
            framed_address="198.51.100.9",
            calling_station="203.0.113.5",
            started_at=NOW,
            updated_at=NOW,
        )
    ]


async def test_an_interim_update_keeps_a_session_alive(gate: Gate) -> None:
    """Or makes it known, when its start was lost."""
    await report(gate, StatusType.START, *SESSION)
    gate.now += timedelta(minutes=5)
    (session,) = await report(gate, StatusType.INTERIM_UPDATE, *SESSION)
    assert (session.started_at, session.updated_at) == (NOW, gate.now)


async def test_a_session_ends_with_its_stop(gate: Gate) -> None:
    """Once or twice."""
    await report(gate, StatusType.START, *SESSION)
    for _ in range(2):
        assert await report(gate, StatusType.STOP, ("Acct-Session-Id", "0A1B")) == []


@pytest.mark.parametrize("status", [StatusType.ACCOUNTING_ON, StatusType.ACCOUNTING_OFF])
async def test_a_headend_that_starts_anew_has_no_sessions(gate: Gate, status: StatusType) -> None:
    """Nor one that goes down."""
    await report(gate, StatusType.START, *SESSION)
    assert await report(gate, status) == []


async def test_one_of_several_headends_of_a_name_does_not_end_the_sessions_of_all(gate: Gate) -> None:
    """Nobody can tell whose they are."""
    several = make_headend(network="127.0.0.0/8")
    await report(gate, StatusType.START, *SESSION, headend=several)
    assert len(await report(gate, StatusType.ACCOUNTING_ON, headend=several)) == 1


async def test_other_news_is_answered_and_changes_nothing(gate: Gate) -> None:
    """Tunnel-Start (9), for one."""
    assert await report(gate, 9, *SESSION) == []


@pytest.mark.parametrize("status", [StatusType.START, StatusType.STOP])
async def test_a_session_has_to_have_an_id(gate: Gate, status: StatusType) -> None:
    """It could not be disconnected without."""
    with pytest.raises(MalformedPacket, match="Acct-Session-Id"):
        await report(gate, status, ("User-Name", "SN123"))


async def test_the_class_of_our_answer_names_the_device(gate: Gate) -> None:
    """Whatever the user name is; a Class of somebody else is passed over."""
    classes: list[tuple[str, Value]] = [("Class", b"\xff"), ("Class", b"sn123"), ("Class", b"serial:SN123")]
    (session,) = await report(gate, StatusType.START, ("Acct-Session-Id", "1"), ("User-Name", "alice"), *classes)
    assert session.device_id == device_id()


async def test_a_session_of_nobody_we_know_is_kept_as_such(gate: Gate) -> None:
    """A headend may let in others than devices of ours."""
    others: tuple[tuple[str, Value], ...] = ("Class", b""), ("User-Name", "alice")
    (session,) = await report(gate, StatusType.START, ("Acct-Session-Id", "1"), *others)
    assert session.device_id is None


@pytest.mark.parametrize(("network", "expected"), [("127.0.0.1", ""), ("127.0.0.0/8", "127.0.0.1")])
async def test_a_headend_that_does_not_say_where_it_is_is_where_it_asks_from(
    gate: Gate, network: str, expected: str
) -> None:
    """Where there is just one, a disconnect needs no address and must not make one up."""
    (session,) = await report(gate, StatusType.START, ("Acct-Session-Id", "1"), headend=make_headend(network=network))
    assert session.nas_address == expected


async def test_ipv6_addresses_are_kept_as_well(gate: Gate) -> None:
    """Of the headend and of the device."""
    (session,) = await report(
        gate,
        StatusType.START,
        ("Acct-Session-Id", "1"),
        ("NAS-IPv6-Address", "2001:db8::1"),
        ("Framed-IPv6-Address", "2001:db8::2"),
    )
    assert (session.nas_address, session.framed_address) == ("2001:db8::1", "2001:db8::2")


async def test_a_session_reported_after_the_disconnect_is_ended_as_well(gate: Gate) -> None:
    """Its start was on the way when the disconnect looked for sessions; one request is enough."""
    await gate.issue()
    await disconnect_device(gate.store)
    with capture_logs() as events:
        await report(gate, StatusType.START, *SESSION)
    await report(gate, StatusType.INTERIM_UPDATE, *SESSION)
    (message,) = await gate.store.claim_messages(NOW, NOW + timedelta(seconds=30), 9)
    assert (message.kind, message.target, message.payload["session_id"]) == (MessageKind.DISCONNECT, "vpn", "0A1B")
    denied = [event["device_id"] for event in events if event["event"] == SecurityEvent.ACCESS_DENIED]
    assert denied == ["serial:SN123"]


async def test_a_session_of_a_device_that_is_back_is_left_alone(gate: Gate) -> None:
    """It was cut off once, and has a certificate again."""
    await disconnect_device(gate.store, now=NOW - timedelta(hours=1))
    await gate.issue()
    await report(gate, StatusType.START, *SESSION)
    assert await gate.store.claim_messages(NOW, NOW + timedelta(seconds=30), 9) == []


@pytest.mark.parametrize(("late_s", "left"), [(-301, 1), (-299, 0), (299, 0), (301, 1)])
async def test_a_restart_that_was_recorded_and_sent_again_hides_no_sessions(gate: Gate, late_s: int, left: int) -> None:
    """Who can do it would keep a lost device connected through its disconnect."""
    await report(gate, StatusType.START, *SESSION)
    said_at: tuple[str, Value] = "Event-Timestamp", int(NOW.timestamp()) + late_s
    assert len(await report(gate, StatusType.ACCOUNTING_ON, said_at)) == left


async def test_a_headend_fills_no_more_than_its_share(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known sessions are refreshed nevertheless, and the sessions of others do not count."""
    monkeypatch.setattr(accounting, "MAX_SESSIONS", 2)
    for number in range(2):
        await report(gate, StatusType.START, ("Acct-Session-Id", f"{number}"))
    with pytest.raises(TooManySessions, match=r"\[headend\.vpn\] has 2 live sessions"):
        await report(gate, StatusType.START, ("Acct-Session-Id", "2"))
    await report(gate, StatusType.INTERIM_UPDATE, ("Acct-Session-Id", "1"))
    assert len(await report(gate, StatusType.START, ("Acct-Session-Id", "2"), headend=make_headend("wifi"))) == 3
