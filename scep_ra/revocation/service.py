"""Revoke certificates and keep one current CRL for each authority that signs its own.

A CRL is made when it is asked for and due: after a revocation, or when half of its validity has passed. Signatures
and rows are behind the ports; what a CRL looks like is in `revocation.crl`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import ClassVar, Final, Protocol

from scep_ra.ca.base import SupportsCRL
from scep_ra.errors import ScepRaError, Unavailable
from scep_ra.revocation.crl import RevocationReason, build_tbs_crl
from scep_ra.storage.base import CertificateStore, CRLState, CRLStore, StoredCertificate, StoredCRL

# Each lost race means that another node made a CRL; two in a row between reading and writing do not happen by chance.
_ATTEMPTS: Final = 3


class RevocationError(ScepRaError):
    """A revocation or CRL request cannot be met; `code` is stable for programs."""

    code: ClassVar[str]


class UnknownCertificate(RevocationError):
    """This CA has not issued a certificate with that serial."""

    code = "unknown-certificate"


class AlreadyRevoked(RevocationError):
    """The certificate was revoked before; the first date and reason stay."""

    code = "already-revoked"


class NoCRL(RevocationError):
    """The CA does not exist, or keeps its own revocation lists elsewhere."""

    code = "no-crl"


class RevocationStore(CertificateStore, CRLStore, Protocol):
    """The part of the store that revocation needs."""


class RevocationService:
    """Mark certificates as revoked, and hand out CRLs."""

    def __init__(
        self,
        *,
        store: RevocationStore,
        cas: Mapping[str, SupportsCRL],
        now: Callable[[], datetime],
        run: Callable[[Callable[[], bytes]], Awaitable[bytes]] = asyncio.to_thread,
    ) -> None:
        self._store = store
        self._cas = cas
        self._now = now
        self._run = run
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def revoke(self, ca: str, certificate_serial: int, reason: RevocationReason) -> StoredCertificate:
        """Revoke a certificate of this CA now and return it; raise UnknownCertificate or AlreadyRevoked."""
        changed = await self._store.revoke_certificate(ca, certificate_serial, self._now(), reason)
        certificate = await self._store.certificate(ca, certificate_serial)
        if certificate is None:
            raise UnknownCertificate(f"CA {ca!r} has issued no certificate with serial {certificate_serial:x}")
        if not changed:
            raise AlreadyRevoked(
                f"certificate {certificate_serial:x} is revoked since {certificate.revoked_at:%Y-%m-%d %H:%M:%SZ} "
                f"({RevocationReason(certificate.revocation_reason or 0).word})"
            )
        return certificate

    async def revoke_due(self) -> int:
        """Revoke, as superseded, the certificates whose successors have had their time; return how many."""
        revoked = 0
        while due := await self._store.due_revocations(self._now()):
            for each in due:
                # False: another node, or an operator, was faster.
                revoked += await self._store.revoke_certificate(
                    each.ca, each.certificate_serial, self._now(), RevocationReason.SUPERSEDED
                )
        return revoked

    async def current_crl(self, ca: str) -> StoredCRL:
        """Return the CRL to hand out, made anew when it is due; raise NoCRL, or Unavailable as store and CA do."""
        authority = self._cas.get(ca)
        if authority is None:
            raise NoCRL(f"no CRL is made here for CA {ca!r}: use one of {', '.join(self._cas) or 'none'}")
        crl = self._unless_due(await self._store.current_crl(ca))
        # One at a time: a hundred devices that ask after a revocation cost one signature.
        return crl or await self._renew(authority)

    async def _renew(self, authority: SupportsCRL) -> StoredCRL:
        async with self._locks[authority.name]:
            for _ in range(_ATTEMPTS):
                state = await self._store.current_crl(authority.name)
                if (crl := self._unless_due(state)) is not None:
                    return crl
                made = await self._make(authority, state)
                if await self._store.save_crl(made):
                    return made
        raise Unavailable(f"other nodes keep making CRLs for CA {authority.name!r}: ask again")

    def _unless_due(self, state: CRLState) -> StoredCRL | None:
        """Return the newest CRL, None when a newer one is due."""
        crl = state.crl
        if crl is None or state.outdated:
            return None
        half = crl.this_update + (crl.next_update - crl.this_update) / 2
        return crl if self._now() < half else None

    async def _make(self, authority: SupportsCRL, state: CRLState) -> StoredCRL:
        crl_number = 1 if state.crl is None else state.crl.crl_number + 1
        this_update = self._now()
        next_update = this_update + authority.crl_validity
        revocations = [revocation async for revocation in self._store.revocations(authority.name, this_update)]
        issuer = (await authority.chain())[0]
        tbs = await self._run(
            lambda: build_tbs_crl(
                issuer, revocations, crl_number=crl_number, this_update=this_update, next_update=next_update
            )
        )
        return StoredCRL(
            ca=authority.name,
            crl_number=crl_number,
            der=await authority.sign_crl(tbs),
            this_update=this_update,
            next_update=next_update,
            revocation_sequence=state.revocation_sequence,
        )
