"""`scep-ra device`: the embedded registry of devices that may enroll."""

from __future__ import annotations

import sys
from typing import TextIO

import click

from scep_ra.cli.device_csv import BadLine, read_devices
from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_record, echo_table, timestamp
from scep_ra.cli.parameters import json_option, kind_option
from scep_ra.cli.session import Session, check_profile, device_id, find_device, with_store
from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceIDKind
from scep_ra.parts import utc_now
from scep_ra.storage.base import Device


class ImportRefused(ScepRaError):
    """The file has lines that are no devices, and nothing was imported."""


@click.group(cls=Group)
def device() -> None:
    """Say which devices may enroll."""


@device.command(epilog="Example:  scep-ra device add FOC1234X0AB --user alice --note 'branch office'")
@click.argument("value")
@kind_option
@click.option("--user", default="", help="Who answers for the device.")
@click.option("--profile", default="", help="The only profile it may use.  [default: every profile]")
@click.option("--note", default="", help="Anything worth remembering.")
@click.pass_obj
def add(invocation: Invocation, value: str, *, kind: DeviceIDKind | None, user: str, profile: str, note: str) -> None:
    """Let the device with identifier VALUE enroll; a serial number unless --kind says otherwise."""
    entry = Device(device_id=device_id(value, kind), user=user, profile=profile, note=note, created_at=utc_now())

    async def work(session: Session) -> None:
        if profile:
            check_profile(session.settings, profile)
        await session.store.add_device(entry)

    with_store(invocation, work)
    click.echo(f"added {entry.device_id}")


@device.command("list", epilog="Example:  scep-ra device list --json | jq -r '.[].value'")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, as_json: bool) -> None:
    """List all devices."""
    devices = with_store(invocation, lambda session: session.store.list_devices())
    echo_table([_record(each) for each in devices], as_json=as_json)


@device.command(epilog="Example:  scep-ra device show FOC1234X0AB")
@click.argument("value")
@kind_option
@json_option
@click.pass_obj
def show(invocation: Invocation, value: str, kind: DeviceIDKind | None, *, as_json: bool) -> None:
    """Show one device."""
    found = with_store(invocation, lambda session: find_device(session, value, kind))
    echo_record(_record(found), as_json=as_json)


@device.command(epilog="Example:  scep-ra device disable FOC1234X0AB")
@click.argument("value")
@kind_option
@click.pass_obj
def disable(invocation: Invocation, value: str, kind: DeviceIDKind | None) -> None:
    """Refuse new and renewed certificates to a device, and keep its entry; certificates it has stay valid."""
    found = with_store(invocation, lambda session: _set_enabled(session, value, kind, enabled=False))
    click.echo(f"disabled {found.device_id}")


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
    await session.store.set_device_enabled(found.device_id, enabled)
    return found


@device.command(epilog="Example:  scep-ra device remove FOC1234X0AB")
@click.argument("value")
@kind_option
@click.pass_obj
def remove(invocation: Invocation, value: str, kind: DeviceIDKind | None) -> None:
    """Remove a device and void its unused challenges; certificates it has stay valid until they are revoked."""

    async def work(session: Session) -> Device:
        found = await find_device(session, value, kind)
        await session.store.remove_device(found.device_id)
        return found

    click.echo(f"removed {with_store(invocation, work).device_id}")


@device.command("import", epilog="Example:  scep-ra device import inventory.csv --skip-bad")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--skip-bad", is_flag=True, help="Import the good lines although others are bad.")
@click.pass_obj
def import_(invocation: Invocation, file: TextIO, *, skip_bad: bool) -> None:
    """Add the devices of a CSV file, - for standard input, all at once; those already registered stay as they are.

    The first line names the columns: value, and if you like kind, user, profile, note. Nothing is imported when a
    line is bad, unless --skip-bad is given.
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


def _record(entry: Device) -> Record:
    return {
        "kind": entry.device_id.kind.value,
        "value": entry.device_id.value,
        "enabled": entry.enabled,
        "user": entry.user,
        "profile": entry.profile,
        "created_at": timestamp(entry.created_at),
        "note": entry.note,
    }
