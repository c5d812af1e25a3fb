"""What the attributes of an AAA answer mean, whichever backend brought them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import Accept, MalformedAnswer


def test_nothing_said_is_a_plain_yes() -> None:
    """The backend has accepted already; attributes only shape the certificate."""
    assert accept_from({}) == Accept()


def test_free_attributes_are_passed_on_and_several_values_become_lines() -> None:
    """Names and subjectAltNames are made from them."""
    accepted = accept_from({"user": ["alice"], "dns": ["a.example", " b.example "], "note": ["", " "]})
    assert accepted == Accept(attributes={"user": "alice", "dns": "a.example\nb.example"})


def test_names_with_a_meaning_become_fields_and_no_free_attributes() -> None:
    """One spelling for all backends."""
    accepted = accept_from(
        {
            "profile": ["vpn"],
            "services": ["vpn, wifi", "mail"],
            "valid_until": ["2027-12-31T18:00:00+02:00"],
            "approval": ["Yes"],
        }
    )
    assert accepted == Accept(
        profile="vpn",
        services=frozenset({"vpn", "wifi", "mail"}),
        not_after=datetime(2027, 12, 31, 16, tzinfo=UTC),
        approval=True,
    )


@pytest.mark.parametrize("name", ["profile", "certificate_profile"])
def test_the_profile_has_two_names(name: str) -> None:
    """Registry entries have called it certificate_profile from the start."""
    assert accept_from({name: ["vpn"]}) == Accept(profile="vpn")


def test_the_same_profile_said_twice_is_one_profile() -> None:
    """Only a contradiction cannot be read."""
    assert accept_from({"profile": ["vpn", "vpn"], "certificate_profile": ["vpn"]}).profile == "vpn"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-12-31", datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2027-12-31T18:00", datetime(2027, 12, 31, 18, tzinfo=UTC)),
        ("2027-12-31 18:00:00Z", datetime(2027, 12, 31, 18, tzinfo=UTC)),
    ],
)
def test_an_end_is_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    """A date alone means the end of that day, as everywhere in the product."""
    assert accept_from({"valid_until": [text]}).not_after == moment


@pytest.mark.parametrize(
    ("text", "expected"), [("true", True), ("YES", True), ("1", True), ("no", False), ("0", False), ("", False)]
)
def test_approval_is_a_flag(text: str, expected: bool) -> None:
    """Blank means that nothing was said."""
    assert accept_from({"approval": [text]}).approval is expected


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"valid_until": ["next year"]}, "valid_until = 'next year': write ISO 8601"),
        ({"valid_until": ["9999-12-31T23:59:59-05:00"]}, "write ISO 8601"),
        ({"valid_until": ["2027-01-01", "2028-01-01"]}, "several values of valid_until"),
        ({"approval": ["maybe"]}, "approval = 'maybe': write true or false"),
        ({"services": ["vpn;wifi"]}, "names the service 'vpn;wifi'"),
        ({"profile": ["a"], "certificate_profile": ["b"]}, r"several values of profile.*\['a', 'b'\]"),
        ({"dns": ["a.example\nb.example"]}, "control character in attribute 'dns'"),
        ({"user": ["al\0ice"]}, "control character in attribute 'user'"),
    ],
)
def test_a_malformed_answer_is_no_answer(attributes: dict[str, list[str]], complaint: str) -> None:
    """Never a yes with half of its conditions."""
    with pytest.raises(MalformedAnswer, match=complaint):
        accept_from(attributes)
