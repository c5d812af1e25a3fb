"""Values of a database or of JSON as the texts that `attributes` reads: one rule for all that have types."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final
from uuid import UUID

from scep_ra.aaa.base import MalformedAnswer

_ADDRESSES: Final = (IPv4Address, IPv4Interface, IPv6Address, IPv6Interface)


def texts(name: str, value: object) -> Sequence[str]:
    """Return the values of an attribute as texts, none for null; raise MalformedAnswer for what is no plain value."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return [text for each in value for text in texts(name, each)]
    return (_text(name, value),)


def is_yes(name: str, value: object) -> bool:
    """Return whether a column or key says yes; null is a no. Raise MalformedAnswer where it says something else."""
    word = "".join(texts(name, value)).lower()
    if word in {"true", "yes", "1"}:
        return True
    if word in {"", "false", "no", "0"}:
        return False
    raise MalformedAnswer(f"the AAA answer says {name} = {word[:40]!r}: write true or false")


def _text(name: str, value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case date():  # a datetime is one
            return value.isoformat()
        case int() | float() | Decimal() | UUID():
            return str(value)
        case _ if isinstance(value, _ADDRESSES):
            return str(value)
        case _:
            raise MalformedAnswer(f"the AAA answer has {type(value).__name__} as {name!r}: give text, or leave it out")
