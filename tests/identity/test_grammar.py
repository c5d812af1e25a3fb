"""Claims about the grammar of each kind of identifier."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.identity import grammar
from scep_ra.identity.errors import InvalidDeviceID

GRAMMARS: list[Callable[[str], str]] = [
    grammar.serial,
    grammar.imei,
    grammar.meid,
    grammar.udid,
    grammar.mac,
    grammar.uuid,
    grammar.hardware_module,
    grammar.permanent_identifier,
]


def refused(normalise: Callable[[str], str], text: str, reason: str) -> None:
    with pytest.raises(InvalidDeviceID, match=reason):
        normalise(text)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("ftx1234a0bc", "FTX1234A0BC"),
        ("  C02XK0AAJGH5 ", "C02XK0AAJGH5"),
        ("4279256517", "4279256517"),
        ("A", "A"),
        ("490154203237518", "490154203237518"),
        ("VMware-56 4d 1c", "VMWARE-56 4D 1C"),
        ("PID:ISR4331/K9 SN:FDO21520TGH", "FDO21520TGH"),
        ("PID: C9300-24T  SN: fcw2123l0n3", "FCW2123L0N3"),
        ("SN:FCW2123L0N3 PID:C9300-24T", "FCW2123L0N3"),
        ("SN:FCW2123L0N3", "FCW2123L0N3"),
        ("e\u0301-1", "\u00e9-1"),
        ("\u0131-1", "\u0131-1"),
        ("i\u0307-1", "\u0130-1"),
        ("A" * 254 + "B", "A" * 254 + "B"),
    ],
)
def test_serials_have_one_form(text: str, normal: str) -> None:
    """ASCII letters become upper case, spaces around go, and of Cisco's pair the SN part counts."""
    assert grammar.serial(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "none",
        "N/A",
        "Not Specified",
        "not applicable",
        "To Be Filled By O.E.M.",
        "Default string",
        "System Serial Number",
        "Chassis Serial Number",
        "INVALID",
        "123456789",
        "unknown",
        "0123456789abcdef",
        "9774d56d682e549c",
        "emulator-5554",
        "00000000",
        "xXxX",
        "PID:ISR4331 SN:0000000",
    ],
)
def test_placeholder_serials_are_refused(text: str) -> None:
    """N-38: what firmware reports when nobody set a serial would make thousands of devices one."""
    refused(grammar.serial, text, "placeholder")


@pytest.mark.parametrize("text", ["PID:ISR4331 SN:", "PID:ISR4331", "PID:ISR4331 SN:FDO 1", "SN:", "pid:x sn:a*b"])
def test_cisco_pairs_without_a_readable_serial_are_refused(text: str) -> None:
    """Taken whole, such a text would name the product and not the device."""
    refused(grammar.serial, text, "PID:<product>")


@pytest.mark.parametrize("text", ["*)(uid=*", "' OR 1=1 --", "$(reboot)", "../../ETC", "A,B=C+D"])
def test_injection_strings_stay_plain_text(text: str) -> None:
    """N-50: characters with a meaning to a back-end are kept as they are; escaping is the back-end's, at its border."""
    assert grammar.serial(text) == text.upper()


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("490154203237518", "490154203237518"),
        ("356938035643809", "356938035643809"),
        ("352099001761481", "352099001761481"),
        ("49015420323751", "490154203237518"),
        ("49-015420-323751-8", "490154203237518"),
        ("49 015420/323751.8", "490154203237518"),
        ("4901542032375199", "490154203237518"),
    ],
)
def test_imeis_have_15_digits(text: str, normal: str) -> None:
    """14 digits get their check digit, 15 are checked, of 16 the software version is dropped."""
    assert grammar.imei(text) == normal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("356938035643808", "check digit"),
        ("490154203237510", "check digit"),
        ("000000000000000", "one digit repeated"),
        ("11111111111111", "one digit repeated"),
        ("4901542032375", "14, 15 or 16"),
        ("49015420323751812", "14, 15 or 16"),
        ("49015420323751A", "14, 15 or 16"),
        ("٤٩٠١٥٤٢٠٣٢٣٧٥١٨", "14, 15 or 16"),
        ("-", "14, 15 or 16"),
    ],
)
def test_wrong_imeis_are_refused(text: str, reason: str) -> None:
    """N-38: a wrong check digit is a typing error or a forgery, never another device."""
    refused(grammar.imei, text, reason)


@given(st.from_regex(r"[0-9]{14}", fullmatch=True).filter(lambda digits: len(set(digits)) > 1), st.integers(0, 14))
def test_the_check_digit_finds_every_single_wrong_digit(body: str, place: int) -> None:
    """Luhn's promise: no single digit can change unnoticed."""
    imei = grammar.imei(body)
    wrong = imei[:place] + str((int(imei[place]) + 1) % 10) + imei[place + 1 :]
    with pytest.raises(InvalidDeviceID):
        grammar.imei(wrong)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("AF0123450ABCDE", "AF0123450ABCDE"),
        ("af0123450abcdec", "AF0123450ABCDE"),
        ("AF 012345 0ABCDE C", "AF0123450ABCDE"),
        ("A10000009296F2F", "A10000009296F2"),
        ("293608736500703710", "AF0123450ABCDE"),
        ("99015420323751", "99015420323751"),
        ("990154203237513", "99015420323751"),
    ],
)
def test_meids_have_14_hex_digits(text: str, normal: str) -> None:
    """A 15th digit is checked and dropped, the 18-digit decimal form is the same number."""
    assert grammar.meid(text) == normal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AF0123450ABCDED", "check digit"),
        ("A10000009296F20", "check digit"),
        ("990154203237512", "check digit"),
        ("490154203237518", "14 hex digits"),
        ("99015420ABCDEF", "14 hex digits"),
        ("9F0123450ABCDE", "14 hex digits"),
        ("AF0123450ABCD", "14 hex digits"),
        ("\ufb000123450ABCDE", "14 hex digits"),
        ("FFFFFFFFFFFFFF", "one digit repeated"),
        ("999999999900703710", "out of range"),
        ("293608736599999999", "out of range"),
    ],
)
def test_wrong_meids_are_refused(text: str, reason: str) -> None:
    """Region, length and check digit must hold; a ligature is no pair of hex digits."""
    refused(grammar.meid, text, reason)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("2B6F0CC904D137BE2E1730235F5664094B831186", "2b6f0cc904d137be2e1730235f5664094b831186"),
        ("00008030-001A2B3C4D5E6F70", "00008030-001a2b3c4d5e6f70"),
        ("00008030001A2B3C4D5E6F70", "00008030-001a2b3c4d5e6f70"),
    ],
)
def test_udids_are_lower_case_with_their_hyphen(text: str, normal: str) -> None:
    """Tools print the newer form with and without the hyphen, in either case."""
    assert grammar.udid(text) == normal


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2b6f0cc904d137be2e1730235f5664094b83118", "neither 40"),
        ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "neither 40"),
        ("0000803-0001A2B3C4D5E6F70", "neither 40"),
        ("0" * 40, "one digit repeated"),
        ("00000000-0000000000000000", "one digit repeated"),
    ],
)
def test_wrong_udids_are_refused(text: str, reason: str) -> None:
    """Length and hyphen decide, and zeros are nobody's."""
    refused(grammar.udid, text, reason)


@pytest.mark.parametrize("text", ["0024be804ff1", "00:24:BE:80:4F:F1", "00-24-be-80-4f-f1", "0024.be80.4FF1"])
def test_macs_have_one_form(text: str) -> None:
    """All four spellings are one address."""
    assert grammar.mac(text) == "00:24:be:80:4f:f1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("01:00:5e:00:00:01", "no address of one device"),
        ("ff:ff:ff:ff:ff:ff", "no address of one device"),
        ("00:00:00:00:00:00", "no address of one device"),
        ("00:24:be-80:4f:f1", "12 hex digits"),
        ("0024be804ff", "12 hex digits"),
        ("0024befffe804ff1", "12 hex digits"),
        ("00:24:be:80:4f:fg", "12 hex digits"),
    ],
)
def test_wrong_macs_are_refused(text: str, reason: str) -> None:
    """N-38: group, broadcast and zero addresses, mixed separators and EUI-64 name no device here."""
    refused(grammar.mac, text, reason)


def test_uuids_are_lower_case() -> None:
    """RFC 4122 3: written in lower case, read in either."""
    assert grammar.uuid("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6") == "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("00000000-0000-0000-0000-000000000000", "one digit repeated"),
        ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "one digit repeated"),
        ("03000200-0400-0500-0006-000700080009", "placeholder"),
        ("00020003-0004-0005-0006-000700080009", "placeholder"),
        ("f81d4fae7dec11d0a76500a0c91e6bf6", "8-4-4-4-12"),
        ("f81d4fae-7dec-11d0-a765-00a0c91e6bfx", "8-4-4-4-12"),
    ],
)
def test_wrong_uuids_are_refused(text: str, reason: str) -> None:
    """Nil, all ones and the firmware default, in both byte orders, are shared by many machines."""
    refused(grammar.uuid, text, reason)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1.3.6.1.4.1.9.21:ftx1234", "1.3.6.1.4.1.9.21:FTX1234"),
        ("1.2:SN:FTX1234", "1.2:FTX1234"),
        ("1.2:a:b", "1.2:A:B"),
        ("2.999: x1 ", "2.999:X1"),
    ],
)
def test_hardware_modules_are_a_type_and_a_serial(text: str, normal: str) -> None:
    """RFC 4108 5: the first colon divides, and the serial obeys the grammar of serials."""
    assert grammar.hardware_module(text) == normal


@pytest.mark.parametrize("text", ["FTX1234", "1.2:", "1.02:A1", "3.1:A1", "1:A1", "1.2 :A1", ":A1"])
def test_hardware_modules_without_type_or_serial_are_refused(text: str) -> None:
    """A bare serial, or an OID with leading zeros, is no hardware module."""
    refused(grammar.hardware_module, text, "dotted OID")


def test_a_placeholder_is_no_hardware_module_serial() -> None:
    """The serial inside is judged like any other."""
    refused(grammar.hardware_module, "1.2:none", "placeholder")


@pytest.mark.parametrize(("text", "normal"), [("1.2.3:Box:7", "1.2.3:Box:7"), (":Box", ":Box"), (": Box", ":Box")])
def test_permanent_identifiers_keep_their_case(text: str, normal: str) -> None:
    """RFC 4043: only the assigner knows how its values compare."""
    assert grammar.permanent_identifier(text) == normal


@pytest.mark.parametrize("text", ["Box", "a.b:Box", "1.2.3:", ":"])
def test_permanent_identifiers_without_a_value_or_with_a_strange_assigner_are_refused(text: str) -> None:
    """The assigner is an OID or left out, the value is there."""
    refused(grammar.permanent_identifier, text, "dotted OID or nothing")


def test_a_permanent_identifier_of_spaces_is_refused() -> None:
    """A value must have a character."""
    refused(grammar.permanent_identifier, "1.2.3:\u00a0", "unprintable")


@pytest.mark.parametrize("normalise", GRAMMARS)
@given(text=st.text(max_size=60) | st.from_regex(r"\A(99|A)?[0-9A-Fa-f:.-]{8,40}\Z"))
def test_every_grammar_is_idempotent_and_raises_nothing_else(normalise: Callable[[str], str], text: str) -> None:
    """A normal form is its own normal form; what has none is InvalidDeviceID."""
    try:
        normal = normalise(text)
    except InvalidDeviceID:
        return
    assert normalise(normal) == normal


@pytest.mark.parametrize("normalise", GRAMMARS)
@pytest.mark.parametrize("text", [" " * 60000 + "x" * 300, "\u0344" * 60000, "PID: " + " " * 60000])
def test_refusals_are_short_whatever_was_sent(normalise: Callable[[str], str], text: str) -> None:
    """A log line about a refused identifier cannot be blown up by the one who sent it."""
    with pytest.raises(InvalidDeviceID) as refusal:
        normalise(text)
    assert len(str(refusal.value)) < 2000
