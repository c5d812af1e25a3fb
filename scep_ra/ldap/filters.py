"""Search filters: from text (RFC 4515) to the octets of a search request (RFC 4511 4.5.1.7).

What somebody else has said stands in such a text only after `escape_value`.
"""

from __future__ import annotations

import re
from typing import Final

from scep_ra.errors import ConfigurationError
from scep_ra.pki import der

_AND: Final = der.context(0)
_OR: Final = der.context(1)
_NOT: Final = der.context(2)
_SUBSTRINGS: Final = der.context(4)
_PRESENT: Final = der.context(7, constructed=False)
_EXTENSIBLE: Final = der.context(9)
_COMPARISONS: Final = {"=": der.context(3), ">=": der.context(5), "<=": der.context(6), "~=": der.context(8)}
_INITIAL, _ANY, _FINAL = (der.context(number, constructed=False) for number in range(3))
_RULE, _TYPE, _VALUE, _DN = (der.context(number, constructed=False) for number in range(1, 5))

_ITEM: Final = re.compile(
    r"(?P<type>[A-Za-z0-9.;-]*)(?P<dn>:dn)?(?::(?P<rule>[A-Za-z0-9.-]+))?(?P<sign>:=|>=|<=|~=|=)(?P<value>[^()]*)"
)
_SPECIAL: Final = re.compile(r"\\(?P<octet>[0-9A-Fa-f]{2})|[\\\0]")
_UNSAFE: Final = re.compile(rb"[^A-Za-z0-9]")


def escape_value(text: str) -> str:
    """Return a text of any kind so that it stands in a filter for itself, octet by octet (RFC 4515 3)."""
    return _UNSAFE.sub(lambda octet: b"\\%02x" % ord(octet[0]), text.encode()).decode("ascii")


def encode_filter(text: str) -> bytes:
    """Return the filter in BER; raise ConfigurationError where it cannot be read."""
    reader = _Reader(text)
    encoded = reader.filter()
    reader.finish()
    return encoded


class _Reader:
    """Walk the text once, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def filter(self) -> bytes:
        self._step("(")
        match self._text[self._position : self._position + 1]:
            case "&":
                encoded = der.element(_AND, self._several())
            case "|":
                encoded = der.element(_OR, self._several())
            case "!":
                self._position += 1
                encoded = der.element(_NOT, self.filter())
            case _:
                encoded = self._item()
        self._step(")")
        return encoded

    def finish(self) -> None:
        if self._position != len(self._text):
            raise self._error("nothing may follow")

    def _several(self) -> bytes:
        self._position += 1
        filters = b""
        while self._text.startswith("(", self._position):
            filters += self.filter()
        if not filters:
            raise self._error('"(" is missing')
        return filters

    def _item(self) -> bytes:
        item = _ITEM.match(self._text, self._position)
        if item is None or not (item["type"] or item["rule"]):
            raise self._error("something like attribute=value is missing")
        if item["sign"] == ":=":
            encoded = self._extensible(item)
        elif item["dn"] or item["rule"]:
            raise self._error('a matching rule goes with ":="')
        else:
            encoded = self._comparison(item["type"].encode(), item["sign"], item["value"])
        self._position = item.end()
        return encoded

    def _comparison(self, attribute: bytes, sign: str, value: str) -> bytes:
        pieces = [self._octets(piece) for piece in value.split("*")]
        if len(pieces) == 1:
            return der.element(_COMPARISONS[sign], der.octet_string(attribute) + der.octet_string(pieces[0]))
        if sign != "=":
            raise self._error(f'"*" has no meaning after "{sign}"; write \\2a for the character')
        if not any(pieces):
            return der.element(_PRESENT, attribute)
        tags = [_INITIAL, *[_ANY] * (len(pieces) - 2), _FINAL]
        substrings = [der.element(tag, piece) for tag, piece in zip(tags, pieces, strict=True) if piece]
        return der.element(_SUBSTRINGS, der.octet_string(attribute) + der.sequence(*substrings))

    def _extensible(self, item: re.Match[str]) -> bytes:
        rule = der.element(_RULE, item["rule"].encode()) if item["rule"] else b""
        attribute = der.element(_TYPE, item["type"].encode()) if item["type"] else b""
        whole_name = der.element(_DN, b"\xff") if item["dn"] else b""
        value = der.element(_VALUE, self._octets(item["value"]))
        return der.element(_EXTENSIBLE, rule + attribute + value + whole_name)

    def _octets(self, text: str) -> bytes:
        octets, position = b"", 0
        for special in _SPECIAL.finditer(text):
            octets += text[position : special.start()].encode() + self._replace(special)
            position = special.end()
        return octets + text[position:].encode()

    def _replace(self, special: re.Match[str]) -> bytes:
        if special["octet"] is None:
            raise self._error("a backslash is written as \\5c, and so are other octets by two hex digits")
        return bytes.fromhex(special["octet"])

    def _step(self, character: str) -> None:
        if not self._text.startswith(character, self._position):
            raise self._error(f'"{character}" is missing')
        self._position += 1

    def _error(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"the LDAP filter {self._text!r} cannot be read at character {self._position + 1}: {reason}"
        )
