"""Claims about the DER reader and writer (X.690), to the octet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der
from scep_ra.pki.errors import MalformedData


def refuses(pattern: str, action: Callable[[], object]) -> None:
    with pytest.raises(MalformedData, match=pattern):
        action()


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "header"),
    [(0, "0400"), (127, "047f"), (128, "048180"), (255, "0481ff"), (256, "04820100"), (65536, "0483010000")],
)
def test_lengths_are_minimal(length: int, header: str) -> None:
    """X.690 10.1: the short form up to 127, then as few octets as hold it."""
    assert der.octet_string(bytes(length)) == bytes.fromhex(header) + bytes(length)


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (0, "020100"),
        (127, "02017f"),
        (128, "02020080"),
        (256, "02020100"),
        (-1, "0201ff"),
        (-128, "020180"),
        (-129, "0202ff7f"),
        (-32768, "02028000"),
    ],
)
def test_integers_take_the_fewest_octets(value: int, octets: str) -> None:
    """X.690 8.3.2, negative ones included: a certificate serial below zero has to come back as it was."""
    assert der.integer(value).hex() == octets
    assert der.Reader(bytes.fromhex(octets)).integer() == value


@given(st.integers())
def test_integers_come_back_and_are_those_of_asn1crypto(value: int) -> None:
    """Writer, reader and another implementation agree on every number."""
    assert der.integer(value) == core.Integer(value).dump()
    assert der.Reader(der.integer(value)).integer() == value


@pytest.mark.parametrize(
    ("dotted", "octets"),
    [
        ("1.2.840.113549.1.7.1", "06092a864886f70d010701"),
        ("1.2.840.113549.1.7.2", "06092a864886f70d010702"),
        ("1.2.840.113549.1.7.3", "06092a864886f70d010703"),
        ("2.16.840.1.113733.1.9.2", "060a6086480186f845010902"),
        ("2.16.840.1.113733.1.9.7", "060a6086480186f845010907"),
        ("1.3.6.1.5.5.7.24.1", "06082b06010505071801"),
        ("0.9.2342.19200300.100.1.1", "060a0992268993f22c640101"),
        ("2.999.1", "0603883701"),
        ("2.5.29.17", "0603551d11"),
    ],
)
def test_object_identifiers_are_written_and_read_to_the_octet(dotted: str, octets: str) -> None:
    """The OIDs of RFC 8894 and its neighbours, and one whose first two arcs share several octets."""
    assert der.oid(dotted).hex() == octets
    assert der.Reader(bytes.fromhex(octets)).oid() == dotted


def test_a_set_is_sorted_by_its_encodings() -> None:
    """X.690 11.6."""
    assert der.set_of([der.integer(300), der.integer(2), der.NULL]).hex() == "3109" + "020102" + "0202012c" + "0500"


@pytest.mark.parametrize(
    ("positions", "octets"), [((), "030100"), ((0,), "03020780"), ((5, 6), "03020106"), ((0, 8), "0303078080")]
)
def test_named_bits_drop_trailing_zeros(positions: tuple[int, ...], octets: str) -> None:
    """X.690 11.2.2: the form of keyUsage, where bit 0 is the highest."""
    assert der.named_bits(*positions).hex() == octets


def test_text_is_printable_string_where_its_alphabet_allows() -> None:
    """RFC 5280 4.1.2.4; an asterisk or underscore does not belong to PrintableString (X.680 41.4)."""
    assert der.directory_string("abc XYZ-0'()+,./:=?") == b"\x13\x13abc XYZ-0'()+,./:=?"
    assert der.directory_string("a_b") == b"\x0c\x03a_b"
    assert der.directory_string("é") == b"\x0c\x02\xc3\xa9"
    assert der.is_printable(b"") is True
    assert der.is_printable(b"*") is False


def test_constructed_pieces_wrap_their_contents() -> None:
    """SEQUENCE, EXPLICIT tag and BIT STRING, octet for octet."""
    assert der.sequence(der.NULL, der.TRUE).hex() == "3005" + "0500" + "0101ff"
    assert der.explicit(0, der.NULL).hex() == "a0020500"
    assert der.context(3, constructed=False) == 0x83
    assert der.bit_string(b"\xf0").hex() == "030200f0"
    assert der.Reader(der.bit_string(b"\xf0")).bit_string() == b"\xf0"


@pytest.mark.parametrize(
    ("moment", "encoded"),
    [
        (datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x17\x0d491231235959Z"),
        (datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z"),
        (datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), b"\x17\x0d231231230000Z"),
    ],
)
def test_times_change_their_form_in_2050(moment: datetime, encoded: bytes) -> None:
    """RFC 5280 4.1.2.5, always in UTC."""
    assert der.time(moment) == encoded
    assert der.Reader(encoded).time() == moment


def test_generalized_time_has_four_digits_of_the_year_at_any_date() -> None:
    """CRLs and others that name the type use it before 2050 as well."""
    assert der.generalized_time(datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)) == b"\x18\x0f20240506070809Z"


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (b"\x17\x0d500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (b"\x17\x0b4912312359Z", datetime(2049, 12, 31, 23, 59, tzinfo=UTC)),
        (b"\x18\x0f99991231235959Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"\x18\x0f20240102030405Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_both_forms(encoded: bytes, expected: datetime) -> None:
    """UTCTime from 50 is the last century, seconds may lack, GeneralizedTime may stand before 2050 (certmonger)."""
    assert der.Reader(encoded).time() == expected


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x17\x0d240101000000+",
        b"\x17\x11240101000000+0100",
        b"\x17\x0d241301000000Z",
        b"\x17\x00",
        b"\x17\x0dab0101000000Z",
        b"\x18\x11\xff024010100000000Z",
    ],
)
def test_impossible_times_are_refused(encoded: bytes) -> None:
    """Zones, thirteenth months and octets that are not ASCII."""
    refuses("time is not in the form", der.Reader(encoded).time)


def test_something_else_is_no_time() -> None:
    """Neither another type nor the end."""
    refuses("tag 0x02 where a time", der.Reader(der.integer(1)).time)
    refuses("where a time", der.Reader(b"").time)


def test_the_reader_walks_optional_fields_and_says_what_is_left() -> None:
    """peek, enter, enter_optional, element, remaining, at_end and finish work on one value."""
    outer = der.Reader(der.sequence(der.integer(1), der.explicit(0, der.NULL), der.TRUE))
    fields = outer.enter()
    outer.finish()
    assert outer.peek() == -1
    assert fields.enter_optional(der.context(1)) is None
    assert fields.integer() == 1
    tagged = fields.enter_optional(der.context(0))
    assert tagged is not None
    assert tagged.element() == der.NULL
    assert fields.remaining() == der.TRUE
    assert not fields.at_end()
    refuses("octets after the last element", fields.finish)
    refuses("tag 0x01 where 0x02", fields.integer)
    assert fields.boolean() is True
    assert fields.at_end()
    fields.finish()


@pytest.mark.parametrize(
    ("pattern", "octets"),
    [
        ("an element is missing", b""),
        ("an element is missing", b"\x30"),
        ("tag 0x31 where 0x30", b"\x31\x00"),
        ("not definite", b"\x30\x80\x00\x00"),
        ("not definite", b"\x30\x85\x00\x00\x00\x00\x00"),
        ("longer than what holds it", b"\x30\x01"),
        ("longer than what holds it", b"\x30\x84\xff\xff\xff\xff"),
        ("longer than what holds it", b"\x30\x82\x01"),
    ],
)
def test_headers_that_do_not_fit_are_refused(pattern: str, octets: bytes) -> None:
    """Wrong tag, indefinite or oversize length, contents or length octets beyond the end."""
    refuses(pattern, der.Reader(octets).enter)


def test_an_element_cannot_reach_beyond_what_holds_it() -> None:
    """The bound is that of the enclosing element, not of the whole message."""
    inner = der.Reader(b"\x30\x02\x04\x03abc").enter()
    refuses("longer than what holds it", lambda: inner.contents(der.OCTET_STRING))


@pytest.mark.parametrize(
    ("pattern", "read", "octets"),
    [
        ("INTEGER without contents", der.Reader.integer, "0200"),
        ("cut off", der.Reader.oid, "0600"),
        ("cut off", der.Reader.oid, "060255ff"),
        ("BIT STRING", der.Reader.bit_string, "0300"),
        ("BIT STRING", der.Reader.bit_string, "03020180"),
        ("BOOLEAN", der.Reader.boolean, "0100"),
        ("BOOLEAN", der.Reader.boolean, "0102ffff"),
    ],
)
def test_values_of_the_wrong_shape_are_refused(pattern: str, read: Callable[[der.Reader], object], octets: str) -> None:
    """Contents that the type does not have."""
    refuses(pattern, lambda: read(der.Reader(bytes.fromhex(octets))))


def test_false_is_zero_and_everything_else_is_true() -> None:
    """X.690 8.2.2: BER allows any other octet."""
    assert der.Reader(b"\x01\x01\x00").boolean() is False
    assert der.Reader(b"\x01\x01\x01").boolean() is True


def test_a_huge_object_identifier_is_refused_before_it_costs_anything() -> None:
    """Regression: one arc of 2,100 octets made Python refuse to print it, with a ValueError nobody expects.

    The scan cannot see it inside an OCTET STRING, which is where extensions keep theirs.
    """
    arc = b"\xff" * 2100 + b"\x7f"
    refuses("more than 64 octets", der.Reader(der.element(der.OBJECT_IDENTIFIER, arc)).oid)
    longest = der.element(der.OBJECT_IDENTIFIER, b"\x2a" + b"\xff" * 62 + b"\x7f")
    assert der.Reader(longest).oid().startswith("1.2.")


READS: list[Callable[[der.Reader], object]] = [
    der.Reader.enter,
    der.Reader.element,
    der.Reader.integer,
    der.Reader.oid,
    der.Reader.bit_string,
    der.Reader.boolean,
    der.Reader.time,
]


@given(st.binary(max_size=40), st.sampled_from(READS))
def test_only_malformed_data_leaves_the_reader(octets: bytes, read: Callable[[der.Reader], object]) -> None:
    """Whatever the octets: a value or MalformedData."""
    with suppress(MalformedData):
        read(der.Reader(octets))
