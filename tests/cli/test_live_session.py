"""Claims about `scep-ra session`: who is connected, for people and for programs."""

from __future__ import annotations

from typing import Any

from scep_ra.cli.session import Session
from tests.support.command_line import CommandLine
from tests.support.records import HOUR, NOW, device_id, make_session


def connect(scep_ra: CommandLine, *session_ids: str, **fields: Any) -> None:
    """Report sessions, each an hour after the one before."""

    async def work(session: Session) -> None:
        for number, session_id in enumerate(session_ids):
            await session.store.record_session(make_session(session_id, started_at=NOW + number * HOUR, **fields))

    scep_ra.in_store(work)


def test_sessions_are_listed_newest_first(scep_ra: CommandLine) -> None:
    """With all that tells them apart."""
    connect(scep_ra, "0A", "0B")
    listed = scep_ra.ok("session", "list", "--json").json
    assert [each["session_id"] for each in listed] == ["0B", "0A"]
    assert listed[1] == {
        "device": "serial:SN123",
        "user_name": "CN=laptop,serialNumber=SN123",
        "headend": "vpn",
        "session_id": "0A",
        "address": "198.51.100.9",
        "from": "203.0.113.5",
        "started": "2026-03-01T12:00:00Z",
        "updated": "2026-03-01T12:00:00Z",
    }


def test_the_sessions_of_one_device_are_found_by_its_value(scep_ra: CommandLine) -> None:
    """Those of others, and of nobody we know, are left out."""
    connect(scep_ra, "0A")
    connect(scep_ra, "0B", device_id=device_id("SN9"))
    connect(scep_ra, "0C", device_id=None)
    (found,) = scep_ra.ok("session", "list", "--device", "sn9", "--json").json
    assert found["session_id"] == "0B"
    nobody = scep_ra.ok("session", "list").out.splitlines()
    assert len(nobody) == 4


def test_a_long_list_says_that_there_is_more(scep_ra: CommandLine) -> None:
    """And how to see it."""
    scep_ra.data.mkdir(mode=0o700)
    connect(scep_ra, "0A", "0B")
    outcome = scep_ra.ok("session", "list", "--limit", "1")
    assert "0B" in outcome.out
    assert "0A" not in outcome.out
    assert outcome.err == "these are the newest 1; --limit shows more\n"
