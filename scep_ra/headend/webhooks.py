"""Tell web services that a device was disconnected, as an outbox Sender: JSON over HTTPS, signed as step-ca does.

The body is made from the message's facts alone, so every attempt sends the same octets. AAA by HTTP is `aaa.http`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from scep_ra.errors import Misconfigured
from scep_ra.headend.outbox import Attempt, Verdict
from scep_ra.storage.sessions import OutboxMessage
from scep_ra.webhook_signature import SIGNATURE_HEADER, WEBHOOK_ID_HEADER, sign_body

EVENT: Final = "device.disconnected"
_TIMEOUT_S: Final = 10.0
_SUCCESSES: Final = range(200, 300)
_CLIENT_ERRORS: Final = range(400, 500)
# Codes of that range by which a service says: later (RFC 9110 15.5.9, RFC 6585 4).
_LATER: Final = (408, 429)
_NUMBERS: Final = ("challenges_voided", "requests_rejected", "requests_condemned", "revocation_reason", "sessions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A web service that wants to know."""

    name: str
    url: str
    read_secret: Callable[[], str] | None = field(default=None, repr=False)  # base64; None = unsigned
    ca_file: Path | None = None  # PEM; None = the CAs of the system


class WebhookSender:
    """headend.outbox.Sender to webhooks; a reply's status is all that is read."""

    def __init__(self, webhooks: Iterable[Webhook]) -> None:
        self._webhooks = {each.name: each for each in webhooks}
        self._session: aiohttp.ClientSession | None = None

    async def send(self, message: OutboxMessage) -> Attempt:
        """Post the message once; raise Misconfigured when secret or CA file cannot be used."""
        webhook = self._webhooks.get(message.target)
        if webhook is None:
            return Attempt(verdict=Verdict.REFUSED, result=f"no [webhook.{message.target}] in the configuration")
        body = encode_body(message)
        try:
            async with self._client().post(
                webhook.url,
                data=body,
                headers=_headers(webhook, message, body),
                ssl=_trust(webhook),
                # The configuration says who gets it, not whoever answers there.
                allow_redirects=False,
            ) as response:
                return judge(response.status)
        except aiohttp.ClientError as error:
            return Attempt(verdict=Verdict.SILENT, result=_reason(error))

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            # aiohttp's connectors end in the next turn of the loop.
            await asyncio.sleep(0)


def encode_body(message: OutboxMessage) -> bytes:
    """Return the JSON that a webhook gets; the same for every attempt, `id` tells repetitions."""
    facts = dict(message.payload)
    body = {
        "id": message.message_id,
        "event": EVENT,
        "timestamp": facts.pop("disconnected_at"),
        "device": {"kind": message.device_id.kind.value, "value": message.device_id.value},
        "entry_changed": facts.pop("entry_changed") == "true",
        "certificates_revoked": facts.pop("certificates_revoked").split(),
        "headends": facts.pop("headends").split(),
        **{name: int(facts.pop(name)) for name in _NUMBERS},
        **facts,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def judge(status: int) -> Attempt:
    """Say what an HTTP status means."""
    if status in _SUCCESSES:
        return Attempt(verdict=Verdict.DONE, result=str(status))
    is_refused = status in _CLIENT_ERRORS and status not in _LATER
    return Attempt(verdict=Verdict.REFUSED if is_refused else Verdict.SILENT, result=f"HTTP {status}")


def _reason(error: aiohttp.ClientError) -> str:
    """Return what went wrong, for the log and whoever asks; never with the URL, which often is the secret."""
    match error:
        case aiohttp.ClientResponseError():
            said = error.message
        case aiohttp.InvalidURL():
            said = "look at url"
        case _:
            said = str(error)
    return f"{type(error).__name__}: {said}"


def _headers(webhook: Webhook, message: OutboxMessage, body: bytes) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        WEBHOOK_ID_HEADER: webhook.name,
        "X-Request-Id": message.message_id,
    }
    if webhook.read_secret is not None:
        headers[SIGNATURE_HEADER] = sign_body(body, webhook.read_secret())
    return headers


def _trust(webhook: Webhook) -> ssl.SSLContext | bool:
    if webhook.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=webhook.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(f"{webhook.ca_file}: no CAs for [webhook.{webhook.name}]: {error}") from error
