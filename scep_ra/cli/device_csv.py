"""Read devices from CSV text with a head line; what becomes of them is the command's decision."""

from __future__ import annotations

import csv
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from scep_ra.errors import ConfigurationError
from scep_ra.identity.types import DeviceID, DeviceIDKind, InvalidDeviceID
from scep_ra.storage.base import Device

COLUMNS: Final = ("value", "kind", "user", "profile", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no device, and why."""

    line: int
    reason: str


def read_devices(lines: Iterable[str], *, profiles: Container[str], now: datetime) -> Iterator[Device | BadLine]:
    """Yield a device or a BadLine for each row; raise ConfigurationError when the text as a whole is no such CSV."""
    reader = csv.DictReader(lines, strict=True)
    position = reader.reader  # DictReader's own count of lines stands still at empty ones
    seen: dict[DeviceID, int] = {}
    try:
        _check_head(reader.fieldnames or ())
        for row in reader:
            try:
                device = _device(row, profiles, now)
            except (ValueError, InvalidDeviceID) as error:
                yield BadLine(line=position.line_num, reason=str(error))
                continue
            first = seen.setdefault(device.device_id, position.line_num)
            if first == position.line_num:
                yield device
            else:
                yield BadLine(line=position.line_num, reason=f"{device.device_id} stands on line {first} already")
    except (csv.Error, UnicodeDecodeError) as error:
        # Where rows end cannot be told from here on, so not even the other lines are to be trusted.
        raise ConfigurationError(f"line {position.line_num} of the file is not CSV in UTF-8: {error}") from error


def _check_head(columns: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in COLUMNS]
    if "value" not in columns or unknown or len(set(columns)) != len(columns):
        raise ConfigurationError(
            f"the first line of the file must name its columns, value and any of {', '.join(COLUMNS[1:])}; "
            f"it says: {','.join(columns)}"
        )


def _device(row: Mapping[str | None, str | list[str] | None], profiles: Container[str], now: datetime) -> Device:
    if None in row:
        raise ValueError("there are more cells than columns")
    cells = {str(column): str(cell or "").strip() for column, cell in row.items()}
    if not cells["value"]:
        raise ValueError("the value is empty")
    kind = cells.get("kind") or DeviceIDKind.SERIAL
    if kind not in tuple(DeviceIDKind):
        raise ValueError(f"{kind!r} is no kind: use one of {', '.join(DeviceIDKind)}")
    profile = cells.get("profile", "")
    if profile and profile not in profiles:
        raise ValueError(f"the configuration has no profile {profile!r}")
    return Device(
        device_id=DeviceID(kind=DeviceIDKind(kind), value=cells["value"]),
        user=cells.get("user", ""),
        profile=profile,
        note=cells.get("note", ""),
        created_at=now,
    )
