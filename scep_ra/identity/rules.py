"""Rules that say where in a request the device ID stands, and how to cut it out of a longer text.

A rule is `san`, or `subject.ATTRIBUTE`, then if wanted `:KIND`, then if wanted a blank and a pattern: `{id}` stands for
the identifier and `{any}` for whatever, as in `subject.commonName:imei {any}@{id}`. Looking there is `extract`'s work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from scep_ra.identity.types import DeviceIDKind
from scep_ra.pki import oids

SUBJECT_SOURCES: Final = {
    "subject.serialNumber": oids.SUBJECT_SERIAL_NUMBER,
    "subject.userId": oids.USER_ID,
    "subject.x500UniqueIdentifier": oids.X500_UNIQUE_IDENTIFIER,
    "subject.dnQualifier": oids.DN_QUALIFIER,
    "subject.unstructuredName": oids.UNSTRUCTURED_NAME,
    "subject.commonName": oids.COMMON_NAME,
}
SAN: Final = "san"
_MAX_CHARACTERS: Final = 255
_PLACEHOLDERS: Final = {"{id}": "(.+?)", "{any}": ".*?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRule:
    """One rule of a profile."""

    source: str
    kind: DeviceIDKind | None  # None: what the text cannot help being, else a serial
    pattern: re.Pattern[str] | None  # its only group is the identifier; None: the whole text

    def cut(self, text: str) -> str | None:
        """Return the identifier in an attribute's text, None where the pattern does not fit."""
        if self.pattern is None:
            return text
        # Longer texts hold no identifier, and would let a few placeholders search for seconds.
        match = self.pattern.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
        return None if match is None else match[1]


@lru_cache(maxsize=256)
def parse_rule(text: str) -> IdentityRule:
    """Read a rule; raise ValueError that names what is wrong and what there is."""
    place, blank, pattern = text.partition(" ")
    source, colon, kind = place.partition(":")
    if source not in SUBJECT_SOURCES and text != SAN:
        raise ValueError(f"unknown device ID rule {text!r}: use one of {', '.join(SUBJECT_SOURCES)}, {SAN}")
    if colon and kind not in set(DeviceIDKind):
        raise ValueError(f"unknown kind in device ID rule {text!r}: use one of {', '.join(DeviceIDKind)}")
    return IdentityRule(
        source=source,
        kind=DeviceIDKind(kind) if colon else None,
        pattern=_compile(pattern, text) if blank else None,
    )


def _compile(pattern: str, rule: str) -> re.Pattern[str]:
    """Turn placeholders into groups; the rest is literal."""
    parts = re.split(r"(\{[^{}]*\})", pattern)
    unknown = [part for part in parts[1::2] if part not in _PLACEHOLDERS]
    if unknown or parts[1::2].count("{id}") != 1:
        raise ValueError(f"pattern of device ID rule {rule!r}: write {{id}} once, and {{any}} for what does not matter")
    if any(not between for between in parts[2:-1:2]):
        raise ValueError(f"pattern of device ID rule {rule!r}: between two placeholders something has to stand")
    return re.compile("".join(_PLACEHOLDERS.get(part) or re.escape(part) for part in parts), re.DOTALL)


def check_rules(rules: Sequence[str]) -> None:
    """Check the rules of a profile; raise ValueError naming the bad one and those that exist."""
    if not rules:
        raise ValueError(f"no rule says where the device ID is: use some of {', '.join(SUBJECT_SOURCES)}, {SAN}")
    for rule in rules:
        parse_rule(rule)
