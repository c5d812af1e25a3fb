"""Ask a web service whether a device may have a certificate, or whether its challenge is good, by step-ca's webhooks.

One service, named in the configuration: no redirects, no proxies of the environment, replies of bounded size. The JSON
itself is `http_messages`'s work.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp import hdrs

from scep_ra.aaa.base import AccessRequest, Decision, MalformedAnswer, Notice
from scep_ra.aaa.http_messages import Kind, encode_notice, encode_question, read_reply
from scep_ra.errors import BackendError, ConfigurationError, Misconfigured, Unavailable
from scep_ra.secret_files import read_secret
from scep_ra.webhook_signature import SIGNATURE_HEADER, WEBHOOK_ID_HEADER, sign_body

log = structlog.stdlib.get_logger(__name__)

_REQUEST_ID_HEADER: Final = "X-Request-Id"
# As step-ca: a service that is being restarted gets a second chance, one that is down costs no more.
_RETRY_S: Final = 1.0
# A notice may come late, but it must not outlive a restart of the service by much: nobody waits for it.
_NOTICE_RETRIES_S: Final = (1.0, 10.0, 60.0)
# A few KiB each; with a service that is away for minutes the rest is dropped.
_MAX_NOTICES: Final = 1000
_SUCCESSES: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_UNAUTHORIZED: Final = frozenset({401, 403, 407})
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """What an [aaa.NAME] of type "http" says, and where its secrets lie; raises ConfigurationError when made."""

    url: str
    kind: Kind = "AUTHORIZING"
    webhook_id: str = "scep-ra"
    secret_file: Path | None = None  # base64; None = unsigned
    token_file: Path | None = None  # bearer token, or the password of `user`; None = neither
    user: str = ""  # of Basic authentication
    ca_file: Path | None = None  # PEM; None = the CAs of the system
    insecure_plaintext: bool = False
    max_reply_bytes: int = 65536
    notify: bool = False
    timeout_s: float = 5.0
    retry_s: float = _RETRY_S
    notice_retries_s: tuple[float, ...] = _NOTICE_RETRIES_S

    def __post_init__(self) -> None:
        if urlsplit(self.url).username is not None:
            raise ConfigurationError("url holds a user name: write it to user, and its password into token_file")
        if self.url.startswith("http:") and not self.insecure_plaintext and not _is_loopback(self.host):
            raise ConfigurationError(
                f"url sends questions to {self.host} in the clear: write https://, or set insecure_plaintext = true"
            )
        if self.user and self.token_file is None:
            raise ConfigurationError("user needs token_file, a file with the password")

    @property
    def host(self) -> str:
        """Return whom the URL names."""
        return urlsplit(self.url).hostname or ""


def http_settings(options: Mapping[str, Any], *, data_directory: Path, timeout_s: float) -> HttpSettings:
    """Return the settings that the keys of a table make; raise ConfigurationError."""
    rest = dict(options)

    def path(name: str) -> Path | None:
        text = rest.pop(name)
        return data_directory / text if text else None

    return HttpSettings(
        secret_file=path("secret_file"),
        token_file=path("token_file"),
        ca_file=path("ca_file"),
        timeout_s=timeout_s,
        **rest,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Transient(Unavailable):
    """No answer that asking again at once may bring."""


class HttpAuthorizer:
    """aaa.base.Authorizer over a webhook."""

    def __init__(self, settings: HttpSettings, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now
        self._session: aiohttp.ClientSession | None = None
        self._notices: set[asyncio.Task[None]] = set()

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return what the service decides; raise Unavailable, MalformedAnswer or Misconfigured."""
        body = encode_question(request, kind=self._settings.kind, now=self._now())
        request_id = secrets.token_hex(16)
        try:
            reply = await self._post(body, request_id)
        except _Transient:
            await asyncio.sleep(self._settings.retry_s)
            reply = await self._post(body, request_id)
        return read_reply(reply)

    async def check(self) -> None:
        """Verify that somebody listens there, by TLS one whom we trust; raise Unavailable or Misconfigured.

        Nothing is asked: not every service knows what a question about nobody means.
        """
        await self._headers(b"", "check")
        session = await self._connected()
        try:
            # Whatever the answer is, there is one.
            async with session.head(self._settings.url, allow_redirects=False):
                pass
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _as_ours(error, self._settings) from error

    def notify(self, notice: Notice) -> None:
        """Tell the service, if it wants to hear it; repeated for a while, then given up."""
        if not self._settings.notify:
            return
        if len(self._notices) >= _MAX_NOTICES:
            log.warning("notice_dropped", transaction_id=notice.transaction_id, waiting=len(self._notices))
            return
        task = asyncio.create_task(self._tell(notice))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    async def close(self) -> None:
        """Give notices that are on their way a last moment, then close all connections."""
        if self._notices:
            _, late = await asyncio.wait(self._notices, timeout=self._settings.timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    # --- notices

    async def _tell(self, notice: Notice) -> None:
        body, request_id = encode_notice(notice, now=self._now()), secrets.token_hex(16)
        facts = {"transaction_id": notice.transaction_id, "device_id": str(notice.device_id or "")}
        reason = ""
        for delay_s in (0.0, *self._settings.notice_retries_s):
            await asyncio.sleep(delay_s)
            try:
                await self._post(body, request_id)
            except BackendError as error:
                reason = str(error)
            else:
                log.debug("notice_sent", **facts)
                return
        log.warning("notice_failed", **facts, reason=reason)

    # --- one exchange

    async def _post(self, body: bytes, request_id: str) -> bytes:
        """Return the body of a success; raise _Transient, Unavailable, MalformedAnswer or Misconfigured."""
        headers = await self._headers(body, request_id)
        session = await self._connected()
        try:
            async with session.post(self._settings.url, data=body, headers=headers, allow_redirects=False) as response:
                _check_status(response.status, self._settings)
                return await self._read(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _as_ours(error, self._settings) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = b""
        async for part in response.content.iter_any():
            body += part
            if len(body) > self._settings.max_reply_bytes:
                raise MalformedAnswer(f"the reply is longer than {self._settings.max_reply_bytes} octets")
        return body

    async def _headers(self, body: bytes, request_id: str) -> dict[str, str]:
        """Return what goes with a body; secrets are read each time, so that they can be changed."""
        settings = self._settings
        headers = {
            hdrs.CONTENT_TYPE: "application/json",
            WEBHOOK_ID_HEADER: settings.webhook_id,
            _REQUEST_ID_HEADER: request_id,
        }
        if settings.secret_file is not None:
            headers[SIGNATURE_HEADER] = sign_body(body, await asyncio.to_thread(read_secret, settings.secret_file))
        if settings.token_file is not None:
            token = await asyncio.to_thread(read_secret, settings.token_file)
            headers[hdrs.AUTHORIZATION] = _credentials(token, settings)
        return headers

    async def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            trust = await asyncio.to_thread(_trust, self._settings.ca_file)
            # Another question may have been faster.
            self._session = self._session or _session(trust, self._settings.timeout_s)
        return self._session


def _session(trust: ssl.SSLContext, timeout_s: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        # A reply of bounded size must not grow afterwards.
        auto_decompress=False,
        headers={hdrs.ACCEPT: "application/json", hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "scep-ra"},
        trust_env=False,
    )


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(f"ca_file {ca_file} holds no CA certificates: {error.strerror or error}") from error


def _credentials(token: str, settings: HttpSettings) -> str:
    if not token.isascii() or not token.isprintable():
        raise Misconfigured(f"{settings.token_file} holds what cannot stand in a header: write one line of ASCII")
    if settings.user:
        return f"Basic {base64.b64encode(f'{settings.user}:{token}'.encode()).decode('ascii')}"
    return f"Bearer {token}"


def _check_status(status: int, settings: HttpSettings) -> None:
    """Check that a reply is an answer; raise _Transient, Unavailable or Misconfigured."""
    if status in _SUCCESSES:
        return
    if status in _UNAUTHORIZED:
        raise Misconfigured(f"{settings.host} answers HTTP {status}: look at token_file and secret_file")
    if status in _REDIRECTS:
        raise Misconfigured(f"{settings.host} answers HTTP {status}, and nobody else is asked: write where to into url")
    if status >= _SERVER_ERROR:
        raise _Transient(f"{settings.host} answers HTTP {status}")
    raise Unavailable(f"{settings.host} answers HTTP {status}: look at url, and at the log there")


def _as_ours(error: aiohttp.ClientError | TimeoutError, settings: HttpSettings) -> BackendError:
    """Return what a failure of the exchange means; never with the URL, in which there may be a secret."""
    if isinstance(error, aiohttp.ClientSSLError):
        return Misconfigured(f"{settings.host} is not the one whom we trust: {error}; look at ca_file")
    said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return _Transient(f"{settings.host} gives no answer: {said or type(error).__name__}")
