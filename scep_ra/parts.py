"""The parts that server and command line share, made from settings: the store, the authorizers, the CAs, the RAs.

With `app` the composition root; apart from it so that a command that adds a device need not load a web server.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, assert_never

from scep_ra.aaa import registry as aaa_registry
from scep_ra.aaa.base import Authorizer, SupportsClose
from scep_ra.aaa.chain import AllOf, AnyOf, FirstOf
from scep_ra.aaa.guard import Guard, GuardRules, PendingOnError
from scep_ra.ca import registry as ca_registry
from scep_ra.ca.base import CertificateAuthority, SupportsCRL, SupportsOCSP
from scep_ra.ca.directory import RAMaterial, ensure_ocsp_key, ensure_ra, load_ca
from scep_ra.ca.hierarchy import RAParameters
from scep_ra.ca.local import Runner
from scep_ra.config import Settings
from scep_ra.config_aaa import GUARD_KEYS, AuthorizerConfig, AuthorizerTable, ChainTable
from scep_ra.data_directory import prepare
from scep_ra.errors import Misconfigured
from scep_ra.pki.algorithms import SignatureScheme
from scep_ra.pki.issuance import signing_scheme
from scep_ra.revocation.responder import OCSPResponder
from scep_ra.revocation.service import RevocationService
from scep_ra.storage.base import DeviceStore, Store
from scep_ra.storage.database import Database
from scep_ra.storage.migrations import Upgrade
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from scep_ra.storage.postgresql import PostgresqlDatabase

_CHAINS: Final[Mapping[str, Callable[[Mapping[str, Authorizer]], Authorizer]]] = {
    "all": AllOf,
    "any": AnyOf,
    "first": FirstOf,
}


def utc_now() -> datetime:
    """Return the wall clock, aware; the only place where the product reads it."""
    return datetime.now(UTC)


@contextlib.asynccontextmanager
async def open_store(settings: Settings, *, actor: str = "server", chain: str = "") -> AsyncIterator[Store]:
    """Open the store of a data directory, made if need be, and close it at the end.

    The audit log names the actor; its records go into a chain of this name, by default that of the node.
    """
    store = SqlStore(await open_database(settings), chain=chain or node_name(settings), actor=actor)
    try:
        yield store
    finally:
        await store.close()


def node_name(settings: Settings) -> str:
    """Return what this node is called in the audit log."""
    return settings.config.server.node or socket.gethostname()


async def open_database(settings: Settings, upgrade: Upgrade | None = None) -> Database:
    """Open the database that the configuration names, for the caller to close; raise Unavailable or Misconfigured.

    What becomes of its schema is as usual for its kind (`migrations.Upgrade`), unless `upgrade` says otherwise.
    """
    prepare(settings)
    storage = settings.config.storage
    match storage.type:
        case "sqlite":
            return await SqliteDatabase.open(settings.data_dir / storage.path, upgrade=upgrade or Upgrade.ALWAYS)
        case "postgresql":
            return await _postgresql().open(
                storage.dsn,
                password_file=settings.data_dir / storage.password_file if storage.password_file else None,
                pool_size=storage.pool_size,
                timeout_s=storage.timeout_s,
                upgrade=upgrade or Upgrade.WHEN_EMPTY,
            )
        case _:
            assert_never(storage.type)


def _postgresql() -> type[PostgresqlDatabase]:
    """Import the one implementation whose library is an extra."""
    try:
        from scep_ra.storage.postgresql import PostgresqlDatabase  # noqa: PLC0415 - not everybody has its library
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f'[storage] type = "postgresql" needs {error.name}: run pip install "scep-ra[postgresql]"'
        ) from error
    return PostgresqlDatabase


@contextlib.asynccontextmanager
async def load_authorizers(settings: Settings, devices: DeviceStore) -> AsyncIterator[Mapping[str, Authorizer]]:
    """Make every configured authorizer, by name, and close them at the end; raise ConfigurationError or Misconfigured.

    Each stands under a guard, the members of chains too; what devices hear on an error is the asked table's own.
    """
    async with contextlib.AsyncExitStack() as stack:
        guards: dict[str, Guard] = {}
        for name, table in _members_first(settings.config.aaa).items():
            if isinstance(table, ChainTable):
                authorizer = _CHAINS[table.type]({member: guards[member] for member in table.members})
            else:
                authorizer = _backend(name, table, settings, devices)
            if isinstance(authorizer, SupportsClose):
                stack.push_async_callback(authorizer.close)
            rules = GuardRules(**table.model_dump(include={rule.name for rule in fields(GuardRules)}))
            guards[name] = Guard(name, authorizer, rules, time.monotonic)
        yield {name: _on_error(guard, settings.config.aaa[name]) for name, guard in guards.items()}


def _members_first(tables: Mapping[str, AuthorizerConfig]) -> Mapping[str, AuthorizerConfig]:
    """Return the tables in an order in which every chain comes after its members; there are no rings by now."""
    ordered: dict[str, AuthorizerConfig] = {}

    def add(name: str) -> None:
        table = tables[name]
        for member in table.members if isinstance(table, ChainTable) else ():
            add(member)
        ordered.setdefault(name, table)

    for name in tables:
        add(name)
    return ordered


def _backend(name: str, table: AuthorizerTable, settings: Settings, devices: DeviceStore) -> Authorizer:
    lent = aaa_registry.Parts(
        devices=devices,
        now=utc_now,
        name=name,
        data_directory=settings.data_dir,
        timeout_s=table.timeout_s,
    )
    return aaa_registry.load_authorizer(table.type, lent, table.model_dump(exclude=set(GUARD_KEYS)))


def _on_error(guard: Guard, table: AuthorizerTable) -> Authorizer:
    match table.on_error:
        case "pending":
            return PendingOnError(guard)
        case "unavailable":
            return guard
        case _:
            assert_never(table.on_error)


def load_cas(settings: Settings, run: Runner = asyncio.to_thread) -> Mapping[str, CertificateAuthority]:
    """Return every configured CA by name, made at first start; raise ConfigurationError or Misconfigured."""
    prepare(settings)
    authorities: dict[str, CertificateAuthority] = {}
    for name, config in settings.config.ca.items():
        parts = ca_registry.Parts(
            name=name, data_directory=settings.data_dir, now=utc_now, random=secrets.token_bytes, run=run
        )
        options = config.model_dump(exclude={"type", "ocsp", "ocsp_validity_h"})
        authorities[name] = ca_registry.load_authority(config.type, parts, options)
    return authorities


def load_ras(settings: Settings) -> Mapping[str, RAMaterial]:
    """Return every configured RA by name, issued at first start by its CA (load_cas comes before)."""
    return {
        name: ensure_ra(
            settings.data_dir,
            name,
            RAParameters(**config.model_dump(exclude={"ca"})),
            load_ca(settings.data_dir, config.ca, now=utc_now()),
            now=utc_now(),
            random=secrets.token_bytes,
        )
        for name, config in settings.config.ra.items()
    }


def revocation_service(
    store: Store, authorities: Mapping[str, CertificateAuthority], run: Runner = asyncio.to_thread
) -> RevocationService:
    """Return the service that revokes and makes CRLs for the CAs that sign their own."""
    signing = {name: authority for name, authority in authorities.items() if isinstance(authority, SupportsCRL)}
    return RevocationService(store=store, cas=signing, now=utc_now, run=run)


async def ocsp_responders(
    settings: Settings,
    store: Store,
    authorities: Mapping[str, CertificateAuthority],
    run: Runner = asyncio.to_thread,
) -> Mapping[str, OCSPResponder]:
    """Return what answers OCSP, by CA, for those that let us and are not told otherwise; keys are made at first start.

    Raise Misconfigured when a key cannot be used.
    """
    responders: dict[str, OCSPResponder] = {}
    for name, authority in authorities.items():
        config = settings.config.ca[name]
        if config.ocsp and isinstance(authority, SupportsOCSP):
            issuer = (await authority.chain())[0]
            # A client that verifies the CA's signatures verifies these, and RSA keys need not be as long as the CA's.
            key_type = "ec-p256" if signing_scheme(issuer.spki)[0] is SignatureScheme.ECDSA else "rsa-2048"
            responders[name] = OCSPResponder(
                authority=authority,
                issuer=issuer,
                key=await asyncio.to_thread(ensure_ocsp_key, settings.data_dir, name, key_type),
                store=store,
                validity=timedelta(hours=config.ocsp_validity_h),
                now=utc_now,
                run=run,
            )
    return responders
