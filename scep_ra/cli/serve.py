"""`scep-ra serve`: run the server until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import click
import structlog

from scep_ra import app
from scep_ra.cli.options import Command, Invocation
from scep_ra.cli.session import settings_of
from scep_ra.config import Settings
from scep_ra.config_file import warnings_about
from scep_ra.data_directory import prepare
from scep_ra.endpoints import Parts
from scep_ra.telemetry.log import configure_logging
from scep_ra.welcome import Welcome

_log = structlog.stdlib.get_logger(__name__)


@click.command(cls=Command, epilog="Example:  scep-ra serve --data /var/lib/scep-ra --bind 0.0.0.0 --port 80")
@click.option("--bind", help="Address to listen on, instead of server.bind of the file.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, instead of server.port; 0 = any free.")
@click.pass_obj
def serve(invocation: Invocation, bind: str | None, port: int | None) -> None:
    """Run the server.

    The first start makes the data directory with a CA, an RA certificate and a configuration file. SIGTERM and SIGINT
    end it once the requests in flight are answered.
    """
    given = {"server.bind": bind, "server.port": port, "log.level": "debug" if invocation.verbose else None}
    settings = settings_of(invocation, {key: value for key, value in given.items() if value is not None})
    _set_up_logging(settings)
    for warning in warnings_about(settings.config):
        _log.warning("weak_setting", setting=warning)
    asyncio.run(app.serve(settings, lambda parts: click.echo(_welcome(parts, invocation).text(), nl=False)))


def _set_up_logging(settings: Settings) -> None:
    log = settings.config.log
    if log.security:
        prepare(settings)  # the file may be the first in the data directory
    configure_logging(
        level=log.level,
        output=log.format,
        security=settings.data_dir / log.security if log.security else None,
    )


def _welcome(parts: Parts, invocation: Invocation) -> Welcome:
    profiles = parts.settings.config.profile
    name = "default" if "default" in profiles else next(iter(profiles))
    example = profiles[name]
    return Welcome(
        base_url=parts.public_url,
        profiles=list(profiles),
        chains=parts.chains,
        command=_command(invocation, parts.settings.data_dir),
        profile=name,
        ca=example.ca,
        ra=bool(example.ra),
        legacy=example.algorithms.allow_sha1 and example.algorithms.insecure_des_and_md5,
        one_time=example.challenge == "one-time",
        registry=parts.settings.config.aaa[example.authorizer].type == "registry",
    )


def _command(invocation: Invocation, data: Path) -> str:
    """Return what somebody types, in whatever directory, to call this program with the same configuration and data."""
    program = [sys.argv[0]] if Path(sys.argv[0]).name != "__main__.py" else [sys.executable, "-m", "scep_ra"]
    config = ["--config", str(invocation.config.resolve())] if invocation.config else []
    return shlex.join([*program, *config, "--data", str(data.resolve())])
