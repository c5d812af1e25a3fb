"""What commands do with the store: open it, and find the device or certificate that somebody typed."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import click

from scep_ra.cli.options import Invocation
from scep_ra.config import Settings
from scep_ra.config_file import NO_OVERRIDES, load_settings
from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceID, DeviceIDKind, InvalidDeviceID, parse_device_id
from scep_ra.parts import open_store
from scep_ra.storage.base import Device, Store, StoredCertificate
from scep_ra.telemetry.log import configure_logging

_T = TypeVar("_T")


class NotFound(ScepRaError):
    """Nothing answers to what was typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The settings and the open store."""

    settings: Settings
    store: Store


def settings_of(invocation: Invocation, overrides: Mapping[str, object] = NO_OVERRIDES) -> Settings:
    """Load the settings that an invocation names, and set up logging; raise ConfigurationError."""
    # Standard output belongs to what was asked for, so log lines must find their way before anything can log.
    configure_logging(level="debug" if invocation.verbose else "warning", output="text")
    return load_settings(config=invocation.config, data=invocation.data, overrides=overrides)


def with_store(invocation: Invocation, work: Callable[[Session], Awaitable[_T]]) -> _T:
    """Run a coroutine function with the store open."""
    settings = settings_of(invocation)
    say_if_new(settings)

    async def run() -> _T:
        async with open_store(settings, actor=f"cli:{operator()}") as store:
            return await work(Session(settings=settings, store=store))

    return asyncio.run(run())


def say_if_new(settings: Settings) -> None:
    """Say that this command makes the data directory: in the wrong place there would seem to be no devices."""
    if not settings.data_dir.exists():
        click.echo(f"making a new data directory, {settings.data_dir}; --data names another", err=True)


def operator() -> str:
    """Return the account that runs the command; the environment is not asked, because whoever runs it writes that."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def check_profile(settings: Settings, profile: str) -> None:
    """Check that the configuration has this profile; raise a usage error that names those it has."""
    if profile not in settings.config.profile:
        known = ", ".join(settings.config.profile)
        raise click.BadParameter(f"there is no profile {profile!r}; the configuration has: {known}")


def device_id(text: str, kind: DeviceIDKind | None) -> DeviceID:
    """Return the device ID typed as VALUE with --kind, or as kind:value; by its look when neither tells."""
    return parse_device_id(text) if kind is None else DeviceID(kind=kind, value=text)


def possible_device_ids(text: str, kind: DeviceIDKind | None) -> list[DeviceID]:
    """Return every device ID that the text can mean; raise InvalidDeviceID when a kind is named and does not fit."""
    if kind is not None or text.partition(":")[0].lower() in set(DeviceIDKind):
        return [device_id(text, kind)]
    found = []
    for each in DeviceIDKind:
        with suppress(InvalidDeviceID):
            found.append(DeviceID(kind=each, value=text))
    return found


async def find_device(session: Session, text: str, kind: DeviceIDKind | None) -> Device:
    """Return the one registered device that the text means; raise NotFound, or a usage error when there are several."""
    candidates = [await session.store.device(each) for each in possible_device_ids(text, kind)]
    match [device for device in candidates if device is not None]:
        case [device]:
            return device
        case []:
            raise NotFound(f"no device {text!r} is registered; `scep-ra device list` shows those that are")
        case several:
            ids = ", ".join(str(device.device_id) for device in several)
            raise click.UsageError(f"{text!r} is registered more than once: say which of {ids}")


async def find_certificate(session: Session, certificate_serial: int, ca: str | None) -> StoredCertificate:
    """Return the one certificate with this serial; raise NotFound, or a usage error when several CAs issued one."""
    names = session.settings.config.ca if ca is None else [ca]
    candidates = [await session.store.certificate(name, certificate_serial) for name in names]
    match [certificate for certificate in candidates if certificate is not None]:
        case [certificate]:
            return certificate
        case []:
            raise NotFound(f"no certificate with serial {certificate_serial:x} was issued by CA {', '.join(names)}")
        case several:
            found = ", ".join(certificate.ca for certificate in several)
            raise click.UsageError(f"serial {certificate_serial:x} is there more than once: give --ca, one of {found}")
