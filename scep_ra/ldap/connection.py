"""One connection to a directory: over TCP, TLS or a Unix socket, bound, one question at a time.

Time limits are the caller's: whoever gives up, by cancelling, closes the connection. What the entries mean does not
belong here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final, Self, assert_never
from urllib.parse import unquote, urlsplit

from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from scep_ra.ldap.messages import (
    Entry,
    Message,
    Reference,
    Result,
    Search,
    bind_request,
    parse_message,
    search_request,
    start_tls_request,
    unbind_request,
)
from scep_ra.pki.errors import MalformedData

_PORT: Final = 389
_PORT_TLS: Final = 636
_SUCCESS: Final = 0
_SIZE_LIMIT_EXCEEDED: Final = 4
_REFERRAL: Final = 10
# Result codes (RFC 4511 A.2) that stay until somebody changes something, by what one can read in a message ...
_NEEDS_MENDING: Final = {
    _SIZE_LIMIT_EXCEEDED: "its size limit for bind_dn is too low: allow at least 2 entries",
    7: "it does not know simple binds",
    8: "it wants a stronger way to bind, or TLS",
    13: "it wants TLS: use ldaps:// or start_tls",
    18: "the filter compares in a way that an attribute does not know",
    32: "there is no such entry, or bind_dn may not see it: look at base",
    34: "a distinguished name is misspelt: look at bind_dn and base",
    48: "it wants another way to bind",
    49: "bind_dn or its password is wrong",
    50: "bind_dn may not do this",
}
# ... all others may pass. These are named because they happen.
_MAY_PASS: Final = {1: "operations error", 3: "time limit exceeded", 51: "it is busy", 52: "it is shutting down"}
_MAX_BYTES: Final = 65536  # an entry with the few attributes that decide has well under 4 KiB
_MAX_LENGTH_OCTETS: Final = 4
_MAX_ANSWERS: Final = 64  # entries and references; Active Directory sends three or four references


class Disconnected(Unavailable):
    """The connection broke before there was an answer; another one may work."""


class Security(Enum):
    """What protects a connection."""

    NONE = "none"
    TLS = "tls"
    START_TLS = "start_tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a directory listens, read from a URL: a Unix socket if it has a path, host and port otherwise."""

    url: str
    security: Security
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def from_url(cls, url: str, *, start_tls: bool) -> Self:
        """Read ldap://HOST:PORT, ldaps://HOST:PORT or ldapi://PATH with %2F for slashes; raise ConfigurationError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ConfigurationError(f"the LDAP URL {url!r} cannot be read: {error}") from error
        if not parts.netloc or parts.path.strip("/") or parts.query or parts.username is not None:
            raise ConfigurationError(f"the LDAP URL {url!r} should be ldaps://HOST or ldaps://HOST:PORT, and no more")
        if start_tls and parts.scheme != "ldap":
            raise ConfigurationError(f"start_tls goes with ldap://, not with {url!r}: set start_tls = false")
        match parts.scheme:
            case "ldap":
                security = Security.START_TLS if start_tls else Security.NONE
                return cls(url=url, security=security, host=host, port=port or _PORT)
            case "ldaps":
                return cls(url=url, security=Security.TLS, host=host, port=port or _PORT_TLS)
            case "ldapi":
                return cls(url=url, security=Security.NONE, path=unquote(parts.netloc))
            case _:
                raise ConfigurationError(f"the LDAP URL {url!r} should begin with ldaps://, ldap:// or ldapi://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search has brought."""

    entries: tuple[Entry, ...]
    references: tuple[str, ...]  # URLs of servers that may know more


class LdapConnection:
    """A connection to a directory, made by `open`."""

    def __init__(self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._address = address
        self._reader = reader
        self._writer = writer
        self._outer: asyncio.StreamWriter | None = None
        self._message_id = 0  # of the last request

    @classmethod
    async def open(cls, address: Address, tls: ssl.SSLContext, *, bind_dn: str, password: str) -> Self:
        """Connect and bind; raise Unavailable, or Misconfigured for a certificate or password that is refused."""
        with _translated(address):
            if address.path:
                reader, writer = await asyncio.open_unix_connection(address.path)
            elif address.security is Security.TLS:
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls)
            else:
                reader, writer = await asyncio.open_connection(address.host, address.port)
        connection = cls(address, reader, writer)
        try:
            if address.security is Security.START_TLS:
                await connection._start_tls(tls)
            await connection._bind(bind_dn, password)
        except BaseException:
            connection.abort()
            raise
        return connection

    @property
    def is_alive(self) -> bool:
        """Whether nobody has closed it, as far as one can know."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    async def search(self, search: Search) -> Found:
        """Return what is found; raise Disconnected, Unavailable or Misconfigured.

        Of more entries than `search.max_entries` that many are returned.
        """
        entries: list[Entry] = []
        references: list[str] = []
        async with self._asked(search_request(self._next_id(), search)):
            for _ in range(_MAX_ANSWERS):
                content = (await self._receive()).content
                match content:
                    case Entry() as entry:
                        entries.append(entry)
                    case Reference() as reference:
                        references += reference.urls
                    case Result() as result:
                        # A limit of the server's own may be lower: then there are more than it shows.
                        if not (result.code == _SIZE_LIMIT_EXCEEDED and len(entries) >= search.max_entries):
                            self._check(result, "search")
                        return Found(entries=tuple(entries), references=tuple(references))
                    case _:
                        assert_never(content)
        raise Unavailable(f"{self._address.url} answers a search with more than {_MAX_ANSWERS} entries and references")

    def close(self) -> None:
        """Say farewell and close, without waiting for the other side: LDAP has no answer to it."""
        self._writer.write(unbind_request(self._next_id()))
        self.abort()

    def abort(self) -> None:
        """Close without a word: an answer may be on its way that nobody waits for."""
        self._writer.transport.abort()

    async def _bind(self, dn: str, password: str) -> None:
        async with self._asked(bind_request(self._next_id(), dn, password)):
            self._check(await self._receive_result(), f"bind as {dn!r}")

    async def _start_tls(self, tls: ssl.SSLContext) -> None:
        async with self._asked(start_tls_request(self._next_id())):
            self._check(await self._receive_result(), "StartTLS")
            # A new reader: what somebody has sent in clear behind the answer must not pass for what comes through TLS.
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(loop=loop)
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
            transport = await loop.start_tls(self._writer.transport, protocol, tls, server_hostname=self._address.host)
            if transport is None:  # it was closed during the handshake
                raise EOFError
            protocol.connection_made(transport)
            # The old writer lives on: deleted, it would close what TLS goes through.
            self._outer = self._writer
            self._reader, self._writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    @asynccontextmanager
    async def _asked(self, request: bytes) -> AsyncIterator[None]:
        """Send a request; what breaks from then on is Disconnected, Unavailable or Misconfigured."""
        with _translated(self._address):
            self._writer.write(request)
            await self._writer.drain()
            yield

    async def _receive_result(self) -> Result:
        content = (await self._receive()).content
        if not isinstance(content, Result):
            raise MalformedData("an entry where a result is expected")
        return content

    def _next_id(self) -> int:
        self._message_id += 1
        return self._message_id

    async def _receive(self) -> Message:
        """Return the next answer to the last request; there is one question at a time."""
        message = parse_message(await self._read_element())
        if message.message_id == 0:  # notice of disconnection, RFC 4511 4.4.1
            raise Disconnected(f"{self._address.url} says that it closes the connection")
        if message.message_id != self._message_id:
            raise MalformedData(f"an answer to request {message.message_id} where {self._message_id} is the last")
        return message

    async def _read_element(self) -> bytes:
        header = await self._reader.readexactly(2)
        length = header[1]
        if length & 0x80:
            if not 1 <= length & 0x7F <= _MAX_LENGTH_OCTETS:
                raise MalformedData("a length that is not definite, or of more than 4 octets")
            long_form = await self._reader.readexactly(length & 0x7F)
            header += long_form
            length = int.from_bytes(long_form, "big")
        if length > _MAX_BYTES:
            raise MalformedData(f"a message of {length} octets where {_MAX_BYTES} are allowed")
        return header + await self._reader.readexactly(length)

    def _check(self, result: Result, what: str) -> None:
        """Raise Unavailable or Misconfigured unless the operation succeeded."""
        if result.code == _SUCCESS:
            return
        if result.code == _REFERRAL:
            raise Misconfigured(
                f"{self._address.url} sends us elsewhere for this {what} (referral, which is not followed): "
                f"set url to {' or '.join(result.referrals) or 'the server that has the entries'}"
            )
        said = f" ({result.diagnostic})" if result.diagnostic else ""
        if result.code in _NEEDS_MENDING:
            raise Misconfigured(
                f"{self._address.url} refuses to {what}: {_NEEDS_MENDING[result.code]}, result code {result.code}{said}"
            )
        name = _MAY_PASS.get(result.code, "no success")
        raise Unavailable(f"{self._address.url} cannot {what} now: {name}, result code {result.code}{said}")


@contextmanager
def _translated(address: Address) -> Iterator[None]:
    """Turn what network, TLS and codec complain of into ours."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Misconfigured(
            f"{address.url} shows a certificate that is not trusted: {error.verify_message}; look at ca_file and "
            "at the name in url"
        ) from error
    except ssl.SSLError as error:
        raise Unavailable(f"{address.url} does not speak TLS as we do: {error.reason or error}") from error
    except (EOFError, ConnectionError) as error:
        raise Disconnected(f"{address.url} cannot be reached, or closed the connection: {_reason(error)}") from error
    except OSError as error:
        raise Unavailable(f"{address.url} cannot be reached: {_reason(error)}") from error
    except MalformedData as error:
        raise Unavailable(f"{address.url} answers with what is no LDAP: {error}") from error


def _reason(error: Exception) -> str:
    strerror = getattr(error, "strerror", None)
    return strerror if isinstance(strerror, str) else "no more data"
