"""RADIUS packets to octets and back, with all that proves where they come from.

The attributes are pyrad's work. What pyrad lets pass is refused here before it sees it: attributes that end outside the
packet, more than 4096 octets, a Message-Authenticator that is doubled or too short. No socket and no clock in here.
"""

from __future__ import annotations

import io
import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from pyrad import packet as codec
from pyrad import tools
from pyrad.dictionary import Attribute, Dictionary

from scep_ra.radius.errors import MalformedPacket, NotAuthentic, UnfitAttribute

MAX_OCTETS: Final = 4096  # RFC 2865 3
MAX_TEXT_OCTETS: Final = 253  # RFC 2865 5: what the length octet of an attribute leaves
HEADER_OCTETS: Final = 20

Value = str | int | bytes


class Code(IntEnum):
    """What a packet is (RFC 2865, 2866, 5176, 5997)."""

    ACCESS_REQUEST = 1
    ACCESS_ACCEPT = 2
    ACCESS_REJECT = 3
    ACCOUNTING_REQUEST = 4
    ACCOUNTING_RESPONSE = 5
    ACCESS_CHALLENGE = 11
    STATUS_SERVER = 12
    DISCONNECT_REQUEST = 40
    DISCONNECT_ACK = 41
    DISCONNECT_NAK = 42
    COA_REQUEST = 43
    COA_ACK = 44
    COA_NAK = 45


REPLIES: Final[Mapping[Code, frozenset[Code]]] = MappingProxyType(
    {
        Code.ACCESS_REQUEST: frozenset({Code.ACCESS_ACCEPT, Code.ACCESS_REJECT, Code.ACCESS_CHALLENGE}),
        Code.ACCOUNTING_REQUEST: frozenset({Code.ACCOUNTING_RESPONSE}),
        Code.STATUS_SERVER: frozenset({Code.ACCESS_ACCEPT, Code.ACCOUNTING_RESPONSE}),
        Code.DISCONNECT_REQUEST: frozenset({Code.DISCONNECT_ACK, Code.DISCONNECT_NAK}),
        Code.COA_REQUEST: frozenset({Code.COA_ACK, Code.COA_NAK}),
    }
)
# Their authenticator is random; that of the others is a digest of the packet and the secret.
_RANDOM_AUTHENTICATOR: Final = frozenset({Code.ACCESS_REQUEST, Code.STATUS_SERVER})
_ENCODERS: Final[Mapping[Code, type[codec.Packet]]] = MappingProxyType(
    {
        Code.ACCESS_REQUEST: codec.AuthPacket,
        Code.ACCOUNTING_REQUEST: codec.AcctPacket,
        Code.STATUS_SERVER: codec.AuthPacket,
        Code.DISCONNECT_REQUEST: codec.CoAPacket,
        Code.COA_REQUEST: codec.CoAPacket,
    }
)
_DICTIONARY: Final = Dictionary(io.StringIO(files("scep_ra.radius").joinpath("dictionary").read_text("utf-8")))
_USER_PASSWORD: Final = 2
_VENDOR_SPECIFIC: Final = 26
_MESSAGE_AUTHENTICATOR: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet in words: attributes by the names of our dictionary, User-Password in clear.

    Values are text, numbers or octets, as the attribute's type has it; addresses are text. What the dictionary does not
    know arrives as octets under `Attr-N` or `Attr-26.VENDOR.N`. Values of one attribute keep their order.
    """

    code: Code
    identifier: int = 0
    authenticator: bytes = b""  # 16 octets; of a request to be sent: b"" = made when it is encoded
    attributes: tuple[tuple[str, Value], ...] = field(default=(), repr=False)  # there may be a password among them
    signed: bool = False  # a Message-Authenticator was there and right

    def values(self, name: str) -> tuple[Value, ...]:
        """Return all values of an attribute, in their order."""
        return tuple(value for each, value in self.attributes if each == name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return all values of an attribute of text or an address."""
        return tuple(value for value in self.values(name) if isinstance(value, str))

    def text(self, name: str) -> str:
        """Return the first value of an attribute of text or an address; "" when there is none."""
        return next(iter(self.texts(name)), "")

    def number(self, name: str) -> int | None:
        """Return the first value of an attribute that is a number or a time."""
        return next((value for value in self.values(name) if isinstance(value, int)), None)


def encode_request(packet: Packet, secret: bytes, *, sign: bool = True) -> bytes:
    """Return a request as octets, Message-Authenticator first (the countermeasure to CVE-2024-3596).

    Raises UnfitAttribute; an attribute that the dictionary lacks, or a code that is no request's, is a ValueError.
    """
    if packet.code not in REPLIES:
        raise ValueError(f"{packet.code.name} is not a request")
    authenticator = None
    if packet.code in _RANDOM_AUTHENTICATOR:
        authenticator = packet.authenticator or secrets.token_bytes(16)
    encoder = _ENCODERS[packet.code](
        code=int(packet.code), id=packet.identifier, secret=secret, authenticator=authenticator, dict=_DICTIONARY
    )
    _fill(encoder, packet.attributes)
    encoder.message_authenticator = sign
    return _bounded(encoder.RequestPacket)


def encode_reply(packet: Packet, request: Packet, secret: bytes, *, sign: bool = True) -> bytes:
    """Return a reply as octets: Message-Authenticator first, the request's Proxy-States at the end (RFC 2865 5.33).

    Raises UnfitAttribute.
    """
    encoder = codec.Packet(
        code=int(packet.code),
        id=request.identifier,
        secret=secret,
        authenticator=request.authenticator,
        dict=_DICTIONARY,
    )
    _fill(encoder, packet.attributes)
    _fill(encoder, (("Proxy-State", value) for value in request.values("Proxy-State")))
    # In answers to accounting it has no agreed form: RFC 5080 and RFC 3579 name different authenticators for it.
    encoder.message_authenticator = sign and packet.code is not Code.ACCOUNTING_RESPONSE
    return _bounded(encoder.ReplyPacket)


def decode_request(octets: bytes, secret: bytes, *, require_message_authenticator: bool = True) -> Packet:
    """Return a request that was made with this secret; raise MalformedPacket or NotAuthentic.

    Accounting, Disconnect and CoA requests prove it by their authenticator (RFC 2866 3, RFC 5176 2.3), Status-Server by
    its Message-Authenticator (RFC 5997 3); an Access-Request need not unless `require_message_authenticator`.
    """
    octets = _well_formed(octets)
    decoder = codec.AuthPacket(packet=octets, secret=secret, dict=_DICTIONARY)
    code = _code(decoder.code, frozenset(REPLIES))
    if code not in _RANDOM_AUTHENTICATOR and not decoder.VerifyAuthRequest():
        raise NotAuthentic("the request authenticator is wrong: made with another secret")
    signed = decoder.message_authenticator is not None
    if signed and not decoder.verify_message_authenticator():
        raise NotAuthentic("the Message-Authenticator is wrong: made with another secret")
    is_required = code is Code.STATUS_SERVER or (code is Code.ACCESS_REQUEST and require_message_authenticator)
    if is_required and not signed:
        raise NotAuthentic("there is no Message-Authenticator, see require_message_authenticator")
    return _packet(decoder, code, signed)


def decode_reply(octets: bytes, request: bytes, secret: bytes, *, require_message_authenticator: bool = True) -> Packet:
    """Return the reply to a request, which is given as it was sent; raise MalformedPacket or NotAuthentic.

    `require_message_authenticator` concerns answers to Access-Request and Status-Server alone: strongSwan, for one,
    sends a bare Disconnect-NAK.
    """
    octets = _well_formed(octets)
    asked = codec.AuthPacket(packet=request, secret=secret, dict=_DICTIONARY)
    decoder = codec.AuthPacket(packet=octets, secret=secret, dict=_DICTIONARY)
    code = _code(decoder.code, REPLIES[Code(asked.code)])
    signed = decoder.message_authenticator is not None
    if not asked.VerifyReply(decoder):
        raise NotAuthentic("the authenticators are wrong: another secret, or no answer to this request")
    if require_message_authenticator and asked.code in _RANDOM_AUTHENTICATOR and not signed:
        raise NotAuthentic("there is no Message-Authenticator, see require_message_authenticator")
    return _packet(decoder, code, signed)


def cisco_av_pairs(packet: Packet) -> Mapping[str, tuple[str, ...]]:
    """Return the values of the Cisco-AVPairs `NAME=VALUE` by their names; `*` in place of `=` means the same to us."""
    pairs: dict[str, tuple[str, ...]] = {}
    for text in packet.texts("Cisco-AVPair"):
        end = next((index for index, letter in enumerate(text) if letter in "=*"), None)
        if end is not None:
            name, value = text[:end].strip(), text[end + 1 :].strip()
            pairs[name] = (*pairs.get(name, ()), value)
    return pairs


def _fill(encoder: codec.Packet, attributes: Iterable[tuple[str, Value]]) -> None:
    for name, value in attributes:
        attribute = _attribute(name, value)
        with _fitting(name):
            match value:
                case str() if attribute.code == _USER_PASSWORD:
                    _append(encoder, attribute.code, encoder.PwCrypt(value))
                case bytes():
                    _append(encoder, attribute.code, value)
                case _:
                    encoder.AddAttribute(name, value)


def _attribute(name: str, value: Value) -> Attribute:
    """Return an attribute's definition; raise ValueError for a name or a kind of value that it does not have."""
    if name not in _DICTIONARY:
        raise ValueError(f"the dictionary has no attribute {name}")
    attribute = _DICTIONARY[name]
    kind = {"octets": bytes, "integer": int, "date": int}.get(attribute.type, str)
    if not isinstance(value, kind):
        raise ValueError(f"{name} takes {kind.__name__}, not {type(value).__name__}")  # noqa: TRY004 - as documented
    return attribute


def _append(encoder: codec.Packet, code: int, octets: bytes) -> None:
    """Add octets as they are: pyrad would read those that begin with "0x" as hexadecimal digits."""
    if len(octets) > MAX_TEXT_OCTETS:
        raise ValueError("too long")
    encoder.setdefault(code, []).append(octets)


@contextmanager
def _fitting(name: str) -> Iterator[None]:
    """Turn pyrad's complaints into ours; theirs may quote the value."""
    try:
        yield
    except (ValueError, struct.error) as error:
        raise UnfitAttribute(f"{name}: the value is too long or none of this attribute's type") from error


def _bounded(encode: Any) -> bytes:
    with _fitting("packet"):
        octets: bytes = encode()
    if len(octets) > MAX_OCTETS:
        raise UnfitAttribute(f"the packet has {len(octets)} octets, and {MAX_OCTETS} is the most (RFC 2865 3)")
    return octets


def _well_formed(octets: bytes) -> bytes:
    """Return the packet without padding; raise MalformedPacket unless all lengths add up (RFC 2865 3 and 5)."""
    if len(octets) < HEADER_OCTETS:
        raise MalformedPacket(f"{len(octets)} octets are less than a header")
    length = int.from_bytes(octets[2:4])
    if not HEADER_OCTETS <= length <= min(len(octets), MAX_OCTETS):
        raise MalformedPacket(f"the length field says {length}, there are {len(octets)} octets")
    signatures = [
        size for kind, size in _attribute_sizes(octets[HEADER_OCTETS:length]) if kind == _MESSAGE_AUTHENTICATOR
    ]
    if signatures not in ([], [18]):
        raise MalformedPacket("the Message-Authenticator is doubled, or not of 16 octets")
    return octets[:length]


def _attribute_sizes(attributes: bytes) -> Iterator[tuple[int, int]]:
    """Yield type and length of each attribute, header included; raise MalformedPacket where they leave the packet."""
    start = 0
    while start < len(attributes):
        kind, size = attributes[start], attributes[start + 1] if start + 1 < len(attributes) else 0
        if size < 2 or start + size > len(attributes):
            raise MalformedPacket(f"the attribute at octet {HEADER_OCTETS + start} does not end in the packet")
        yield kind, size
        start += size


def _code(number: int, expected: frozenset[Code]) -> Code:
    if number not in expected:
        raise MalformedPacket(f"the code is {number}, expected {', '.join(each.name for each in sorted(expected))}")
    return Code(number)


def _packet(decoder: codec.AuthPacket, code: Code, signed: bool) -> Packet:
    return Packet(
        code=code,
        identifier=decoder.id,
        authenticator=decoder.authenticator,
        attributes=tuple(_named(decoder)),
        signed=signed,
    )


def _named(decoder: codec.AuthPacket) -> Iterator[tuple[str, Value]]:
    for key, values in decoder.items():
        if not _DICTIONARY.attrindex.HasBackward(key):
            yield from ((_number(key), value) for value in values)
            continue
        name = _DICTIONARY.attrindex.GetBackward(key)
        for octets in values:
            try:
                yield name, _value(decoder, _DICTIONARY[name], octets)
            except (ValueError, codec.PacketError) as error:
                raise MalformedPacket(f"{name} has a value that is not of its type") from error


def _number(key: int | tuple[int, int]) -> str:
    """Return the name of an attribute without name."""
    return f"Attr-{key}" if isinstance(key, int) else f"Attr-{_VENDOR_SPECIFIC}.{key[0]}.{key[1]}"


def _value(decoder: codec.AuthPacket, attribute: Attribute, octets: bytes) -> Value:
    match attribute.type:
        case "octets":
            return octets
        case "string" if attribute.code == _USER_PASSWORD:
            password: str = decoder.PwDecrypt(octets)
            return password
        case "string":
            # Never a reason to lose the packet: what is not UTF-8 becomes text that nothing is equal to, and so does a
            # zero octet, which PostgreSQL takes in no text: the session would be unknown, and nobody could end it.
            return octets.decode(errors="backslashreplace").replace("\0", r"\x00")
        case _:
            value: str | int = tools.DecodeAttr(attribute.type, octets)
            return value
