"""Enrollment of one profile: idempotency, proof, authorization, durable issuance.

Order of things (nothing may be swapped): what is known -> who is it -> proof -> AAA -> intent committed -> sign ->
certificate committed -> answer. Every step can be repeated with the same request.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Decision, Defer, Reject
from scep_ra.ca.base import CertificateAuthority, Issued, IssuePending, IssueRequest
from scep_ra.enrollment.challenges import (
    ChallengeRule,
    NoChallenge,
    OneTimeChallenge,
    StaticChallenge,
    challenge_digest,
    check_challenge,
    check_static_challenge,
)
from scep_ra.enrollment.errors import (
    IdentityRefused,
    IssuanceRefused,
    NotAuthorized,
    RenewalRefused,
    TransactionConflict,
    UnknownTransaction,
)
from scep_ra.enrollment.renewal import RenewalRules, check_live, check_renewal, check_window
from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.enrollment.types import (
    EnrollmentRequest,
    ExistingCertificate,
    Granted,
    IdentityProof,
    Outcome,
    StandIn,
    Undecided,
)
from scep_ra.errors import Refused, Unavailable
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.extract import choose_device_id, extract_claims
from scep_ra.identity.types import DeviceID
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import parse_request
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.issuance import new_certificate_serial
from scep_ra.pki.lint import CertificateFault, check_end_entity, check_signature
from scep_ra.pki.profiles import CertificateProfile
from scep_ra.storage.base import (
    AlreadyRenewed,
    ChallengeSpent,
    Dossier,
    DuplicateEnrollment,
    Enrollment,
    EnrollmentKey,
    Store,
    StoredCertificate,
)

log = structlog.stdlib.get_logger(__name__)

# Clocks of devices lag behind ours; a certificate from the future is refused by VPN peers.
_BACKDATE: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRules:
    """What a profile decides about enrollment."""

    profile: str
    device_id_rules: Sequence[str]
    certificate: CertificateProfile
    validity: timedelta
    replay: timedelta  # how long the same request gets the same certificate
    challenge: ChallengeRule = field(default_factory=OneTimeChallenge)
    renewal: RenewalRules = field(default_factory=RenewalRules)


class EnrollmentService:
    """Submit and poll for one profile."""

    def __init__(
        self,
        *,
        rules: EnrollmentRules,
        store: Store,
        authorizer: Authorizer,
        ca: CertificateAuthority,
        now: Callable[[], datetime],
        random: Callable[[int], bytes],
    ) -> None:
        self._rules = rules
        self._store = store
        self._authorizer = authorizer
        self._ca = ca
        self._now = now
        self._random = random
        self._under_way: dict[str, asyncio.Task[Outcome]] = {}

    # --- PKCSReq and RenewalReq

    async def submit(self, request: EnrollmentRequest) -> Outcome:
        """Enroll or renew, or say again what was said; raise EnrollmentError, or a BackendError when unsure."""
        key = self._key(request.transaction_id, request.proof)
        csr_digest = hashlib.sha256(request.csr.der).digest()
        spend = self._digest_to_spend(request)
        dossier = await self._store.dossier(key, csr_digest, spend)
        if dossier.same is not None:
            return await self._again(dossier.same, dossier.certificate, request.source)
        if dossier.latest is not None and dossier.latest.state in (EnrollmentState.PENDING, EnrollmentState.ISSUING):
            raise TransactionConflict("another request is under way under this transactionID")
        device_id = self._identify(request)
        renewal_of = await self._check_proof(request, device_id, dossier)
        enrollment = self._new_enrollment(
            request=request,
            key=key,
            csr_digest=csr_digest,
            device_id=device_id,
            renewal_of=renewal_of,
        )
        try:
            return await self._decide(enrollment, spend, request.source)
        except DuplicateEnrollment:
            # The same request came twice at once and the other one won: answer what it answers.
            dossier = await self._store.dossier(key, csr_digest, None)
            if dossier.same is None:
                raise Unavailable("an enrollment vanished while it was under way") from None
            return await self._again(dossier.same, dossier.certificate, request.source)
        except ChallengeSpent:
            raise NotAuthorized("the challenge was used by another request meanwhile") from None
        except AlreadyRenewed:
            raise RenewalRefused("the certificate was renewed by another request meanwhile") from None

    def _digest_to_spend(self, request: EnrollmentRequest) -> bytes | None:
        """Return the digest of the one-time challenge that this request would use up."""
        is_one_time = isinstance(request.proof, StandIn) and isinstance(self._rules.challenge, OneTimeChallenge)
        secret = request.csr.challenge_password if is_one_time else None
        return None if secret is None else challenge_digest(secret)

    def _key(self, transaction_id: str, proof: IdentityProof) -> EnrollmentKey:
        return EnrollmentKey(profile=self._rules.profile, transaction_id=transaction_id, requester=proof.requester)

    def _identify(self, request: EnrollmentRequest) -> DeviceID:
        try:
            claims = extract_claims(
                subject=request.csr.subject,
                subject_alt_name=request.csr.subject_alt_name,
                unstructured_names=request.csr.unstructured_names,
                rules=self._rules.device_id_rules,
            )
            return choose_device_id(claims)
        except (IdentityError, MalformedData) as error:
            raise IdentityRefused(str(error)) from error

    async def _check_proof(self, request: EnrollmentRequest, device_id: DeviceID, dossier: Dossier) -> int | None:
        """Check challenge or certificate; return the serial of the certificate that is renewed, if one is."""
        match request.proof:
            case StandIn():
                self._check_challenge(request, device_id, dossier)
                return None
            case ExistingCertificate(certificate=signer):
                # A challenge beside the certificate is not looked at: FortiOS and Junos send the one of long ago.
                stored = await self._store.certificate(self._ca.name, signer.certificate_serial)
                stored = check_live(stored, signer, self._rules.profile)
                check_renewal(request.csr, stored, signer, self._rules.renewal)
                check_window(signer, self._now(), self._rules.renewal)
                if stored.device_id != device_id:
                    raise RenewalRefused(f"the request names {device_id}, the certificate is {stored.device_id}'s")
                return stored.certificate_serial
            case _:
                assert_never(request.proof)

    def _check_challenge(self, request: EnrollmentRequest, device_id: DeviceID, dossier: Dossier) -> None:
        match self._rules.challenge:
            case OneTimeChallenge():
                check_challenge(dossier.challenge, device_id=device_id, profile=self._rules.profile, now=self._now())
            case StaticChallenge() as rule:
                check_static_challenge(request.csr.challenge_password, rule)
            case NoChallenge():
                raise NotAuthorized("this profile enrolls by certificate only")
            case _:
                assert_never(self._rules.challenge)

    def _new_enrollment(
        self,
        *,
        request: EnrollmentRequest,
        key: EnrollmentKey,
        csr_digest: bytes,
        device_id: DeviceID,
        renewal_of: int | None,
    ) -> Enrollment:
        now = self._now()
        return Enrollment(
            enrollment_id=self._random(16).hex(),
            key=key,
            csr_digest=csr_digest,
            csr=request.csr.der,
            ca=self._ca.name,
            state=EnrollmentState.PENDING,
            device_id=device_id,
            renewal_of=renewal_of,
            certificate_serial=None,
            order=None,
            created_at=now,
            updated_at=now,
        )

    async def _decide(self, enrollment: Enrollment, spend: bytes | None, source: str) -> Outcome:
        """Ask AAA about a request seen for the first time, and record what follows from the answer."""
        decision = await self._authorizer.authorize(self._access_request(enrollment, source))
        match decision:
            case Accept():
                reserved = self._reserve(enrollment)
                await self._store.insert_enrollment(reserved, spend=spend)
                return await self._issue(reserved)
            case Reject(reason=reason):
                raise NotAuthorized(reason)
            case Defer(reason=reason):
                # The challenge is taken now: what waits for approval must not lose it to another request.
                await self._store.insert_enrollment(enrollment, spend=spend)
                log.info("enrollment_deferred", **self._facts(enrollment), reason=reason)
                return Undecided()
            case _:
                assert_never(decision)

    # --- CertPoll, and the same request again

    async def poll(self, transaction_id: str, proof: IdentityProof, source: str) -> Outcome:
        """Say how the newest request under this transactionID and key stands; raise EnrollmentError."""
        found = await self._store.latest_enrollment(self._key(transaction_id, proof))
        if found is None:
            raise UnknownTransaction("no request is known under this transactionID and key")
        return await self._again(*found, source)

    async def _again(self, enrollment: Enrollment, certificate: StoredCertificate | None, source: str) -> Outcome:
        """Answer a request that is known; AAA is asked again before a certificate leaves."""
        match enrollment.state:
            case EnrollmentState.REJECTED:
                raise NotAuthorized("the request was rejected")
            case EnrollmentState.FAILED:
                raise IssuanceRefused("the certification authority declined the request")
            case EnrollmentState.PENDING:
                return await self._decide_pending(enrollment, source)
            case EnrollmentState.ISSUING:
                await self._check_authorized(enrollment, source)
                return await self.resume(enrollment)
            case EnrollmentState.ISSUED:
                await self._check_authorized(enrollment, source)
                return Granted(certificate=self._issued_before(enrollment, certificate))
            case _:
                assert_never(enrollment.state)

    async def _decide_pending(self, enrollment: Enrollment, source: str) -> Outcome:
        decision = await self._ask_again(enrollment, source)
        match decision:
            case Accept():
                return await self._approve(enrollment, source)
            case Reject(reason=reason):
                await self._store.advance(
                    enrollment.enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.REJECT, self._now()
                )
                raise NotAuthorized(reason)
            case Defer():
                return Undecided()
            case _:
                assert_never(decision)

    async def _approve(self, enrollment: Enrollment, source: str) -> Outcome:
        reserved = self._reserve(enrollment)
        try:
            approved = await self._store.advance(
                enrollment.enrollment_id,
                EnrollmentState.PENDING,
                EnrollmentEvent.APPROVE,
                self._now(),
                certificate_serial=reserved.certificate_serial,
                order=reserved.order,
            )
        except AlreadyRenewed:
            raise RenewalRefused("the certificate was renewed by another request meanwhile") from None
        if approved:
            return await self._issue(reserved)
        # Another poll or node was faster; what it reserved counts, not what we did.
        current, certificate = await self._reread(enrollment)
        return await self._again(current, certificate, source)

    async def _check_authorized(self, enrollment: Enrollment, source: str) -> None:
        decision = await self._ask_again(enrollment, source)
        match decision:
            case Accept():
                return
            case Reject(reason=reason) | Defer(reason=reason):
                raise NotAuthorized(f"no longer authorized: {reason}")
            case _:
                assert_never(decision)

    async def _ask_again(self, enrollment: Enrollment, source: str) -> Decision:
        """Ask AAA; a certificate revoked since it asked for its successor is a no, whatever AAA says."""
        if enrollment.renewal_of is not None:
            renewed = await self._store.certificate(enrollment.ca, enrollment.renewal_of)
            if renewed is None or renewed.revoked_at is not None:
                return Reject(reason="the certificate to be renewed was revoked meanwhile")
        return await self._authorizer.authorize(self._access_request(enrollment, source))

    def _issued_before(self, enrollment: Enrollment, stored: StoredCertificate | None) -> Certificate:
        if stored is None:
            raise Unavailable("an issued certificate is not in the store")
        if stored.revoked_at is not None:
            raise NotAuthorized("the certificate of this request was revoked")
        if self._now() > enrollment.updated_at + self._rules.replay:
            raise NotAuthorized("the request is too old to be answered again")
        return parse_certificate(stored.der)

    async def _reread(self, enrollment: Enrollment) -> tuple[Enrollment, StoredCertificate | None]:
        dossier = await self._store.dossier(enrollment.key, enrollment.csr_digest, None)
        if dossier.same is None:
            raise Unavailable("an enrollment vanished while it was under way")
        return dossier.same, dossier.certificate

    def _access_request(self, enrollment: Enrollment, source: str) -> AccessRequest:
        return AccessRequest(
            device_id=enrollment.device_id,
            profile=self._rules.profile,
            source=source,
            renewal=enrollment.renewal_of is not None,
        )

    # --- issuance

    def _reserve(self, enrollment: Enrollment) -> Enrollment:
        """Return the enrollment as ISSUING, with a serial and the order that will be signed."""
        now = self._now()
        csr = parse_request(enrollment.csr)
        serial = new_certificate_serial(self._random)
        wanted = IssueRequest(
            certificate_serial=serial,
            subject=csr.subject,
            spki=csr.spki,
            subject_alt_name=None,
            not_before=now - _BACKDATE,
            not_after=now + self._rules.validity,
            profile=self._rules.certificate,
        )
        try:
            order = self._ca.prepare(wanted)
        except Refused as error:
            raise IssuanceRefused(str(error)) from error
        return replace(
            enrollment, state=EnrollmentState.ISSUING, certificate_serial=serial, order=order, updated_at=now
        )

    async def resume(self, enrollment: Enrollment) -> Outcome:
        """Carry out an intent found open; the same order gives the same certificate, should it exist already."""
        return await self._once(enrollment, self._finish)

    async def _issue(self, enrollment: Enrollment) -> Outcome:
        """Carry out an intent that has just been recorded."""
        return await self._once(enrollment, self._carry_out)

    async def _once(
        self, enrollment: Enrollment, work: Callable[[Enrollment], Coroutine[None, None, Outcome]]
    ) -> Outcome:
        """Work on an enrollment once at a time, however many requests wait for it."""
        identifier = enrollment.enrollment_id
        under_way = self._under_way.get(identifier)
        if under_way is None:
            under_way = asyncio.create_task(work(enrollment))
            self._under_way[identifier] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(identifier, None))
        # Whoever asked may go away; what has been begun is finished.
        return await asyncio.shield(under_way)

    async def _finish(self, enrollment: Enrollment) -> Outcome:
        """Carry out an intent unless somebody has done so, or failed to, since it was read."""
        current, certificate = await self._reread(enrollment)
        if current.state is EnrollmentState.ISSUED:
            return Granted(certificate=self._issued_before(current, certificate))
        if current.state is EnrollmentState.FAILED:
            raise IssuanceRefused("the certification authority declined the request")
        return await self._carry_out(enrollment)

    async def _carry_out(self, enrollment: Enrollment) -> Outcome:
        if enrollment.order is None:
            raise Unavailable("an enrollment without an order cannot be issued")
        try:
            result = await self._ca.issue(enrollment.order)
        except Unavailable as error:
            log.warning("ca_unavailable", **self._facts(enrollment), reason=str(error))
            return Undecided()
        except Refused as error:
            await self._fail(enrollment)
            raise IssuanceRefused(str(error)) from error
        match result:
            case Issued(certificate=certificate):
                await self._check_as_ordered(enrollment, certificate)
                return await self._keep(enrollment, certificate)
            case IssuePending():
                return Undecided()
            case _:
                assert_never(result)

    async def _check_as_ordered(self, enrollment: Enrollment, certificate: Certificate) -> None:
        """Trust no CA: the certificate is for the key and name that were authorized, or nobody gets it."""
        issuer = (await self._ca.chain())[0]
        try:
            if certificate.tbs == enrollment.order:  # a CA of ours: what was signed is what was approved, to the bit
                check_signature(certificate, issuer=issuer)
            else:
                csr = parse_request(enrollment.csr)
                check_end_entity(
                    certificate,
                    issuer=issuer,
                    certificate_serial=enrollment.certificate_serial or 0,
                    subject=csr.subject,
                    spki=csr.spki,
                )
        except CertificateFault as error:
            log.error(  # noqa: TRY400 - the text says it all
                "certificate_quarantined",
                **self._facts(enrollment),
                reason=str(error),
                certificate=certificate.der.hex(),
            )
            await self._fail(enrollment)
            raise IssuanceRefused(f"CA {self._ca.name!r} did not issue what was ordered: {error}") from error

    async def _fail(self, enrollment: Enrollment) -> None:
        await self._store.advance(enrollment.enrollment_id, EnrollmentState.ISSUING, EnrollmentEvent.FAIL, self._now())

    async def _keep(self, enrollment: Enrollment, certificate: Certificate) -> Outcome:
        """Store the certificate before anybody sees it."""
        now = self._now()
        stored = StoredCertificate(
            certificate_serial=certificate.certificate_serial,
            ca=self._ca.name,
            profile=self._rules.profile,
            device_id=enrollment.device_id,
            der=certificate.der,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            issued_at=now,
        )
        if not await self._store.complete(enrollment.enrollment_id, stored, now):
            # Another node carried the same order out; its row is the truth.
            current, kept = await self._reread(enrollment)
            return Granted(certificate=self._issued_before(current, kept))
        log.info(
            "certificate_issued",
            **self._facts(enrollment),
            certificate_serial=f"{certificate.certificate_serial:x}",
            not_after=certificate.not_after.isoformat(),
        )
        return Granted(certificate=certificate)

    def _facts(self, enrollment: Enrollment) -> dict[str, str]:
        """Return what a log line about an enrollment says of it."""
        return {
            "profile": self._rules.profile,
            "device_id": str(enrollment.device_id),
            "transaction_id": enrollment.key.transaction_id,
            "enrollment_id": enrollment.enrollment_id,
        }
