"""The part of the store that revocation needs, in dictionaries, with the port's words kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from scep_ra.identity.types import DeviceID
from scep_ra.storage.base import CRLState, Revocation, StoredCertificate, StoredCRL


class MemoryRevocationStore:
    """CertificateStore and CRLStore in memory."""

    def __init__(self, certificates: Iterable[StoredCertificate] = ()) -> None:
        self.certificates = {(row.ca, row.certificate_serial): row for row in certificates}
        self.crls: dict[str, StoredCRL] = {}
        self.lost_races = 0  # so many times another node saves first

    async def certificate(self, ca: str, certificate_serial: int) -> StoredCertificate | None:
        return self.certificates.get((ca, certificate_serial))

    async def list_certificates(self, device_id: DeviceID | None = None) -> Sequence[StoredCertificate]:
        return [row for row in self.certificates.values() if device_id in (None, row.device_id)]

    async def current_certificates(
        self, device_ids: Collection[DeviceID], now: datetime
    ) -> Sequence[StoredCertificate]:
        good = [row for row in self.certificates.values() if row.revoked_at is None and row.successor is None]
        return [row for row in good if row.device_id in device_ids and row.not_after > now]

    async def due_revocations(self, now: datetime, limit: int = 100) -> Sequence[StoredCertificate]:
        due = [(row.revoke_at, row) for row in self.certificates.values() if row.revoke_at and not row.revoked_at]
        return [row for at, row in sorted(due, key=lambda entry: entry[0]) if at <= now][:limit]

    async def revoke_certificate(self, ca: str, certificate_serial: int, now: datetime, reason: int) -> bool:
        row = self.certificates.get((ca, certificate_serial))
        if row is None or row.revoked_at is not None:
            return False
        self.certificates[ca, certificate_serial] = replace(row, revoked_at=now, revocation_reason=reason)
        return True

    async def revocations(self, ca: str, now: datetime) -> AsyncIterator[Revocation]:
        for row in sorted(self.certificates.values(), key=lambda row: row.certificate_serial):
            if row.ca == ca and row.revoked_at is not None and row.not_after >= now:
                yield Revocation(
                    certificate_serial=row.certificate_serial,
                    revoked_at=row.revoked_at,
                    reason=row.revocation_reason or 0,
                )

    async def current_crl(self, ca: str) -> CRLState:
        revoked = sum(row.ca == ca and row.revoked_at is not None for row in self.certificates.values())
        return CRLState(crl=self.crls.get(ca), revocation_sequence=revoked)

    async def save_crl(self, crl: StoredCRL) -> bool:
        if self.lost_races:
            self.lost_races -= 1
            return False
        newest = self.crls.get(crl.ca)
        if newest is not None and newest.crl_number >= crl.crl_number:
            return False
        self.crls[crl.ca] = crl
        return True
