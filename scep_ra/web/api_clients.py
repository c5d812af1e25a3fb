"""Who may use the HTTP API: clients with a token, of which only the digest is known here.

A token is sent as bearer token (RFC 6750 2.1) or as the password of Basic authentication (RFC 7617), which is what
FreeRADIUS can do. What clients may ask for is `api`'s matter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from scep_ra.headend.sync import DeletionCap


class Scope(StrEnum):
    """What a client may do; spelled as in the configuration."""

    AUTHORIZE = "authorize"
    DISCONNECT = "disconnect"
    DEVICES = "devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiClient:
    """A client, by its name in the configuration."""

    name: str
    token_digest: bytes = field(repr=False)  # SHA-256
    scopes: frozenset[Scope] = frozenset()
    profile: str = ""  # whose certificates count; "" = of all
    trustpoint: str = ""  # for pki:cert-trustpoint; "" = none
    password: str = "cisco"  # noqa: S105 - a word by convention; "" = none is told
    deletions: DeletionCap = field(default_factory=DeletionCap)


class ApiClients:
    """All of them."""

    def __init__(self, clients: Iterable[ApiClient]) -> None:
        self._clients = tuple(clients)

    def find(self, authorization: str) -> ApiClient | None:
        """Return whose token an Authorization header holds, in a time that depends on no token; None when nobody's.

        The user name of Basic authentication has to be the client's.
        """
        user, token = _credentials(authorization)
        if not token:
            return None  # whatever the digests in the configuration were made of
        digest = hashlib.sha256(token).digest()
        # All of them are compared, and as digests: neither the order nor a common beginning shows.
        found = [each for each in self._clients if hmac.compare_digest(each.token_digest, digest)]
        return next((each for each in found if user in (None, each.name)), None)


def _credentials(authorization: str) -> tuple[str | None, bytes]:
    """Return user name, if there is one, and token; b"" where there is none."""
    scheme, _, rest = authorization.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return None, rest.strip().encode("utf-8", "surrogateescape")
        case "basic":
            user, _, token = _decode(rest.strip()).partition(b":")
            return user.decode("utf-8", "replace"), token
        case _:
            return None, b""


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return b""
