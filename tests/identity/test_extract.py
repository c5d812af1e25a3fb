"""Claims about finding identifiers in a request and settling on one."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.identity.errors import (
    IdentityError,
    InvalidDeviceID,
    NoIdentity,
    UnreadableIdentity,
)
from scep_ra.identity.extract import ConflictingIdentity, IdentityClaim, choose_device_id, extract_claims
from scep_ra.identity.types import parse_device_id
from scep_ra.pki import der, names, oids

IMEI = "490154203237518"
UDID = "2b6f0cc904d137be2e1730235f5664094b831186"
UUID = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
MAC = "00:24:be:80:4f:f1"
SERIAL = "FTX1234A0BC"
ALL_RULES = (
    "subject.serialNumber",
    "san",
    "subject.userId",
    "subject.x500UniqueIdentifier",
    "subject.dnQualifier",
    "subject.unstructuredName",
    "subject.commonName",
)
HW_TYPE = der.oid("1.3.6.1.4.1.9.21")


def uri(text: str) -> bytes:
    return der.element(0x86, text.encode("latin-1"))


def other_name(oid: str, value: bytes) -> bytes:
    return der.element(0xA0, der.oid(oid) + der.explicit(0, value))


def hardware_module(serial: bytes) -> bytes:
    return other_name(oids.HARDWARE_MODULE_NAME, der.sequence(HW_TYPE, der.octet_string(serial)))


def permanent_identifier(*fields: bytes) -> bytes:
    return other_name(oids.PERMANENT_IDENTIFIER, der.sequence(*fields))


def utf8(text: str) -> bytes:
    return der.element(der.UTF8_STRING, text.encode())


def claims(
    subject: str | bytes = b"\x30\x00",
    *san: bytes,
    rules: tuple[str, ...] = ALL_RULES,
    unstructured_names: tuple[str, ...] = (),
) -> list[str]:
    """Return the claims found as `source kind:value`."""
    return [f"{claim.source} {claim.device_id}" for claim in found(subject, *san, rules=rules, more=unstructured_names)]


def found(
    subject: str | bytes, *san: bytes, rules: tuple[str, ...] = ALL_RULES, more: tuple[str, ...] = ()
) -> tuple[IdentityClaim, ...]:
    return extract_claims(
        subject=names.parse_name(subject) if isinstance(subject, str) else subject,
        subject_alt_name=der.sequence(*san) if san else None,
        unstructured_names=more,
        rules=rules,
    )


# --- subject ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "oid"),
    [
        ("serialNumber", oids.SUBJECT_SERIAL_NUMBER),
        ("userId", oids.USER_ID),
        ("x500UniqueIdentifier", oids.X500_UNIQUE_IDENTIFIER),
        ("dnQualifier", oids.DN_QUALIFIER),
        ("unstructuredName", oids.UNSTRUCTURED_NAME),
        ("commonName", oids.COMMON_NAME),
    ],
)
def test_each_subject_rule_reads_its_attribute_only(attribute: str, oid: str) -> None:
    """A rule finds its attribute and is blind to every other."""
    rule = f"subject.{attribute}"
    subject = names.build_name([(oids.ORGANIZATION, "X1"), (oid, SERIAL), (oids.ORGANIZATIONAL_UNIT, "X2")])
    assert claims(subject, rules=(rule,)) == [f"{rule} serial:{SERIAL}"]
    others = tuple(other for other in ALL_RULES if other != rule)
    assert claims(subject, rules=others) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (UDID.upper(), f"udid:{UDID}"),
        ("00008030-001A2B3C4D5E6F70", "udid:00008030-001a2b3c4d5e6f70"),
        (UUID.upper(), f"uuid:{UUID}"),
        ("00-24-BE-80-4F-F1", f"mac:{MAC}"),
        ("0024.be80.4ff1", f"mac:{MAC}"),
        ("0024be804ff1", "serial:0024BE804FF1"),
        (IMEI, f"serial:{IMEI}"),
        ("00008030001A2B3C4D5E6F70", "serial:00008030001A2B3C4D5E6F70"),
        ("PID:C9300-24T SN:FTX1234A0BC", f"serial:{SERIAL}"),
    ],
)
@pytest.mark.parametrize("rule", ["subject.serialNumber", "subject.userId", "subject.commonName"])
def test_a_text_is_a_serial_unless_it_can_be_nothing_but_something_else(rule: str, text: str, expected: str) -> None:
    """UDID, UUID and separated MAC look like nothing else; 15 digits do not tell an IMEI from a serial."""
    oid = {"subject.serialNumber": oids.SUBJECT_SERIAL_NUMBER, "subject.userId": oids.USER_ID}.get(
        rule, oids.COMMON_NAME
    )
    assert claims(names.build_name([(oid, text)]), rules=(rule,)) == [f"{rule} {expected}"]


def test_a_rule_may_say_the_kind() -> None:
    """`subject.commonName:imei` reads 15 digits as an IMEI and refuses anything else."""
    assert claims(f"CN={IMEI}", rules=("subject.commonName:imei",)) == [f"subject.commonName imei:{IMEI}"]
    with pytest.raises(InvalidDeviceID, match=r"^subject\.commonName: IMEI 'router1'"):
        claims("CN=router1", rules=("subject.commonName:imei",))


def test_multi_valued_rdns_and_repeated_attributes_are_all_seen() -> None:
    """P-29: Cisco puts serialNumber and unstructuredName into one RDN."""
    assert claims(f"serialNumber={SERIAL}+unstructuredName=r1.example.net,serialNumber=B2") == [
        f"subject.serialNumber serial:{SERIAL}",
        "subject.serialNumber serial:B2",
        "subject.unstructuredName serial:R1.EXAMPLE.NET",
    ]


def test_unstructured_names_of_the_request_count_like_those_of_the_subject() -> None:
    """Some stacks put the PKCS#9 attribute beside the subject instead of into it."""
    assert claims("unstructuredName=a1", unstructured_names=("b2",)) == [
        "subject.unstructuredName serial:A1",
        "subject.unstructuredName serial:B2",
    ]


def test_claims_come_in_the_order_of_the_rules() -> None:
    """Whatever the order in the certificate request."""
    subject = f"CN=router1,UID={UDID},serialNumber={SERIAL}"
    rules = ("subject.commonName", "san", "subject.serialNumber", "subject.userId")
    assert claims(subject, uri(f"urn:uuid:{UUID}"), rules=rules) == [
        "subject.commonName serial:ROUTER1",
        f"san.uri uuid:{UUID}",
        f"subject.serialNumber serial:{SERIAL}",
        f"subject.userId udid:{UDID}",
    ]


# --- subjectAltName --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"urn:uuid:{UUID}", f"uuid:{UUID}"),
        (f"URN:UUID:{UUID.upper()}", f"uuid:{UUID}"),
        (f"IntuneDeviceId://{UUID.upper()}", f"uuid:{UUID}"),
        (f"urn:imei:{IMEI}", f"imei:{IMEI}"),
        ("urn:imei:49015420-323751-8", f"imei:{IMEI}"),
        ("urn:gsma:imei:49015420-323751-8", f"imei:{IMEI}"),
        ("urn:gsma:imei:49015420-323751-0;svn=42;vers=0", f"imei:{IMEI}"),
        ("urn:dev:mac:0024befffe804ff1", f"mac:{MAC}"),
        ("urn:dev:mac:0024BE804FF1", f"mac:{MAC}"),
    ],
)
def test_uris_that_name_devices_are_read(text: str, expected: str) -> None:
    """Each URI form tells its kind; RFC 7254's spare digit and RFC 9039's EUI-64 are undone."""
    assert claims(b"\x30\x00", uri(text)) == [f"san.uri {expected}"]


@pytest.mark.parametrize(
    "text",
    [f"urn:uuid:{UUID}x", "urn:imei:490154203237510", "urn:dev:mac:0024be0001804ff1", "IntuneDeviceId://{{DeviceId}}"],
)
def test_broken_device_uris_are_refused(text: str) -> None:
    """A URI that announces a device and then fails is not skipped."""
    with pytest.raises(InvalidDeviceID, match=r"^san\.uri: "):
        claims(b"\x30\x00", uri(text))


def test_other_general_names_are_passed_by() -> None:
    """DNS names, addresses, other URIs and UPNs name services and people."""
    assert (
        claims(
            b"\x30\x00",
            der.element(0x82, b"r1.example.net"),
            der.element(0x87, b"\x0a\x00\x00\x01"),
            uri("tag:microsoft.com,2022-09-14:sid:S-1-5-21"),
            uri("urn:dev:ow:10e2073a01080063"),
            other_name(oids.USER_PRINCIPAL_NAME, utf8("user@example.net")),
            der.element(0xA4, names.build_name([(oids.COMMON_NAME, "x1")])),
        )
        == []
    )


@pytest.mark.parametrize(("octets", "serial"), [(b"ftx1", "FTX1"), (b"\x00\xab\x12", "00AB12"), (b"A\nB", "410A42")])
def test_hardware_module_serials_are_text_or_else_hex(octets: bytes, serial: str) -> None:
    """P-30, RFC 4108 5: any octets are legal in hwSerialNum."""
    assert claims(b"\x30\x00", hardware_module(octets)) == [
        f"san.hardwareModuleName hwmodule:1.3.6.1.4.1.9.21:{serial}"
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((utf8("Box 7"), der.oid("1.2.3")), "permanent:1.2.3:Box 7"),
        ((utf8("Box 7"),), "permanent::Box 7"),
        ((der.oid("1.2.3"),), "permanent:1.2.3:B2"),
    ],
)
def test_permanent_identifiers_take_their_defaults(fields: tuple[bytes, ...], expected: str) -> None:
    """RFC 4043 2: the value defaults to the subject's deepest serialNumber, the assigner to the CA."""
    assert claims("serialNumber=A1,serialNumber=B2", permanent_identifier(*fields), rules=("san",)) == [
        f"san.permanentIdentifier {expected}"
    ]


def test_a_permanent_identifier_of_nothing_is_refused() -> None:
    """Neither value nor serialNumber: it says nothing."""
    with pytest.raises(InvalidDeviceID, match=r"^san\.permanentIdentifier: "):
        claims("CN=x1", permanent_identifier())


def test_the_alternative_name_is_read_only_where_a_rule_asks() -> None:
    """Without `san` among the rules a malformed subjectAltName is nobody's business here."""
    subject = names.parse_name(f"serialNumber={SERIAL}")
    rules = ("subject.serialNumber",)
    assert len(extract_claims(subject=subject, subject_alt_name=b"\x30\x05", rules=rules)) == 1


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "san"),
    [
        pytest.param(b"\x30\x05", None, id="subject cut off"),
        pytest.param(b"", None, id="no subject"),
        pytest.param(
            der.sequence(der.set_of([der.sequence(der.oid(oids.COMMON_NAME), der.element(0x0C, b"\xff\xfe"))])),
            None,
            id="N-50 CN that is not UTF-8",
        ),
        pytest.param(b"\x30\x00", b"\x30\x02\x86\x05", id="SAN cut off"),
        pytest.param(b"\x30\x00", b"\x30\x00\x00", id="octets after SAN"),
        pytest.param(b"\x30\x00", der.sequence(uri("urn:uuid:\xff")), id="URI that is not ASCII"),
        pytest.param(
            b"\x30\x00",
            der.sequence(other_name(oids.HARDWARE_MODULE_NAME, der.sequence(HW_TYPE, utf8("x")))),
            id="hwSerialNum of another type",
        ),
        pytest.param(
            b"\x30\x00",
            der.sequence(permanent_identifier(utf8("x"), der.oid("1.2"), der.NULL)),
            id="permanentIdentifier of three fields",
        ),
        pytest.param(
            b"\x30\x00",
            der.sequence(
                der.element(
                    0xA0, der.oid(oids.PERMANENT_IDENTIFIER) + der.explicit(0, der.sequence(utf8("x")) + utf8("y"))
                )
            ),
            id="octets after the permanentIdentifier",
        ),
        pytest.param(
            b"\x30\x00",
            der.sequence(
                der.element(
                    0xA0, der.oid(oids.PERMANENT_IDENTIFIER) + der.explicit(0, der.sequence(utf8("x"))) + utf8("y")
                )
            ),
            id="octets after the otherName's value",
        ),
    ],
)
def test_unreadable_names_are_an_identity_error(subject: bytes, san: bytes | None) -> None:
    """The caller meets one family of errors, never the parser's."""
    with pytest.raises(UnreadableIdentity) as refusal:
        extract_claims(subject=subject, subject_alt_name=san, rules=ALL_RULES)
    assert refusal.value.code == "identity_unreadable"


@given(subject=st.binary(max_size=80), san=st.none() | st.binary(max_size=80))
def test_arbitrary_names_raise_identity_errors_only(subject: bytes, san: bytes | None) -> None:
    """Whatever the octets, the answer is claims or an IdentityError."""
    with suppress(IdentityError):
        extract_claims(subject=subject, subject_alt_name=san, rules=ALL_RULES)


@given(cut=st.integers(0, 200), change=st.integers(0, 255))
def test_damaged_names_raise_identity_errors_only(cut: int, change: int) -> None:
    """The same for names that were good before an octet changed."""
    san = bytearray(der.sequence(hardware_module(b"FTX1"), permanent_identifier(utf8("x")), uri(f"urn:uuid:{UUID}")))
    san[cut % len(san)] = change
    with suppress(IdentityError):
        extract_claims(subject=names.parse_name("CN=x1"), subject_alt_name=bytes(san), rules=ALL_RULES)


# --- invalid values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["none", "0000", "", "A\nB", "A\x00B", "X1" * 150])
def test_an_invalid_value_in_a_strong_source_is_refused(text: str) -> None:
    """N-38, N-50: a placeholder or worse is not skipped in favour of something weaker."""
    subject = names.build_name([(oids.SUBJECT_SERIAL_NUMBER, text), (oids.COMMON_NAME, "router1")])
    with pytest.raises(InvalidDeviceID, match=r"^subject\.serialNumber: ") as refusal:
        claims(subject)
    assert str(refusal.value).isprintable()


def test_an_invalid_fallback_is_left_out_where_a_strong_source_speaks() -> None:
    """A CN that is no identifier does not matter when the serial is there."""
    subject = names.build_name([(oids.COMMON_NAME, "unknown"), (oids.SUBJECT_SERIAL_NUMBER, SERIAL)])
    assert claims(subject) == [f"subject.serialNumber serial:{SERIAL}"]


def test_an_invalid_fallback_alone_is_refused() -> None:
    """Where the CN is all there is, its fault is reported."""
    with pytest.raises(InvalidDeviceID, match=r"^subject\.commonName: "):
        claims("CN=unknown")


def test_an_ldap_filter_in_a_serial_is_one_literal_value() -> None:
    """N-50: nothing is interpreted on the way."""
    assert claims("CN=*)(uid=*") == ["subject.commonName serial:*)(UID=*"]


# --- choosing --------------------------------------------------------------------------------------------------------


def claim(source: str, text: str) -> IdentityClaim:
    return IdentityClaim(source=source, device_id=parse_device_id(text))


def test_the_first_claim_of_a_strong_source_is_chosen() -> None:
    """Rule order decides among strong sources."""
    chosen = choose_device_id([claim("san.uri", f"imei:{IMEI}"), claim("subject.serialNumber", SERIAL)])
    assert str(chosen) == f"imei:{IMEI}"


def test_a_fallback_never_beats_a_strong_source_and_never_conflicts_with_one() -> None:
    """Even named first in the rules, a CN speaks only when nothing better does."""
    fallbacks = [claim("subject.commonName", "ROUTER1"), claim("subject.unstructuredName", "R1.EXAMPLE.NET")]
    assert str(choose_device_id([*fallbacks, claim("subject.serialNumber", SERIAL)])) == f"serial:{SERIAL}"
    assert str(choose_device_id(fallbacks)) == "serial:ROUTER1"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (claim("subject.serialNumber", "A1"), claim("subject.serialNumber", "B2")),
        (claim("subject.serialNumber", "A1"), claim("subject.userId", "B2")),
        (claim("subject.serialNumber", "A1"), claim("san.hardwareModuleName", "hwmodule:1.2:B2")),
        (claim("san.hardwareModuleName", "hwmodule:1.2:A1"), claim("san.hardwareModuleName", "hwmodule:1.3:A1")),
        (claim("san.uri", f"uuid:{UUID}"), claim("subject.userId", "uuid:" + UUID.replace("f8", "a8"))),
    ],
)
def test_strong_sources_that_disagree_end_the_request(first: IdentityClaim, second: IdentityClaim) -> None:
    """N-37, R-15: two devices in one request are refused, whichever comes first, with both claims to show."""
    for pair in ((first, second), (second, first)):
        with pytest.raises(ConflictingIdentity) as refusal:
            choose_device_id([*pair, claim("subject.commonName", "ROUTER1")])
        assert refusal.value.claims == pair
        assert refusal.value.code == "identity_conflict"
        assert str(pair[0].device_id) in str(refusal.value)
        assert str(pair[1].device_id) in str(refusal.value)


def test_sources_that_agree_or_differ_in_kind_are_no_conflict() -> None:
    """802.1AR: the hardware module's serial repeats the subject's; an IMEI beside it is another property."""
    agreeing = found(f"serialNumber={SERIAL.lower()}", hardware_module(SERIAL.encode()), uri(f"urn:imei:{IMEI}"))
    assert len(agreeing) == 3
    assert str(choose_device_id(agreeing)) == f"serial:{SERIAL}"


def test_a_request_without_any_claim_has_no_identity() -> None:
    """N-49: an empty subject, or one without the attributes that the rules name, identifies nothing."""
    with pytest.raises(NoIdentity) as refusal:
        choose_device_id(found("O=Example,OU=router1"))
    assert refusal.value.code == "identity_missing"


# --- rules -----------------------------------------------------------------------------------------------------------
