"""Typed values as texts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv4Address
from uuid import UUID

import pytest

from scep_ra.aaa.base import MalformedAnswer
from scep_ra.aaa.values import is_yes, texts


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ()),
        ("a", ("a",)),
        (True, ("true",)),
        (7, ("7",)),
        (1.5, ("1.5",)),
        (Decimal("1.50"), ("1.50",)),
        (date(2027, 1, 2), ("2027-01-02",)),
        (datetime(2027, 1, 2, 3, tzinfo=UTC), ("2027-01-02T03:00:00+00:00",)),
        (UUID(int=1), ("00000000-0000-0000-0000-000000000001",)),
        (IPv4Address("192.0.2.1"), ("192.0.2.1",)),
        (["a", None, 1], ["a", "1"]),
        ((), []),
    ],
)
def test_plain_values_and_lists_of_them_become_texts(value: object, said: object) -> None:
    """As databases and JSON bring them."""
    assert texts("x", value) == said


@pytest.mark.parametrize("value", [b"a", {"a": 1}, [{"a": 1}], object()])
def test_other_values_are_no_answer(value: object) -> None:
    """Named by their type."""
    with pytest.raises(MalformedAnswer, match="as 'x'"):
        texts("x", value)


@pytest.mark.parametrize(
    ("value", "yes"),
    [(True, True), (1, True), ("Yes", True), (False, False), (0, False), ("no", False), ("", False), (None, False)],
)
def test_a_flag_is_read_in_any_type(value: object, yes: bool) -> None:
    """SQLite has no booleans."""
    assert is_yes("allow", value) is yes


def test_a_flag_that_says_something_else_is_no_answer() -> None:
    """Half an answer is none."""
    with pytest.raises(MalformedAnswer, match="allow = 'maybe': write true or false"):
        is_yes("allow", "maybe")
