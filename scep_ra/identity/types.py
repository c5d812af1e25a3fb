"""Device identifiers as typed values, normalised once, at construction (no I/O, no ASN.1 here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from scep_ra.identity import grammar
from scep_ra.identity.errors import InvalidDeviceID

__all__ = ["DeviceID", "DeviceIDKind", "InvalidDeviceID", "classify", "parse_device_id"]


class DeviceIDKind(StrEnum):
    """What sort of identifier it is; the value is the namespace in text, storage and AAA."""

    SERIAL = "serial"
    UDID = "udid"
    IMEI = "imei"
    MEID = "meid"
    MAC = "mac"
    UUID = "uuid"
    HARDWARE_MODULE = "hwmodule"
    PERMANENT_IDENTIFIER = "permanent"


_UNMISTAKABLE: Final = (
    (DeviceIDKind.UDID, grammar.UDID),
    (DeviceIDKind.UUID, grammar.UUID),
    (DeviceIDKind.MAC, grammar.SEPARATED_MAC),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceID:
    """An identifier in the normal form of its kind; `str()` gives `kind:value`, the form in storage, logs and AAA.

    Construction accepts every spelling that the kind's grammar knows and raises InvalidDeviceID for the rest.
    """

    kind: DeviceIDKind
    value: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _normalise(self.kind, self.value))

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


def _normalise(kind: DeviceIDKind, text: str) -> str:  # noqa: PLR0911 - one return a kind
    match kind:
        case DeviceIDKind.SERIAL:
            return grammar.serial(text)
        case DeviceIDKind.UDID:
            return grammar.udid(text)
        case DeviceIDKind.IMEI:
            return grammar.imei(text)
        case DeviceIDKind.MEID:
            return grammar.meid(text)
        case DeviceIDKind.MAC:
            return grammar.mac(text)
        case DeviceIDKind.UUID:
            return grammar.uuid(text)
        case DeviceIDKind.HARDWARE_MODULE:
            return grammar.hardware_module(text)
        case DeviceIDKind.PERMANENT_IDENTIFIER:
            return grammar.permanent_identifier(text)
        case _:
            assert_never(kind)


def classify(text: str) -> DeviceIDKind:
    """Return the kind that a text cannot help being; 15 digits may be a serial as well as an IMEI and stay one."""
    return next((kind for kind, form in _UNMISTAKABLE if form.fullmatch(text.strip(" "))), DeviceIDKind.SERIAL)


def parse_device_id(text: str) -> DeviceID:
    """Read `kind:value`; without a known kind before the first colon, `classify` decides. Raise InvalidDeviceID.

    An operator who types a bare value so means what a certificate request with that value means.
    """
    prefix, colon, rest = text.partition(":")
    name = prefix.strip().lower()
    if colon and name in set(DeviceIDKind):
        return DeviceID(kind=DeviceIDKind(name), value=rest)
    return DeviceID(kind=classify(text), value=text)
