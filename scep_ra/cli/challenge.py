"""`scep-ra challenge`: one-time secrets that a device shows in its request."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta

import click

from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import timestamp
from scep_ra.cli.parameters import duration, json_option, kind_option
from scep_ra.cli.session import NotFound, Session, check_profile, device_id, find_device, with_store
from scep_ra.data_directory import challenge_seal
from scep_ra.enrollment.challenges import new_challenge
from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.parts import utc_now
from scep_ra.storage.base import Challenge


class NotAllowed(ScepRaError):
    """The device could not use the challenge."""


@click.group(cls=Group)
def challenge() -> None:
    """Make one-time challenges."""


@challenge.command(epilog="Example:  scep-ra challenge new --device FOC1234X0AB --ttl 7d")
@click.option("--device", "value", required=True, metavar="VALUE", help="The device that may use it.")
@kind_option
@click.option("--profile", default="default", show_default=True, help="The profile it is for.")
@click.option(
    "--ttl", callback=duration, default="1h", show_default=True, help="How long it can be used: 30s, 15m, 1h, 7d."
)
@json_option
@click.pass_obj
def new(
    invocation: Invocation, value: str, kind: DeviceIDKind | None, profile: str, ttl: timedelta, *, as_json: bool
) -> None:
    """Print a new challenge: once, alone on standard output. Only its digest is kept."""
    secret, made = with_store(
        invocation, lambda session: _make(session, value=value, kind=kind, profile=profile, lifetime=ttl)
    )
    expires_at = timestamp(made.expires_at)
    if as_json:
        record = {"challenge": secret, "device": str(made.device_id), "profile": profile, "expires_at": expires_at}
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(f"for {made.device_id}, profile {profile}, once, until {expires_at}", err=True)
    click.echo(secret)


async def _make(
    session: Session, *, value: str, kind: DeviceIDKind | None, profile: str, lifetime: timedelta
) -> tuple[str, Challenge]:
    check_profile(session.settings, profile)
    if (rule := session.settings.config.profile[profile].challenge) != "one-time":
        raise NotAllowed(f'profile {profile} has challenge = "{rule}": it takes no one-time challenges')
    owner = await _owner(session, value, kind, profile)
    is_sealed = session.settings.config.profile[profile].algorithms.password_envelope
    secret, made = new_challenge(
        device_id=owner,
        profile=profile,
        now=utc_now(),
        lifetime=lifetime,
        random=secrets.token_bytes,
        seal=challenge_seal(session.settings.data_dir) if is_sealed else None,
    )
    await session.store.add_challenge(made)
    return secret, made


async def _owner(session: Session, value: str, kind: DeviceIDKind | None, profile: str) -> DeviceID:
    """Return the device that the challenge is for; only where the registry decides must it be registered."""
    authorizer = session.settings.config.aaa[session.settings.config.profile[profile].authorizer]
    try:
        device = await find_device(session, value, kind)
    except NotFound:
        if authorizer.type == "registry":
            raise
        return device_id(value, kind)
    if not device.enabled:
        raise NotAllowed(f"{device.device_id} is disabled: run `scep-ra device enable {device.device_id}` first")
    if device.profile not in ("", profile):
        raise NotAllowed(f"{device.device_id} may only use profile {device.profile}: give --profile {device.profile}")
    return device.device_id
