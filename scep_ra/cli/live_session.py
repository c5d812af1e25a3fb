"""`scep-ra session`: who is connected, as far as headends report it by RADIUS accounting.

What keeps the list is `headend.accounting`; `device disable` ends sessions.
"""

from __future__ import annotations

import click

from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_table, timestamp
from scep_ra.cli.parameters import json_option, kind_option
from scep_ra.cli.session import Session, possible_device_ids, with_store
from scep_ra.identity.types import DeviceIDKind
from scep_ra.storage.sessions import LiveSession


@click.group(cls=Group)
def session() -> None:
    """See who is connected.

    Headends with a [headend.NAME] table report it by RADIUS accounting. `scep-ra device disable` ends all sessions of
    a device.
    """


@session.command("list", epilog="Example:  scep-ra session list --device FTX1234ABCD")
@click.option("--device", "value", metavar="VALUE", help="Only those of this device.")
@kind_option
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, *, value: str | None, kind: DeviceIDKind | None, limit: int, as_json: bool) -> None:
    """List live sessions, newest first."""
    device_ids = [None] if value is None else possible_device_ids(value, kind)

    async def work(opened: Session) -> list[LiveSession]:
        found = [each for device_id in device_ids for each in await opened.store.list_sessions(device_id, limit)]
        return sorted(found, key=lambda each: each.started_at, reverse=True)[:limit]

    found = with_store(invocation, work)
    echo_table([_line(each) for each in found], as_json=as_json)
    if len(found) == limit:
        click.echo(f"these are the newest {limit}; --limit shows more", err=True)


def _line(live: LiveSession) -> Record:
    return {
        "device": str(live.device_id or ""),
        "user_name": live.user_name,
        "headend": live.headend,
        "session_id": live.session_id,
        "address": live.framed_address,
        "from": live.calling_station,
        "started": timestamp(live.started_at),
        "updated": timestamp(live.updated_at),
    }
