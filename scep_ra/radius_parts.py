"""The RADIUS server, made from [radius] and [headend.NAME]; only where its library, an extra, is there.

With `parts` of the composition root. What it answers is decided in `headend`.
"""

from __future__ import annotations

import asyncio

import structlog

from scep_ra.config import Settings
from scep_ra.config_headend import HeadendConfig
from scep_ra.headend.access import AccessEngine
from scep_ra.headend.access_requests import AccessRequests
from scep_ra.headend.accounting import Accounting
from scep_ra.headend.radius_headends import RadiusHeadend, RadiusHeadends
from scep_ra.headend.server import Binding, RadiusServer
from scep_ra.parts import utc_now
from scep_ra.secret_files import read_secret
from scep_ra.storage.base import Store

log = structlog.stdlib.get_logger(__name__)


async def start_radius_server(settings: Settings, store: Store, engine: AccessEngine) -> RadiusServer:
    """Return the server, which answers from now on; raise Misconfigured for a secret or address not to be had."""
    config = settings.config.radius
    headends = await asyncio.to_thread(_headends, settings)
    server = await RadiusServer.start(
        Binding(address=config.bind, access_port=config.auth_port, accounting_port=config.accounting_port),
        headends,
        access=AccessRequests(engine=engine, reject_on_error=config.on_error == "reject"),
        accounting=Accounting(engine=engine, sessions=store, now=utc_now),
    )
    log.info("radius_ready", address=config.bind, auth_port=config.auth_port, accounting_port=config.accounting_port)
    return server


def _headends(settings: Settings) -> RadiusHeadends:
    return RadiusHeadends(_headend(name, table, settings) for name, table in settings.config.headend.items())


def _headend(name: str, table: HeadendConfig, settings: Settings) -> RadiusHeadend:
    return RadiusHeadend(
        name=name,
        network=table.network(),
        secret=read_secret(settings.data_dir / table.secret_file).encode(),
        trustpoint=table.trustpoint,
        profile=table.profile,
        password=table.password,
        require_message_authenticator=table.require_message_authenticator,
        send_lifetime_end=table.cert_lifetime_end,
    )
