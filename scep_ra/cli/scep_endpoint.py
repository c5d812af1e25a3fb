"""HTTP for the client commands: send a SCEP call to a server, and say in one line what is wrong when that fails.

What the octets mean is decided in `scep.discovery` and `scep.client`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

import scep_ra
from scep_ra.errors import Refused, Unavailable
from scep_ra.scep.client import REPLY_LIMITS
from scep_ra.scep.discovery import CABundle, parse_ca_certificates, parse_capabilities
from scep_ra.scep.http_binding import ScepCall, encode_call
from scep_ra.scep.terms import Capability, Operation

_CHUNK_BYTES: Final = 65536


class NotOffered(Refused):
    """The server answers HTTP and does not offer this operation at this URL."""


class ScepEndpoint:
    """A SCEP service at a URL; every method raises Unavailable, NotOffered, Refused or ReplyError."""

    def __init__(self, session: aiohttp.ClientSession, url: str, ca_identifier: str) -> None:
        self._session = session
        self._url = url
        self._ca_identifier = ca_identifier.encode()

    async def capabilities(self) -> frozenset[Capability | str]:
        """Return what GetCACaps announces."""
        return parse_capabilities((await self._ask(Operation.GET_CA_CAPS))[1])

    async def ca_certificates(self, *, weak_digests: bool = False) -> CABundle:
        """Return what GetCACert names."""
        content_type, body = await self._ask(Operation.GET_CA_CERT)
        return parse_ca_certificates(content_type, body, weak_digests=weak_digests)

    async def _ask(self, operation: Operation) -> tuple[str, bytes]:
        return await self._exchange(ScepCall(operation=operation, message=self._ca_identifier), post=False)

    async def send(self, call: ScepCall, *, post: bool) -> bytes:
        """Return the body of the answer to a PKIOperation."""
        return (await self._exchange(call, post=post))[1]

    async def _exchange(self, call: ScepCall, *, post: bool) -> tuple[str, bytes]:
        request = encode_call(call, self._url, post=post)
        headers = {} if request.content_type is None else {"Content-Type": request.content_type}
        # The URL is escaped once and for all: another quoting would change base64's + and /.
        url = URL(request.url, encoded=True)
        try:
            async with self._session.request(request.method, url, data=request.body, headers=headers) as response:
                self._check_status(response.status, call.operation)
                if response.content_type == "text/html":
                    raise Refused(f"{self._url} answers {call.operation} with a web page: is it a SCEP service's URL?")
                return response.content_type, await self._read(response)
        except TimeoutError:
            raise Unavailable(f"{self._url} does not answer in time: try again, or give a longer --timeout") from None
        except aiohttp.ClientConnectorError as error:
            raise Unavailable(
                f"{self._url} cannot be reached: {_reason(error)}; check host, port and network"
            ) from None
        except aiohttp.ClientError as error:
            raise Unavailable(f"{self._url} breaks off: {error or type(error).__name__}; try again") from None

    def _check_status(self, status: int, operation: Operation) -> None:
        match status:
            case 200:
                return
            case 501:
                raise NotOffered(f"{self._url} does not offer {operation} (HTTP 501)")
            case 429 | 500 | 502 | 503 | 504:
                raise Unavailable(f"{self._url} is overloaded or out of order (HTTP {status}): try again later")
            case _:
                raise NotOffered(f"{self._url} answers {operation} with HTTP {status}: check the path of the URL")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > REPLY_LIMITS.max_bytes:
                raise Refused(f"{self._url} answers with more than {REPLY_LIMITS.max_bytes} octets: is it SCEP?")
        return bytes(body)


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Return the bare reason: the library's own text repeats host and port before it."""
    return os.strerror(error.errno) if error.errno else str(error.os_error)


@asynccontextmanager
async def open_endpoint(url: str, *, ca_identifier: str = "", timeout_s: float) -> AsyncIterator[ScepEndpoint]:
    """Return the service at an http or https URL; the timeout is that of one exchange."""
    headers = {"User-Agent": f"scep-ra/{scep_ra.__version__}"}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        yield ScepEndpoint(session, url, ca_identifier)
