"""Values as they look in the database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.storage.database import decode_serial, decode_time, encode_serial, encode_time

# Fixed offsets: local times that daylight saving skips are not equal to themselves in UTC.
OFFSETS = st.integers(-720, 720).map(lambda minutes: timezone(timedelta(minutes=minutes)))
SERIALS = st.integers(min_value=0, max_value=2**160 - 1)


@given(st.datetimes(datetime(1900, 1, 1), datetime(9999, 1, 1), timezones=OFFSETS))  # noqa: DTZ001 - bounds are naive
def test_a_time_comes_back_to_the_microsecond(time: datetime) -> None:
    """In UTC, whatever zone it was given in."""
    assert decode_time(encode_time(time)) == time
    assert decode_time(encode_time(time)).tzinfo is UTC


def test_times_are_microseconds_since_1970() -> None:
    """A fixed point, because files outlive programs."""
    assert encode_time(datetime(2026, 1, 1, tzinfo=UTC)) == 1_767_225_600_000_000
    assert encode_time(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0


def test_a_naive_time_is_refused() -> None:
    """Nobody knows which zone was meant."""
    with pytest.raises(TypeError):
        encode_time(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


@given(SERIALS, SERIALS)
def test_serials_come_back_and_sort_like_numbers(one: int, other: int) -> None:
    """A CRL is read in the order of this text."""
    assert decode_serial(encode_serial(one)) == one
    assert (encode_serial(one) < encode_serial(other)) == (one < other)


@pytest.mark.parametrize("certificate_serial", [-1, 2**160])
def test_a_serial_outside_20_octets_is_refused(certificate_serial: int) -> None:
    """It would sort wrongly."""
    with pytest.raises(ValueError, match="20 octets"):
        encode_serial(certificate_serial)
