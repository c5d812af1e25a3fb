"""How commands print what they found: tables and records for people, JSON for programs, PEM and DER for tools."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import click

Value = str | int | bool | list[str] | dict[str, str] | None
Record = Mapping[str, Value]


def echo_table(records: Sequence[Record], *, as_json: bool) -> None:
    """Print records of the same keys as a table with a head, or as a JSON array."""
    if as_json:
        click.echo(json.dumps(records, indent=2))
        return
    if not records:
        return
    rows = [[key.upper() for key in records[0]], *([_text(value) for value in record.values()] for record in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def echo_records(records: Sequence[Record], *, as_json: bool) -> None:
    """Print records as blocks of `key: value` lines, or as a JSON array."""
    if as_json:
        click.echo(json.dumps(records, indent=2))
        return
    click.echo("\n\n".join(map(_block, records)))


def echo_record(record: Record, *, as_json: bool) -> None:
    """Print one record as `key: value` lines, or as a JSON object."""
    click.echo(json.dumps(record, indent=2) if as_json else _block(record))


def _block(record: Record) -> str:
    width = max(map(len, record)) + 1
    return "\n".join(f"{key + ':':<{width}} {_text(value)}".rstrip() for key, value in record.items())


def _text(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(value)
        case dict():
            return ", ".join(f"{name}={line}" for name, text in value.items() for line in text.split("\n"))
        case _:
            return str(value)


def timestamp(moment: datetime) -> str:
    """Return a UTC time as people and programs read it (RFC 3339, whole seconds)."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def pem(certificates: Iterable[bytes]) -> bytes:
    """Return DER certificates as one PEM text."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode("ascii")
