"""`scep-ra certificate`: what was issued, and taking it back."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import BinaryIO, Final

import click

from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_record, echo_table, pem, timestamp
from scep_ra.cli.parameters import json_option, kind_option, output_option, serial_argument
from scep_ra.cli.session import Session, find_certificate, possible_device_ids, settings_of, with_store
from scep_ra.identity.types import DeviceIDKind
from scep_ra.parts import load_cas, revocation_service, utc_now
from scep_ra.pki.certificates import parse_certificate
from scep_ra.pki.names import format_name
from scep_ra.revocation.crl import RevocationReason
from scep_ra.storage.base import StoredCertificate

_REASONS: Final = {reason.name.lower(): reason for reason in RevocationReason}

ca_option = click.option("--ca", help="The CA that issued it, needed only where two used the same serial.")


@click.group(cls=Group)
def certificate() -> None:
    """List, show, export and revoke certificates.

    A SERIAL is hexadecimal with or without colons, or decimal behind `dec:`.
    """


@certificate.command("list", epilog="Example:  scep-ra certificate list --device FOC1234X0AB")
@click.option("--device", "value", metavar="VALUE", help="Only those of this device.")
@kind_option
@json_option
@click.pass_obj
def list_(invocation: Invocation, value: str | None, kind: DeviceIDKind | None, *, as_json: bool) -> None:
    """List certificates, newest first."""
    found = with_store(invocation, lambda session: _list(session, value, kind))
    now = utc_now()
    echo_table([_summary(each, now) for each in found], as_json=as_json)


async def _list(session: Session, value: str | None, kind: DeviceIDKind | None) -> list[StoredCertificate]:
    # A removed device keeps its certificates, so the registry is not asked what VALUE means.
    wanted = [None] if value is None else possible_device_ids(value, kind)
    return [found for device_id in wanted for found in await session.store.list_certificates(device_id)]


@certificate.command(epilog="Example:  scep-ra certificate show 4a:00:7f --json")
@serial_argument
@ca_option
@json_option
@click.pass_obj
def show(invocation: Invocation, serial: int, ca: str | None, *, as_json: bool) -> None:
    """Show one certificate and what became of it."""
    found = with_store(invocation, lambda session: find_certificate(session, serial, ca))
    echo_record(_details(found, utc_now()), as_json=as_json)


@certificate.command(epilog="Example:  scep-ra certificate export 4a007f --format chain -o router.pem")
@serial_argument
@ca_option
@click.option("--format", "form", type=click.Choice(["pem", "der", "chain"]), default="pem", show_default=True)
@output_option
@click.pass_obj
def export(invocation: Invocation, serial: int, ca: str | None, form: str, output: BinaryIO) -> None:
    """Write one certificate; `chain` is PEM with the certificates of its CA behind it."""
    found = with_store(invocation, lambda session: find_certificate(session, serial, ca))
    match form:
        case "der":
            output.write(found.der)
        case "chain":
            output.write(pem([found.der, *_issuers(invocation, found.ca)]))
        case _:
            output.write(pem([found.der]))


def _issuers(invocation: Invocation, ca: str) -> list[bytes]:
    authority = load_cas(settings_of(invocation))[ca]
    return [issuer.der for issuer in asyncio.run(authority.chain())]


@certificate.command(epilog="Example:  scep-ra certificate revoke 4a007f --reason key_compromise")
@serial_argument
@ca_option
@click.option("--reason", type=click.Choice(list(_REASONS)), default="unspecified", show_default=True)
@click.pass_obj
def revoke(invocation: Invocation, serial: int, ca: str | None, reason: str) -> None:
    """Revoke a certificate for good; the next CRL names it, and it cannot renew itself any more."""

    async def work(session: Session) -> StoredCertificate:
        found = await find_certificate(session, serial, ca)
        service = revocation_service(session.store, load_cas(session.settings))
        return await service.revoke(found.ca, serial, _REASONS[reason])

    revoked = with_store(invocation, work)
    click.echo(f"revoked {serial:x} of {revoked.device_id}")


def _summary(stored: StoredCertificate, now: datetime) -> Record:
    return {
        "serial": f"{stored.certificate_serial:x}",
        "status": certificate_status(stored, now),
        "not_after": timestamp(stored.not_after),
        "device": str(stored.device_id),
        "profile": stored.profile,
        "ca": stored.ca,
    }


def _details(stored: StoredCertificate, now: datetime) -> Record:
    parsed = parse_certificate(stored.der)
    revoked = None if stored.revoked_at is None else timestamp(stored.revoked_at)
    reason = None if stored.revocation_reason is None else RevocationReason(stored.revocation_reason).name.lower()
    return {
        **_summary(stored, now),
        "subject": format_name(parsed.subject),
        "issuer": format_name(parsed.issuer),
        "not_before": timestamp(stored.not_before),
        "issued_at": timestamp(stored.issued_at),
        "successor": None if stored.successor is None else f"{stored.successor:x}",
        "revoked_at": revoked,
        "revocation_reason": reason,
        "sha256": parsed.fingerprint(),
        "sha1": parsed.fingerprint("sha1"),
    }


def certificate_status(stored: StoredCertificate, now: datetime) -> str:
    """Return the word for how a certificate stands: valid, expired or revoked."""
    if stored.revoked_at is not None:
        return "revoked"
    return "expired" if stored.not_after < now else "valid"
