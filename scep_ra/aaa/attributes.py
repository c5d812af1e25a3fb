"""Read what an AAA system says of a device: the same names mean the same, whichever backend brought them.

docs/aaa.md lists the names. How a backend comes by them (AV pairs, LDAP attributes, columns, JSON) is its own business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Final

from scep_ra.aaa.base import CERTIFICATE_PROFILE, Accept, MalformedAnswer

_PROFILE_NAMES: Final = ("profile", CERTIFICATE_PROFILE)
_SERVICES: Final = "services"
_VALID_UNTIL: Final = "valid_until"
_APPROVAL: Final = "approval"
_MEANINGFUL: Final = frozenset({*_PROFILE_NAMES, _SERVICES, _VALID_UNTIL, _APPROVAL})
_DATE_ALONE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRUE: Final = frozenset({"true", "yes", "1"})
_FALSE: Final = frozenset({"false", "no", "0"})


def accept_from(attributes: Mapping[str, Sequence[str]]) -> Accept:
    """Return the Accept that these attributes describe; blank values count as absent.

    `profile` (or `certificate_profile`), `services`, `valid_until` (ISO 8601, UTC where it names no offset, a date
    alone means the end of that day) and `approval` become fields; all others are passed on, several values of one as
    lines. Raise MalformedAnswer, which is Unavailable, for a value that cannot be read: half an answer is none.
    """
    known = {name: _values(name, values) for name, values in attributes.items()}
    until = _single(known, _VALID_UNTIL)
    return Accept(
        attributes={name: "\n".join(values) for name, values in known.items() if values and name not in _MEANINGFUL},
        not_after=_moment(until) if until else None,
        profile=_single(known, *_PROFILE_NAMES),
        services=_services(known.get(_SERVICES, ())),
        approval=_flag(_single(known, _APPROVAL)),
    )


def _values(name: str, values: Sequence[str]) -> list[str]:
    stripped = [value.strip() for value in values]
    # A line feed in a value would pass for two values, and the rest has no place in a name.
    if not all(value.isprintable() for value in stripped):
        raise MalformedAnswer(f"the AAA answer has a control character in attribute {name!r}: do not map it")
    return [value for value in stripped if value]


def _single(known: Mapping[str, Sequence[str]], *names: str) -> str:
    """Return the one value under these names, "" when there is none."""
    found = {value for name in names for value in known.get(name, ())}
    if len(found) > 1:
        raise MalformedAnswer(
            f"the AAA answer has several values of {names[0]}, and only one can hold: {sorted(found)}"
        )
    return next(iter(found), "")


def _services(values: Sequence[str]) -> frozenset[str]:
    services = frozenset(word for value in values for word in value.replace(",", " ").split())
    for service in services:
        if _SERVICE.fullmatch(service) is None:
            raise MalformedAnswer(
                f"the AAA answer names the service {service[:64]!r}: write 1 to 64 of A-Z a-z 0-9 _ . -"
            )
    return services


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if _DATE_ALONE.fullmatch(text):
            moment = datetime.combine(moment, time(23, 59, 59))
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MalformedAnswer(
            f"the AAA answer says {_VALID_UNTIL} = {text[:40]!r}: write ISO 8601 such as 2027-12-31T18:00:00Z"
        ) from None


def _flag(text: str) -> bool:
    word = text.lower()
    if word and word not in _TRUE | _FALSE:
        raise MalformedAnswer(f"the AAA answer says {_APPROVAL} = {text[:40]!r}: write true or false")
    return word in _TRUE
