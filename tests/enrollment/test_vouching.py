"""Claims about which claimed names are believed."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.enrollment.errors import NameNotVouched
from scep_ra.enrollment.vouching import check_attribute, check_general_name, read_allowed
from scep_ra.pki import der, names, oids
from scep_ra.pki.general_names import GeneralName, encode_general_name, parse_general_names
from scep_ra.pki.names import NameAttribute, parse_name
from tests.support.naming import SERIAL, facts

IMEI = "490154203237518"
UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


def check(attribute: str, *allowed: str, device: str = SERIAL, **asserted: str) -> None:
    """Check an attribute written as `CN=x`."""
    (claimed,) = names.attributes(parse_name(attribute))
    check_attribute(claimed, facts(device=device, **asserted), read_allowed(allowed))


# --- subject attributes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "device"),
    [
        ("serialNumber=ftx1234a0bc", SERIAL),
        ("CN=FTX1234A0BC", SERIAL),
        ("serialNumber=PID:ISR4331/K9 SN:FTX1234A0BC", SERIAL),
        ("CN=0024.be80.4ff1", "mac:00:24:be:80:4f:f1"),
        ("CN=49-015420-323751-8", f"imei:{IMEI}"),
        ("UID=F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", UUID),
        ("serialNumber=ftx1", "hwmodule:1.3.6.1.4.1.9.21:FTX1"),
        ("serialNumber=box 1", "permanent:1.2.3:Box  1"),
        ("CN=1.3.6.1.4.1.9.21:FTX1", "hwmodule:1.3.6.1.4.1.9.21:FTX1"),
    ],
)
def test_the_device_id_vouches_in_every_spelling(attribute: str, device: str) -> None:
    """As far as it is the same device in the grammar of its kind."""
    check(attribute, device=device)


@pytest.mark.parametrize(
    ("attribute", "asserted"),
    [
        ("CN=Router1.example.com", {"commonName": "router1.example.com"}),
        ("CN=router1", {"cn": "router1"}),
        ("CN=router1", {"2.5.4.3": "router1"}),
        ("OU=R&D  Lab", {"organizationalUnitName": "r&d lab"}),
        ("OU=b", {"OU": "a\nb\n"}),
        ("CN=alice", {"user": "Alice"}),
        ("UID=alice", {"user": "alice"}),
        ("emailAddress=alice@example.com", {"user": "alice@example.com"}),
    ],
)
def test_the_aaa_answer_vouches_under_any_name_of_the_attribute(attribute: str, asserted: dict[str, str]) -> None:
    """Long, short or dotted; several values stand on lines of their own."""
    check(attribute, **asserted)


@pytest.mark.parametrize(
    ("attribute", "entry"),
    [
        ("O=example", "O=Example"),
        ("O=Example\\, Inc.", "organizationName = Example, Inc."),
        ("OU=whatever", "OU=*"),
        ("CN=a.EXAMPLE.com", "2.5.4.3=*.example.com"),
        ("CN=edge-7", "CN=edge-[0-9]"),
    ],
)
def test_the_profile_vouches_by_pattern(attribute: str, entry: str) -> None:
    """Without regard to case."""
    check(attribute, "L=nowhere", entry)


@pytest.mark.parametrize(
    ("attribute", "allowed", "device", "asserted"),
    [
        ("CN=admin", (), SERIAL, {}),
        ("CN=admin", ("OU=*",), SERIAL, {"user": "alice", "OU": "admin", "note": "admin"}),
        ("O=alice", (), SERIAL, {"user": "alice"}),
        ("CN=a.example.com.evil", ("CN=*.example.com",), SERIAL, {}),
        ("CN=FTX1", (), "hwmodule:1.3.6.1.4.1.9.21:FTX1", {}),
        ("serialNumber=FTX2", (), "hwmodule:1.3.6.1.4.1.9.21:FTX1", {}),
        ("CN=a\\0Ab", (), SERIAL, {"CN": "a\nb"}),
        ("CN=", (), SERIAL, {"CN": ""}),
        ("CN=\u017fmith", (), SERIAL, {"CN": "smith"}),
    ],
)
def test_everything_else_is_refused(
    attribute: str, allowed: tuple[str, ...], device: str, asserted: dict[str, str]
) -> None:
    """VU#971035: the holder of one challenge asks for the name of an administrator."""
    with pytest.raises(NameNotVouched):
        check(attribute, *allowed, device=device, **asserted)


def test_a_refusal_names_the_attribute_and_what_the_operator_can_do() -> None:
    """A command to paste and an option to set."""
    with pytest.raises(NameNotVouched) as refusal:
        check("CN=router1")
    assert str(refusal.value) == (
        "subject attribute commonName 'router1' is not vouched for: let AAA assert it "
        "(scep-ra device set serial:FTX1234A0BC --attribute commonName=router1), "
        "or allow it (profile.vpn.subject_allowed)"
    )


@given(text=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40))
def test_the_command_to_paste_is_one_command(text: str) -> None:
    """The device wrote part of it, and an operator's shell reads it."""
    with pytest.raises(NameNotVouched) as refusal:
        check_attribute(NameAttribute(oid="1.2.3", text=text), facts(device="imei:" + IMEI), ())
    command = str(refusal.value).rpartition("assert it (")[2].rpartition("), or allow")[0]
    assert shlex.split(command)[-1] == f"1.2.3={text}"


@pytest.mark.parametrize("text", ["a\0b", "a\u202eb", "x" * 256], ids=["NUL", "text direction", "long"])
def test_what_cannot_be_shown_is_refused_though_it_is_allowed(text: str) -> None:
    """And the refusal is safe to log."""
    with pytest.raises(NameNotVouched, match=r"commonName '.*' has more than 255 characters, or some") as refusal:
        check_attribute(NameAttribute(oid=oids.COMMON_NAME, text=text), facts(), read_allowed(["CN=*"]))
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("entry", "pattern"),
    [
        ("O", "'O': write KEYWORD=VALUE, where"),
        ("O= ", "'O= ': write KEYWORD=VALUE"),
        ("shoe=*", "'shoe=.*': unknown name attribute 'shoe': use one of CN"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(entry: str, pattern: str) -> None:
    """With the form that it should have."""
    with pytest.raises(ValueError, match=pattern):
        read_allowed(["CN=*", entry])


# --- alternative names ---------------------------------------------------------------------------------------------


def check_name(element: bytes, *, device: str = SERIAL, subject: str = "", **asserted: str) -> None:
    (name,) = parse_general_names(der.sequence(element))
    check_general_name(name, element, facts(device=device, **asserted), subject=parse_name(subject))


def element(text: str) -> bytes:
    kind, _, value = text.partition(":")
    return encode_general_name(GeneralName(kind=kind, text=value))


@pytest.mark.parametrize(
    ("text", "device"),
    [
        (f"uri:urn:imei:{IMEI}", f"imei:{IMEI}"),
        (f"uri:urn:uuid:{UUID}", UUID),
        (f"uri:IntuneDeviceId://{UUID.upper()}", UUID),
        ("uri:urn:dev:mac:0024befffe804ff1", "mac:00:24:be:80:4f:f1"),
        ("hardware-module:1.3.6.1.4.1.9.21:ftx1", "hwmodule:1.3.6.1.4.1.9.21:FTX1"),
        ("permanent-identifier:1.2.3:box1", "permanent:1.2.3:box1"),
    ],
)
def test_the_device_id_vouches_for_its_forms(text: str, device: str) -> None:
    """Those that `identity` knows."""
    check_name(element(text), device=device)
    with pytest.raises(NameNotVouched):
        check_name(element(text))


def test_a_permanent_identifier_without_value_means_the_certificate_s_serial_number() -> None:
    """RFC 4043 2; under another subject it would be another device."""
    bare = der.element(0xA0, der.oid(oids.PERMANENT_IDENTIFIER) + der.explicit(0, der.sequence(der.oid("1.2.3"))))
    check_name(bare, device="permanent:1.2.3:box1", subject="serialNumber=box1")
    with pytest.raises(NameNotVouched):
        check_name(bare, device="permanent:1.2.3:box1", subject="serialNumber=box2")


@pytest.mark.parametrize(
    ("text", "asserted"),
    [
        ("dns:Router1.example.com", {"fqdn": "router1.EXAMPLE.com"}),
        ("dns:b.example", {"dns": "a.example\nb.example"}),
        ("email:alice@example.com", {"mail": "Alice@example.com"}),
        ("email:alice@example.com", {"email": "alice@example.com"}),
        ("uri:https://example.com/A", {"uri": "https://example.com/A"}),
        ("upn:alice@example.com", {"upn": "alice@example.com"}),
        ("ip:2001:db8::1", {"ip": "2001:DB8:0::1"}),
    ],
)
def test_the_aaa_answer_vouches_for_alternative_names(text: str, asserted: dict[str, str]) -> None:
    """Under the attribute of their kind only."""
    check_name(element(text), **asserted)
    with pytest.raises(NameNotVouched):
        check_name(element(text), other=next(iter(asserted.values())))


@pytest.mark.parametrize(
    ("text", "asserted"),
    [
        ("dns:admin.example.com", {"fqdn": "router1.example.com"}),
        ("uri:https://example.com/a", {"uri": "https://example.com/A"}),
        ("ip:192.0.2.1", {"ip": "gateway"}),
        ("uri:urn:imei:12345", {}),
        ("directory:CN=admin", {"directory": "CN=admin"}),
    ],
)
def test_other_alternative_names_are_not_vouched_for(text: str, asserted: dict[str, str]) -> None:
    """A name is as strong as a subject."""
    with pytest.raises(NameNotVouched):
        check_name(element(text), **asserted)
