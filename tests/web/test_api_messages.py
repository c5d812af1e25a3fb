"""Claims about the bodies of the HTTP API: what they mean, and which mean nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from scep_ra.headend.access import Permit
from scep_ra.identity.types import parse_device_id
from scep_ra.storage.sessions import EntryChange
from scep_ra.web.api_clients import ApiClient
from scep_ra.web.api_messages import (
    BadBody,
    Question,
    permit_document,
    read_body,
    read_deletions,
    read_disconnect,
    read_question,
)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PERMIT = Permit(
    device_id=parse_device_id("serial:SN1"),
    ca="default",
    certificate_serial=0xABC,
    not_after=datetime(2027, 1, 1, tzinfo=UTC),
    profile="vpn",
    attributes={"user": "alice"},
    services=frozenset({"b", "a"}),
)


def attribute(*values: object) -> dict[str, Any]:
    """Return a RADIUS attribute as rlm_rest sends it."""
    return {"type": "string", "value": list(values)}


# --- what comes in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "body", "fields"),
    [
        (JSON, b'{"device": "SN1"}', {"device": "SN1"}),
        (JSON, b"{}", {}),
        (FORM, b"device=serial%3ASN1&profile=vpn", {"device": "serial:SN1", "profile": "vpn"}),
        (FORM, b"devices=SN1&devices=SN2", {"devices": ["SN1", "SN2"]}),
        (FORM, b"", {}),
    ],
)
def test_a_body_is_json_or_a_form(media_type: str, body: bytes, fields: dict[str, Any]) -> None:
    """As its Content-Type says."""
    assert read_body(media_type, body) == fields


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/plain", b"device=SN1"),
        ("application/octet-stream", b"{}"),
        (JSON, b""),
        (JSON, b"device=SN1"),
        (JSON, b'["SN1"]'),
        (JSON, b"\xff"),
        (JSON, b"[" * 100_000),
        (FORM, b"device=%FF"),
        (FORM, b"device=\xff"),
        (FORM, b"&".join(b"a=1" for _ in range(300))),
    ],
)
def test_any_other_body_means_nothing(media_type: str, body: bytes) -> None:
    """Neither is guessed from its first octets."""
    with pytest.raises(BadBody):
        read_body(media_type, body)


@pytest.mark.parametrize(
    ("fields", "question"),
    [
        ({"device": "SN1"}, Question(device="SN1")),
        (
            {"device": "SN1", "profile": "vpn", "certificate_serial": "0A:BC", "more": 1},
            Question(device="SN1", profile="vpn", certificate_serial=0xABC),
        ),
        ({"User-Name": attribute("SN1")}, Question(device="SN1", is_rlm_rest=True)),
        ({"User-Name": attribute(123456)}, Question(device="123456", is_rlm_rest=True)),
        ({"User-Name": "SN1"}, Question(device="SN1", is_rlm_rest=True)),
        (
            {"User-Name": attribute("SN1"), "TLS-Client-Cert-Serial": attribute("0abc"), "NAS-Port": attribute(0)},
            Question(device="SN1", certificate_serial=0xABC, is_rlm_rest=True),
        ),
        (
            {"User-Name": attribute("SN1"), "Cisco-AVPair": attribute("x=y", "pki:cert-serial=0ABC")},
            Question(device="SN1", certificate_serial=0xABC, is_rlm_rest=True),
        ),
        (
            {
                "User-Name": attribute("SN1"),
                "Cisco-AVPair": attribute("pki:cert-serial=ABC"),
                "TLS-Client-Cert-Serial": attribute("0abc"),
            },
            Question(device="SN1", certificate_serial=0xABC, is_rlm_rest=True),
        ),
    ],
)
def test_a_question_is_ours_or_that_of_freeradius(fields: dict[str, Any], question: Question) -> None:
    """Told by the RADIUS attribute; other attributes do not matter."""
    assert read_question(fields) == question


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"device": ""},
        {"device": ["SN1", "SN2"]},
        {"device": None},
        {"device": "SN1", "profile": 3},
        {"device": "SN1", "certificate_serial": 7},
        {"device": "SN1", "certificate_serial": "xyz"},
        {"device": "SN1", "certificate_serial": "f" * 41},
        {"User-Name": attribute()},
        {"User-Name": attribute("")},
        {"User-Name": attribute("SN1", "SN2")},
        {"User-Name": attribute({"value": "SN1"})},
        {"User-Name": {"value": {"0": "SN1"}}},
        {"User-Name": None},
        {"User-Name": attribute("SN1"), "TLS-Client-Cert-Serial": attribute("xyz")},
        {"User-Name": attribute("SN1"), "TLS-Client-Cert-Serial": attribute("0a", "0b")},
        {"User-Name": attribute("SN1"), "Cisco-AVPair": attribute("pki:cert-serial=")},
    ],
)
def test_what_names_no_device_or_two_certificates_is_no_question(fields: dict[str, Any]) -> None:
    """Nothing is left out to make it one."""
    with pytest.raises(BadBody):
        read_question(fields)


def test_a_disconnect_names_a_device_and_what_becomes_of_its_entry() -> None:
    """It is disabled, unless something else is said."""
    device_id = parse_device_id("serial:SN1")
    assert read_disconnect({"device": "serial:SN1"}) == (device_id, EntryChange.DISABLE)
    assert read_disconnect({"device": "serial:SN1", "entry": "keep"}) == (device_id, EntryChange.KEEP)
    for fields in ({}, {"device": "serial:"}, {"device": "SN1", "entry": "erase"}, {"device": "SN1", "entry": 1}):
        with pytest.raises(BadBody):
            read_disconnect(fields)


def test_deletions_name_each_device_once() -> None:
    """One that cannot be read spoils the list: half of a report is none."""
    first, second = parse_device_id("SN1"), parse_device_id("SN2")
    assert read_deletions({"devices": ["SN1", "SN2", "serial:SN1"]}) == (first, second)
    assert read_deletions({"devices": "SN1"}) == (first,)
    for devices in (None, [], ["SN1", ""], ["SN1", 2], {"SN1": True}):
        with pytest.raises(BadBody):
            read_deletions({"devices": devices})


# --- what goes out -------------------------------------------------------------------------------------------------


def test_freeradius_gets_a_password_to_compare_and_av_pairs_to_send() -> None:
    """And is told not to expand what is in them."""
    client = ApiClient(name="vpn", token_digest=b"", trustpoint="RA-TP")
    assert permit_document(PERMIT, Question(device="SN1", is_rlm_rest=True), client) == {
        "control:Cleartext-Password": {"op": ":=", "do_xlat": False, "value": ["cisco"]},
        "reply:Cisco-AVPair": {
            "op": "+=",
            "do_xlat": False,
            "value": ["pki:cert-application=all", "pki:cert-trustpoint=RA-TP", "pki:cert-serial=0ABC"],
        },
    }


def test_freeradius_need_not_be_told_of_a_password() -> None:
    """Where it has authenticated the device by its certificate."""
    client = ApiClient(name="vpn", token_digest=b"", password="")
    document = permit_document(PERMIT, Question(device="SN1", is_rlm_rest=True), client)
    assert list(document) == ["reply:Cisco-AVPair"]


def test_others_get_what_is_known_of_the_device() -> None:
    """As JSON has it."""
    document = permit_document(PERMIT, Question(device="SN1"), ApiClient(name="vpn", token_digest=b""))
    assert json.loads(json.dumps(document)) == {
        "device": "serial:SN1",
        "ca": "default",
        "certificate_serial": "abc",
        "not_after": "2027-01-01T00:00:00+00:00",
        "profile": "vpn",
        "services": ["a", "b"],
        "attributes": {"user": "alice"},
    }
