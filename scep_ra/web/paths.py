"""From the path of a request to the profile that answers it.

RFC 8894 4.1 lets a client ask under any path and names `/cgi-bin/pkiclient.exe`; the table holds what clients, MDMs
and firewalls have hard-coded for other servers. The query, and what it asks for, is `scep.http_binding`'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import unquote

DEFAULT_PROFILE: Final = "default"

_SCHEME_AND_HOST: Final = re.compile(r"^https?://[^/?#]*", re.IGNORECASE)
_SLASHES: Final = re.compile(r"/{2,}")
# Some IOS releases put the port of the enrollment URL behind its path: /scep:8081/pkiclient.exe.
_MISPLACED_PORT: Final = re.compile(r":\d{1,5}(?=/|$)")

_NAME: Final = r"(?P<profile>[^/]+)"
# IOS and Intune append it to whatever URL they are given.
_TAIL: Final = r"(?:/pkiclient\.exe)?"
_NOT_OURS: Final = r"(?!/(?:healthz|readyz|metrics|crl|ocsp|api|\.well-known|certsrv/mscep_admin)(?:/|$))"

_CONVENTIONS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # A bare host (Intune).
        r"",
        # Ours; step-ca, OpenXPKI, UCM, Infisical; micromdm and most MDM manuals without a name.
        rf"/scep(?:/{_NAME}(?:/.*)?)?",
        # Microsoft NDES, hard-coded in phones and firewalls.
        rf"/certsrv/mscep(?:/mscep\.dll)?{_TAIL}",
        # EJBCA: an alias, or the alias left out.
        rf"/ejbca/publicweb/apply/scep/pkiclient\.exe|/ejbca/publicweb/apply/scep(?:/{_NAME})?{_TAIL}",
        # Dogtag.
        rf"/ca/scep/{_NAME}{_TAIL}",
        r"/ca/ee/ca/pkiclient(?:\.exe)?",
        # CZERTAINLY ILM; before Vault, whose mount could be called "protocols".
        rf"/v1/protocols/scep/raprofile/{_NAME}{_TAIL}",
        rf"/v1/protocols/scep/{_NAME}{_TAIL}",
        # Vault: a role, or the mount.
        rf"/v1/[^/]+/roles/{_NAME}/scep{_TAIL}",
        rf"/v1/{_NAME}/scep{_TAIL}",
        # Fleet: "host,profile,ca,secret", names of Fleet's own.
        rf"/mdm/scep/proxy/[^/]+{_TAIL}",
        # SCEPman.
        rf"/static{_TAIL}",
        # PacketFence.
        rf"/api/v1/scep(?:/{_NAME})?{_TAIL}",
        # RFC 8894 4.1, Cisco, and any prefix a proxy may have put before it.
        rf"{_NOT_OURS}(?:/.+)?/pkiclient\.exe",
    )
)


def resolve_profile(raw_path: str, profiles: Collection[str]) -> str | None:
    """Return the profile that a request target (as received, query and all) means, or None for no SCEP path.

    A name that is missing or unknown means the profile `default`, if there is one: clients are seldom wrong about
    the server and often about the path.
    """
    path = _normalise(raw_path)
    for convention in _CONVENTIONS:
        match = convention.fullmatch(path)
        if match is not None:
            return _choose(match.groupdict().get("profile"), profiles)
    return None


def _normalise(raw_path: str) -> str:
    target = re.split(r"[?#]", _SCHEME_AND_HOST.sub("", raw_path), maxsplit=1)[0]
    path = _SLASHES.sub("/", unquote(target))
    return _MISPLACED_PORT.sub("", path).rstrip("/")


def _choose(name: str | None, profiles: Collection[str]) -> str | None:
    if name is not None and name.lower() in profiles:
        return name.lower()
    return DEFAULT_PROFILE if DEFAULT_PROFILE in profiles else None
