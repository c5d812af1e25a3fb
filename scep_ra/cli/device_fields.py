"""How people write what a registry entry says: ends, services, attributes; one grammar for options and CSV files.

Every reader raises ValueError with a sentence for the person who wrote the text. No click and no files here.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from scep_ra.aaa.base import CERTIFICATE_PROFILE

# ASCII digits only, and no other form of ISO 8601: weeks, offsets and dates without hyphens are easily misread.
_END: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?P<time>T[0-9]{2}:[0-9]{2}(:[0-9]{2})?Z?)?")
# The alphabet of [profile.NAME] service, so that every service written here can be asked for there.
_SERVICE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Words, keywords of names and dotted OIDs; templates write {attribute.NAME}, so nothing that means something there.
_ATTRIBUTE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# What AAA adds to the attributes from other fields of the entry.
_TAKEN: Final = frozenset({"device", "user", "note"})
_LONGEST_VALUE: Final = 255  # longer than any name that fits into a certificate (RFC 5280 appendix A, RFC 1035)


def read_end(text: str) -> datetime:
    """Return the moment (UTC) that a date or a date with a time names; a date alone means the end of its day."""
    form = _END.fullmatch(text)
    if form is not None:
        with suppress(ValueError):  # a 31st of February, a 25th hour
            return datetime.fromisoformat(text if form["time"] else f"{text}T23:59:59").replace(tzinfo=UTC)
    raise ValueError(
        f"{text!r} is no date: write 2027-12-31 for the end of that day, or 2027-12-31T18:00 or"
        " 2027-12-31T18:00:00Z for a time of it, all in UTC"
    )


def read_service(text: str) -> str:
    """Return the name of a service."""
    if _SERVICE.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no service: its name has 1 to 64 of A-Z a-z 0-9 _ . -, such as vpn")
    return text


def read_attribute(text: str) -> tuple[str, str]:
    """Return name and value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no attribute: write NAME=VALUE, such as OU=Sales or dns=gw.example.com")
    return attribute_name(name), attribute_value(value)


def attribute_name(text: str) -> str:
    """Return the name of an attribute."""
    if text in _TAKEN:
        raise ValueError(f"the attribute {text!r} is made from the entry itself: choose another name")
    if _ATTRIBUTE_NAME.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is no name of an attribute: it has 1 to 64 of A-Z a-z 0-9 _ . -, a letter or digit first,"
            " such as OU or dns"
        )
    return text


def attribute_value(text: str) -> str:
    """Return the value of an attribute without the blanks around it."""
    value = text.strip()
    if not value:
        raise ValueError("the value of an attribute is empty: give it one, or leave the attribute out")
    if not value.isprintable() or len(value) > _LONGEST_VALUE:
        raise ValueError(
            f"the value of an attribute has at most {_LONGEST_VALUE} characters, all of them printable; this one is"
            f" {value[:40]!r}, {len(value)} long"
        )
    return value


def join_values(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return attributes as the registry keeps them: several values of one name as lines of one text."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: "\n".join(lines) for name, lines in values.items()}


def check_profiles(profile: str, attributes: Mapping[str, str], profiles: Container[str]) -> None:
    """Check that the configuration has the profiles that an entry names; "" names none."""
    for name in (profile, attributes.get(CERTIFICATE_PROFILE, "")):
        if name and name not in profiles:
            raise ValueError(f"the configuration has no profile {name!r}")
