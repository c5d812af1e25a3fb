"""GeneralNames (RFC 5280 4.2.1.6) as `kind:text` and back: requests ask for them, certificates carry them.

Which names identify a device, and what a name must look like to be certified, is decided elsewhere (`identity`,
`enrollment`); here they are octets in the right places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.names import decode_string, format_name, parse_name

_OTHER_NAME: Final = der.context(0)
_DIRECTORY_NAME: Final = der.context(4)
_IP_ADDRESS: Final = der.context(7, constructed=False)
_IA5_TAGS: Final = {
    "email": der.context(1, constructed=False),
    "dns": der.context(2, constructed=False),
    "uri": der.context(6, constructed=False),
}
_IA5_KINDS: Final = {tag: kind for kind, tag in _IA5_TAGS.items()}
_DOTTED: Final = re.compile(r"[0-2](?:\.[0-9]{1,39})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralName:
    """One name: `kind` is one of ENCODED_KINDS; in what is parsed also other or a bare tag.

    `hardware-module` is `OID:SERIAL` (RFC 4108), `permanent-identifier` is `OID:VALUE` or `:VALUE` (RFC 4043); both
    are parsed as other, because reading device identifiers is the matter of `identity`.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.text}"


def parse_general_names(octets: bytes) -> tuple[GeneralName, ...]:
    """Parse DER GeneralNames; names of other forms show their OID or their octets as hex. Raise MalformedData."""
    outer = der.Reader(octets)
    reader = outer.enter()
    outer.finish()
    names: list[GeneralName] = []
    while not reader.at_end():
        names.append(_parse_one(reader))
    return tuple(names)


def _parse_one(reader: der.Reader) -> GeneralName:
    match reader.peek():
        case tag if tag in _IA5_KINDS:
            return GeneralName(kind=_IA5_KINDS[tag], text=reader.contents(tag).decode("ascii", "backslashreplace"))
        case tag if tag == _IP_ADDRESS:
            return GeneralName(kind="ip", text=_format_address(reader.contents(tag)))
        case tag if tag == _DIRECTORY_NAME:
            return GeneralName(kind="directory", text=format_name(reader.enter(tag).element(der.SEQUENCE)))
        case tag if tag == _OTHER_NAME:
            return _parse_other(reader.enter(tag))
        case tag:
            return GeneralName(kind=f"[{tag & 0x1F}]", text=reader.contents(tag).hex())


def _parse_other(other: der.Reader) -> GeneralName:
    oid, value = other.oid(), other.remaining()
    other_name = GeneralName(kind="other", text=f"{oid}={value.hex()}")
    try:
        return GeneralName(kind="upn", text=_user_principal(value)) if oid == oids.USER_PRINCIPAL_NAME else other_name
    except MalformedData:
        return other_name


def _user_principal(value: bytes) -> str:
    outer = der.Reader(value)
    wrapper = outer.enter(der.context(0))
    outer.finish()
    text = decode_string(wrapper.element(der.UTF8_STRING))
    wrapper.finish()
    return text


def _format_address(octets: bytes) -> str:
    try:
        return str(ip_address(octets))
    except ValueError:
        raise MalformedData(f"iPAddress of {len(octets)} octets") from None


def read_general_name(text: str) -> GeneralName:
    """Read `KIND:VALUE`, e.g. `dns:router1.example.com`; raise MalformedData that says what is wrong."""
    kind, colon, value = text.partition(":")
    if not colon or kind not in ENCODED_KINDS or not value:
        raise MalformedData(f"{text!r} is not KIND:VALUE with KIND one of {', '.join(ENCODED_KINDS)}")
    name = GeneralName(kind=kind, text=value)
    encode_general_name(name)
    return name


def encode_general_names(names: Iterable[GeneralName]) -> bytes:
    """Encode DER GeneralNames; raise MalformedData as `encode_general_name`."""
    return der.sequence(*map(encode_general_name, names))


def encode_general_name(name: GeneralName) -> bytes:
    """Encode one name of ENCODED_KINDS as a DER GeneralName; raise MalformedData naming it and what is wrong."""
    encode = _ENCODERS.get(name.kind)
    if encode is None:
        raise MalformedData(f"{name}: this kind of name cannot be encoded, only {', '.join(ENCODED_KINDS)}")
    try:
        return encode(name.text)
    except MalformedData as error:
        raise MalformedData(f"{name}: {error}") from None


def encode_directory_name(name: bytes) -> bytes:
    """Encode a DER Name as a DER GeneralName."""
    return der.explicit(4, name)


def _ia5(kind: str) -> Callable[[str], bytes]:
    def encode(text: str) -> bytes:
        if not text.isascii():
            raise MalformedData("write it in ASCII (punycode, percent-encoding)")
        return der.element(_IA5_TAGS[kind], text.encode("ascii"))

    return encode


def _encode_address(text: str) -> bytes:
    try:
        return der.element(_IP_ADDRESS, ip_address(text).packed)
    except ValueError:
        raise MalformedData("not an IPv4 or IPv6 address") from None


def _encode_user_principal(text: str) -> bytes:
    return _other_name(oids.USER_PRINCIPAL_NAME, _utf8(text))


def _encode_hardware_module(text: str) -> bytes:
    hw_type, _, hw_serial_num = text.partition(":")
    if not hw_serial_num or not hw_serial_num.isascii():
        raise MalformedData("write OID:SERIAL in ASCII (RFC 4108 5)")
    return _other_name(
        oids.HARDWARE_MODULE_NAME, der.sequence(_oid(hw_type), der.octet_string(hw_serial_num.encode("ascii")))
    )


def _encode_permanent_identifier(text: str) -> bytes:
    assigner, _, value = text.partition(":")
    if not value:
        raise MalformedData("write OID:VALUE, or :VALUE in the CA's own namespace (RFC 4043 2)")
    return _other_name(oids.PERMANENT_IDENTIFIER, der.sequence(_utf8(value), _oid(assigner) if assigner else b""))


def _other_name(oid: str, value: bytes) -> bytes:
    return der.element(_OTHER_NAME, der.oid(oid) + der.explicit(0, value))


def _utf8(text: str) -> bytes:
    return der.element(der.UTF8_STRING, text.encode())


def _oid(dotted: str) -> bytes:
    """Encode an OID that was typed; reading it again finds arcs that do not exist (1.40) and numbers out of bounds."""
    if _DOTTED.fullmatch(dotted):
        octets = der.oid(dotted)
        with suppress(MalformedData):
            if der.Reader(octets).oid() == dotted:
                return octets
    raise MalformedData(f"{dotted!r} is not a dotted OID such as 1.3.6.1.4.1.9.21")


_ENCODERS: Final[Mapping[str, Callable[[str], bytes]]] = {
    **{kind: _ia5(kind) for kind in _IA5_TAGS},
    "ip": _encode_address,
    "upn": _encode_user_principal,
    "directory": lambda text: encode_directory_name(parse_name(text)),
    "hardware-module": _encode_hardware_module,
    "permanent-identifier": _encode_permanent_identifier,
}
ENCODED_KINDS: Final = tuple(_ENCODERS)
