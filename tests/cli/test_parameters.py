"""Claims about the values that options and arguments take."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from scep_ra.cli.parameters import certificate_serial, duration

CONTEXT = click.Context(click.Command("any"))
PARAMETER = click.Option(["--any"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("1h", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("366d", timedelta(days=366)),
    ],
)
def test_a_duration_is_a_number_with_a_unit(text: str, expected: timedelta) -> None:
    """Seconds, minutes, hours and days."""
    assert duration(CONTEXT, PARAMETER, text) == expected


@pytest.mark.parametrize("text", ["", "5", "h", "1w", "-1h", "1.5h", "1h30m", " 1h", "1H", "0s", "367d", "999999999d"])
def test_other_durations_are_usage_errors(text: str) -> None:
    """Nothing is guessed, and nothing leaves the calendar."""
    with pytest.raises(click.BadParameter):
        duration(CONTEXT, PARAMETER, text)


@pytest.mark.parametrize("text", ["4a007f", "4A007F", "4a:00:7f", "004a007f", "dec:4849791"])
def test_a_serial_is_hexadecimal_or_decimal(text: str) -> None:
    """All spellings that tools print are accepted."""
    assert certificate_serial(CONTEXT, PARAMETER, text) == 0x4A007F


def test_the_longest_serial_has_20_octets() -> None:
    """RFC 5280 4.1.2.2 allows no more."""
    assert certificate_serial(CONTEXT, PARAMETER, "ff" * 20) == 2**160 - 1
    assert certificate_serial(CONTEXT, PARAMETER, f"dec:{2**160 - 1}") == 2**160 - 1


@pytest.mark.parametrize(
    "text", ["", ":", "xyz", "0x1f", "-1", "1_0", "dec:", "dec:ff", "dec:-1", "ff" * 21, f"dec:{2**160}", "\u0661"]
)
def test_other_serials_are_usage_errors(text: str) -> None:
    """Signs, prefixes, separators and other alphabets are not read over."""
    with pytest.raises(click.BadParameter):
        certificate_serial(CONTEXT, PARAMETER, text)
