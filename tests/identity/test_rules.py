"""Claims about the rules that say where the device ID stands."""

from __future__ import annotations

import pytest

from scep_ra.identity.extract import choose_device_id, extract_claims
from scep_ra.identity.rules import SUBJECT_SOURCES, check_rules, parse_rule
from scep_ra.pki.names import parse_name

IMEI = "490154203237518"


def test_good_rules_pass() -> None:
    """Every source, bare, with a kind, and with a pattern."""
    check_rules([*SUBJECT_SOURCES, "san"])
    check_rules(["subject.commonName:imei", "subject.userId:udid", "subject.serialNumber:hwmodule"])
    check_rules(["subject.commonName {id}@{any}", "subject.commonName:imei phone-{id}"])


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([], "no rule"),
        (["subject.serialNumber", "subject.serial"], "'subject.serial': use one of subject.serialNumber, "),
        (["subject.organizationName"], "unknown device ID rule"),
        (["san:imei"], "unknown device ID rule"),
        (["san {id}"], "unknown device ID rule"),
        (["subject.commonName:phone"], "'subject.commonName:phone': use one of serial, udid, "),
        (["subject.commonName:"], "unknown kind"),
        (["subject.commonName "], "write {id} once"),
        (["subject.commonName device"], "write {id} once"),
        (["subject.commonName {id}:{id}"], "write {id} once"),
        (["subject.commonName {user}:{id}"], "write {id} once"),
        (["subject.commonName {any}{id}"], "something has to stand"),
    ],
)
def test_bad_rules_are_named_with_those_that_exist(rules: list[str], reason: str) -> None:
    """The operator reads which rule is wrong and what could stand there."""
    with pytest.raises(ValueError, match=reason):
        check_rules(rules)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("subject.commonName {any}:{id}", "alice:SN123", "SN123"),
        ("subject.commonName {id}@{any}", "SN123@example.com", "SN123"),
        ("subject.commonName phone-{id}", "phone-SN123", "SN123"),
        ("subject.commonName phone-{id}", "SN123", None),
        ("subject.commonName phone-{id}", "xphone-SN123", None),
        ("subject.commonName {any}:{id}", ":", None),
        ("subject.commonName {any}.{id}", "aXSN123", None),
        ("subject.commonName {any}:{id}", "a" * 255 + ":SN1", None),
        ("subject.commonName", "alice:SN123", "alice:SN123"),
    ],
)
def test_a_pattern_cuts_the_identifier_out_of_the_whole_text(rule: str, text: str, expected: str | None) -> None:
    """Everything else in it is literal, and what does not fit names nothing."""
    assert parse_rule(rule).cut(text) == expected


def test_a_hostile_text_costs_next_to_nothing() -> None:
    """Many placeholders over many separators: the length is bounded, so the search is."""
    assert parse_rule("subject.commonName {any}:{any}:{any}-{id}").cut(":" * 255) is None


def test_a_device_is_known_by_the_part_of_its_common_name() -> None:
    """Of the kind that the rule names."""
    rules = ("subject.serialNumber", "subject.commonName:imei {any}/{id}")
    claims = extract_claims(subject=parse_name(f"CN=alice/{IMEI}"), subject_alt_name=None, rules=rules)
    assert [(claim.source, str(claim.device_id)) for claim in claims] == [("subject.commonName", f"imei:{IMEI}")]
    assert str(choose_device_id(claims)) == f"imei:{IMEI}"
