"""Which device a headend means by a User-Name: the name of a certificate holder, in whatever spelling.

A name can be the device's value alone, `kind:value`, Cisco's `PID:... SN:...`, or the whole subject of its certificate
in either order of its parts. Whether there is such a device is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from scep_ra.identity.errors import InvalidDeviceID, UnreadableIdentity
from scep_ra.identity.extract import ConflictingIdentity, IdentityClaim, choose_device_id, extract_claims
from scep_ra.identity.types import DeviceID, DeviceIDKind, parse_device_id
from scep_ra.pki import names
from scep_ra.pki.errors import MalformedData

# A RADIUS attribute ends at 253 octets; a whole subject that comes by HTTP may be longer.
MAX_CHARACTERS: Final = 1024
# As in the default `device_id` of a profile, and the name that IOS asks for unless told otherwise.
_RULES: Final = ("subject.serialNumber", "subject.userId", "subject.commonName", "subject.unstructuredName")


def read_user_name(user_name: str) -> tuple[DeviceID, ...]:
    """Return every device ID that a User-Name can mean, the likeliest first; raise IdentityError when it means none.

    Only `kind:value` tells the kind of an identifier for certain.
    """
    if len(user_name) > MAX_CHARACTERS:
        raise InvalidDeviceID(f"the name has {len(user_name)} characters, and {MAX_CHARACTERS} is the most")
    kind, colon, _ = user_name.partition(":")
    if colon and kind.strip().lower() in set(DeviceIDKind):
        return (parse_device_id(user_name),)
    likeliest = _from_subject(user_name) if "=" in user_name else parse_device_id(user_name)
    return (likeliest, *(each for each in _of_any_kind(likeliest.value) if each != likeliest))


def _of_any_kind(value: str) -> list[DeviceID]:
    """Return the identifiers of all kinds whose grammar a value fits: names hardly ever tell the kind."""
    found = []
    for kind in DeviceIDKind:
        with suppress(InvalidDeviceID):
            found.append(DeviceID(kind=kind, value=value))
    return found


def _from_subject(text: str) -> DeviceID:
    """Return the identifier in a distinguished name; nothing depends on the order of its parts."""
    try:
        subject = names.parse_name(text.strip())
    except MalformedData as error:
        raise UnreadableIdentity(str(error)) from error
    claims = extract_claims(subject=subject, subject_alt_name=None, rules=_RULES)
    chosen = choose_device_id(claims)
    _check_single(claims, chosen)
    return chosen


def _check_single(claims: Sequence[IdentityClaim], chosen: DeviceID) -> None:
    """Check that the chosen source says one thing: which of two is the first, depends on who wrote the name down."""
    first = next(claim for claim in claims if claim.device_id == chosen)
    for claim in claims:
        if claim.source == first.source and claim.device_id != chosen:
            raise ConflictingIdentity(first, claim)
