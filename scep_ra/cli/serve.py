"""`scep-ra serve`: run the server until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import click
import structlog

from scep_ra import app
from scep_ra.cli.options import Command, Invocation
from scep_ra.cli.session import settings_of
from scep_ra.config import MAX_WORKERS, Settings
from scep_ra.config_headend import RadiusServerConfig
from scep_ra.config_warnings import warnings_about
from scep_ra.data_directory import prepare
from scep_ra.endpoints import Parts
from scep_ra.supervisor import Job, supervise, work
from scep_ra.telemetry.log import configure_logging
from scep_ra.web.api import PREFIX
from scep_ra.web.ocsp import ocsp_url
from scep_ra.welcome import Welcome

_log = structlog.stdlib.get_logger(__name__)


@click.command(cls=Command, epilog="Example:  scep-ra serve --data /var/lib/scep-ra --bind 0.0.0.0 --port 80")
@click.option("--bind", help="Address to listen on, instead of server.bind of the file.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, instead of server.port; 0 = any free.")
@click.option(
    "--workers", type=click.IntRange(1, MAX_WORKERS), help="Processes to serve with, instead of server.workers."
)
@click.option("--worker", is_flag=True, hidden=True)  # how the supervisor starts one
@click.pass_obj
def serve(invocation: Invocation, bind: str | None, port: int | None, workers: int | None, *, worker: bool) -> None:
    """Run the server.

    The first start makes the data directory with a CA, an RA certificate and a configuration file. SIGTERM and SIGINT
    end it once the requests in flight are answered.
    """
    if worker:
        _work()
    else:
        given = {
            "server.bind": bind,
            "server.port": port,
            "server.workers": workers,
            "log.level": "debug" if invocation.verbose else None,
        }
        _start(invocation, {key: value for key, value in given.items() if value is not None})


def _start(invocation: Invocation, overrides: Mapping[str, object]) -> None:
    settings = settings_of(invocation, overrides)
    _set_up_logging(settings)
    for warning in warnings_about(settings.config):
        _log.warning("weak_setting", setting=warning)
    asyncio.run(_serve(settings, lambda parts: click.echo(_welcome(parts, invocation).text(), nl=False)))


def _set_up_logging(settings: Settings) -> None:
    log = settings.config.log
    if log.security:
        prepare(settings)  # the file may be the first in the data directory
    configure_logging(
        level=log.level,
        output=log.format,
        security=settings.data_dir / log.security if log.security else None,
    )


def _serve(settings: Settings, announce: Callable[[Parts], None]) -> Coroutine[None, None, None]:
    if settings.config.server.workers == 1:
        return app.serve(settings, announce)
    return supervise(settings, _worker_command(), announce)


def _worker_command() -> list[str]:
    """Return this process's interpreter and program, as they were called, with the words that make it a worker."""
    own_arguments = len(sys.argv) - 1
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - own_arguments], "serve", "--worker"]


def _work() -> None:
    job = Job.parse(sys.stdin.buffer.readline())
    _set_up_logging(job.settings)
    asyncio.run(work(job, life_line=sys.stdin.fileno(), output=sys.stdout.fileno()))


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
        radius=_radius(parts.settings.config.radius),
        api=f"{parts.public_url.rstrip('/')}{PREFIX}" if parts.settings.config.api else "",
        ocsp=[ocsp_url(parts.public_url, ca) for ca in parts.responders],
    )


def _radius(config: RadiusServerConfig) -> str:
    ports = f"ports {config.auth_port}/udp and {config.accounting_port}/udp"
    return f"{config.bind} {ports}" if config.bind else ""


def _command(invocation: Invocation, data: Path) -> str:
    """Return what somebody types, in whatever directory, to call this program with the same configuration and data."""
    program = [sys.argv[0]] if Path(sys.argv[0]).name != "__main__.py" else [sys.executable, "-m", "scep_ra"]
    config = ["--config", str(invocation.config.resolve())] if invocation.config else []
    return shlex.join([*program, *config, "--data", str(data.resolve())])
