"""`scep-ra ca`: the certificates that devices must trust (CA) or talk to (RA)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import BinaryIO, TypeVar

import click

from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_records, pem, timestamp
from scep_ra.cli.parameters import json_option, output_option
from scep_ra.cli.session import NotFound, settings_of
from scep_ra.parts import load_cas, load_ras
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import format_name

_T = TypeVar("_T")


@click.group(cls=Group)
def ca() -> None:
    """Show and export the certificates of CAs and RAs."""


@ca.command(epilog="Example:  scep-ra ca show")
@json_option
@click.pass_obj
def show(invocation: Invocation, *, as_json: bool) -> None:
    """Show all certificates of CAs and RAs; compare a fingerprint with the one that a device shows."""
    settings = settings_of(invocation)
    records = [
        _record("ca", authority.name, certificate)
        for authority in load_cas(settings).values()
        for certificate in asyncio.run(authority.chain())
    ]
    records += [_record("ra", name, ra.certificate) for name, ra in load_ras(settings).items()]
    echo_records(records, as_json=as_json)


@ca.command(epilog="Example:  scep-ra ca export --root -o root.pem")
@click.argument("name", required=False)
@click.option("--ra", "what", flag_value="ra", help="The certificate of the RA called NAME.")
@click.option("--root", "what", flag_value="root", help="The root above the CA called NAME.")
@click.option("--chain", "what", flag_value="chain", help="The CA called NAME and all above it, PEM only.")
@click.option("--format", "form", type=click.Choice(["pem", "der"]), default="pem", show_default=True)
@output_option
@click.pass_obj
def export(invocation: Invocation, name: str | None, what: str | None, form: str, output: BinaryIO) -> None:
    """Write the certificate of the CA called NAME; NAME may be left out where there is one, or one called default."""
    if what == "chain" and form == "der":
        raise click.UsageError("a chain cannot be written as DER, which holds one certificate: use --format pem")
    settings = settings_of(invocation)
    chain = list(asyncio.run(_pick(load_cas(settings), name).chain())) if what != "ra" else []
    match what:
        case "ra":
            chosen = [_pick(load_ras(settings), name).certificate]
        case "root":
            chosen = chain[-1:]
        case "chain":
            chosen = chain
        case _:
            chosen = chain[:1]
    output.write(chosen[0].der if form == "der" else pem(each.der for each in chosen))


def _pick(known: Mapping[str, _T], name: str | None) -> _T:
    """Return what is called so, the default, or the only one; raise NotFound."""
    wanted = name or (next(iter(known)) if len(known) == 1 else "default")
    if wanted not in known:
        raise NotFound(f"there is none called {wanted!r}; the configuration has: {', '.join(known)}")
    return known[wanted]


def _record(role: str, name: str, certificate: Certificate) -> Record:
    return {
        "role": "root" if role == "ca" and certificate.is_self_issued else role,
        "name": name,
        "subject": format_name(certificate.subject),
        "issuer": format_name(certificate.issuer),
        "serial": f"{certificate.certificate_serial:x}",
        "not_before": timestamp(certificate.not_before),
        "not_after": timestamp(certificate.not_after),
        "sha256": certificate.fingerprint(),
        "sha1": certificate.fingerprint("sha1"),
    }
