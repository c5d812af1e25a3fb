"""LDAP messages as octets: the requests that we send and the answers that we understand (RFC 4511).

No sockets here, and no judgement of result codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from scep_ra.pki import ber, der
from scep_ra.pki.errors import MalformedData

_START_TLS: Final = b"1.3.6.1.4.1.1466.20037"
_VERSION: Final = 3
_NEVER_DEREFERENCE: Final = 0
_APPLICATION: Final = 0x40
_CONSTRUCTED: Final = 0x20
_BIND_REQUEST: Final = _APPLICATION | _CONSTRUCTED
_UNBIND_REQUEST: Final = _APPLICATION | 2
_SEARCH_REQUEST: Final = _APPLICATION | _CONSTRUCTED | 3
_EXTENDED_REQUEST: Final = _APPLICATION | _CONSTRUCTED | 23
_BIND_RESPONSE: Final = _APPLICATION | _CONSTRUCTED | 1
_SEARCH_ENTRY: Final = _APPLICATION | _CONSTRUCTED | 4
_SEARCH_DONE: Final = _APPLICATION | _CONSTRUCTED | 5
_SEARCH_REFERENCE: Final = _APPLICATION | _CONSTRUCTED | 19
_EXTENDED_RESPONSE: Final = _APPLICATION | _CONSTRUCTED | 24
_RESULTS: Final = frozenset({_BIND_RESPONSE, _SEARCH_DONE, _EXTENDED_RESPONSE})
_ENUMERATED: Final = 0x0A
_FALSE: Final = b"\x01\x01\x00"
_REFERRAL: Final = der.context(3)


class Scope(IntEnum):
    """How far below its base a search goes."""

    BASE = 0
    ONE = 1
    SUB = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry with the attributes that were asked for; their names in lower case, values as they are."""

    dn: str
    attributes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A hint that other servers may know more (SearchResultReference)."""

    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How an operation ended."""

    code: int
    diagnostic: str
    referrals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """An answer and the number of the request that it is for; 0 = the server speaks unasked (RFC 4511 4.4)."""

    message_id: int
    content: Entry | Reference | Result


def bind_request(message_id: int, dn: str, password: str) -> bytes:
    """Return a simple bind; both empty is anonymous (RFC 4513 5.1)."""
    credentials = der.element(der.context(0, constructed=False), password.encode())
    return _request(message_id, _BIND_REQUEST, der.integer(_VERSION) + _text(dn) + credentials)


def unbind_request(message_id: int) -> bytes:
    """Return the farewell, which has no answer."""
    return _request(message_id, _UNBIND_REQUEST, b"")


def start_tls_request(message_id: int) -> bytes:
    """Return the request to go on in TLS (RFC 4511 4.14)."""
    name = der.element(der.context(0, constructed=False), _START_TLS)
    return _request(message_id, _EXTENDED_REQUEST, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for, and how much of it at most; aliases are not followed."""

    base: str
    scope: Scope
    filter: bytes  # BER
    attributes: tuple[str, ...]  # none = all
    max_entries: int
    time_limit_s: int


def search_request(message_id: int, search: Search) -> bytes:
    """Return a search."""
    content = (
        _text(search.base)
        + _enumerated(search.scope)
        + _enumerated(_NEVER_DEREFERENCE)
        + der.integer(search.max_entries)
        + der.integer(search.time_limit_s)
        + _FALSE  # types and values
        + search.filter
        + der.sequence(*map(_text, search.attributes))
    )
    return _request(message_id, _SEARCH_REQUEST, content)


def parse_message(octets: bytes) -> Message:
    """Read one whole answer; raise MalformedData."""
    # Servers write lengths in four octets where one would do (OpenLDAP, Active Directory), which der.Reader is not for.
    reader = der.Reader(ber.normalise(octets)).enter()
    message_id = reader.integer()
    tag = reader.peek()
    content = reader.enter(tag)
    # What follows in `reader` are controls that nobody asked for.
    if tag == _SEARCH_ENTRY:
        return Message(message_id=message_id, content=_entry(content))
    if tag == _SEARCH_REFERENCE:
        return Message(message_id=message_id, content=Reference(urls=_texts(content)))
    if tag in _RESULTS:
        return Message(message_id=message_id, content=_result(content))
    raise MalformedData(f"tag {tag:#04x} is no answer to bind, search or StartTLS")


def _request(message_id: int, tag: int, content: bytes) -> bytes:
    return der.sequence(der.integer(message_id), der.element(tag, content))


def _text(text: str) -> bytes:
    return der.octet_string(text.encode())


def _enumerated(value: int) -> bytes:
    return der.element(_ENUMERATED, bytes((value,)))


def _entry(reader: der.Reader) -> Entry:
    dn = _decoded(reader.contents(der.OCTET_STRING))
    attributes: dict[str, list[bytes]] = {}
    listed = reader.enter()
    while not listed.at_end():
        attribute = listed.enter()
        name = _decoded(attribute.contents(der.OCTET_STRING)).lower()
        values = attribute.enter(der.SET)
        while not values.at_end():
            attributes.setdefault(name, []).append(values.contents(der.OCTET_STRING))
    return Entry(dn=dn, attributes=attributes)


def _result(reader: der.Reader) -> Result:
    code = int.from_bytes(reader.contents(_ENUMERATED), "big")
    reader.contents(der.OCTET_STRING)  # the part of the name that was found
    diagnostic = _decoded(reader.contents(der.OCTET_STRING))
    referral = reader.enter_optional(_REFERRAL)
    return Result(code=code, diagnostic=diagnostic, referrals=_texts(referral) if referral else ())


def _texts(reader: der.Reader) -> tuple[str, ...]:
    texts = []
    while not reader.at_end():
        texts.append(_decoded(reader.contents(der.OCTET_STRING)))
    return tuple(texts)


def _decoded(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
