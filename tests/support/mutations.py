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


# --- the same in BER -----------------------------------------------------------------------------------------------


def streamed(octets: bytes, segment: int = 100) -> bytes:
    """Return DER as BER of indefinite length throughout, long OCTET STRINGs cut into segments."""
    parts: list[bytes] = []
    reader = der.Reader(octets)
    while not reader.at_end():
        tag = reader.peek()
        if tag & _CONSTRUCTED:
            parts.append(bytes((tag, 0x80)) + streamed(reader.enter(tag).remaining(), segment) + b"\x00\x00")
            continue
        contents = reader.contents(tag)
        if tag == der.OCTET_STRING and len(contents) > segment:
            cut = [contents[start : start + segment] for start in range(0, len(contents), segment)]
            parts.append(b"\x24\x80" + b"".join(map(der.octet_string, cut)) + b"\x00\x00")
        else:
            parts.append(der.element(tag, contents))
    return b"".join(parts)


def long_lengths(octets: bytes) -> bytes:
    """Return DER as BER in which every length takes five octets."""
    parts: list[bytes] = []
    reader = der.Reader(octets)
    while not reader.at_end():
        tag = reader.peek()
        contents = long_lengths(reader.enter(tag).remaining()) if tag & _CONSTRUCTED else reader.contents(tag)
        parts.append(bytes((tag, 0x84)) + len(contents).to_bytes(4, "big") + contents)
    return b"".join(parts)
