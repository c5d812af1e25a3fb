"""`scep-ra check-config`: say whether the server would start with this configuration."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from scep_ra.cli.options import Command, Invocation
from scep_ra.cli.session import settings_of
from scep_ra.config import Settings
from scep_ra.config_base import Table
from scep_ra.config_file import load_settings, render_template
from scep_ra.config_warnings import warnings_about
from scep_ra.errors import Misconfigured
from scep_ra.parts import load_authorizers, open_store
from scep_ra.secret_files import read_secret
from scep_ra.trust_files import load_trust

_SECRETS: Final = ("secret_file", "password_file", "token_file")


@click.command("check-config", cls=Command, epilog="Example:  scep-ra check-config --config /etc/scep-ra/scep-ra.toml")
@click.option("--template", is_flag=True, help="Print a file with every option, its help and its default, and end.")
@click.pass_obj
def check_config(invocation: Invocation, *, template: bool) -> None:
    """Check the configuration file, or print a new one.

    Every problem is reported with its line, certificate files that cannot be used with their name, an authorizer that
    cannot be made with that of its table. Settings that are allowed but weak, and files of secrets that the server
    could not read, are warned about. No AAA system is asked.
    """
    if template:
        click.echo(render_template(), nl=False)
        return
    settings = settings_of(invocation)
    load_trust(settings)
    asyncio.run(_make_authorizers(settings))
    for warning in (*warnings_about(settings.config), *_unreadable_secrets(settings)):
        click.echo(f"warning: {warning}", err=True)
    profiles = ", ".join(settings.config.profile)
    click.echo(f"{settings.config_file or 'defaults (no file)'}: ok, profiles: {profiles}")


async def _make_authorizers(settings: Settings) -> None:
    # A registry wants a store; the real one need not be there yet, nor may a check make or upgrade it.
    with tempfile.TemporaryDirectory() as directory:
        elsewhere = load_settings(data=Path(directory), environ={})
        async with open_store(elsewhere) as empty, load_authorizers(settings, empty):
            pass


def _unreadable_secrets(settings: Settings) -> Iterator[str]:
    """Yield a warning for each; no more than that, because files are often checked on another machine."""
    config = settings.config
    for kind, tables in (("aaa", config.aaa), ("headend", config.headend), ("webhook", config.webhook)):
        for name, table in tables.items():
            for option, file in _secret_files(table):
                try:
                    read_secret(settings.data_dir / file)
                except Misconfigured as error:
                    yield f"{kind}.{name}.{option}: {error}"


def _secret_files(table: Table) -> Iterator[tuple[str, str]]:
    # Only declared ones: what a plug-in means by an option of such a name is its own business.
    declared = type(table).model_fields.keys()
    return ((option, getattr(table, option)) for option in _SECRETS if option in declared and getattr(table, option))
