"""The command `scep-ra`: the table of its commands, imported one at a time so that each starts fast, and exit codes.

Besides click only classes of errors may be imported here; what a command does belongs to its own module.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Final

import click

import scep_ra
from scep_ra.cli.options import Group, Invocation
from scep_ra.errors import ConfigurationError, Misconfigured, ScepRaError, Unavailable
from scep_ra.identity.errors import InvalidDeviceID

COMMANDS: Final = {
    "serve": ("scep_ra.cli.serve:serve", "Run the server."),
    "check-config": ("scep_ra.cli.check_config:check_config", "Check the configuration file, or print a new one."),
    "device": ("scep_ra.cli.device:device", "Say which devices may enroll."),
    "aaa": ("scep_ra.cli.aaa:aaa", "Ask AAA about devices."),
    "challenge": ("scep_ra.cli.challenge:challenge", "Make one-time challenges."),
    "request": (
        "scep_ra.cli.request:request",
        "See what devices asked for, approve or reject what waits, and forget how it ended.",
    ),
    "session": ("scep_ra.cli.live_session:session", "See who is connected."),
    "certificate": ("scep_ra.cli.certificate:certificate", "List, show, export and revoke certificates."),
    "db": ("scep_ra.cli.db:db", "Upgrade, check, back up and restore the database."),
    "audit": ("scep_ra.cli.audit:audit", "Check, export and read the audit log."),
    "ca": ("scep_ra.cli.ca:ca", "Show and export the certificates of CAs and RAs."),
    "enroll": ("scep_ra.cli.scep_client:enroll", "Get a certificate from a SCEP server, or renew one."),
    "getca": ("scep_ra.cli.scep_client:getca", "Show the CA and RA certificates of a SCEP server."),
    "getcaps": ("scep_ra.cli.scep_client:getcaps", "Show what a SCEP server announces."),
    "decode": ("scep_ra.cli.decode:decode", "Explain a captured message, certificate, request or CRL."),
}

REFUSED: Final = 1
USAGE: Final = 2  # click's own code for a wrong command line
UNAVAILABLE: Final = 3

_log: Final = logging.getLogger(__name__)


class CommandTable(Group):
    """A group that imports a command when it is called, and none of them for --help; the signatures are click's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command, None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 refused or not found, 2 wrong command line or configuration, 3 a backend (store, "
    "CA, AAA) is unavailable and the same command may work later.",
)
@click.version_option(scep_ra.__version__, prog_name="scep-ra")
@click.pass_context
def cli(context: click.Context) -> None:
    """Serve SCEP (RFC 8894), and keep the devices, challenges and certificates behind it.

    --config, --data and --verbose may stand before or after the name of a command.
    """
    context.ensure_object(Invocation)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: that of the process) and exit with its status."""
    try:
        cli.main(arguments, prog_name="scep-ra")
    except ScepRaError as error:
        click.echo(f"scep-ra: {error}", err=True)
        _log.debug("command_failed", exc_info=error)
        sys.exit(exit_status(error))


def exit_status(error: ScepRaError) -> int:
    """Return the exit status for an error."""
    match error:
        # The command line is the only place where an operator writes a device ID.
        case ConfigurationError() | Misconfigured() | InvalidDeviceID():
            return USAGE
        case Unavailable():
            return UNAVAILABLE
        case _:
            return REFUSED
