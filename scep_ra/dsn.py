"""What the URL of a PostgreSQL server says: words for logs (no user, password or row), and that it is protected.

Connections are the business of `storage.postgresql` and `aaa.sql_postgresql`.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs, urlsplit

from scep_ra.errors import ConfigurationError

# Those that verify the server, and the one that nobody writes without meaning it.
_SAFE_MODES: Final = frozenset({"verify-ca", "verify-full", "disable"})


def describe_dsn(dsn: str) -> str:
    """Return words for database and server, with nothing of user and password."""
    url = urlsplit(dsn)
    host = parse_qs(url.query).get("host", [url.hostname or "the default address"])[0]
    return f"PostgreSQL database {url.path.strip('/') or '(default)'} at {host}"


def reason_of(error: Exception) -> str:
    """Return the first line of what an error says, without detail and hint, which may quote rows."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0] or "no answer in time"


def check_protected(dsn: str) -> None:
    """Check that nobody on the way can answer in the server's place; raise ConfigurationError."""
    url = urlsplit(dsn)
    query = parse_qs(url.query)
    host = query.get("host", [url.hostname or ""])[0]
    mode = query.get("sslmode", [""])[0]
    # libpq's default goes on in the clear when whoever answers does not want TLS.
    if not _is_here(host) and mode not in _SAFE_MODES:
        raise ConfigurationError(
            f"dsn names {host} without sslmode=verify-full, so anybody on the way can answer: add ?sslmode=verify-full"
            " (and sslrootcert=FILE for a CA of your own), or sslmode=disable where something else protects the way"
        )


def _is_here(host: str) -> bool:
    """Return whether this is a Unix socket or an address of this machine."""
    if host in {"", "localhost"} or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
