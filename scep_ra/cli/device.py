"""`scep-ra device`: the embedded registry of devices that may enroll."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from typing import Any, TextIO, TypedDict, Unpack

import click

from scep_ra.aaa.base import CERTIFICATE_PROFILE
from scep_ra.cli.device_csv import BadLine, read_devices
from scep_ra.cli.device_disconnect import disconnect, echo_report, keep_certificates_option, reason_option
from scep_ra.cli.device_fields import join_values
from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_record, echo_table, timestamp
from scep_ra.cli.parameters import (
    attribute_option,
    json_option,
    kind_option,
    remove_attribute_option,
    service_option,
    valid_until_option,
)
from scep_ra.cli.session import NotFound, Session, check_profile, device_id, find_device, with_store
from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceIDKind
from scep_ra.parts import utc_now
from scep_ra.revocation.crl import RevocationReason
from scep_ra.storage.base import Device
from scep_ra.storage.sessions import EntryChange


class ImportRefused(ScepRaError):
    """The file has lines that are no devices, and nothing was imported."""


@click.group(cls=Group)
def device() -> None:
    """Say which devices may enroll."""


class Given(TypedDict):
    """What the options say of a device; None or nothing = not given."""

    user: str | None
    profile: str | None
    note: str | None
    approval: bool | None
    valid_until: datetime | None
    services: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]


@device.command(epilog="Example:  scep-ra device add FOC1234X0AB --user alice --valid-until 2027-12-31 --service vpn")
@click.argument("value")
@kind_option
@click.option("--user", help="Who answers for the device.")
@click.option("--profile", help="The only profile it may use.  [default: every profile]")
@service_option
@click.option("--approval", is_flag=True, default=None, help="An operator has to approve its first enrollment.")
@valid_until_option
@attribute_option
@click.option("--note", help="Anything worth remembering.")
@click.pass_obj
def add(invocation: Invocation, value: str, *, kind: DeviceIDKind | None, **given: Unpack[Given]) -> None:
    """Let the device with identifier VALUE enroll.

    Without --kind a UUID, a UDID or a MAC address with separators is taken for what it is, all else for a serial.
    """
    entry = _with(Device(device_id=device_id(value, kind), created_at=utc_now()), given)

    async def work(session: Session) -> None:
        _check_profiles(session, entry)
        await session.store.add_device(entry)

    with_store(invocation, work)
    click.echo(f"added {entry.device_id}")
    _warn_of_past_end(entry)


@device.command("set", epilog="Example:  scep-ra device set FOC1234X0AB --valid-until 2027-12-31")
@click.argument("value")
@kind_option
@click.option("--user", help="Who answers for the device.")
@click.option("--profile", help="The only profile it may use; '' = every profile.")
@click.option("--clear-services", is_flag=True, help="Take away the services it had; --service gives others.")
@service_option
@click.option("--approval/--no-approval", default=None, help="Whether an operator has to approve its first enrollment.")
@click.option("--no-valid-until", is_flag=True, help="Let it enroll without an end.")
@valid_until_option
@remove_attribute_option
@attribute_option
@click.option("--note", help="Anything worth remembering.")
@click.pass_obj
def set_(
    invocation: Invocation,
    value: str,
    *,
    kind: DeviceIDKind | None,
    clear_services: bool,
    no_valid_until: bool,
    removed: tuple[str, ...],
    **given: Unpack[Given],
) -> None:
    """Change what is said of a device, and nothing else.

    Services and attributes come on top of those it has; an attribute that it has gets the new values instead.
    """
    if no_valid_until and given["valid_until"]:
        raise click.UsageError("--valid-until and --no-valid-until contradict each other: give one of them")
    if not (clear_services or no_valid_until or removed or _said(given)):
        raise click.UsageError("nothing to change: say what, see `scep-ra device set --help`")

    async def work(session: Session) -> Device:
        entry = _without_attributes(await find_device(session, value, kind), removed)
        if clear_services:
            entry = replace(entry, services=())
        if no_valid_until:
            entry = replace(entry, valid_until=None)
        entry = _with(entry, given)
        _check_profiles(session, entry)
        if not await session.store.update_device(entry, utc_now()):
            raise NotFound(f"{entry.device_id} was removed meanwhile; nothing was changed")
        return entry

    changed = with_store(invocation, work)
    click.echo(f"changed {changed.device_id}")
    if given["valid_until"]:
        _warn_of_past_end(changed)


def _warn_of_past_end(entry: Device) -> None:
    if entry.valid_until is not None and entry.valid_until <= utc_now():
        end = timestamp(entry.valid_until)
        click.echo(f"warning: {end} is past: {entry.device_id} gets no certificate any more", err=True)


def _said(given: Given) -> dict[str, Any]:
    return {option: said for option, said in given.items() if said not in (None, ())}


def _with(entry: Device, given: Given) -> Device:
    said = _said(given) | {
        "services": tuple(dict.fromkeys((*entry.services, *given["services"]))),
        "attributes": {**entry.attributes, **join_values(given["attributes"])},
    }
    return replace(entry, **said)


def _without_attributes(entry: Device, names: tuple[str, ...]) -> Device:
    for name in names:
        if name not in entry.attributes:
            there = ", ".join(entry.attributes) or "none"
            raise click.UsageError(f"{entry.device_id} has no attribute {name!r}; it has: {there}")
    return replace(entry, attributes={name: text for name, text in entry.attributes.items() if name not in names})


def _check_profiles(session: Session, entry: Device) -> None:
    for profile in (entry.profile, entry.attributes.get(CERTIFICATE_PROFILE, "")):
        if profile:
            check_profile(session.settings, profile)


@device.command("list", epilog="Example:  scep-ra device list --json | jq -r '.[].value'")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """List all devices; --json says of each what `device show` says."""
    devices = with_store(invocation, lambda session: session.store.list_devices())
    echo_table([_record(each) if as_json else _line(each) for each in devices], as_json=as_json)


@device.command(epilog="Example:  scep-ra device show FOC1234X0AB")
@click.argument("value")
@kind_option
@json_option
@click.pass_obj
def show(invocation: Invocation, value: str, kind: DeviceIDKind | None, *, as_json: bool) -> None:
    """Show one device."""
    found = with_store(invocation, lambda session: find_device(session, value, kind))
    echo_record(_record(found), as_json=as_json)


@device.command(epilog="Example:  scep-ra device disable FOC1234X0AB --reason key_compromise")
@click.argument("value")
@kind_option
@reason_option
@keep_certificates_option
@click.pass_obj
def disable(
    invocation: Invocation,
    value: str,
    kind: DeviceIDKind | None,
    *,
    reason: RevocationReason,
    keep_certificates: bool,
) -> None:
    """Cut a device off at once, and keep its entry.

    Its open challenges are void, requests that wait are rejected, certificates revoked, and the headends told to end
    its sessions (RFC 5176). A headend that does not answer is told again by the server; the exit status is 0 then, too.
    """
    if keep_certificates:
        found = with_store(invocation, lambda session: _set_enabled(session, value, kind, enabled=False))
        click.echo(f"disabled {found.device_id}; its certificates stay valid")
    else:
        _cut_off(invocation, value, kind, EntryChange.DISABLE, reason)


def _cut_off(
    invocation: Invocation, value: str, kind: DeviceIDKind | None, entry: EntryChange, reason: RevocationReason
) -> None:
    report = with_store(invocation, lambda session: disconnect(session, value, kind, entry, reason))
    echo_report(report, entry)


@device.command(epilog="Example:  scep-ra device enable FOC1234X0AB")
@click.argument("value")
@kind_option
@click.pass_obj
def enable(invocation: Invocation, value: str, kind: DeviceIDKind | None) -> None:
    """Let a disabled device enroll again."""
    found = with_store(invocation, lambda session: _set_enabled(session, value, kind, enabled=True))
    click.echo(f"enabled {found.device_id}")


async def _set_enabled(session: Session, value: str, kind: DeviceIDKind | None, *, enabled: bool) -> Device:
    found = await find_device(session, value, kind)
    await session.store.set_device_enabled(found.device_id, enabled, utc_now())
    return found


@device.command(epilog="Example:  scep-ra device remove FOC1234X0AB")
@click.argument("value")
@kind_option
@reason_option
@keep_certificates_option
@click.pass_obj
def remove(
    invocation: Invocation,
    value: str,
    kind: DeviceIDKind | None,
    *,
    reason: RevocationReason,
    keep_certificates: bool,
) -> None:
    """Cut a device off at once, as `disable` does, and remove its entry."""
    if keep_certificates:
        found = with_store(invocation, lambda session: _remove(session, value, kind))
        click.echo(f"removed {found.device_id}; its certificates stay valid")
    else:
        _cut_off(invocation, value, kind, EntryChange.REMOVE, reason)


async def _remove(session: Session, value: str, kind: DeviceIDKind | None) -> Device:
    found = await find_device(session, value, kind)
    await session.store.remove_device(found.device_id, utc_now())
    return found


@device.command("import", epilog="Example:  scep-ra device import inventory.csv --skip-bad")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--skip-bad", is_flag=True, help="Import the good lines although others are bad.")
@click.pass_obj
def import_(invocation: Invocation, file: TextIO, *, skip_bad: bool) -> None:
    """Add the devices of a CSV file, - for standard input, all at once; those already registered stay as they are.

    The first line names the columns: value, and if you like kind, user, profile, services (with spaces or ; between
    them), approval (yes or no), valid_until (2027-12-31), note, and attribute.NAME for each attribute (several values
    on lines of one cell). Nothing is imported when a line is bad, unless --skip-bad is given.
    """
    inserted, known, bad = with_store(invocation, lambda session: _import(session, file, skip_bad=skip_bad))
    click.echo(f"imported {inserted}, already registered {known}, bad lines {bad}")


async def _import(session: Session, file: TextIO, *, skip_bad: bool) -> tuple[int, int, int]:
    devices: list[Device] = []
    bad: list[BadLine] = []
    with click.progressbar(
        read_devices(file, profiles=session.settings.config.profile, now=utc_now()),
        label="Reading",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        show_pos=True,
    ) as results:
        for result in results:
            if isinstance(result, BadLine):
                bad.append(result)
            else:
                devices.append(result)
    for each in bad:
        click.echo(f"{file.name}:{each.line}: {each.reason}", err=True)
    if bad and not skip_bad:
        raise ImportRefused(f"nothing was imported: mend the {len(bad)} bad lines above, or give --skip-bad")
    inserted = await session.store.import_devices(devices)
    return inserted, len(devices) - inserted, len(bad)


def _line(entry: Device) -> Record:
    return {
        "kind": entry.device_id.kind.value,
        "value": entry.device_id.value,
        "enabled": entry.enabled,
        "user": entry.user,
        "profile": entry.profile,
        "created_at": timestamp(entry.created_at),
        "note": entry.note,
    }


def _record(entry: Device) -> Record:
    return {
        **_line(entry),
        "services": list(entry.services),
        "approval": entry.approval,
        "valid_until": None if entry.valid_until is None else timestamp(entry.valid_until),
        "attributes": dict(entry.attributes),
    }
