"""GeneralNames (RFC 5280 4.2.1.6) as `kind:text` and back, for requests to make and messages to explain.

Which names identify a device, and what their text must look like, is the matter of `identity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from scep_ra.pki import der
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.names import format_name

_OTHER_NAME: Final = der.context(0)
_DIRECTORY_NAME: Final = der.context(4)
_IP_ADDRESS: Final = der.context(7, constructed=False)
_IA5_TAGS: Final = {
    "email": der.context(1, constructed=False),
    "dns": der.context(2, constructed=False),
    "uri": der.context(6, constructed=False),
}
_IA5_KINDS: Final = {tag: kind for kind, tag in _IA5_TAGS.items()}
ENCODED_KINDS: Final = (*_IA5_TAGS, "ip")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralName:
    """One name: `kind` is dns, uri, email or ip; in what is parsed also directory, other or a bare tag."""

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
            other = reader.enter(tag)
            return GeneralName(kind="other", text=f"{other.oid()}={other.remaining().hex()}")
        case tag:
            return GeneralName(kind=f"[{tag & 0x1F}]", text=reader.contents(tag).hex())


def _format_address(octets: bytes) -> str:
    try:
        return str(ip_address(octets))
    except ValueError:
        raise MalformedData(f"iPAddress of {len(octets)} octets") from None


def read_general_name(text: str) -> GeneralName:
    """Read `dns:HOST`, `uri:URI`, `email:ADDRESS` or `ip:ADDRESS`; raise MalformedData that says what is wrong."""
    kind, colon, value = text.partition(":")
    if not colon or kind not in ENCODED_KINDS or not value:
        raise MalformedData(f"{text!r} is not KIND:VALUE with KIND one of {', '.join(ENCODED_KINDS)}")
    name = GeneralName(kind=kind, text=value)
    _encode_one(name)
    return name


def encode_general_names(names: Iterable[GeneralName]) -> bytes:
    """Encode DER GeneralNames of the kinds dns, uri, email and ip; raise MalformedData."""
    return der.sequence(*map(_encode_one, names))


def _encode_one(name: GeneralName) -> bytes:
    try:
        if name.kind == "ip":
            return der.element(_IP_ADDRESS, ip_address(name.text).packed)
        return der.element(_IA5_TAGS[name.kind], name.text.encode("ascii"))
    except KeyError:
        raise MalformedData(f"{name}: this kind of name cannot be asked for") from None
    except UnicodeEncodeError:
        raise MalformedData(f"{name}: write it in ASCII (punycode, percent-encoding)") from None
    except ValueError:
        raise MalformedData(f"{name}: not an IPv4 or IPv6 address") from None
