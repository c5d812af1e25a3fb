"""Claims about distinguished names: to text and back, and what clients put into them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, names, oids
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.names import NameAttribute


def one_attribute(value: bytes, oid: str = oids.COMMON_NAME) -> bytes:
    """Return a DER Name with one attribute whose value is the given element."""
    return der.sequence(der.element(der.SET, der.sequence(der.oid(oid), value)))


def common_name(text: str) -> str:
    (attribute,) = names.attributes(names.parse_name(text))
    assert attribute.oid == oids.COMMON_NAME
    return attribute.text


# --- from text -----------------------------------------------------------------------------------------------------


def test_a_name_is_encoded_in_the_order_written() -> None:
    """To the octet: C and CN as PrintableString, one attribute an RDN."""
    assert names.parse_name("C=US,CN=dev 1").hex() == (
        "301d" + "310b3009060355040613025553" + "310e300c060355040313056465762031"
    )


@pytest.mark.parametrize("text", ["C=US,O=A/B,CN=x", "/C=US/O=A\\/B/CN=x", " C = US , O = A/B , CN = x "])
def test_commas_and_slashes_both_separate(text: str) -> None:
    """The form of RFC 4514 in certificate order, and the one that OpenSSL prints; the other separator is text."""
    assert names.format_name(names.parse_name(text)) == "C=US,O=A/B,CN=x"


def test_a_slash_name_keeps_its_commas() -> None:
    """Only the separator in use is special."""
    assert names.attributes(names.parse_name("/O=A, Inc./CN=x"))[0].text == "A, Inc."


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"CN=dev\,1", "dev,1"),
        (r"CN=a\+b", "a+b"),
        (r"CN=\E2\82\AC 5", "€ 5"),
        (r"CN=\\41", "\\41"),
        ("CN=a  ", "a"),
        ("CN=a\\ ", "a "),
        ("CN=\\ a \\  ", " a  "),
        (r"CN=\FF", "\ufffd"),
        ("CN=", ""),
        ("CN=a=b", "a=b"),
    ],
)
def test_escapes_are_undone_and_blanks_at_the_ends_count_only_when_escaped(written: str, meant: str) -> None:
    """RFC 4514 3. Regression: an escaped blank at the end lost its blank and kept its backslash."""
    assert common_name(written) == meant


def test_keywords_have_no_case_and_dotted_oids_are_taken() -> None:
    """Operators write cn, CN and 2.5.4.3."""
    assert names.parse_name("cn=a") == names.parse_name("CN=a") == names.parse_name("2.5.4.3=a")
    assert names.format_name(names.parse_name("1.2.3.4=x")) == "1.2.3.4=x"


@pytest.mark.parametrize(
    ("keyword", "oid", "name"),
    [
        ("CN", oids.COMMON_NAME, "commonName"),
        ("COMMONNAME", oids.COMMON_NAME, "commonName"),
        ("serialNumber", oids.SUBJECT_SERIAL_NUMBER, "serialNumber"),
        ("2.5.4.11", oids.ORGANIZATIONAL_UNIT, "organizationalUnitName"),
        ("1.2.3.4", "1.2.3.4", "1.2.3.4"),
    ],
)
def test_an_attribute_has_one_oid_and_one_long_name(keyword: str, oid: str, name: str) -> None:
    """Directories write commonName where a subject has CN."""
    assert names.attribute_oid(keyword) == oid
    assert names.attribute_name(oid) == name


@pytest.mark.parametrize("keyword", ["shoeSize", "a.b", "", "3.1"])
def test_a_word_that_is_no_attribute_is_refused(keyword: str) -> None:
    """With the list of those that are."""
    with pytest.raises(MalformedData, match="use one of CN"):
        names.attribute_oid(keyword)


def test_attributes_joined_by_plus_share_one_sorted_rdn() -> None:
    """P-29: IOS puts serialNumber and unstructuredName into one RDN."""
    name = names.parse_name("serialNumber=FTX1+unstructuredName=router.example,O=X")
    assert name == names.parse_name("unstructuredName=router.example+serialNumber=FTX1,O=X")
    first, second = names.rdns(name)
    assert {attribute.text for attribute in first} == {"FTX1", "router.example"}
    assert second == (NameAttribute(oid=oids.ORGANIZATION, text="X"),)
    assert names.format_name(name) == "serialNumber=FTX1+unstructuredName=router.example,O=X"


def test_ia5_attributes_are_ia5_strings_unless_the_text_is_not_ascii() -> None:
    """RFC 4519 2.4, RFC 2985 5.4.1."""
    assert b"\x16\x07example" in names.parse_name("DC=example")
    assert b"\x16\x05a@b.c" in names.parse_name("emailAddress=a@b.c")
    assert b"\x0c\x02\xc3\xa9" in names.parse_name("DC=é")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("unknown name attribute 'XX': use one of CN", "XX=1"),
        ("cannot read the name at 'CN': write KEY=value", "CN"),
        ("cannot read", "CN=a,,O=b"),
        ("cannot read", "CN=a\\"),
        ("ends with ','", "CN=a,"),
        (r"ends with '\+'", "CN=a+"),
        ("ends with '/'", "/CN=a/"),
        ("cannot read", "3.1=a"),
        ("cannot read", "2." + "9" * 5000 + "=a"),
    ],
)
def test_unreadable_names_say_where_and_how_to_write_them(pattern: str, text: str) -> None:
    """Regression: a lone backslash, and a separator or plus at the end, went unnoticed."""
    with pytest.raises(MalformedData, match=pattern):
        names.parse_name(text)


def test_the_empty_text_is_the_empty_name() -> None:
    """Some devices have no subject (REQ-1)."""
    assert names.parse_name("") == b"\x30\x00"
    assert names.format_name(b"\x30\x00") == ""


KEYWORDS = st.sampled_from(["CN", "O", "OU", "UID", "DC", "serialNumber", "1.2.3.4", "unstructuredName"])
RDNS = st.lists(st.lists(st.tuples(KEYWORDS, st.text(max_size=12)), min_size=1, max_size=3), max_size=4)


@given(RDNS)
def test_every_name_survives_the_way_to_text_and_back(rdns: list[list[tuple[str, str]]]) -> None:
    """format_name and parse_name are inverses, whatever the text: specials, blanks, control characters."""
    name = der.sequence(
        *(
            der.set_of(
                names.encode_attribute(
                    names._OID_BY_LOWER_KEYWORD.get(keyword.lower(), keyword),
                    text,
                )
                for keyword, text in rdn
            )
            for rdn in rdns
        )
    )
    text = names.format_name(name)
    assert names.parse_name(text) == name
    assert not set("\r\n\x1b\u202e\x00") & set(text)


# --- from DER ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "encoding"),
    [
        (der.UTF8_STRING, "utf-8"),
        (der.PRINTABLE_STRING, "ascii"),
        (der.IA5_STRING, "ascii"),
        (der.T61_STRING, "latin-1"),
        (der.BMP_STRING, "utf-16-be"),
        (der.UNIVERSAL_STRING, "utf-32-be"),
        (0x12, "ascii"),
        (0x1A, "ascii"),
    ],
)
def test_every_character_string_type_is_read(tag: int, encoding: str) -> None:
    """P-26: the same text in any clothes."""
    assert names.decode_string(der.element(tag, "12 34".encode(encoding))) == "12 34"


@pytest.mark.parametrize(
    ("pattern", "element"),
    [
        ("not a character string", b""),
        ("not a character string", der.octet_string(b"x")),
        ("do not fit", b"\x0c\x01\xff"),
        ("do not fit", b"\x13\x01\xe9"),
        ("do not fit", b"\x1e\x02\xd8\x00"),
        ("do not fit", b"\x1c\x04\x00\x11\x00\x00"),
        ("longer than", b"\x0c\x05ab"),
    ],
)
def test_octets_that_are_no_text_are_refused(pattern: str, element: bytes) -> None:
    """Wrong type, wrong encoding, a lone surrogate, a number beyond Unicode."""
    with pytest.raises(MalformedData, match=pattern):
        names.decode_string(element)


def test_a_name_is_safe_to_print() -> None:
    """N-50: terminal escapes, line breaks and text direction marks leave as hexadecimal."""
    name = one_attribute(der.element(der.UTF8_STRING, "a\x1b[2Jb\r\nc\u202ed,e".encode()))
    assert names.format_name(name) == r"CN=a\1B[2Jb\0D\0Ac\E2\80\AEd\,e"


@pytest.mark.parametrize(
    ("text", "shown"), [("#1", r"CN=\#1"), (" x ", r"CN=\ x\ "), (" ", r"CN=\ "), ("a\\ ", r"CN=a\\\ ")]
)
def test_hash_and_blanks_at_the_ends_are_escaped(text: str, shown: str) -> None:
    """RFC 4514 2.4. Regression: a backslash before a last blank hid that the blank was not escaped."""
    assert names.format_name(one_attribute(der.element(der.UTF8_STRING, text.encode()))) == shown


def test_build_name_makes_one_rdn_a_pair_that_another_parser_reads() -> None:
    """`cryptography` sees the same attributes in the same order."""
    name = names.build_name([(oids.ORGANIZATION, "Example"), (oids.SUBJECT_SERIAL_NUMBER, "FTX1")])
    theirs = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example", x509.name._ASN1Type.PrintableString),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, "FTX1"),
        ]
    )
    assert name == theirs.public_bytes()


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"\x31\x00",
        b"\x30\x02\x31\x05",
        one_attribute(der.NULL),
        one_attribute(der.directory_string("a") + der.NULL),
        one_attribute(b""),
    ],
)
def test_malformed_names_are_refused(name: bytes) -> None:
    """Not a SEQUENCE, cut off, no string, a third element, no value."""
    with pytest.raises(MalformedData):
        names.attributes(name)


@given(st.binary(max_size=60))
def test_only_malformed_data_leaves_the_functions_that_read_der(octets: bytes) -> None:
    """Whatever the octets."""
    for function in (names.rdns, names.attributes, names.format_name, names.decode_string):
        with suppress(MalformedData):
            function(octets)


@given(st.text(max_size=60))
def test_only_malformed_data_leaves_parse_name(text: str) -> None:
    """Whatever an operator types."""
    with suppress(MalformedData):
        names.parse_name(text)
