"""The HTTP API, made from settings: its clients, and what it hands their requests to.

With `parts` of the composition root. What the API does is in `web.api`.
"""

from __future__ import annotations

import time

from scep_ra.config import Settings
from scep_ra.disconnect_parts import deletion_cap, make_sync
from scep_ra.endpoints import Parts
from scep_ra.headend.access import AccessEngine
from scep_ra.headend.deletions import ReportedDeletions
from scep_ra.web.api import Api
from scep_ra.web.api_clients import ApiClient, ApiClients, Scope


def make_api(parts: Parts, engine: AccessEngine) -> Api:
    """Return the API for the clients of the configuration."""
    sync = make_sync(parts.settings, parts.store, parts.authorizers, parts.disconnects)
    return Api(
        clients=_clients(parts.settings),
        engine=engine,
        disconnects=parts.disconnects,
        deletions=ReportedDeletions(sync, time.monotonic),
    )


def _clients(settings: Settings) -> ApiClients:
    return ApiClients(
        ApiClient(
            name=name,
            token_digest=bytes.fromhex(client.token_sha256),
            scopes=frozenset(map(Scope, client.scopes)),
            profile=client.profile,
            trustpoint=client.trustpoint,
            password=client.password,
            deletions=deletion_cap(client.max_deletions),
        )
        for name, client in settings.config.api.items()
    )
