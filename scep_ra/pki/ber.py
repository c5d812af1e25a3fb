"""Guard and bridge in front of the DER reader: a linear scan with limits, and BER (X.690 clause 8) turned into DER.

Everything that comes from a peer, decrypted content included, passes here before anything else looks at it.
Tags and nesting are judged, values are not; what the elements mean, and the order of a SET, belong elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scep_ra.pki import der
from scep_ra.pki.errors import MalformedData

_CONSTRUCTED: Final = 0x20
_INDEFINITE: Final = 0x80
_END_OF_CONTENTS: Final = b"\x00\x00"
_OPEN: Final = -1  # stands for the end of contents of indefinite length
_MAX_LENGTH_OCTETS: Final = 4  # what der.Reader reads; five would speak of more than 4 GiB
_DEEPEST: Final = 64  # the rebuilding recurses once a level, so a limit set by hand must stay far below Python's


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a message may hold; sizes in octets."""

    max_bytes: int = 65536  # a request with chain and a large challenge is below 10 KiB
    max_depth: int = 16  # a certificate inside SignedData reaches 9; streamed strings add two or three
    max_elements: int = 4096  # requests of sscep and strongSwan have about 100; this holds the scan below 5 ms
    max_oid_bytes: int = 64  # decoding one huge arc costs quadratic time
    max_integer_bytes: int = 1032  # an RSA modulus of 8192 bits and some; printing larger ones costs quadratic time

    def __post_init__(self) -> None:
        if not 1 <= self.max_depth <= _DEEPEST:
            raise ValueError(f"max_depth is {self.max_depth}: set 1 to {_DEEPEST}")


DEFAULT_LIMITS: Final = Limits()

# Forms of an identifier octet, looked up instead of computed: the scan passes here once an element.
_PRIMITIVE_FORM: Final = 0
_CONSTRUCTED_FORM: Final = 1
_SEGMENTED_FORM: Final = 2  # a string cut into segments (X.690 8.6, 8.7, 8.23 to 8.26), which DER forbids
_REFUSED_FORM: Final = 3
_STRINGS: Final = frozenset({3, 4, 12, *range(18, 29), 30})
_ALWAYS_PRIMITIVE: Final = frozenset({1, 2, 5, 6, 9, 10, 13})
_ALWAYS_CONSTRUCTED: Final = frozenset({der.SEQUENCE & 0x1F, der.SET & 0x1F})


def _form(identifier: int) -> int:
    is_universal, number = identifier < 0x40, identifier & 0x1F
    # Number 31 announces a tag of several octets: nothing in this field has one, and reading it costs quadratic time.
    # Universal 0 is end-of-contents, which the scan takes out where it belongs.
    if number == 0x1F or (is_universal and number == 0):
        return _REFUSED_FORM
    if not identifier & _CONSTRUCTED:
        return _REFUSED_FORM if is_universal and number in _ALWAYS_CONSTRUCTED else _PRIMITIVE_FORM
    if is_universal and number in _ALWAYS_PRIMITIVE:
        return _REFUSED_FORM
    return _SEGMENTED_FORM if is_universal and number in _STRINGS else _CONSTRUCTED_FORM


_FORMS: Final = bytes(_form(identifier) for identifier in range(256))


def scan(octets: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, bool]:  # noqa: C901, PLR0912 - one loop, no calls: speed
    """Check the first element in one linear pass; return its length in octets and whether it has DER's shape.

    DER's shape is definite minimal lengths and unsegmented strings. Raise MalformedData when an element does not
    fit what holds it, has an impossible identifier or length, or exceeds a limit.
    """
    bound = len(octets)  # where the innermost element of definite length ends
    if bound > limits.max_bytes:
        raise MalformedData(f"{bound} octets where {limits.max_bytes} are allowed")
    is_open = False  # whether the element we are in ends by end-of-contents
    outer: list[tuple[int, bool]] = []  # bound and is_open of the elements around this one
    position = elements = 0
    is_der = True
    short = min(limits.max_oid_bytes, limits.max_integer_bytes, 0x7F)  # lengths in one octet that no limit forbids
    while True:
        if is_open and octets.startswith(_END_OF_CONTENTS, position, bound):
            position += len(_END_OF_CONTENTS)
            bound, is_open = outer.pop()
        else:
            elements += 1
            if elements > limits.max_elements:
                raise MalformedData(f"more than {limits.max_elements} elements")
            if position + 2 <= bound and octets[position + 1] <= short:
                # Nine of ten: read here, because a call costs as much again.
                identifier, start, is_minimal = octets[position], position + 2, True
                end = start + octets[position + 1]
                if end > bound:
                    raise MalformedData(f"octet {position}: an element is longer than what holds it")
            else:
                identifier, start, end, is_minimal = _header(octets, position, bound)
            form = _FORMS[identifier]
            is_der = is_der and is_minimal and form != _SEGMENTED_FORM
            if form == _PRIMITIVE_FORM:
                if end > start + short or end == _OPEN:
                    _check_primitive(identifier, start, end, limits)
                position = end
            elif form == _REFUSED_FORM:
                raise MalformedData(f"octet {position}: identifier {identifier:#04x} is not allowed")
            elif len(outer) == limits.max_depth:
                raise MalformedData(f"octet {position}: nested deeper than {limits.max_depth}")
            else:
                position = start
                outer.append((bound, is_open))
                is_open = end == _OPEN
                bound = bound if is_open else end
        while position == bound and outer and not is_open:
            bound, is_open = outer.pop()
        if not outer:
            return position, is_der


def _header(octets: bytes, position: int, bound: int) -> tuple[int, int, int, bool]:
    """Return (identifier, start of contents, their end or _OPEN, whether the length is definite and minimal)."""
    start = position + 2
    if start > bound:
        raise MalformedData(f"octet {position}: an element is cut off, or end-of-contents is missing")
    identifier, length = octets[position], octets[position + 1]
    is_minimal = True
    if length == _INDEFINITE:
        return identifier, start, _OPEN, False
    if length > _INDEFINITE:
        count = length & 0x7F
        if count > _MAX_LENGTH_OCTETS:
            raise MalformedData(f"octet {position}: a length of {count} octets")
        length = int.from_bytes(octets[start : start + count], "big")
        start += count
        is_minimal = length >= 1 << max(7, 8 * (count - 1))
    if start + length > bound:
        raise MalformedData(f"octet {position}: an element is longer than what holds it")
    return identifier, start, start + length, is_minimal


def _check_primitive(identifier: int, start: int, end: int, limits: Limits) -> None:
    if end == _OPEN:
        raise MalformedData(f"octet {start}: a primitive element of indefinite length")
    if identifier == der.INTEGER and end - start > limits.max_integer_bytes:
        raise MalformedData(f"octet {start}: INTEGER of more than {limits.max_integer_bytes} octets")
    if identifier == der.OBJECT_IDENTIFIER and end - start > limits.max_oid_bytes:
        raise MalformedData(f"octet {start}: OBJECT IDENTIFIER of more than {limits.max_oid_bytes} octets")


def normalise(octets: bytes, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return the first element in DER's shape, the same object when it is so already; raise MalformedData.

    What has DER's shape inside, such as a certificate, comes out unchanged; sets keep their order and
    context-specific elements their form. Trailing CR and LF are dropped, anything else trailing is refused.
    """
    length, is_der = scan(octets, limits)
    if octets[length:].strip(b"\r\n"):
        raise MalformedData(f"{len(octets) - length} octets after the end of the message")
    if is_der:
        return octets[:length]
    return _rebuild(octets, 0)[0]


def _rebuild(octets: bytes, position: int) -> tuple[bytes, int]:
    """Return the scanned element at `position` in DER's shape, and where the next one begins."""
    identifier, start, end, _ = _header(octets, position, len(octets))
    if not identifier & _CONSTRUCTED:
        return der.element(identifier, octets[start:end]), end
    children: list[bytes] = []
    position = start
    # An element cannot begin with 0: the scan has refused it, so 0 is the first octet of end-of-contents.
    while octets[position] if end == _OPEN else position < end:
        child, position = _rebuild(octets, position)
        children.append(child)
    return _assemble(identifier, children), position + (len(_END_OF_CONTENTS) if end == _OPEN else 0)


def _assemble(identifier: int, children: list[bytes]) -> bytes:
    if _FORMS[identifier] != _SEGMENTED_FORM:
        return der.element(identifier, b"".join(children))
    string = identifier & ~_CONSTRUCTED
    if string == der.BIT_STRING:
        return der.element(string, _join_bits([der.Reader(child).contents(string) for child in children]))
    # X.690 8.23.6 makes the segments of a character string OCTET STRINGs; encoders that repeat the tag are understood.
    if any(child[0] not in (der.OCTET_STRING, string) for child in children):
        raise MalformedData(f"a segment of string {string:#04x} is no string of its kind")
    return der.element(string, b"".join(der.Reader(child).contents(child[0]) for child in children))


def _join_bits(segments: list[bytes]) -> bytes:
    """Join BIT STRING segments, each led by its count of unused bits; only the last may have any (X.690 8.6.4)."""
    if not segments:
        return b"\x00"
    if any(segment[:1] != b"\x00" for segment in segments[:-1]) or not segments[-1]:
        raise MalformedData("a BIT STRING segment other than the last is no whole number of octets")
    return segments[-1][:1] + b"".join(segment[1:] for segment in segments)
