"""Answer OCSP requests about the certificates of one authority (RFC 6960), from the store as it is this moment.

A key of its own signs, under a certificate that the authority issues for some days and that is renewed in time. What
octets look like is in `revocation.ocsp`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from scep_ra.ca.base import SupportsOCSP
from scep_ra.errors import BackendError, Misconfigured
from scep_ra.pki.algorithms import Digest
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import PKIError
from scep_ra.pki.issuance import signature_algorithm, signing_scheme
from scep_ra.pki.keys import Signer
from scep_ra.pki.lint import check_contents, check_signature
from scep_ra.revocation.ocsp import (
    CertID,
    CertStatus,
    Good,
    OCSPRequest,
    Revoked,
    Unknown,
    assemble_response,
    build_tbs_response,
    key_bits,
    parse_request,
    responder_id,
)
from scep_ra.revocation.service import RevocationError
from scep_ra.storage.base import StoredCertificate

log = structlog.stdlib.get_logger(__name__)

# RFC 6960 4.3 knows SHA-1, RFC 5019 wants it; newer clients take SHA-256, and the others cost nothing.
_CERT_ID_DIGESTS: Final = (Digest.SHA1, Digest.SHA256, Digest.SHA384, Digest.SHA512)
_KEPT_ANSWERS: Final = 8192  # of about 1.5 KiB each
# With SHA-512 and a serial of 20 octets a CertID has 175; a longer one is of nobody, and would be kept twice.
_MAX_KEPT_CERT_ID_BYTES: Final = 200
_RETRY: Final = timedelta(minutes=1)


class ForeignIssuer(RevocationError):
    """An OCSP request names only certificates of other authorities."""

    code = "foreign-issuer"


class StatusStore(Protocol):
    """The part of the store that answers need."""

    async def certificate(self, ca: str, certificate_serial: int) -> StoredCertificate | None:
        """Return the certificate, revoked or not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A signed OCSPResponse."""

    der: bytes
    this_update: datetime
    has_nonce: bool  # then it is for one client only


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mandate:
    """What entitles our key to answer."""

    certificate: Certificate
    renew_at: datetime


class OCSPResponder:
    """What answers for one authority."""

    def __init__(
        self,
        *,
        authority: SupportsOCSP,
        issuer: Certificate,
        key: Signer,
        store: StatusStore,
        validity: timedelta,
        now: Callable[[], datetime],
        run: Callable[[Callable[[], bytes]], Awaitable[bytes]] = asyncio.to_thread,
    ) -> None:
        """`issuer` is the authority's certificate, `validity` what lies between thisUpdate and nextUpdate."""
        self._authority = authority
        self._issuer = issuer
        self._key = key
        self._store = store
        self._validity = validity
        self._now = now
        self._run = run
        self._digest = signing_scheme(key.spki)[1]
        self._algorithm = signature_algorithm(key.spki)
        self._responder_id = responder_id(key.spki)
        name, bits = issuer.subject, key_bits(issuer.spki)
        self._own_names = {(digest, digest.of(name), digest.of(bits)) for digest in _CERT_ID_DIGESTS}
        self._mandate: _Mandate | None = None
        self._renewal = asyncio.Lock()
        self._kept: OrderedDict[tuple[bytes, CertStatus, bytes], Answer] = OrderedDict()

    async def check(self) -> None:
        """Have a certificate that entitles us to answer, renewed if it is time; raise a BackendError."""
        await self._current_mandate()

    async def answer(self, octets: bytes) -> Answer:
        """Answer a DER OCSPRequest; raise PKIError when it is malformed, ForeignIssuer, or a BackendError.

        Whatever has been kept, each status is read from the store first.
        """
        request = parse_request(octets)
        if not any(map(self._is_ours, request.cert_ids)):
            raise ForeignIssuer(f"the OCSP request names no certificate of CA {self._authority.name!r}")
        mandate = await self._current_mandate()
        answers = [(cert_id, await self._status(cert_id)) for cert_id in request.cert_ids]
        is_long = len(request.cert_ids[0].der) > _MAX_KEPT_CERT_ID_BYTES
        if request.nonce is not None or len(answers) > 1 or is_long:
            return await self._sign(request, answers, mandate.certificate)
        return await self._sign_once(request, answers[0], mandate.certificate)

    # --- what it says ----------------------------------------------------------------------------------------------

    def _is_ours(self, cert_id: CertID) -> bool:
        return (cert_id.digest, cert_id.issuer_name_hash, cert_id.issuer_key_hash) in self._own_names

    async def _status(self, cert_id: CertID) -> CertStatus:
        # RFC 6960 2.2: unknown, too, is what somebody else issued.
        if not self._is_ours(cert_id):
            return Unknown()
        stored = await self._store.certificate(self._authority.name, cert_id.certificate_serial)
        if stored is None:
            return Unknown()
        if stored.revoked_at is None:
            return Good()
        return Revoked(revoked_at=stored.revoked_at, reason=stored.revocation_reason or 0)

    async def _sign_once(
        self, request: OCSPRequest, answer: tuple[CertID, CertStatus], certificate: Certificate
    ) -> Answer:
        """Return what was signed before for the same question, status and certificate, while half of its time is left.

        The status is part of the key, so a revocation ends what was said before it without any notice.
        """
        cert_id, status = answer
        key = cert_id.der, status, certificate.der
        kept = self._kept.get(key)
        if kept is None or self._now() >= kept.this_update + self._validity / 2:
            kept = self._kept[key] = await self._sign(request, [answer], certificate)
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT_ANSWERS:
            self._kept.popitem(last=False)
        return kept

    async def _sign(
        self, request: OCSPRequest, answers: list[tuple[CertID, CertStatus]], certificate: Certificate
    ) -> Answer:
        now = self._now()
        tbs = build_tbs_response(
            self._responder_id,
            answers,
            this_update=now,
            next_update=min(now + self._validity, certificate.not_after),
            nonce=request.nonce,
        )
        signature = await self._run(lambda: self._key.sign(tbs, self._digest))
        octets = assemble_response(tbs, self._algorithm, signature, certificate)
        return Answer(der=octets, this_update=now, has_nonce=request.nonce is not None)

    # --- by what right ---------------------------------------------------------------------------------------------

    async def _current_mandate(self) -> _Mandate:
        if (mandate := self._unless_due(self._mandate)) is not None:
            return mandate
        async with self._renewal:
            # Another request may have been faster.
            mandate = self._unless_due(self._mandate) or await self._renewed(self._mandate)
            self._mandate = mandate
            return mandate

    def _unless_due(self, mandate: _Mandate | None) -> _Mandate | None:
        return mandate if mandate is not None and self._now() < mandate.renew_at else None

    async def _renewed(self, before: _Mandate | None) -> _Mandate:
        """Return a new mandate, or for a minute the one before when the authority gives no other and it will do."""
        now = self._now()
        try:
            certificate = await self._certify()
        except BackendError as error:
            if before is None or before.certificate.not_after <= now + self._validity:
                raise
            log.warning("ocsp_renewal_failed", ca=self._authority.name, reason=str(error))
            return _Mandate(certificate=before.certificate, renew_at=now + _RETRY)
        log.info(
            "ocsp_key_certified",
            ca=self._authority.name,
            certificate_serial=f"{certificate.certificate_serial:x}",
            not_after=certificate.not_after.isoformat(),
        )
        return _Mandate(certificate=certificate, renew_at=now + (certificate.not_after - now) / 2)

    async def _certify(self) -> Certificate:
        certificate = await self._authority.certify_ocsp_key(self._key.spki)
        try:
            check_contents(certificate, issuer=self._issuer)
            check_signature(certificate, issuer=self._issuer)
        except PKIError as error:
            raise Misconfigured(f"CA {self._authority.name!r} certifies the OCSP key wrongly: {error}") from error
        return certificate
