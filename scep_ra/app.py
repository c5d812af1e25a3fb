"""The composition root: from settings to running parts, and their orderly start and end.

Only this module (and the registries of the ports) names implementations.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, assert_never

import structlog
from aiohttp import web

from scep_ra.aaa import registry as aaa_registry
from scep_ra.aaa.base import Authorizer
from scep_ra.ca.base import CertificateAuthority, SupportsCRL
from scep_ra.ca.directory import RAMaterial, load_ca
from scep_ra.config import Config, ProfileConfig, Settings
from scep_ra.data_directory import challenge_seal
from scep_ra.enrollment.challenges import ChallengeRule, NoChallenge, OneTimeChallenge, StaticChallenge
from scep_ra.enrollment.queries import QueryService
from scep_ra.enrollment.renewal import RenewalRules
from scep_ra.enrollment.service import EnrollmentRules, EnrollmentService
from scep_ra.errors import Misconfigured, ScepRaError
from scep_ra.parts import load_cas, load_ras, open_store, revocation_service, utc_now
from scep_ra.pki.ber import Limits
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.profiles import CertificateProfile, ExtendedKeyUsage, KeyUsage
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.revocation.service import RevocationService
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import RecipientKey, ScepServer, ServerRules
from scep_ra.scep.terms import EmptyContent
from scep_ra.storage.base import Store
from scep_ra.web.connections import GuardLimits
from scep_ra.web.crypto_pool import CryptoPool
from scep_ra.web.health import Check, health_routes
from scep_ra.web.listener import Listener
from scep_ra.web.repository import certificate_url, crl_url, repository_routes
from scep_ra.web.scep import Endpoint, ScepFront

log = structlog.stdlib.get_logger(__name__)

_HOUSEKEEPING_S: Final = 30.0
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})
# Of [limits], what is the listener's.
_GUARD_FIELDS: Final = {
    "header_timeout_s",
    "body_timeout_s",
    "idle_timeout_s",
    "write_timeout_s",
    "max_connections",
    "max_connections_per_address",
}


# --- endpoints -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the endpoints of all profiles share."""

    settings: Settings
    store: Store
    authorities: Mapping[str, CertificateAuthority]
    chains: Mapping[str, Sequence[Certificate]]
    ras: Mapping[str, RAMaterial]
    authorizers: Mapping[str, Authorizer]
    revocations: RevocationService
    public_url: str


def _endpoint(name: str, profile: ProfileConfig, parts: Parts) -> Endpoint:
    chain = parts.chains[profile.ca]
    ra = _ra_of(profile, parts)
    seal = challenge_seal(parts.settings.data_dir) if profile.algorithms.password_envelope else None
    return Endpoint(
        profile=name,
        server=ScepServer(
            signer=MessageSigner(ra.key, ra.certificate),
            recipients=[RecipientKey(certificate=ra.certificate, key=ra.key)],
            ca_certificates=chain,
            rules=_server_rules(profile, parts.settings.config),
            random=secrets.token_bytes,
        ),
        enrollment=EnrollmentService(
            rules=_enrollment_rules(name, profile, parts.public_url),
            store=parts.store,
            authorizer=parts.authorizers[profile.authorizer],
            ca=parts.authorities[profile.ca],
            now=utc_now,
            random=secrets.token_bytes,
        ),
        queries=QueryService(
            profile=name,
            ca=profile.ca,
            ca_certificates=chain,
            ra_certificate=ra.certificate,
            store=parts.store,
            crls=parts.revocations if isinstance(parts.authorities[profile.ca], SupportsCRL) else None,
            enabled=profile.queries == "issued",
            now=utc_now,
        ),
        extra_certificates=chain if profile.compat.ca_certificates_in_reply else (),
        challenges=parts.store,
        seal=seal,
    )


def _ra_of(profile: ProfileConfig, parts: Parts) -> RAMaterial:
    """Return who speaks SCEP: the RA, or the CA itself where the profile names none."""
    if profile.ra:
        return parts.ras[profile.ra]
    material = load_ca(parts.settings.data_dir, profile.ca, now=utc_now())
    return RAMaterial(key=material.signer, certificate=material.chain[0])


def _server_rules(profile: ProfileConfig, config: Config) -> ServerRules:
    algorithms = profile.algorithms
    return ServerRules(
        algorithms=AlgorithmPolicy.of(
            sha1=algorithms.allow_sha1,
            triple_des=algorithms.allow_triple_des,
            des_and_md5=algorithms.insecure_des_and_md5,
            password_envelope=algorithms.password_envelope,
        ),
        limits=Limits(max_bytes=config.limits.max_message_bytes),
        min_rsa_bits=profile.min_rsa_bits,
        renewal=profile.renewal.enabled,
        max_clock_skew=timedelta(seconds=profile.max_clock_skew_s) if profile.max_clock_skew_s else None,
        empty_content=EmptyContent(profile.compat.empty_content),
    )


def _challenge_rule(profile: ProfileConfig) -> ChallengeRule:
    match profile.challenge:
        case "one-time":
            return OneTimeChallenge()
        case "static":
            return StaticChallenge(digest=bytes.fromhex(profile.static_challenge_sha256))
        case "none":
            return NoChallenge()
        case _:
            assert_never(profile.challenge)


def _enrollment_rules(name: str, profile: ProfileConfig, public_url: str) -> EnrollmentRules:
    renewal = profile.renewal
    return EnrollmentRules(
        profile=name,
        device_id_rules=profile.device_id,
        certificate=CertificateProfile(
            key_usage=tuple(KeyUsage[usage.upper()] for usage in profile.key_usage),
            extended_key_usage=tuple(ExtendedKeyUsage(usage) for usage in profile.extended_key_usage),
            crl_url=crl_url(public_url, profile.ca),
            ca_issuers_url=certificate_url(public_url, profile.ca),
        ),
        validity=timedelta(days=profile.validity_days),
        replay=timedelta(days=profile.replay_days),
        challenge=_challenge_rule(profile),
        renewal=RenewalRules(
            enabled=renewal.enabled,
            window=timedelta(days=renewal.window_days) if renewal.window_days else None,
            grace=timedelta(days=renewal.grace_days),
            allow_same_key=renewal.allow_same_key,
        ),
    )


# --- the server ----------------------------------------------------------------------------------------------------


class Health:
    """What the last round of checks found; probes read it and never cause one."""

    def __init__(self) -> None:
        self._errors: dict[str, str | None] = {"start": "not started yet"}

    def checks(self, names: Iterable[str]) -> Mapping[str, Check]:
        """Return the checks for `web.health`."""
        return {name: partial(self._error, name) for name in names}

    def _error(self, name: str) -> str | None:
        return self._errors.get(name, "not checked yet")

    def note(self, name: str, error: str | None) -> None:
        """Remember what a check found; None = well."""
        self._errors[name] = error


class Server:
    """Everything that runs, from the first crypto thread to the last connection."""

    def __init__(self, settings: Settings, store: Store, pool: CryptoPool, parts: Parts) -> None:
        self._settings = settings
        self._store = store
        self._pool = pool
        self.parts: Final = parts
        self.health = Health()
        self.endpoints = {name: _endpoint(name, profile, parts) for name, profile in settings.config.profile.items()}

    def application(self) -> web.Application:
        """Return the aiohttp application with all routes; SCEP takes what nobody else does."""
        front = ScepFront(
            endpoints=self.endpoints,
            pool=self._pool,
            now=utc_now,
            max_message_bytes=self._settings.config.limits.max_message_bytes,
            max_at_work=self._settings.config.limits.max_waiting_requests,
        )
        # The body may be base64 of a message of full size, with line breaks.
        application = web.Application(client_max_size=self._settings.config.limits.max_message_bytes * 3 // 2)
        application.add_routes(health_routes(self.health.checks(["start", *self._probes()])))
        authorities = self.parts.authorities
        issuers = {n: c[0] for n, c in self.parts.chains.items() if isinstance(authorities[n], SupportsCRL)}
        application.add_routes(repository_routes(self.parts.revocations, issuers))
        application.router.add_route("*", "/{path:.*}", front.handle)
        return application

    def _probes(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {
            "store": self._store.check,
            **{f"aaa.{name}": authorizer.check for name, authorizer in self.parts.authorizers.items()},
            **{f"ca.{name}": authority.check for name, authority in self.parts.authorities.items()},
        }

    async def resolve_intents(self) -> None:
        """Carry out what a crash, or a CA that was away, has left open."""
        for enrollment in await self._store.open_intents():
            endpoint = self.endpoints.get(enrollment.key.profile)
            if endpoint is None:
                log.warning(
                    "intent_without_profile", profile=enrollment.key.profile, enrollment_id=enrollment.enrollment_id
                )
                continue
            try:
                await endpoint.enrollment.resume(enrollment)
            except ScepRaError as error:
                log.warning("intent_failed", enrollment_id=enrollment.enrollment_id, reason=str(error))
            except Exception:
                # One intent that trips over a bug keeps neither the others nor the server from going on.
                log.exception("intent_failed", enrollment_id=enrollment.enrollment_id)

    async def check(self) -> None:
        """Run every check once and note what it found."""
        for name, probe in self._probes().items():
            try:
                await probe()
            except ScepRaError as error:
                self.health.note(name, str(error))
                log.warning("check_failed", check=name, reason=str(error))
            else:
                self.health.note(name, None)

    async def keep_house(self) -> None:
        """Repeat `keep_house_once` until cancelled."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            await self.keep_house_once()

    async def keep_house_once(self) -> None:
        """Check everything, carry out what is unfinished, let old requests expire; what fails is logged."""
        try:
            await self.check()
            await self.resolve_intents()
            for name, profile in self._settings.config.profile.items():
                before = utc_now() - timedelta(days=profile.replay_days)
                await self._store.expire_waiting(name, before, utc_now())
        except ScepRaError as error:
            log.warning("housekeeping_failed", reason=str(error))
        except Exception:
            # A bug must not end the rounds unseen: the next may succeed, and readiness is only as fresh as they are.
            log.exception("housekeeping_failed")


@contextlib.asynccontextmanager
async def _running(settings: Settings, sock: socket.socket, public_url: str) -> AsyncIterator[Server]:
    """Bring everything up in order, and down in the reverse."""
    limits = settings.config.limits
    pool = CryptoPool(threads=limits.crypto_threads, max_waiting=limits.max_waiting_requests)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(pool.close)
        store = await stack.enter_async_context(open_store(settings))
        parts = await _assemble(settings, store, pool, public_url)
        server = Server(settings, store, pool, parts)
        await server.check()
        await server.resolve_intents()
        listener = await Listener.start(
            server.application(), sock=sock, limits=GuardLimits(**limits.model_dump(include=_GUARD_FIELDS))
        )
        stack.push_async_callback(listener.drain, settings.config.server.shutdown_timeout_s)
        stack.push_async_callback(_end, asyncio.create_task(server.keep_house()))
        server.health.note("start", None)
        yield server


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _assemble(settings: Settings, store: Store, pool: CryptoPool, public_url: str) -> Parts:
    authorities = await asyncio.to_thread(load_cas, settings, pool.run)
    lent = aaa_registry.Parts(devices=store, now=utc_now)
    return Parts(
        settings=settings,
        store=store,
        authorities=authorities,
        chains={name: await authority.chain() for name, authority in authorities.items()},
        ras=await asyncio.to_thread(load_ras, settings),
        authorizers={
            name: aaa_registry.load_authorizer(config.type, lent, config.model_dump(exclude={"type"}))
            for name, config in settings.config.aaa.items()
        },
        revocations=revocation_service(store, authorities, pool.run),
        public_url=public_url,
    )


async def serve(settings: Settings, announce: Callable[[Parts], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `announce` is called once requests are answered.

    Raise ConfigurationError or a BackendError when it cannot start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    config = settings.config.server
    with bind_socket(config.bind, config.port) as sock:
        url = config.public_url or _own_url(config.bind, sock.getsockname()[1])
        async with _running(settings, sock, url) as server:
            announce(server.parts)
            await stop.wait()
            log.info("stopping")
    log.info("stopped")


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; raise Misconfigured when the address is not to be had.

    Who connects before the start is done waits. Listening at once is what keeps a second server off: with SO_REUSEADDR
    both could bind.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen()
    except OSError as error:
        sock.close()
        raise Misconfigured(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --bind or --port"
        ) from error
    return sock


def _own_url(host: str, port: int) -> str:
    """Return a URL under which this machine is reached, as far as it knows."""
    name = socket.getfqdn() if host in _WILDCARDS else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"
