"""Read and write DER (X.690): a strict cursor for parsing, small functions for building.

The reader expects octets that `ber.scan` has accepted and `ber.normalise` has made definite and minimal;
it still checks every tag and bound, so hostile input ends in MalformedData and in nothing else.
ASN.1 modules of the field do not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from scep_ra.pki.errors import MalformedData

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
ENUMERATED: Final = 0x0A
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
T61_STRING: Final = 0x14
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
UNIVERSAL_STRING: Final = 0x1C
BMP_STRING: Final = 0x1E
SEQUENCE: Final = 0x30
SET: Final = 0x31

NULL: Final = b"\x05\x00"
TRUE: Final = b"\x01\x01\xff"

_LONG_LENGTH: Final = 0x80  # from here on the first length octet counts those that follow
_PRINTABLE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")
# UTCTime carries two digits of the year: RFC 5280 4.1.2.5 reads 50..99 as 19xx and wants GeneralizedTime from 2050.
_UTC_TIME_PIVOT: Final = 50
# Decoding a huge arc costs quadratic time, and printing one of 4300 digits raises ValueError. `ber.Limits` has the same
# bound for what it sees; it does not look into OCTET STRINGs, where extensions hide theirs.
_MAX_OID_OCTETS: Final = 64


def context(number: int, *, constructed: bool = True) -> int:
    """Return the identifier octet of context-specific tag [number] (number <= 30)."""
    return 0x80 | (0x20 if constructed else 0) | number


# --- reading -------------------------------------------------------------------------------------------------------


class Reader:
    """Walk the elements of one constructed value; every method raises MalformedData when the octets disagree."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._position = start
        self._end = len(data) if end is None else end

    def _header(self, expected: int | None) -> tuple[int, int]:
        """Return (start of contents, end of contents) of the next element."""
        data, position, end = self._data, self._position, self._end
        if position + 2 > end:
            raise MalformedData("an element is missing")
        if expected is not None and data[position] != expected:
            raise MalformedData(f"tag {data[position]:#04x} where {expected:#04x} is expected")
        length = data[position + 1]
        start = position + 2
        if length >= _LONG_LENGTH:
            octets = length & 0x7F
            if not 1 <= octets <= 4:
                raise MalformedData("length is not definite")
            length = int.from_bytes(data[start : start + octets], "big")
            start += octets
        if start + length > end:
            raise MalformedData("an element is longer than what holds it")
        return start, start + length

    def peek(self) -> int:
        """Return the identifier octet of the next element, -1 at the end."""
        return self._data[self._position] if self._position < self._end else -1

    def enter(self, tag: int = SEQUENCE) -> Reader:
        """Return a reader over the contents of the next element and step past it."""
        data, position = self._data, self._position
        if position + 1 < self._end and data[position] == tag and data[position + 1] < _LONG_LENGTH:  # as in `contents`
            start = position + 2
            end = start + data[position + 1]
            if end <= self._end:
                self._position = end
                return Reader(data, start, end)
        start, end = self._header(tag)
        self._position = end
        return Reader(self._data, start, end)

    def enter_optional(self, tag: int) -> Reader | None:
        """Enter the next element if it bears this tag."""
        return self.enter(tag) if self.peek() == tag else None

    def element(self, tag: int | None = None) -> bytes:
        """Return the next element whole, header included."""
        begin = self._position
        _, end = self._header(tag)
        self._position = end
        return self._data[begin:end]

    def contents(self, tag: int) -> bytes:
        """Return the contents octets of the next element."""
        data, position = self._data, self._position
        # A short length, as most have, is read here: the call would cost more than the rest.
        if position + 1 < self._end and data[position] == tag and data[position + 1] < _LONG_LENGTH:
            start = position + 2
            end = start + data[position + 1]
            if end <= self._end:
                self._position = end
                return data[start:end]
        start, end = self._header(tag)
        self._position = end
        return self._data[start:end]

    def integer(self) -> int:
        """Return an INTEGER (signed, as in X.690 8.3)."""
        octets = self.contents(INTEGER)
        if not octets:
            raise MalformedData("INTEGER without contents")
        return int.from_bytes(octets, "big", signed=True)

    def oid(self) -> str:
        """Return an OBJECT IDENTIFIER in dotted form."""
        return _dotted(self.contents(OBJECT_IDENTIFIER))

    def bit_string(self) -> bytes:
        """Return the octets of a BIT STRING that has no unused bits."""
        octets = self.contents(BIT_STRING)
        if not octets or octets[0] != 0:
            raise MalformedData("BIT STRING is not a whole number of octets")
        return octets[1:]

    def boolean(self) -> bool:
        """Return a BOOLEAN."""
        octets = self.contents(BOOLEAN)
        if len(octets) != 1:
            raise MalformedData("BOOLEAN is not one octet")
        return octets != b"\x00"

    def time(self) -> datetime:
        """Return a UTCTime or GeneralizedTime as an aware datetime in UTC."""
        tag = self.peek()
        if tag not in (UTC_TIME, GENERALIZED_TIME):
            raise MalformedData(f"tag {tag:#04x} where a time is expected")
        return _parse_time(self.contents(tag), short_year=tag == UTC_TIME)

    def remaining(self) -> bytes:
        """Return what has not been read, without stepping."""
        return self._data[self._position : self._end]

    def at_end(self) -> bool:
        """Tell whether everything has been read."""
        return self._position >= self._end

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._position != self._end:
            raise MalformedData("octets after the last element")


def _parse_time(octets: bytes, *, short_year: bool) -> datetime:
    text = octets.decode("ascii", "replace")
    if short_year:
        text = ("19" if text[:2] >= str(_UTC_TIME_PIVOT) else "20") + text
    if len(text) == len("YYYYmmddHHMMZ"):
        text = text[:-1] + "00Z"  # old UTCTime values may leave the seconds out
    # A zone other than Z is legal BER and not DER.
    if len(text) == len("YYYYmmddHHMMSSZ") and text[-1] == "Z" and text[:-1].isdecimal():
        with suppress(ValueError):  # the 31st of November
            # A tenth of strptime's time, four times a message.
            return datetime.fromisoformat(f"{text[:8]}T{text[8:]}")
    raise MalformedData("time is not in the form of RFC 5280 4.1.2.5")


@lru_cache(maxsize=512)  # a message names forty OIDs, nearly always the same; strangers can only make it miss
def _dotted(octets: bytes) -> str:
    if not octets or octets[-1] & 0x80:
        raise MalformedData("OBJECT IDENTIFIER is cut off")
    if len(octets) > _MAX_OID_OCTETS:
        raise MalformedData(f"OBJECT IDENTIFIER of more than {_MAX_OID_OCTETS} octets")
    arcs: list[int] = []
    arc = 0
    for octet in octets:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


# --- writing -------------------------------------------------------------------------------------------------------


def element(tag: int, contents: bytes) -> bytes:
    """Encode one element with a minimal definite length."""
    length = len(contents)
    if length < _LONG_LENGTH:
        return bytes((tag, length)) + contents
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + contents


def sequence(*parts: bytes) -> bytes:
    """Encode a SEQUENCE of encoded parts."""
    return element(SEQUENCE, b"".join(parts))


def set_of(parts: Iterable[bytes]) -> bytes:
    """Encode a SET OF, sorted as DER demands (X.690 11.6)."""
    return element(SET, b"".join(sorted(parts)))


def explicit(number: int, content: bytes) -> bytes:
    """Wrap an encoded value in the constructed tag [number]; also the form of IMPLICIT over SEQUENCE OF contents."""
    return element(context(number), content)


def integer(value: int) -> bytes:
    """Encode an INTEGER."""
    length = (value if value >= 0 else ~value).bit_length() // 8 + 1  # -128 fits one octet as 127 does
    return element(INTEGER, value.to_bytes(length, "big", signed=True))


def octet_string(octets: bytes) -> bytes:
    """Encode an OCTET STRING."""
    return element(OCTET_STRING, octets)


def bit_string(octets: bytes) -> bytes:
    """Encode a BIT STRING without unused bits."""
    return element(BIT_STRING, b"\x00" + octets)


def named_bits(*positions: int) -> bytes:
    """Encode a named BIT STRING (KeyUsage): bit 0 is the highest, trailing zeros are dropped (X.690 11.2.2)."""
    if not positions:
        return element(BIT_STRING, b"\x00")
    length = max(positions) + 1
    value = sum(1 << (length - 1 - position) for position in set(positions))
    unused = -length % 8
    return element(BIT_STRING, bytes([unused]) + (value << unused).to_bytes((length + 7) // 8, "big"))


@lru_cache(maxsize=512)  # called with the constants of oids.py only, never with what a peer sent
def oid(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = map(int, dotted.split("."))
    return element(OBJECT_IDENTIFIER, b"".join(_base128(arc) for arc in (40 * first + second, *rest)))


def _base128(arc: int) -> bytes:
    octets = [arc & 0x7F]
    while arc := arc >> 7:
        octets.append(0x80 | arc & 0x7F)
    return bytes(reversed(octets))


def is_printable(octets: bytes) -> bool:
    """Tell whether every octet belongs to PrintableString's alphabet (X.680 41.4)."""
    return _PRINTABLE.issuperset(octets)


def directory_string(text: str) -> bytes:
    """Encode text as PrintableString where its alphabet allows, as UTF8String otherwise (RFC 5280 4.1.2.4)."""
    octets = text.encode("utf-8")
    return element(PRINTABLE_STRING if is_printable(octets) else UTF8_STRING, octets)


def time(moment: datetime) -> bytes:
    """Encode an aware datetime, UTCTime up to 2049 and GeneralizedTime from 2050 (RFC 5280 4.1.2.5)."""
    moment = moment.astimezone(UTC)
    if moment.year < 2000 + _UTC_TIME_PIVOT:
        return element(UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return generalized_time(moment)


def generalized_time(moment: datetime) -> bytes:
    """Encode an aware datetime as GeneralizedTime without fraction."""
    return element(GENERALIZED_TIME, moment.astimezone(UTC).strftime("%Y%m%d%H%M%SZ").encode("ascii"))
