"""Claims about the columns of a CSV file with devices; `test_device` has those about the file as a whole."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scep_ra.cli.device_csv import BadLine, read_devices
from scep_ra.identity.types import parse_device_id
from scep_ra.storage.base import Device
from tests.support.records import NOW, make_device


def read_one(head: str, line: str) -> Device | BadLine:
    [result] = read_devices([head + "\n", line + "\n"], profiles=("default", "long"), now=NOW)
    return result


def test_every_column_is_read() -> None:
    """Together they say what the options of `device add` say."""
    head = (
        "value,kind,user,profile,services,approval,valid_until,note,attribute.department,attribute.certificate_profile"
    )
    assert read_one(head, "X1,serial,alice,default,vpn wifi,yes,2027-12-31,lab,sales,long") == make_device(
        "X1",
        user="alice",
        profile="default",
        services=("vpn", "wifi"),
        approval=True,
        valid_until=datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC),
        note="lab",
        attributes={"department": "sales", "certificate_profile": "long"},
    )


def test_empty_cells_and_missing_columns_say_nothing() -> None:
    """An attribute without a value is no attribute of that device."""
    head = "value,services,approval,valid_until,attribute.department"
    assert read_one(head, "X1,,,,") == read_one("value", "X1") == make_device("X1")


@pytest.mark.parametrize("cell", ["vpn;wifi", "vpn wifi", "vpn ; wifi;", "vpn;wifi;vpn"])
def test_services_are_divided_by_spaces_or_semicolons(cell: str) -> None:
    """Each counts once."""
    assert read_one("value,services", f"X1,{cell}") == make_device("X1", services=("vpn", "wifi"))


def test_lines_of_a_cell_are_values_of_one_attribute() -> None:
    """As spreadsheets write a cell with line breaks; empty lines are none."""
    lines = ["value,attribute.dns\n", 'X1,"a.example\r\n', "\n", 'b.example\n"\n']
    assert list(read_devices(lines, profiles=(), now=NOW)) == [
        make_device("X1", attributes={"dns": "a.example\nb.example"})
    ]


@pytest.mark.parametrize(("cell", "expected"), [("yes", True), ("YES", True), ("no", False), ("No", False)])
def test_approval_is_yes_or_no(cell: str, expected: bool) -> None:
    """Spreadsheets change the case."""
    assert read_one("value,approval", f"X1,{cell}") == make_device("X1", approval=expected)


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("services", '"vpn,wifi"', "'vpn,wifi' is no service"),
        ("approval", "maybe", "approval is yes or no, not 'maybe'"),
        ("valid_until", "31.12.2027", "'31.12.2027' is no date: write 2027-12-31"),
        ("attribute.room", "x" * 256, "at most 255 characters"),
        ("attribute.certificate_profile", "short", "the configuration has no profile 'short'"),
    ],
)
def test_a_cell_that_cannot_be_read_makes_the_line_bad(column: str, cell: str, reason: str) -> None:
    """The reason says what is allowed."""
    result = read_one(f"value,{column}", f"X1,{cell}")
    assert isinstance(result, BadLine)
    assert (result.line, reason in result.reason) == (2, True)


@pytest.mark.parametrize("head", ["value", "value,kind"])
def test_a_value_without_a_kind_is_read_as_on_the_command_line(head: str) -> None:
    """With a prefix, or by its look: else one device would have two entries, of which only one lets it in."""
    for text in ("imei:490154203237518", "00:24:be:80:4f:f1", "PID:ISR4331/K9 SN:FTX1234A0BC"):
        device = read_one(head, text)
        assert isinstance(device, Device)
        assert device.device_id == parse_device_id(text)
