"""Words for a PostgreSQL server and for what its driver says, fit for logs: no user, no password, no row.

Connections are the business of `storage.postgresql` and `aaa.sql_postgresql`.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit


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
