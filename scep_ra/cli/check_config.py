"""`scep-ra check-config`: say whether the server would start with this configuration."""

from __future__ import annotations

import click

from scep_ra.cli.options import Command, Invocation
from scep_ra.cli.session import settings_of
from scep_ra.config_file import render_template, warnings_about
from scep_ra.trust_files import load_trust


@click.command("check-config", cls=Command, epilog="Example:  scep-ra check-config --config /etc/scep-ra/scep-ra.toml")
@click.option("--template", is_flag=True, help="Print a file with every option, its help and its default, and end.")
@click.pass_obj
def check_config(invocation: Invocation, *, template: bool) -> None:
    """Check the configuration file, or print a new one.

    Every problem is reported with its line, certificate files that cannot be used with their name. Settings that are
    allowed but weak are warned about.
    """
    if template:
        click.echo(render_template(), nl=False)
        return
    settings = settings_of(invocation)
    load_trust(settings)
    for warning in warnings_about(settings.config):
        click.echo(f"warning: {warning}", err=True)
    profiles = ", ".join(settings.config.profile)
    click.echo(f"{settings.config_file or 'defaults (no file)'}: ok, profiles: {profiles}")
