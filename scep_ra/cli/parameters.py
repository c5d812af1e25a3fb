"""Options with values of our own kinds: durations, certificate serials, kinds of device IDs, fields of devices."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import click

from scep_ra.cli.device_fields import attribute_name, read_attribute, read_end, read_service
from scep_ra.identity.types import DeviceIDKind

_T = TypeVar("_T")
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_DURATION: Final = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>[smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
# A year is far beyond what a one-time secret should live, and keeps every date within the calendar.
_LONGEST: Final = timedelta(days=366)
_MAX_SERIAL_BITS: Final = 160  # RFC 5280 4.1.2.2: at most 20 octets


def duration(_context: click.Context, _parameter: click.Parameter, text: str) -> timedelta:
    """Read a whole number with a unit (30s, 15m, 1h, 7d); raise a usage error."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a number with a unit, such as 30s, 15m, 1h or 7d")
    length = timedelta(**{_UNITS[found["unit"]]: int(found["count"])})
    if not timedelta() < length <= _LONGEST:
        raise click.BadParameter(f"{text!r} is not between 1s and {_LONGEST.days}d")
    return length


def certificate_serial(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    """Read a serial: hexadecimal with or without colons, or decimal behind `dec:`; raise a usage error."""
    is_decimal = text.startswith("dec:")
    digits = text.removeprefix("dec:") if is_decimal else text.replace(":", "")
    # int() takes more than digits: signs, underscores, other alphabets.
    if not re.fullmatch("[0-9]{1,49}" if is_decimal else "[0-9A-Fa-f]{1,40}", digits):
        raise click.BadParameter(f"{text!r} is neither hexadecimal of at most 20 octets nor decimal behind dec:")
    serial = int(digits, 10 if is_decimal else 16)
    if serial.bit_length() > _MAX_SERIAL_BITS:
        raise click.BadParameter(f"{text!r} is longer than the 20 octets that a certificate serial may have")
    return serial


def _kind(_context: click.Context, _parameter: click.Parameter, text: str | None) -> DeviceIDKind | None:
    return None if text is None else DeviceIDKind(text)


def _end(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    return None if text is None else _read(read_end, text)


def _each(read: Callable[[str], _T]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[_T, ...]]:
    return lambda _context, _parameter, texts: tuple(_read(read, text) for text in texts)


def _read(read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


serial_argument: Final[_Decorator] = click.argument("serial", callback=certificate_serial)
kind_option: Final[_Decorator] = click.option(
    "--kind",
    type=click.Choice([kind.value for kind in DeviceIDKind]),
    callback=_kind,
    help="What sort of identifier it is; it may also be written kind:value.",
)
json_option: Final[_Decorator] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
output_option: Final[_Decorator] = click.option(
    "-o", "--output", type=click.File("wb"), default="-", help="File to write.  [default: standard output]"
)
service_option: Final[_Decorator] = click.option(
    "--service",
    "services",
    metavar="NAME",
    multiple=True,
    callback=_each(read_service),
    help="A service that it may use, for profiles that ask for one; may be given several times.",
)
valid_until_option: Final[_Decorator] = click.option(
    "--valid-until",
    metavar="DATE",
    callback=_end,
    help="No certificate reaches beyond: 2027-12-31 (the end of that day) or 2027-12-31T18:00, both UTC.",
)
attribute_option: Final[_Decorator] = click.option(
    "--attribute",
    "attributes",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_each(read_attribute),
    help="A fact about it, such as OU=Sales or dns=gw.example.com; may be given several times, also for several values"
    " of one name. It vouches for that name in the certificate, and templates of a profile use it as {attribute.OU}."
    " certificate_profile=NAME chooses the certificate contents of another profile of the same CA.",
)
remove_attribute_option: Final[_Decorator] = click.option(
    "--remove-attribute",
    "removed",
    metavar="NAME",
    multiple=True,
    callback=_each(attribute_name),
    help="An attribute that it loses; may be given several times.",
)
