"""Claims about how people write ends, services and attributes of devices."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from scep_ra.cli.device_fields import (
    attribute_name,
    attribute_value,
    check_profiles,
    join_values,
    read_attribute,
    read_end,
    read_service,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-12-31", datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2028-02-29", datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)),
        ("2027-12-31T18:00", datetime(2027, 12, 31, 18, tzinfo=UTC)),
        ("2027-12-31T18:00Z", datetime(2027, 12, 31, 18, tzinfo=UTC)),
        ("2027-12-31T18:00:30", datetime(2027, 12, 31, 18, 0, 30, tzinfo=UTC)),
        ("2027-12-31T18:00:30Z", datetime(2027, 12, 31, 18, 0, 30, tzinfo=UTC)),
    ],
)
def test_an_end_is_a_date_or_a_time_in_utc(text: str, expected: datetime) -> None:
    """A date alone includes its day."""
    assert read_end(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "31.12.2027",
        "2027-12",
        "20271231",
        "2027-W52-5",
        "2027-02-29",
        "0000-01-01",
        "2027-12-31Z",
        "2027-12-31T24:30",
        "2027-12-31 18:00",
        "2027-12-31T18:00+02:00",
        "2027-12-31\n",
        "\uff12\uff10\uff12\uff17-12-31",
    ],
)
def test_other_ends_are_refused_with_the_forms_there_are(text: str) -> None:
    """Nothing is guessed: offsets, weeks and days that the month lacks least of all."""
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is no date: write 2027-12-31 for the end of that day")):
        read_end(text)


@pytest.mark.parametrize("text", ["vpn", "VPN", "net.wifi_5-ghz", "x" * 64])
def test_a_service_is_one_word(text: str) -> None:
    """It stays as it is written, because other AAA systems tell upper from lower case."""
    assert read_service(text) == text


@pytest.mark.parametrize("text", ["", "two words", "a;b", "x" * 65, "vpn\n", "dépôt"])
def test_other_services_are_refused(text: str) -> None:
    """They could not stand in the list of a CSV file."""
    with pytest.raises(ValueError, match="is no service"):
        read_service(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("department=sales", ("department", "sales")),
        ("filter=a=b", ("filter", "a=b")),
        ("dns-name= gw.example , vpn.example ", ("dns-name", "gw.example , vpn.example")),
        ("Ort=Köln", ("Ort", "Köln")),
        ("2.5.4.11=Sales", ("2.5.4.11", "Sales")),
    ],
)
def test_an_attribute_is_a_name_and_a_value(text: str, expected: tuple[str, str]) -> None:
    """The first equals sign divides them, and blanks around the value are none of it."""
    assert read_attribute(text) == expected


@pytest.mark.parametrize("text", ["", "department", "department:sales"])
def test_text_without_equals_sign_is_no_attribute(text: str) -> None:
    """The message has an example."""
    with pytest.raises(ValueError, match="write NAME=VALUE, such as OU=Sales"):
        read_attribute(text)


@pytest.mark.parametrize("name", ["", "a b", "a{b", "a?", "x" * 65, "a\n", "-a", ".a", "Größe"])
def test_a_name_that_a_template_could_not_hold_is_refused(name: str) -> None:
    """Templates write {attribute.NAME}."""
    with pytest.raises(ValueError, match="is no name of an attribute"):
        attribute_name(name)


@pytest.mark.parametrize("name", ["device", "user", "note"])
def test_names_that_the_entry_itself_fills_are_refused(name: str) -> None:
    """Two sources for one fact would be told apart by nobody."""
    with pytest.raises(ValueError, match="is made from the entry itself"):
        attribute_name(name)


def test_a_name_has_up_to_64_characters() -> None:
    """The limit itself is allowed."""
    assert attribute_name("x" * 64) == "x" * 64


@pytest.mark.parametrize(
    ("value", "reason"),
    [("", "is empty"), ("  ", "is empty"), ("a\x00b", "printable"), ("a\nb", "printable"), ("x" * 256, "256 long")],
)
def test_a_value_that_fits_no_certificate_is_refused(value: str, reason: str) -> None:
    """Empty, with control characters, or longer than any name."""
    with pytest.raises(ValueError, match=reason):
        attribute_value(value)


def test_a_value_has_up_to_255_characters() -> None:
    """The limit itself is allowed."""
    assert attribute_value("x" * 255) == "x" * 255


def test_several_values_of_one_name_are_lines_of_one_text() -> None:
    """In the order in which they were given."""
    assert join_values([("dns", "b"), ("OU", "Sales"), ("dns", "a")]) == {"dns": "b\na", "OU": "Sales"}


@pytest.mark.parametrize(
    ("profile", "attributes", "missing"),
    [("lab", {}, "lab"), ("", {"certificate_profile": "long"}, "long"), ("vpn", {"certificate_profile": "x"}, "x")],
)
def test_profiles_that_an_entry_names_must_exist(profile: str, attributes: dict[str, str], missing: str) -> None:
    """The profile it is bound to, and the one with the contents of its certificate."""
    with pytest.raises(ValueError, match=f"the configuration has no profile '{missing}'"):
        check_profiles(profile, attributes, {"vpn"})


@pytest.mark.parametrize(
    ("profile", "attributes"), [("", {}), ("vpn", {"certificate_profile": "vpn"}), ("", {"a": "x"})]
)
def test_profiles_that_exist_or_are_not_named_pass(profile: str, attributes: dict[str, str]) -> None:
    """Other attributes name no profiles."""
    check_profiles(profile, attributes, {"vpn"})
