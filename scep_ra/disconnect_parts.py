"""What cuts devices off, made from settings, for server and command line: the outbox, the service, the sync with AAA.

With `parts` of the composition root. What these do is in `headend`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from scep_ra.aaa.base import Authorizer
from scep_ra.config import Settings
from scep_ra.errors import Misconfigured
from scep_ra.headend.disconnect import CRLs, DisconnectService
from scep_ra.headend.outbox import Outbox, Sender
from scep_ra.headend.sync import AccessSync, DeletionCap, ProfileAccess
from scep_ra.parts import load_cas, revocation_service, utc_now
from scep_ra.revocation.service import RevocationService
from scep_ra.secret_files import read_secret
from scep_ra.storage.base import Store, StoredCRL
from scep_ra.storage.sessions import MessageKind

# Authorizers that are part of this program: what they let in changes with our knowing.
_OWN_TYPES: Final = frozenset({"registry", "accept-all"})


def make_outbox(settings: Settings, store: Store) -> Outbox:
    """Return the outbox over the headends and webhooks of the configuration; raise Misconfigured.

    Secrets are read when something is sent: a disconnect must not fail for want of one.
    """
    senders: dict[MessageKind, Sender] = {}
    if any(headend.disconnect_port for headend in settings.config.headend.values()):
        senders[MessageKind.DISCONNECT] = _disconnect_sender(settings, store)
    if settings.config.webhook:
        senders[MessageKind.WEBHOOK] = _webhook_sender(settings)
    return Outbox(store=store, senders=senders, now=utc_now)


def make_disconnects(
    settings: Settings, store: Store, outbox: Outbox, crls: CRLs, authorizers: Mapping[str, Authorizer]
) -> DisconnectService:
    """Return the service that cuts devices off."""
    return DisconnectService(
        store=store,
        outbox=outbox,
        revocations=crls,
        authorizers=authorizers.values(),
        webhooks=tuple(settings.config.webhook),
        now=utc_now,
        random=secrets.token_bytes,
    )


def make_sync(
    settings: Settings, store: Store, authorizers: Mapping[str, Authorizer], disconnects: DisconnectService
) -> AccessSync:
    """Return what asks AAA again about everybody."""
    profiles = {
        name: ProfileAccess(
            authorizer=authorizers[profile.authorizer],
            service=profile.service,
            is_external=settings.config.aaa[profile.authorizer].type not in _OWN_TYPES,
        )
        for name, profile in settings.config.profile.items()
    }
    return AccessSync(store=store, profiles=profiles, disconnects=disconnects, now=utc_now)


def deletion_cap(text: str) -> DeletionCap:
    """Return the cap that an option means; "" = the usual one. Raise ValueError."""
    return DeletionCap.parse(text) if text else DeletionCap()


class LateCRLs:
    """disconnect.CRLs that loads the keys of the CAs when the first CRL is asked for: most disconnects need none."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._service: RevocationService | None = None
        self._loading = asyncio.Lock()

    async def current_crl(self, ca: str) -> StoredCRL:
        """Return a CRL that knows all revocations; raise NoCRL, a BackendError or ConfigurationError."""
        async with self._loading:
            service = self._service = self._service or await self._load()
        return await service.current_crl(ca)

    async def _load(self) -> RevocationService:
        return revocation_service(self._store, await asyncio.to_thread(load_cas, self._settings))


def _disconnect_sender(settings: Settings, store: Store) -> Sender:
    try:
        from scep_ra.headend.dae import DisconnectSender, DisconnectTarget  # noqa: PLC0415 - not everybody has pyrad
    except ModuleNotFoundError as error:
        raise Misconfigured(f'[headend.NAME] needs {error.name}: run pip install "scep-ra[radius]"') from error
    targets = [
        DisconnectTarget(
            name=name,
            network=headend.network(),
            port=headend.disconnect_port,
            read_secret=partial(_read_octets, settings.data_dir / headend.secret_file),
        )
        for name, headend in settings.config.headend.items()
        if headend.disconnect_port
    ]
    return DisconnectSender(targets, sessions=store, now=utc_now)


def _read_octets(file: Path) -> bytes:
    return read_secret(file).encode()


def _webhook_sender(settings: Settings) -> Sender:
    # The client takes longer to import than a command may take to start.
    from scep_ra.headend.webhooks import Webhook, WebhookSender  # noqa: PLC0415

    return WebhookSender(
        Webhook(
            name=name,
            url=webhook.url,
            read_secret=partial(read_secret, settings.data_dir / webhook.secret_file) if webhook.secret_file else None,
            ca_file=settings.data_dir / webhook.ca_file if webhook.ca_file else None,
        )
        for name, webhook in settings.config.webhook.items()
    )
