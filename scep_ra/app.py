"""The composition root: from settings to running parts, and their orderly start and end.

Only this module (and the registries of the ports) names implementations.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from aiohttp import web

from scep_ra.aaa.base import Authorizer
from scep_ra.api_parts import make_api
from scep_ra.audit_trail import AuditTrail
from scep_ra.ca.base import SupportsCRL
from scep_ra.config import ServerConfig, Settings
from scep_ra.disconnect_parts import deletion_cap, make_disconnects, make_outbox, make_sync
from scep_ra.endpoints import Parts, make_endpoint
from scep_ra.enrollment.refusals import RefusalLog
from scep_ra.errors import Misconfigured, ScepRaError
from scep_ra.headend.forgetting import Forgetting
from scep_ra.headend_parts import make_access_engine, start_radius
from scep_ra.parts import (
    load_authorizers,
    load_cas,
    load_ras,
    ocsp_responders,
    open_store,
    revocation_service,
    utc_now,
)
from scep_ra.storage.base import Store
from scep_ra.trust_files import load_trust
from scep_ra.web.connections import GuardLimits
from scep_ra.web.crypto_pool import CryptoPool
from scep_ra.web.health import Check, health_routes
from scep_ra.web.listener import Listener
from scep_ra.web.ocsp import ocsp_routes
from scep_ra.web.repository import repository_routes
from scep_ra.web.scep import ScepFront

log = structlog.stdlib.get_logger(__name__)

_HOUSEKEEPING_S: Final = 30.0
# Nobody is still at work on an intent of this age: signing takes milliseconds, the store gives up after five seconds.
_SURELY_LEFT: Final = timedelta(seconds=10)
_ALL: Final = timedelta(0)
# What became of a message is in the audit log; this is for `device disable` said again.
_KEEP_MESSAGES: Final = timedelta(days=30)
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
        self.trail: Final = AuditTrail(parts)
        self.health = Health()
        profiles = settings.config.profile
        self.endpoints = {name: make_endpoint(name, profile, parts) for name, profile in profiles.items()}
        self.access: Final = make_access_engine(settings, store, parts.authorizers)

    def application(self) -> web.Application:
        """Return the aiohttp application with all routes; SCEP takes what nobody else does."""
        rate = self._settings.config.limits.max_requests_per_address_per_s
        front = ScepFront(
            endpoints=self.endpoints,
            pool=self._pool,
            now=utc_now,
            max_message_bytes=self._settings.config.limits.max_message_bytes,
            max_at_work=self._settings.config.limits.max_waiting_requests,
            max_requests_per_address_per_s=rate,
        )
        # The body may be base64 of a message of full size, with line breaks.
        application = web.Application(client_max_size=self._settings.config.limits.max_message_bytes * 3 // 2)
        application.add_routes(health_routes(self.health.checks(["start", *self._probes()])))
        authorities = self.parts.authorities
        issuers = {n: c[0] for n, c in self.parts.chains.items() if isinstance(authorities[n], SupportsCRL)}
        application.add_routes(repository_routes(self.parts.revocations, issuers))
        application.add_routes(ocsp_routes(self.parts.responders, max_requests_per_address_per_s=rate))
        if self._settings.config.api:
            application.add_routes(make_api(self.parts, self.access).routes())
        application.router.add_route("*", "/{path:.*}", front.handle)
        return application

    def _probes(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        return {
            "store": self._store.check,
            **{f"aaa.{name}": authorizer.check for name, authorizer in self.parts.authorizers.items()},
            **{f"ca.{name}": authority.check for name, authority in self.parts.authorities.items()},
            **{f"ocsp.{name}": responder.check for name, responder in self.parts.responders.items()},
        }

    async def resolve_intents(self, min_age: timedelta) -> None:
        """Carry out what a crash, or a CA that was away, has left open for at least `min_age`.

        Another process may be at work on a younger one. That does no harm, the order and so the certificate are the
        same, but the CA would be asked twice.
        """
        before = utc_now() - min_age
        for enrollment in [each for each in await self._store.open_intents() if each.updated_at <= before]:
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
        """Check everything, carry out what is unfinished, let go of what is old; what fails is logged."""
        try:
            await self.check()
            await self.trail.report_heads()
            await self.resolve_intents(_SURELY_LEFT)
            for name, profile in self._settings.config.profile.items():
                before = utc_now() - timedelta(days=profile.replay_days)
                await self._store.expire_waiting(name, before, utc_now())
            await self.parts.revocations.revoke_due()
            storage = self._settings.config.storage
            oldest = utc_now() - timedelta(days=storage.keep_refusals_days)
            await self._store.prune_decisions(oldest, storage.keep_refusals)
            await self._store.prune_messages(utc_now() - _KEEP_MESSAGES)
            lifetime = timedelta(hours=self._settings.config.radius.session_lifetime_h)
            await self._store.expire_sessions(utc_now() - lifetime)
        except ScepRaError as error:
            log.warning("housekeeping_failed", reason=str(error))
        except Exception:
            # A bug must not end the rounds unseen: the next may succeed, and readiness is only as fresh as they are.
            log.exception("housekeeping_failed")


@contextlib.asynccontextmanager
async def _running(
    settings: Settings, sock: socket.socket, public_url: str, *, leftovers: timedelta = _ALL, is_first: bool = True
) -> AsyncIterator[Server]:
    """Bring everything up in order, and down in the reverse; intents open for `leftovers` are carried out before.

    What is to be done once for a node, the first of its processes does.
    """
    limits = settings.config.limits
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(_assembled(settings, public_url))
        await server.check()
        await server.trail.record_start()
        stack.push_async_callback(server.trail.record_stop)
        await server.resolve_intents(leftovers)
        drains: list[Callable[[float], Awaitable[None]]] = []
        stack.push_async_callback(_drain, drains, settings.config.server.shutdown_timeout_s)
        listener = await Listener.start(
            server.application(), sock=sock, limits=GuardLimits(**limits.model_dump(include=_GUARD_FIELDS))
        )
        drains.append(listener.drain)
        if is_first and (radius := await start_radius(settings, server.parts.store, server.access)):
            drains.append(radius.drain)
        stack.push_async_callback(_end, asyncio.create_task(server.keep_house()))
        stack.push_async_callback(_end, asyncio.create_task(server.parts.outbox.run()))
        if any(table.cache_s for table in settings.config.aaa.values()):
            forgetting = Forgetting(
                store=server.parts.store, authorizers=server.parts.authorizers.values(), now=utc_now
            )
            stack.push_async_callback(_end, asyncio.create_task(forgetting.run()))
        if is_first and settings.config.aaa_sync.interval_min:
            stack.push_async_callback(_end, asyncio.create_task(_keep_in_sync(server.parts)))
        server.health.note("start", None)
        yield server


@contextlib.asynccontextmanager
async def _assembled(settings: Settings, public_url: str) -> AsyncIterator[Server]:
    """Join the parts, made at first start; nothing is served yet."""
    limits = settings.config.limits
    pool = CryptoPool(threads=limits.crypto_threads, max_waiting=limits.max_waiting_requests)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(pool.close)
        store = await stack.enter_async_context(open_store(settings))
        authorizers = await stack.enter_async_context(load_authorizers(settings, store))
        parts = await _assemble(settings, store, authorizers, pool, public_url)
        stack.push_async_callback(parts.refusals.close)
        stack.push_async_callback(parts.outbox.close)
        yield Server(settings, store, pool, parts)


async def _drain(drains: Iterable[Callable[[float], Awaitable[None]]], patience_s: float) -> None:
    """Finish what is under way everywhere, side by side: who ends us waits for one patience, not for the sum."""
    await asyncio.gather(*(drain(patience_s) for drain in drains))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _keep_in_sync(parts: Parts) -> None:
    options = parts.settings.config.aaa_sync
    sync = make_sync(parts.settings, parts.store, parts.authorizers, parts.disconnects)
    await sync.run(options.interval_min * 60.0, deletion_cap(options.max_deletions))


async def _assemble(
    settings: Settings, store: Store, authorizers: Mapping[str, Authorizer], pool: CryptoPool, public_url: str
) -> Parts:
    authorities = await asyncio.to_thread(load_cas, settings, pool.run)
    revocations = revocation_service(store, authorities, pool.run)
    outbox = make_outbox(settings, store)
    return Parts(
        settings=settings,
        store=store,
        authorities=authorities,
        chains={name: await authority.chain() for name, authority in authorities.items()},
        ras=await asyncio.to_thread(load_ras, settings),
        authorizers=authorizers,
        revocations=revocations,
        responders=await ocsp_responders(settings, store, authorities, pool.run),
        trust=await asyncio.to_thread(load_trust, settings),
        refusals=RefusalLog(store=store),
        outbox=outbox,
        disconnects=make_disconnects(settings, store, outbox, revocations, authorizers),
        public_url=public_url,
    )


async def prepare(settings: Settings, public_url: str) -> Parts:
    """Do once what processes that serve the same store would do side by side at their start; nothing stays open.

    Keys, certificates and tables are made, every part is checked to be usable, and what a crash left is carried out.
    Raise ConfigurationError or a BackendError.
    """
    async with _assembled(settings, public_url) as server:
        await server.resolve_intents(_ALL)
        return server.parts


async def serve(settings: Settings, announce: Callable[[Parts], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `announce` is called once requests are answered.

    Raise ConfigurationError or a BackendError when it cannot start.
    """
    stop = stop_on_signals()
    config = settings.config.server
    with bind_socket(config.bind, config.port) as sock:
        async with _running(settings, sock, public_url(config, sock)) as server:
            announce(server.parts)
            await stop.wait()
            log.info("stopping")
    log.info("stopped")


async def serve_beside_others(
    settings: Settings,
    sock: socket.socket,
    url: str,
    stop: asyncio.Event,
    announce: Callable[[], None],
    *,
    is_first: bool,
) -> None:
    """Serve on a socket and a store, both `prepare`d, that other processes use too, until the event; then drain.

    Raise ConfigurationError or a BackendError when it cannot start.
    """
    async with _running(settings, sock, url, leftovers=_SURELY_LEFT, is_first=is_first):
        announce()
        await stop.wait()


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


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


def public_url(config: ServerConfig, sock: socket.socket) -> str:
    """Return the URL under which devices reach the server that listens on this socket."""
    return config.public_url or _own_url(config.bind, sock.getsockname()[1])


def _own_url(host: str, port: int) -> str:
    """Return a URL under which this machine is reached, as far as it knows."""
    name = socket.getfqdn() if host in _WILDCARDS else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"
