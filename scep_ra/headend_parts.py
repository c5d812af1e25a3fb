"""What answers headends, made from settings: the engine that decides, and whether RADIUS is served over it.

With `parts` of the composition root. What these do is in `headend`; `radius_parts` has what needs the RADIUS library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scep_ra.aaa.base import Authorizer
from scep_ra.aaa.guard import outspoken
from scep_ra.config import Settings
from scep_ra.errors import Misconfigured
from scep_ra.headend.access import AccessEngine, ProfileAccess
from scep_ra.parts import utc_now
from scep_ra.storage.base import Store

if TYPE_CHECKING:
    from scep_ra.headend.server import RadiusServer


def make_access_engine(settings: Settings, store: Store, authorizers: Mapping[str, Authorizer]) -> AccessEngine:
    """Return the engine that decides for headends, over the authorizers of the profiles."""
    profiles = {
        # To a headend "AAA gave no answer" and "not yet" are two things.
        name: ProfileAccess(authorizer=outspoken(authorizers[profile.authorizer]), service=profile.service)
        for name, profile in settings.config.profile.items()
    }
    return AccessEngine(certificates=store, profiles=profiles, now=utc_now)


async def start_radius(settings: Settings, store: Store, engine: AccessEngine) -> RadiusServer | None:
    """Answer headends from now on, where [radius] says so, until the server is drained; raise Misconfigured."""
    if not settings.config.radius.bind:
        return None
    try:
        from scep_ra.radius_parts import start_radius_server  # noqa: PLC0415 - not everybody has its library
    except ModuleNotFoundError as error:
        raise Misconfigured(f'[radius] bind needs {error.name}: run pip install "scep-ra[radius]"') from error
    return await start_radius_server(settings, store, engine)
