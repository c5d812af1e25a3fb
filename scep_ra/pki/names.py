"""Distinguished names: DER Name to attributes, to text (RFC 4514) and back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.errors import MalformedData

_KEYWORDS: Final = {
    "CN": oids.COMMON_NAME,
    "SN": oids.SURNAME,
    "serialNumber": oids.SUBJECT_SERIAL_NUMBER,
    "C": oids.COUNTRY,
    "L": oids.LOCALITY,
    "ST": oids.STATE,
    "STREET": oids.STREET,
    "O": oids.ORGANIZATION,
    "OU": oids.ORGANIZATIONAL_UNIT,
    "title": oids.TITLE,
    "GN": oids.GIVEN_NAME,
    "UID": oids.USER_ID,
    "DC": oids.DOMAIN_COMPONENT,
    "emailAddress": oids.EMAIL_ADDRESS,
    "dnQualifier": oids.DN_QUALIFIER,
    "unstructuredName": oids.UNSTRUCTURED_NAME,
    "unstructuredAddress": oids.UNSTRUCTURED_ADDRESS,
    "x500UniqueIdentifier": oids.X500_UNIQUE_IDENTIFIER,
}
# The long spellings of RFC 4519, for the keywords above that are short; directories answer with these.
_LONG_KEYWORDS: Final = {
    "commonName": oids.COMMON_NAME,
    "surname": oids.SURNAME,
    "countryName": oids.COUNTRY,
    "localityName": oids.LOCALITY,
    "stateOrProvinceName": oids.STATE,
    "streetAddress": oids.STREET,
    "organizationName": oids.ORGANIZATION,
    "organizationalUnitName": oids.ORGANIZATIONAL_UNIT,
    "givenName": oids.GIVEN_NAME,
    "userId": oids.USER_ID,
    "domainComponent": oids.DOMAIN_COMPONENT,
}
# Spellings of headends in the names that they report: `hostname` is IOS's, the others strongSwan's and GnuTLS's.
_OTHER_KEYWORDS: Final = {
    "hostname": oids.UNSTRUCTURED_NAME,
    "E": oids.EMAIL_ADDRESS,
    "EMAIL": oids.EMAIL_ADDRESS,
}
_KEYWORD_OF: Final = {oid: keyword for keyword, oid in _KEYWORDS.items()}
_LONG_NAME_OF: Final = _KEYWORD_OF | {oid: keyword for keyword, oid in _LONG_KEYWORDS.items()}
_OID_BY_LOWER_KEYWORD: Final = {
    keyword.lower(): oid for keyword, oid in (_KEYWORDS | _LONG_KEYWORDS | _OTHER_KEYWORDS).items()
}
# These are IA5String by definition (RFC 4519 2.4, RFC 2985 5.4.1); everything else is a DirectoryString.
_IA5_ATTRIBUTES: Final = frozenset({oids.DOMAIN_COMPONENT, oids.EMAIL_ADDRESS, oids.UNSTRUCTURED_NAME})
_ENCODINGS: Final = {
    der.UTF8_STRING: "utf-8",
    der.PRINTABLE_STRING: "ascii",
    der.IA5_STRING: "ascii",
    # T.61 was never implemented as written; everybody means Latin-1.
    der.T61_STRING: "latin-1",
    der.BMP_STRING: "utf-16-be",
    der.UNIVERSAL_STRING: "utf-32-be",
    0x12: "ascii",  # NumericString
    0x1A: "ascii",  # VisibleString
}
_SPECIAL: Final = re.compile(r'[,+"\\<>;=]|^[# ]| \Z')
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_DOTTED: Final = r"[0-2](?:\.[0-9]{1,39})+"
_KEY: Final = rf" *([A-Za-z][A-Za-z0-9]*|{_DOTTED}) *= *"
# By separator; the other separator is an ordinary character: "/" in a comma-separated name and the reverse.
_ATTRIBUTE: Final = {
    separator: re.compile(_KEY + rf"((?:\\.|[^\\+{separator}])*)([+{separator}]|\Z)", re.DOTALL) for separator in ",/"
}
_ESCAPED: Final = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)| +\Z", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameAttribute:
    """One AttributeTypeAndValue with its value as text."""

    oid: str
    text: str


def decode_string(element: bytes) -> str:
    """Return the text of one DER string of any character string type; raise MalformedData."""
    encoding = _ENCODINGS.get(element[0] if element else -1)
    if encoding is None:
        raise MalformedData("not a character string")
    try:
        return der.Reader(element).contents(element[0]).decode(encoding)
    except UnicodeDecodeError:
        raise MalformedData("octets do not fit the string type") from None


def rdns(name: bytes) -> tuple[tuple[NameAttribute, ...], ...]:
    """Return the relative distinguished names of a DER Name in order, multi-valued ones included."""
    reader = der.Reader(name).enter()
    result: list[tuple[NameAttribute, ...]] = []
    while not reader.at_end():
        attributes: list[NameAttribute] = []
        rdn = reader.enter(der.SET)
        while not rdn.at_end():
            pair = rdn.enter()
            attributes.append(NameAttribute(oid=pair.oid(), text=decode_string(pair.element())))
            pair.finish()
        result.append(tuple(attributes))
    return tuple(result)


def attributes(name: bytes) -> tuple[NameAttribute, ...]:
    """Return every attribute of a DER Name, flattened, in order; raise MalformedData."""
    return tuple(attribute for rdn in rdns(name) for attribute in rdn)


def format_name(name: bytes) -> str:
    """Return a DER Name as text in certificate order, e.g. `O=Example,CN=router1`; safe to print and log."""
    return ",".join("+".join(_format_attribute(attribute) for attribute in rdn) for rdn in rdns(name))


def _format_attribute(attribute: NameAttribute) -> str:
    escaped = _SPECIAL.sub(r"\\\g<0>", attribute.text)
    escaped = _UNPRINTABLE.sub(lambda match: "".join(f"\\{octet:02X}" for octet in match[0].encode()), escaped)
    return f"{_KEYWORD_OF.get(attribute.oid, attribute.oid)}={escaped}"


def parse_name(text: str) -> bytes:
    r"""Encode text such as `C=US,O=Example,CN=dev\,1` (or `/C=US/O=Example`), in the order written, as DER Name.

    Attributes joined by `+` share one RDN; unknown keywords raise MalformedData and dotted OIDs are accepted.
    """
    separator = "/" if text.startswith("/") else ","
    position = 1 if separator == "/" else 0
    encoded: list[list[bytes]] = []
    delimiter = ""  # what stands between the attribute before and this one
    while position < len(text):
        match = _ATTRIBUTE[separator].match(text, position)
        if match is None:
            raise MalformedData(f"cannot read the name at {text[position:]!r}: write KEY=value")
        pair = _encode_attribute(match[1], match[2])
        if delimiter == "+":
            encoded[-1].append(pair)
        else:
            encoded.append([pair])
        delimiter, position = match[3], match.end()
    if delimiter:
        raise MalformedData(f"the name ends with {delimiter!r}: write \\{delimiter} where it belongs to the value")
    return der.sequence(*(der.set_of(rdn) for rdn in encoded))


def _encode_attribute(keyword: str, value: str) -> bytes:
    return encode_attribute(attribute_oid(keyword), _unescape(value))


def attribute_oid(keyword: str) -> str:
    """Return the dotted OID of an attribute keyword, long or short, in any case, or itself; raise MalformedData."""
    oid = keyword if re.fullmatch(_DOTTED, keyword) else _OID_BY_LOWER_KEYWORD.get(keyword.lower())
    if oid is None:
        raise MalformedData(f"unknown name attribute {keyword!r}: use one of {', '.join(_KEYWORDS)} or a dotted OID")
    return oid


def attribute_name(oid: str) -> str:
    """Return the long keyword of an attribute (`commonName`), its dotted OID where it has none."""
    return _LONG_NAME_OF.get(oid, oid)


def _unescape(value: str) -> str:
    """Undo the escapes of RFC 4514 3; blanks at the end count only when escaped."""

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return bytes.fromhex(match[1].replace("\\", "")).decode("utf-8", "replace")
        return match[2] or ""

    return _ESCAPED.sub(replace, value)


def encode_attribute(oid: str, text: str) -> bytes:
    """Encode one AttributeTypeAndValue, with the string type that its attribute demands."""
    octets = text.encode()
    if oid in _IA5_ATTRIBUTES and text.isascii():
        return der.sequence(der.oid(oid), der.element(der.IA5_STRING, octets))
    return der.sequence(der.oid(oid), der.directory_string(text))


def build_name(pairs: Iterable[tuple[str, str]]) -> bytes:
    """Encode (OID, text) pairs as a DER Name with one attribute per RDN."""
    return der.sequence(*(der.set_of([encode_attribute(oid, text)]) for oid, text in pairs))
