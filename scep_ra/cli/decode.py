"""`scep-ra decode`: print what `scep.explain` finds in a captured message, certificate, request or CRL."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from scep_ra.cli.key_files import read_pair
from scep_ra.cli.options import Command, Invocation
from scep_ra.cli.parameters import json_option
from scep_ra.cli.session import settings_of
from scep_ra.config import ProfileConfig
from scep_ra.errors import ConfigurationError
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.extract import extract_claims
from scep_ra.pki.csr import CertificationRequest
from scep_ra.pki.errors import MalformedData
from scep_ra.scep.explain import Explainer, Section, Value
from scep_ra.scep.server import RecipientKey

_INDENT = "    "


@click.command(cls=Command, epilog="Example:  scep-ra decode request.http --ra-key ra.key --ra-cert ra.pem")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--ra-key",
    type=click.Path(path_type=Path),
    help="Private key that opens the envelope.  [default: those of the RAs in the data directory]",
)
@click.option("--ra-cert", type=click.Path(path_type=Path), help="Certificate of that key.")
@json_option
@click.pass_obj
def decode(invocation: Invocation, file: BinaryIO, ra_key: Path | None, ra_cert: Path | None, *, as_json: bool) -> None:
    """Explain a captured message, certificate, request or CRL.

    FILE, or - for standard input, is DER, PEM, base64, or a whole HTTP request or response. With the requester's key
    and certificate in place of the RA's an answer is opened. Challenges are never printed.
    """
    if (ra_key is None) != (ra_cert is None):
        raise click.UsageError("--ra-key and --ra-cert go together: the certificate tells which recipient the key is")
    if ra_key is not None and ra_cert is not None:
        key, certificate = read_pair(ra_key, ra_cert)
        keys = [RecipientKey(certificate=certificate, key=key)]
    else:
        keys = list(_data_directory_keys(settings_of(invocation).data_dir))
    explainer = Explainer(random=secrets.token_bytes, keys=keys, identify=_device_ids)
    try:
        section = explainer.explain(file.read())
    except MalformedData as error:
        raise MalformedData(f"{file.name}: {error}") from None
    click.echo(json.dumps(_as_json(section), indent=2) if as_json else "\n".join(_lines(section)))


def _data_directory_keys(directory: Path) -> Iterator[RecipientKey]:
    """Yield the RAs that are there; unlike the server, make none."""
    for path in sorted(directory.glob("ra/*/ra.pem")):
        try:
            key, certificate = read_pair(path.with_suffix(".key"), path)
            yield RecipientKey(certificate=certificate, key=key)
        except ConfigurationError as error:
            click.echo(f"warning: {error}", err=True)


def _device_ids(request: CertificationRequest) -> tuple[str, ...]:
    """Return what a profile with the default rules would find, each with its place."""
    try:
        claims = extract_claims(
            subject=request.subject,
            subject_alt_name=request.subject_alt_name,
            unstructured_names=request.unstructured_names,
            rules=ProfileConfig().device_id,
        )
    except IdentityError as error:
        return (f"none: {error}",)
    return tuple(f"{claim.device_id} ({claim.source})" for claim in claims) or ("none",)


def _as_json(section: Section) -> dict[str, Any]:
    inner = {"sections": [_as_json(each) for each in section.sections]} if section.sections else {}
    return {"title": section.title, **section.facts, **inner}


def _lines(section: Section) -> Iterator[str]:
    yield section.title
    width = max((len(name) for name in section.facts), default=0) + 1
    for name, value in section.facts.items():
        label = name.replace("_", " ") + ":"
        yield f"{_INDENT}{label:<{width}} {_text(value)}"
    for inner in section.sections:
        yield from (_INDENT + line for line in _lines(inner))


def _text(value: Value) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case tuple():
            return "; ".join(value)
        case _:
            return str(value)
