"""Change valid DER a little: one octet, the end cut off, or one element said twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from hypothesis import strategies as st

from scep_ra.pki import der

_CONSTRUCTED = 0x20


def _copy(reader: der.Reader, numbers: Iterator[int], doubled: int) -> bytes:
    parts: list[bytes] = []
    while not reader.at_end():
        number, tag = next(numbers), reader.peek()
        contents = _copy(reader.enter(tag), numbers, doubled) if tag & _CONSTRUCTED else reader.contents(tag)
        parts.append(der.element(tag, contents) * (2 if number == doubled else 1))
    return b"".join(parts)


def count_elements(octets: bytes) -> int:
    """Return how many elements there are, nested ones included."""
    numbers = count()
    _copy(der.Reader(octets), numbers, -1)
    return next(numbers)


def duplicate_element(octets: bytes, number: int) -> bytes:
    """Return the octets with the element of this number (in preorder) twice, and all lengths corrected."""
    return _copy(der.Reader(octets), count(), number)


def mutations(octets: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of octets that differ a little from these."""
    last = len(octets) - 1
    changed = st.builds(
        lambda position, octet: octets[:position] + bytes([octet]) + octets[position + 1 :],
        st.integers(0, last),
        st.integers(0, 255),
    )
    truncated = st.integers(0, last).map(lambda length: octets[:length])
    doubled = st.integers(0, count_elements(octets) - 1).map(lambda number: duplicate_element(octets, number))
    return changed | truncated | doubled
