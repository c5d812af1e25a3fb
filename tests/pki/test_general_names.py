"""Claims about GeneralNames as text and as DER."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.general_names import GeneralName, encode_general_names, parse_general_names, read_general_name
from scep_ra.pki.names import parse_name

NAMES = (
    "dns:router-1.example",
    "uri:urn:imei:490154203237518",
    "email:a@example.org",
    "ip:192.0.2.1",
    "ip:2001:db8::1",
    "upn:é@example.com",
    r"directory:O=Example\, Inc.,CN=router1",
)
# Read back by `identity`, and shown here as the octets that they are.
DEVICE_NAMES = ("hardware-module:1.3.6.1.4.1.9.21:FTX1:A", "permanent-identifier::a", "permanent-identifier:1.2.3:a")
PRINTABLE = x509.name._ASN1Type.PrintableString


def test_names_survive_encoding_and_parsing() -> None:
    """What was asked for is what another reader, and this one, find."""
    encoded = encode_general_names(map(read_general_name, NAMES))
    assert tuple(map(str, parse_general_names(encoded))) == NAMES


def test_the_library_reads_the_same_names() -> None:
    """A certificate request built around them is understood elsewhere."""
    encoded = encode_general_names(map(read_general_name, (*NAMES, *DEVICE_NAMES)))
    names = [
        x509.DNSName("router-1.example"),
        x509.UniformResourceIdentifier("urn:imei:490154203237518"),
        x509.RFC822Name("a@example.org"),
        x509.IPAddress(ip_address("192.0.2.1")),
        x509.IPAddress(ip_address("2001:db8::1")),
        x509.OtherName(x509.ObjectIdentifier(oids.USER_PRINCIPAL_NAME), "\x0c\x0eé@example.com".encode()),
        x509.DirectoryName(
            x509.Name(
                [
                    x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example, Inc.", PRINTABLE),
                    x509.NameAttribute(x509.NameOID.COMMON_NAME, "router1", PRINTABLE),
                ]
            )
        ),
        x509.OtherName(
            x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME),
            der.sequence(der.oid("1.3.6.1.4.1.9.21"), der.octet_string(b"FTX1:A")),
        ),
        x509.OtherName(x509.ObjectIdentifier(oids.PERMANENT_IDENTIFIER), bytes.fromhex("3003") + b"\x0c\x01a"),
        x509.OtherName(
            x509.ObjectIdentifier(oids.PERMANENT_IDENTIFIER), bytes.fromhex("3007") + b"\x0c\x01a\x06\x02\x2a\x03"
        ),
    ]
    assert x509.SubjectAlternativeName(names).public_bytes() == encoded


@pytest.mark.parametrize(
    ("element", "text"),
    [
        (der.explicit(4, parse_name("O=Test,CN=x")), "directory:O=Test,CN=x"),
        (
            der.element(der.context(0), der.oid(oids.USER_PRINCIPAL_NAME) + der.explicit(0, der.directory_string("a"))),
            f"other:{oids.USER_PRINCIPAL_NAME}=a003130161",
        ),
        (der.element(der.context(8, constructed=False), b"\x2a\x03"), "[8]:2a03"),
        (der.element(der.context(2, constructed=False), b"a\xff"), "dns:a\\xff"),
    ],
)
def test_names_of_other_forms_are_shown_as_they_are(element: bytes, text: str) -> None:
    """An explanation leaves nothing out."""
    assert tuple(map(str, parse_general_names(der.sequence(element)))) == (text,)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("router-1", "KIND:VALUE"),
        ("dns:", "KIND:VALUE"),
        ("rid:1.2.3", "one of email, dns, uri, ip, upn, directory, hardware-module, permanent-identifier"),
        ("directory:router1", "write KEY=value"),
        ("hardware-module:FTX1", "OID:SERIAL"),
        ("hardware-module:1.2.3:", "OID:SERIAL"),
        ("hardware-module:1.2.3:é", "ASCII"),
        ("hardware-module:x:FTX1", "'x' is not a dotted OID"),
        ("hardware-module:1:FTX1", "'1' is not a dotted OID"),
        ("hardware-module:1.40:FTX1", r"'1\.40' is not a dotted OID"),
        (f"hardware-module:1.2{'.999999999' * 20}:FTX1", "is not a dotted OID"),
        ("permanent-identifier:a", ":VALUE"),
        ("permanent-identifier:1.2.x:a", r"'1\.2\.x' is not a dotted OID"),
        ("ip:192.0.2", "not an IPv4"),
        ("dns:b\u00fccher.example", "ASCII"),
    ],
)
def test_a_name_that_cannot_be_asked_for_is_refused_with_the_mend(text: str, pattern: str) -> None:
    """The text says what to write instead."""
    with pytest.raises(MalformedData, match=pattern):
        read_general_name(text)


def test_a_kind_that_is_only_read_cannot_be_encoded() -> None:
    """Names of unknown forms are for explaining."""
    with pytest.raises(MalformedData, match="cannot be encoded"):
        encode_general_names([GeneralName(kind="other", text="1.2.3=00")])


def test_an_address_of_wrong_length_is_malformed() -> None:
    """RFC 5280 4.2.1.6: 4 or 16 octets."""
    with pytest.raises(MalformedData, match="3 octets"):
        parse_general_names(der.sequence(der.element(der.context(7, constructed=False), b"abc")))


@given(octets=st.binary(max_size=60))
def test_arbitrary_octets_raise_malformed_data_only(octets: bytes) -> None:
    """Or they are names."""
    try:
        parse_general_names(octets)
    except MalformedData:
        return
    assert octets[0] == der.SEQUENCE
