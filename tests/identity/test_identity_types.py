"""Claims about DeviceID and its text form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.errors import ScepRaError
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.types import DeviceID, DeviceIDKind, InvalidDeviceID, parse_device_id

EXAMPLES = {
    DeviceIDKind.SERIAL: ("ftx1234a0bc", "FTX1234A0BC"),
    DeviceIDKind.UDID: ("00008030001A2B3C4D5E6F70", "00008030-001a2b3c4d5e6f70"),
    DeviceIDKind.IMEI: ("49-015420-323751-8", "490154203237518"),
    DeviceIDKind.MEID: ("af0123450abcdec", "AF0123450ABCDE"),
    DeviceIDKind.MAC: ("0024.BE80.4FF1", "00:24:be:80:4f:f1"),
    DeviceIDKind.UUID: ("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
    DeviceIDKind.HARDWARE_MODULE: ("1.3.6.1.4.1.9:ab12", "1.3.6.1.4.1.9:AB12"),
    DeviceIDKind.PERMANENT_IDENTIFIER: ("1.2.3: Box 7", "1.2.3:Box 7"),
}


@pytest.mark.parametrize("kind", DeviceIDKind)
def test_each_kind_is_normalised_at_construction(kind: DeviceIDKind) -> None:
    """Two spellings of one identifier are one value, with one text and one hash."""
    spelling, normal = EXAMPLES[kind]
    device_id = DeviceID(kind=kind, value=spelling)
    assert device_id.value == normal
    assert str(device_id) == f"{kind.value}:{normal}"
    assert {device_id} == {DeviceID(kind=kind, value=normal)}


def test_kinds_are_namespaces() -> None:
    """The same text under two kinds names two devices."""
    text = "490154203237518"
    assert DeviceID(kind=DeviceIDKind.SERIAL, value=text) != DeviceID(kind=DeviceIDKind.IMEI, value=text)


@pytest.mark.parametrize("kind", DeviceIDKind)
@pytest.mark.parametrize("text", ["", " ", "A\nB", "A\x00B", "A\x1b[31mB", "A\u202eB", "A\u200bB", "A" + "1" * 255])
def test_no_kind_takes_empty_long_or_unprintable_text(kind: DeviceIDKind, text: str) -> None:
    """N-50: NUL, line ends, escape sequences, invisible characters and 256 characters never become an identifier."""
    with pytest.raises(InvalidDeviceID) as refusal:
        DeviceID(kind=kind, value=text)
    assert str(refusal.value).isprintable()


def test_an_invalid_device_id_is_an_identity_error_with_a_stable_code() -> None:
    """The enrollment answers by code, so the code is part of the contract."""
    assert issubclass(InvalidDeviceID, IdentityError)
    assert issubclass(IdentityError, ScepRaError)
    assert InvalidDeviceID.code == "identity_invalid"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("imei:490154203237518", "imei:490154203237518"),
        ("IMEI: 49 015420 323751 8", "imei:490154203237518"),
        ("mac:00-24-BE-80-4F-F1", "mac:00:24:be:80:4f:f1"),
        ("hwmodule:1.2.3:AB:12", "hwmodule:1.2.3:AB:12"),
        ("permanent::C02X", "permanent::C02X"),
        ("FTX1234A0BC", "serial:FTX1234A0BC"),
        ("PID:ISR4331 SN:FDO1234A0BC", "serial:FDO1234A0BC"),
        ("serial:PID:ISR4331 SN:FDO1234A0BC", "serial:FDO1234A0BC"),
        ("serial:mac:7", "serial:MAC:7"),
        ("rack:7", "serial:RACK:7"),
        ("mac", "serial:MAC"),
    ],
)
def test_text_is_read_with_serial_as_the_default_kind(text: str, expected: str) -> None:
    """A known kind before the first colon counts, everything else is a serial."""
    assert str(parse_device_id(text)) == expected


@pytest.mark.parametrize("text", ["", "imei:", "imei:FTX1234", "mac:rack7"])
def test_a_known_kind_binds_the_text_to_its_grammar(text: str) -> None:
    """`imei:` with something else after it is refused, not taken for a serial."""
    with pytest.raises(InvalidDeviceID):
        parse_device_id(text)


@given(
    kind=st.sampled_from(DeviceIDKind), text=st.text(max_size=40) | st.sampled_from([e[0] for e in EXAMPLES.values()])
)
def test_text_form_reads_back_as_the_same_identifier(kind: DeviceIDKind, text: str) -> None:
    """Storage and AAA keep `str()`; reading it back gives an equal value, so normalising is idempotent."""
    try:
        device_id = DeviceID(kind=kind, value=text)
    except InvalidDeviceID:
        return
    assert parse_device_id(str(device_id)) == device_id
    assert DeviceID(kind=kind, value=device_id.value) == device_id


@given(st.text(max_size=300))
def test_only_invalid_device_id_leaves_the_text_reader(text: str) -> None:
    """Whatever an operator or a device writes is an identifier or refused in one way."""
    try:
        device_id = parse_device_id(text)
    except InvalidDeviceID:
        return
    assert device_id.value.isprintable()
    assert 0 < len(device_id.value) <= 255


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("550E8400-E29B-41D4-A716-446655440000", "uuid:550e8400-e29b-41d4-a716-446655440000"),
        ("00008030-001A2B3C4D5E6F70", "udid:00008030-001a2b3c4d5e6f70"),
        ("00:1b:44:11:3A:B7", "mac:00:1b:44:11:3a:b7"),
        ("490154203237518", "serial:490154203237518"),
    ],
)
def test_a_bare_value_means_what_a_request_with_that_value_means(text: str, expected: str) -> None:
    """An operator's bare text gets the kind that extraction gives it, so that the device is found."""
    assert str(parse_device_id(text)) == expected
