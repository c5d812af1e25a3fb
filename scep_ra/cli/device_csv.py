"""Read devices from CSV text with a head line; what becomes of them is the command's decision."""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from scep_ra.cli.device_fields import (
    attribute_name,
    attribute_value,
    check_profiles,
    join_values,
    read_end,
    read_service,
)
from scep_ra.errors import ConfigurationError
from scep_ra.identity.types import DeviceID, DeviceIDKind, InvalidDeviceID, parse_device_id
from scep_ra.storage.base import Device

COLUMNS: Final = ("value", "kind", "user", "profile", "services", "approval", "valid_until", "note")
ATTRIBUTE: Final = "attribute."  # what the name of a column with an attribute begins with
_APPROVAL: Final = {"": False, "no": False, "yes": True}


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
    unknown = [column for column in columns if column not in COLUMNS and not column.startswith(ATTRIBUTE)]
    if "value" not in columns or unknown or len(set(columns)) != len(columns):
        raise ConfigurationError(
            f"the first line of the file must name its columns, value and any of {', '.join(COLUMNS[1:])},"
            f" {ATTRIBUTE}NAME; it says: {','.join(columns)}"
        )
    for column in columns:
        if column.startswith(ATTRIBUTE):
            _check_attribute_column(column)


def _check_attribute_column(column: str) -> None:
    try:
        attribute_name(column.removeprefix(ATTRIBUTE))
    except ValueError as error:
        raise ConfigurationError(f"the first line of the file has a column {column!r}: {error}") from error


def _device(row: Mapping[str | None, str | list[str] | None], profiles: Container[str], now: datetime) -> Device:
    if None in row:
        raise ValueError("there are more cells than columns")
    cells = {str(column): str(cell or "").strip() for column, cell in row.items()}
    profile, attributes = cells.get("profile", ""), _attributes(cells)
    check_profiles(profile, attributes, profiles)
    end = cells.get("valid_until")
    return Device(
        device_id=_device_id(cells),
        user=cells.get("user", ""),
        profile=profile,
        services=_services(cells.get("services", "")),
        note=cells.get("note", ""),
        approval=_approval(cells.get("approval", "")),
        valid_until=read_end(end) if end else None,
        attributes=attributes,
        created_at=now,
    )


def _device_id(cells: Mapping[str, str]) -> DeviceID:
    if not cells["value"]:
        raise ValueError("the value is empty")
    kind = cells.get("kind")
    if not kind:
        return parse_device_id(cells["value"])
    if kind not in tuple(DeviceIDKind):
        raise ValueError(f"{kind!r} is no kind: use one of {', '.join(DeviceIDKind)}")
    return DeviceID(kind=DeviceIDKind(kind), value=cells["value"])


def _services(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(read_service(name) for name in re.split(r"[\s;]+", cell) if name))


def _approval(cell: str) -> bool:
    try:
        return _APPROVAL[cell.lower()]
    except KeyError:
        raise ValueError(f"approval is yes or no, not {cell!r}") from None


def _attributes(cells: Mapping[str, str]) -> dict[str, str]:
    return join_values(
        (column.removeprefix(ATTRIBUTE), attribute_value(line))
        for column, cell in cells.items()
        if column.startswith(ATTRIBUTE)
        for line in cell.split("\n")
        if line.strip()
    )
