"""The SCEP endpoint over HTTP: a thin shell around `scep.server` and `enrollment.service`.

No decision is taken here. RSA and EC work goes through the crypto pool, which decides in whose thread it is done.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import LooseHeaders

from scep_ra.enrollment.challenges import ChallengeSeal
from scep_ra.enrollment.decisions import refused_message
from scep_ra.enrollment.errors import EnrollmentError
from scep_ra.enrollment.limits import network_of, per_address
from scep_ra.enrollment.queries import QueryService
from scep_ra.enrollment.service import EnrollmentService, Refusals
from scep_ra.enrollment.types import (
    EnrollmentRequest,
    ExistingCertificate,
    Granted,
    IdentityProof,
    ManufacturerCertificate,
    StandIn,
    TrustedRA,
    Undecided,
)
from scep_ra.errors import BackendError
from scep_ra.pki.certificates import Certificate
from scep_ra.scep.errors import MethodNotAllowed, RefusedMessage, TransportError
from scep_ra.scep.http_binding import ScepCall, ScepReply, parse_call
from scep_ra.scep.server import (
    CACapsRequested,
    CACertRequested,
    CertificateRequested,
    CRLRequested,
    EnrollmentRequested,
    PasswordRequired,
    PKIEvent,
    PollRequested,
    Refused,
    ReplyContext,
    ScepServer,
)
from scep_ra.scep.standing import ByManufacturer, IssuedByUs, OnBehalf, SelfMade
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.base import ChallengeStore, EnrollmentKey
from scep_ra.web.crypto_pool import CryptoPool, Overloaded
from scep_ra.web.errors import public_failure
from scep_ra.web.paths import resolve_profile

log = structlog.stdlib.get_logger(__name__)

_RETRY_AFTER_S: Final = "5"
# Each candidate costs a PBKDF2; a profile that uses the password-based envelope has few challenges open at a time.
_MAX_PASSWORDS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Everything that serves one profile."""

    profile: str
    server: ScepServer
    enrollment: EnrollmentService
    queries: QueryService
    extra_certificates: Sequence[Certificate] = ()  # beside the issued one in a reply, where a client wants them
    challenges: ChallengeStore
    refusals: Refusals
    seal: ChallengeSeal | None = None  # present where the password-based envelope is allowed


class ScepFront:
    """The handler behind every path that may be SCEP."""

    def __init__(
        self,
        *,
        endpoints: Mapping[str, Endpoint],
        pool: CryptoPool,
        now: Callable[[], datetime],
        max_message_bytes: int,
        max_at_work: int = 256,
        max_requests_per_address_per_s: float = 0,
    ) -> None:
        """`max_requests_per_address_per_s` counts all requests of an address, 0 does not count."""
        self._endpoints = endpoints
        self._pool = pool
        self._now = now
        self._max_message_bytes = max_message_bytes
        self._max_at_work = max_at_work
        self._at_work = 0
        self._allowances = per_address(max_requests_per_address_per_s)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer any method on any SCEP path; see `web.errors` for what becomes of errors."""
        profile = resolve_profile(request.raw_path, self._endpoints)
        if profile is None:
            return _plain(404, "no SCEP service here: use /scep or /scep/PROFILE")
        source = request.remote or ""
        try:
            body = await request.read()
            self._check_allowance(source)
            call = parse_call(request.method, request.raw_path, body, max_message_bytes=self._max_message_bytes)
            with self._place():
                reply = await self._answer(self._endpoints[profile], call, source)
        except TransportError as error:
            log.info("request_malformed", profile=profile, source=source, reason=str(error))
            return _transport_error(error)
        except Overloaded as error:
            log.warning("overloaded", profile=profile, source=source, reason=str(error))
            return _plain(503, "busy", {hdrs.RETRY_AFTER: _RETRY_AFTER_S})
        except BackendError as error:
            log.warning("backend_failed", profile=profile, source=source, reason=str(error))
            return _plain(503, "try again later", {hdrs.RETRY_AFTER: _RETRY_AFTER_S})
        except Exception:
            incident = secrets.token_hex(4)
            log.exception("internal_error", profile=profile, source=source, incident=incident)
            return _plain(500, f"internal error, incident {incident}")
        return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type)

    def _check_allowance(self, source: str) -> None:
        """Check that an address may send another request; raise Overloaded."""
        if self._allowances is not None and not self._allowances.take(network_of(source)):
            raise Overloaded("too many requests of one address ([limits] max_requests_per_address_per_s)")

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of a bounded number of places; raise Overloaded before any work is done when there is none."""
        if self._at_work >= self._max_at_work:
            raise Overloaded(f"{self._at_work} requests are at work ([limits] max_waiting_requests)")
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    async def _answer(self, endpoint: Endpoint, call: ScepCall, source: str) -> ScepReply:
        match await self._pool.run(endpoint.server.receive, call, self._now()):
            case CACapsRequested():
                return endpoint.server.ca_caps()
            case CACertRequested():
                return endpoint.server.ca_cert()
            case event:
                return await self._answer_message(endpoint, event, source)

    async def _answer_message(self, endpoint: Endpoint, event: PKIEvent, source: str) -> ScepReply:
        if isinstance(event, PasswordRequired):
            passwords = await self._passwords(endpoint, event.reply_to)
            # Up to 17 key derivations of 7 ms each for whoever knocks: never on the loop, however small the pool is.
            event = await asyncio.to_thread(endpoint.server.open_with_passwords, event, passwords)
        context = event.reply_to
        if context.insecure:
            security_event(
                SecurityEvent.INSECURE_ALGORITHM,
                profile=endpoint.profile,
                source=source,
                algorithms=",".join(context.insecure),
            )
        try:
            return await self._carry_out(endpoint, event, source)
        except (RefusedMessage, EnrollmentError) as error:
            security_event(
                SecurityEvent.REQUEST_REFUSED,
                profile=endpoint.profile,
                source=source,
                transaction_id=context.transaction_id,
                code=error.code,
                reason=str(error),
            )
            if isinstance(error, RefusedMessage):
                self._put_on_record(endpoint, context, source, error)
            return await self._pool.run(endpoint.server.failure, context, *public_failure(error))

    def _put_on_record(self, endpoint: Endpoint, context: ReplyContext, source: str, error: RefusedMessage) -> None:
        """Keep what is known of a message that the protocol ended; other refusals the service puts on record."""
        endpoint.refusals.note(
            refused_message(
                decision_id=secrets.token_hex(16),
                now=self._now(),
                profile=endpoint.profile,
                transaction_id=context.transaction_id,
                source=source,
                signer=context.signer,
                code=error.code,
                reason=str(error),
            )
        )

    async def _carry_out(self, endpoint: Endpoint, event: PKIEvent, source: str) -> ScepReply:
        """Do what a message asks for and encode the outcome."""
        server = endpoint.server
        match event:
            case Refused(error=error):
                raise error
            case EnrollmentRequested(reply_to=context, csr=csr):
                request = EnrollmentRequest(
                    transaction_id=context.transaction_id, csr=csr, proof=_proof(context), source=source
                )
                return await self._encode(endpoint, context, await endpoint.enrollment.submit(request))
            case PollRequested(reply_to=context):
                outcome = await endpoint.enrollment.poll(context.transaction_id, _proof(context), source)
                return await self._encode(endpoint, context, outcome)
            case CertificateRequested(reply_to=context, issuer=issuer, certificate_serial=serial):
                found = await endpoint.queries.certificate(context.signer, issuer, serial)
                return await self._pool.run(server.success, context, [found])
            case CRLRequested(reply_to=context, issuer=issuer):
                crl = await endpoint.queries.crl(context.signer, issuer)
                return await self._pool.run(server.success_crl, context, crl)
            case PasswordRequired():  # pragma: no cover - open_with_passwords never returns one
                raise AssertionError("an envelope is still closed")
            case _:
                assert_never(event)

    async def _encode(self, endpoint: Endpoint, context: ReplyContext, outcome: Granted | Undecided) -> ScepReply:
        match outcome:
            case Granted(certificate=certificate):
                certificates = [certificate, *endpoint.extra_certificates]
                return await self._pool.run(endpoint.server.success, context, certificates)
            case Undecided():
                return await self._pool.run(endpoint.server.pending, context)
            case _:
                assert_never(outcome)

    async def _passwords(self, endpoint: Endpoint, context: ReplyContext) -> list[bytes]:
        """Return the challenges that an envelope may have been closed with: first the one of this very transaction."""
        if endpoint.seal is None:
            return []
        requester = _proof(context).requester
        key = EnrollmentKey(profile=endpoint.profile, transaction_id=context.transaction_id, requester=requester)
        spent = await endpoint.challenges.sealed_challenge_of(key)
        others = await endpoint.challenges.sealed_challenges(endpoint.profile, self._now(), _MAX_PASSWORDS)
        sealed = [spent, *others] if spent is not None else others
        return [endpoint.seal.open(octets) for octets in sealed]


def _proof(context: ReplyContext) -> IdentityProof:
    match context.standing:
        case SelfMade():
            return StandIn(certificate=context.signer)
        case IssuedByUs():
            return ExistingCertificate(certificate=context.signer)
        case ByManufacturer(store=store):
            return ManufacturerCertificate(certificate=context.signer, store=store)
        case OnBehalf(ra=ra):
            return TrustedRA(certificate=context.signer, ra=ra)
        case _:
            assert_never(context.standing)


def _transport_error(error: TransportError) -> web.Response:
    headers = {hdrs.ALLOW: "GET, HEAD, POST"} if isinstance(error, MethodNotAllowed) else None
    return _plain(error.http_status, str(error), headers)


def _plain(status: int, text: str, headers: LooseHeaders | None = None) -> web.Response:
    return web.Response(status=status, body=f"{text}\n".encode(), content_type="text/plain", headers=headers)
