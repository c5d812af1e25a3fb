"""Templates for names: text with variables in braces, read once, filled in with values that stay values.

A template is read as a name before its variables have values, so nothing in a value can add, end or remove an
attribute. Where the values come from, and which of them are believed, is `naming`'s and `vouching`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scep_ra.enrollment.errors import NamingImpossible
from scep_ra.pki import der, names, oids
from scep_ra.pki.errors import MalformedData

_FIXED: Final = ("device", "device.kind", "device.value", "profile", "user")
_KNOWN: Final = ", ".join(f"{{{name}}}" for name in (*_FIXED, "attribute.NAME", "csr.KEYWORD"))
_TOKEN: Final = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[^{}?]+)(?P<optional>\??)\}|(?P<text>[^{}]+)")
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}")  # ISO 3166, RFC 5280 appendix A: exactly two
# RFC 5280 appendix A.1 (ub-...), RFC 2985 appendix B for the two unstructured ones; characters, not octets.
_UPPER_BOUNDS: Final = {
    oids.COMMON_NAME: 64,
    oids.SUBJECT_SERIAL_NUMBER: 64,
    oids.ORGANIZATION: 64,
    oids.ORGANIZATIONAL_UNIT: 64,
    oids.TITLE: 64,
    oids.LOCALITY: 128,
    oids.STATE: 128,
    oids.EMAIL_ADDRESS: 255,
    oids.UNSTRUCTURED_NAME: 255,
    oids.UNSTRUCTURED_ADDRESS: 255,
}
_OTHER_BOUND: Final = 32768  # ub-name


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A place for a value: `{name}`, or `{name?}` when what it stands in is left out without a value."""

    name: str
    optional: bool

    def __str__(self) -> str:
        return f"{{{self.name}}}"


# Gives the text of a variable, None for an optional one without; raises EnrollmentError for others without.
ValueOf = Callable[[Variable], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTemplate:
    """Literal texts and variables in their order."""

    pieces: tuple[str | Variable, ...]

    @property
    def start(self) -> str:
        """Return the literal text before the first variable."""
        return self.pieces[0] if self.pieces and isinstance(self.pieces[0], str) else ""

    @property
    def only_variable(self) -> Variable | None:
        """Return the variable that is the whole template, if one is."""
        first, *others = self.pieces
        return first if isinstance(first, Variable) and not others else None

    @property
    def constant(self) -> str | None:
        """Return the text of a template without variables."""
        texts = [piece for piece in self.pieces if isinstance(piece, str)]
        return "".join(texts) if len(texts) == len(self.pieces) else None

    def fill(self, value_of: ValueOf) -> str | None:
        """Return the text with its values, None when an optional one is missing; raise what `value_of` raises."""
        texts = [piece if isinstance(piece, str) else value_of(piece) for piece in self.pieces]
        present = [text for text in texts if text is not None]
        return "".join(present) if len(present) == len(texts) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeTemplate:
    """One attribute of a name."""

    oid: str
    text: TextTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class NameTemplate:
    """RDNs of attributes, in certificate order."""

    rdns: tuple[tuple[AttributeTemplate, ...], ...]

    def fill(self, value_of: ValueOf) -> bytes:
        """Return a DER Name; an attribute without its optional value is left out, and so is an RDN without attributes.

        Raise NamingImpossible for a value beyond the upper bounds of RFC 5280 appendix A.
        """
        filled = [[_encode(attribute, value_of) for attribute in rdn] for rdn in self.rdns]
        present = [[pair for pair in rdn if pair] for rdn in filled]
        return der.sequence(*(der.set_of(rdn) for rdn in present if rdn))


def _encode(attribute: AttributeTemplate, value_of: ValueOf) -> bytes:
    text = attribute.text.fill(value_of)
    if text is None:
        return b""
    _check_bounds(attribute.oid, text)
    return names.encode_attribute(attribute.oid, text)


def _check_bounds(oid: str, text: str) -> None:
    name, bound = names.attribute_name(oid), _UPPER_BOUNDS.get(oid, _OTHER_BOUND)
    if oid == oids.COUNTRY and not _COUNTRY.fullmatch(text):
        raise NamingImpossible(f"{name} {text!r} is not a country of two letters (ISO 3166)")
    if len(text) > bound:
        raise NamingImpossible(
            f"{name} {text[:bound]!r}... has {len(text)} characters, RFC 5280 allows {bound}: give a shorter value"
        )


def read_name_template(text: str) -> NameTemplate:
    """Read a template in the text form of `pki.names.parse_name`; raise ValueError: where, and what is allowed."""
    try:
        # Braces are ordinary characters to RFC 4514, so a template is a name like any other.
        rdns = names.rdns(names.parse_name(text))
    except MalformedData as error:
        raise ValueError(f"{text!r}: {error}") from None
    return NameTemplate(rdns=tuple(tuple(map(_attribute, rdn)) for rdn in rdns))


def _attribute(attribute: names.NameAttribute) -> AttributeTemplate:
    if not attribute.text:
        raise ValueError(f"{names.attribute_name(attribute.oid)} has no value: write one, or leave the attribute out")
    text = read_text_template(attribute.text)
    if text.constant is not None:
        try:
            _check_bounds(attribute.oid, text.constant)
        except NamingImpossible as error:
            raise ValueError(str(error)) from None
    return AttributeTemplate(oid=attribute.oid, text=text)


def read_text_template(text: str) -> TextTemplate:
    """Read text with variables in braces; raise ValueError that says where and what is allowed."""
    pieces: list[str | Variable] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{text!r}: cannot read {text[position:]!r}: write {{NAME}}, and {{{{ or }}}} for a brace")
        pieces.append(_piece(match))
        position = match.end()
    return TextTemplate(pieces=tuple(pieces))


def _piece(match: re.Match[str]) -> str | Variable:
    name = match["name"]
    if name is None:
        return match["text"] or match["brace"][0]
    source, _, rest = name.partition(".")
    if name not in _FIXED and not (source in ("attribute", "csr") and rest):
        raise ValueError(f"there is no variable {{{name}}}: use {_KNOWN}")
    if source == "csr":
        try:
            names.attribute_oid(rest)
        except MalformedData as error:
            raise ValueError(f"{{{name}}}: {error}") from None
    return Variable(name=name, optional=bool(match["optional"]))
