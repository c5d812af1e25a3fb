"""Options of the SCEP client commands, and the values they take: URLs, names, fingerprints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from scep_ra.pki.errors import MalformedData
from scep_ra.pki.general_names import encode_general_names, read_general_name
from scep_ra.pki.names import parse_name
from scep_ra.scep.discovery import normalise_fingerprint

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _url(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise click.BadParameter(f"{text!r} does not begin with http:// or https://")
    return text


def _fingerprint(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    try:
        return None if text is None else normalise_fingerprint(text)
    except MalformedData as error:
        raise click.BadParameter(str(error)) from None


def read_subject(_context: click.Context, _parameter: click.Parameter, text: str | None) -> bytes | None:
    """Read a distinguished name into DER; raise a usage error."""
    try:
        return None if text is None else parse_name(text)
    except MalformedData as error:
        raise click.BadParameter(str(error)) from None


def read_names(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> bytes | None:
    """Read kind:value names into DER GeneralNames; raise a usage error."""
    try:
        return encode_general_names(map(read_general_name, texts)) if texts else None
    except MalformedData as error:
        raise click.BadParameter(str(error)) from None


url_argument: Final[_Decorator] = click.argument("url", callback=_url)
ca_identifier_option: Final[_Decorator] = click.option(
    "--ca-identifier", default="", help="Which CA of the server is meant, where it has several."
)
fingerprint_option: Final[_Decorator] = click.option(
    "--fingerprint",
    callback=_fingerprint,
    help="SHA-256 or SHA-1 of the CA (or RA) certificate, in hex: trust no other.",
)
timeout_option: Final[_Decorator] = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=30, show_default=True, help="Seconds per answer."
)
force_option: Final[_Decorator] = click.option("--force", is_flag=True, help="Replace files that exist.")
allow_weak_option: Final[_Decorator] = click.option(
    "--allow-weak",
    is_flag=True,
    help="Use SHA-1 and 3DES where the server has nothing better, and accept DES in its answers.",
)
