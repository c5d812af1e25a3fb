"""Claims about the lock-out after wrong challenges (V14): it bites who guesses, and not the device they guess for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.enrollment.lockout import Lockout
from tests.support.records import device_id
from tests.support.stopwatch import Stopwatch

ATTEMPTS = 10
WINDOW_S = 300.0
DEVICE, OTHER = device_id("SN1"), device_id("SN2")
THIEF, HOME = "192.0.2.66", "192.0.2.1"


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def lockout(clock: Stopwatch) -> Lockout:
    return Lockout(attempts=ATTEMPTS, window_s=WINDOW_S, monotonic=clock)


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    with capture_logs() as log:
        yield log


def spread(lockout: Lockout, count: int) -> None:
    """Fail for one device, each time from another address."""
    for number in range(count):
        assert not lockout.failed(f"198.51.100.{number}", DEVICE)


def test_the_tenth_wrong_challenge_locks_its_source(lockout: Lockout) -> None:
    """For every device; nine do not."""
    for number in range(ATTEMPTS):
        lockout.check(THIEF, OTHER)
        assert not lockout.failed(THIEF, device_id(f"GUESS{number}"))

    with pytest.raises(NotAuthorized, match=r"192\.0\.2\.66 is locked out after 10 wrong challenges"):
        lockout.check(THIEF, OTHER)
    assert lockout.failed(THIEF, OTHER)


def test_a_locked_device_gets_in_from_its_own_clean_address(lockout: Lockout) -> None:
    """Whoever guesses for a device does not keep the device out."""
    for _ in range(ATTEMPTS):
        lockout.failed(THIEF, DEVICE)

    lockout.check(HOME, DEVICE)


def test_a_locked_device_is_locked_for_whoever_failed_lately(lockout: Lockout) -> None:
    """An attacker with many addresses has one guess from each."""
    spread(lockout, ATTEMPTS)

    lockout.check(HOME, DEVICE)
    assert lockout.failed(HOME, DEVICE)
    with pytest.raises(NotAuthorized, match="serial:SN1 is locked out after 10 wrong challenges"):
        lockout.check(HOME, DEVICE)
    lockout.check(HOME, OTHER)


def test_addresses_of_one_ipv6_network_are_one_source(lockout: Lockout) -> None:
    """A /64 belongs to one subscriber."""
    for number in range(ATTEMPTS):
        lockout.failed(f"2001:db8::{number + 1:x}", device_id(f"GUESS{number}"))

    with pytest.raises(NotAuthorized, match="2001:db8::/64 is locked out"):
        lockout.check("2001:db8::ffff", OTHER)


def test_a_lock_opens_after_the_window_however_often_it_is_tried(lockout: Lockout, clock: Stopwatch) -> None:
    """What is tried under a lock is not counted."""
    for _ in range(ATTEMPTS):
        lockout.failed(THIEF, DEVICE)
    for _ in range(29):
        clock.advance(10)
        assert lockout.failed(THIEF, DEVICE)

    clock.advance(10)
    lockout.check(THIEF, DEVICE)
    assert not lockout.failed(THIEF, DEVICE)
    lockout.check(THIEF, DEVICE)


def test_wrong_challenges_count_as_long_as_the_window_is(lockout: Lockout, clock: Stopwatch) -> None:
    """It slides: ten in a little more than five minutes lock nothing, the eleventh within them does."""
    lockout.failed(THIEF, DEVICE)
    clock.advance(WINDOW_S - 1)
    for _ in range(ATTEMPTS - 2):
        lockout.failed(THIEF, DEVICE)
    clock.advance(1)
    lockout.failed(THIEF, DEVICE)
    lockout.check(THIEF, DEVICE)

    lockout.failed(THIEF, DEVICE)
    with pytest.raises(NotAuthorized):
        lockout.check(THIEF, DEVICE)


def test_the_moment_of_locking_is_reported_once(lockout: Lockout, events: list[EventDict]) -> None:
    """One line for the device and one for the source, whatever comes after."""
    for _ in range(3 * ATTEMPTS):
        lockout.failed(THIEF, DEVICE)

    facts = {"source": THIEF, "device_id": "serial:SN1", "attempts": ATTEMPTS, "for_s": WINDOW_S}
    assert events == [
        {"event": "lockout", "log_level": "warning", "locked": locked, **facts} for locked in ("device", "source")
    ]


def test_no_attempts_mean_no_lock(events: list[EventDict]) -> None:
    """The switch that turns it off."""
    lockout = Lockout(attempts=0, window_s=WINDOW_S)
    for _ in range(100):
        assert not lockout.failed(THIEF, DEVICE)
        lockout.check(THIEF, DEVICE)

    assert events == []


def test_memory_is_bounded_and_devices_push_out_no_source(clock: Stopwatch) -> None:
    """Whoever was quiet longest is forgotten first."""
    lockout = Lockout(attempts=2, window_s=WINDOW_S, monotonic=clock, max_keys=3)
    lockout.failed(THIEF, DEVICE)
    lockout.failed(THIEF, OTHER)
    for number in range(2):
        lockout.failed(f"198.51.100.{number}", device_id(f"GUESS{number}"))
    with pytest.raises(NotAuthorized):
        lockout.check(THIEF, DEVICE)

    lockout.failed("198.51.100.7", DEVICE)
    lockout.check(THIEF, DEVICE)
