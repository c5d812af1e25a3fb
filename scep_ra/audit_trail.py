"""What the server says of itself for the record: starts and stops, the keys it uses, and where the audit log stands.

What is done to devices and certificates is recorded by the store, in the same transaction; that does not belong here.
"""

from __future__ import annotations

import hashlib
import json

import structlog

import scep_ra
from scep_ra.config import Config
from scep_ra.endpoints import Parts
from scep_ra.errors import ScepRaError
from scep_ra.parts import utc_now
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.audit_chain import AuditEvent, AuditHead

log = structlog.stdlib.get_logger(__name__)


def configuration_digest(config: Config) -> str:
    """Return the SHA-256 of all options, defaults included, in hexadecimal: it differs when any of them does."""
    options = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(options.encode()).hexdigest()


class AuditTrail:
    """Writes the server's own records, and reports heads that moved to the security events."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reported: dict[str, AuditHead] = {}

    async def record_start(self) -> None:
        """Record version, configuration and every key in use; raise a BackendError: without it nothing is served."""
        config = self._parts.settings.config
        await self._record(
            AuditEvent.SERVER_STARTED, version=scep_ra.__version__, configuration_sha256=configuration_digest(config)
        )
        certificates = {f"ca.{name}": chain[0] for name, chain in self._parts.chains.items()}
        certificates |= {f"ra.{name}": ra.certificate for name, ra in self._parts.ras.items()}
        for key, certificate in certificates.items():
            await self._record(AuditEvent.KEY_LOADED, key=key, certificate_sha256=certificate.fingerprint())
        for name, authorizer in config.aaa.items():
            if authorizer.type == "accept-all":
                security_event(SecurityEvent.ACCEPT_ALL, authorizer=name)
        await self.report_heads()

    async def record_stop(self) -> None:
        """Record the end; a store that is away is logged and keeps nobody from ending."""
        try:
            await self._record(AuditEvent.SERVER_STOPPED)
            await self.report_heads()
        except ScepRaError as error:
            log.warning("stop_not_recorded", reason=str(error))

    async def report_heads(self) -> None:
        """Report every head that moved since the last call, so that who collects the events holds anchors.

        Those of other nodes, too: each vouches for all.
        """
        for head in await self._parts.store.audit_heads():
            if self._reported.get(head.chain) != head:
                security_event(
                    SecurityEvent.AUDIT_HEAD,
                    chain=head.chain,
                    sequence=head.sequence,
                    digest=head.digest.hex(),
                    anchor=str(head),
                )
                self._reported[head.chain] = head

    async def _record(self, event: AuditEvent, **facts: str) -> None:
        await self._parts.store.record_audit(event, facts, utc_now())
