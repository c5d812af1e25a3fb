"""Device identifiers as typed values, normalised once, at construction (no I/O, no ASN.1 here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scep_ra.errors import ScepRaError


class InvalidDeviceID(ScepRaError):
    """The text breaks the grammar of its kind; the message says which rule."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceID:
    """An identifier of a device; `str()` gives `kind:value`, the form used in storage, logs and AAA."""

    kind: DeviceIDKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"
