"""Claims about JSON on which decisions hang: read in one way, or not at all."""

from __future__ import annotations

import pytest

from scep_ra.strict_json import read_object


def test_an_object_is_read() -> None:
    """With all that JSON has."""
    octets = rb'{"a": [1, -2.5, true, null, "\u00e4\ud83d\ude00"], "b": {"a": 1e3}}'
    assert read_object(octets) == {"a": [1, -2.5, True, None, "\u00e4\U0001f600"], "b": {"a": 1000.0}}


@pytest.mark.parametrize(
    "octets",
    [
        b'{"allow": false, "allow": true}',
        b'{"data": {"profile": "guest", "profile": "admin"}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[]",
        b'"text"',
        b"\xff{}",
        b"",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(octets: bytes) -> None:
    """A key twice, numbers that are none, half of a character, and what would end the reader."""
    with pytest.raises(ValueError, match="JSON") as caught:
        read_object(octets)
    assert "allow" not in str(caught.value)
