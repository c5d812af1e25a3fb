"""Enrollment of one profile: idempotency, proof, authorization, durable issuance.

Order of things (nothing may be swapped): what is known -> who is it -> proof -> AAA -> intent committed -> sign ->
certificate committed -> answer. Every step can be repeated with the same request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, assert_never

import structlog

from scep_ra.aaa.base import Accept, Authorizer, Decision, Defer, Reject
from scep_ra.ca.base import CertificateAuthority
from scep_ra.enrollment.authorization import access_request
from scep_ra.enrollment.challenges import AskedChallenge, OneTimeChallenge, challenge_digest
from scep_ra.enrollment.decisions import Deliberation
from scep_ra.enrollment.errors import (
    EnrollmentError,
    IssuanceRefused,
    KeyRefused,
    NotAuthorized,
    QuotaExceeded,
    RenewalRefused,
    SecondKeyRefused,
    TransactionConflict,
    UnknownTransaction,
)
from scep_ra.enrollment.identification import Identification, Requester
from scep_ra.enrollment.issuance import Issuer, facts_of, reread
from scep_ra.enrollment.lockout import Lockout
from scep_ra.enrollment.naming import CertificateNames
from scep_ra.enrollment.notices import Notices
from scep_ra.enrollment.renewal import check_still_entitled
from scep_ra.enrollment.rules import Approval, CertificateRules, EnrollmentRules, SecondKey
from scep_ra.enrollment.states import UNDER_WAY, EnrollmentEvent, EnrollmentState
from scep_ra.enrollment.types import EnrollmentRequest, Granted, IdentityProof, Outcome, StandIn, Undecided
from scep_ra.pki.csr import parse_request
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.base import (
    AlreadyRenewed,
    ChallengeSpent,
    DecisionOutcome,
    DuplicateEnrollment,
    Enrollment,
    EnrollmentKey,
    IssuanceLimits,
    KeyInUse,
    QuotaReached,
    SecondKeyFound,
    Store,
    StoredCertificate,
    StoredDecision,
)

log = structlog.stdlib.get_logger(__name__)


class Refusals(Protocol):
    """Where decision records of refused requests go."""

    def note(self, decision: StoredDecision) -> None:
        """Take a record; neither waits nor raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """A request that is judged as new, and what goes when it is recorded."""

    request: EnrollmentRequest
    spend: bytes | None  # digest of the one-time challenge that it uses up
    closes: str | None  # enrollment_id of the same request long ago


class EnrollmentService:
    """Submit and poll for one profile."""

    def __init__(
        self,
        *,
        rules: EnrollmentRules,
        store: Store,
        authorizer: Authorizer,
        ca: CertificateAuthority,
        lockout: Lockout,
        refusals: Refusals,
        forbidden_keys: frozenset[bytes],
        other_contents: Mapping[str, CertificateRules],
        now: Callable[[], datetime],
        random: Callable[[int], bytes],
    ) -> None:
        """`forbidden_keys` are SHA-256 of SubjectPublicKeyInfos of authorities; `other_contents` as for the Issuer."""
        self._rules = rules
        self._store = store
        self._authorizer = authorizer
        self._ca = ca.name
        self._refusals = refusals
        self._forbidden_keys = forbidden_keys
        self._now = now
        self._random = random
        self._identification = Identification(rules=rules, ca=ca.name, certificates=store, lockout=lockout, now=now)
        judges = [rules.challenge.authorizer] if isinstance(rules.challenge, AskedChallenge) else []
        self._notices = Notices(authorizer, *judges)
        self._issuer = Issuer(
            rules=rules,
            other_contents=other_contents,
            store=store,
            ca=ca,
            notices=self._notices,
            now=now,
            random=random,
        )

    # --- PKCSReq and RenewalReq

    async def submit(self, request: EnrollmentRequest) -> Outcome:
        """Enroll or renew, or say again what was said; raise EnrollmentError, or a BackendError when unsure."""
        key = self._key(request.transaction_id, request.proof)
        csr_digest = hashlib.sha256(request.csr.der).digest()
        spend = self._digest_to_spend(request)
        dossier = await self._store.dossier(key, csr_digest, spend)
        if dossier.same is not None and not self._is_past(dossier.same):
            return await self._again(dossier.same, dossier.certificate, request.source)
        closes = None if dossier.same is None else dossier.same.enrollment_id
        arrival = _Arrival(request=request, spend=spend, closes=closes)
        deliberation = Deliberation(request, decision_id=self._random(16).hex(), profile=self._rules.profile)
        with self._refusals_on_record(deliberation):
            if dossier.latest is not None and dossier.latest.state in UNDER_WAY:
                raise TransactionConflict("another request is under way under this transactionID")
            requester = await self._identification.identify(request, dossier.challenge, deliberation)
            self._check_key(request, deliberation)
            enrollment = self._new_enrollment(request, key, csr_digest, requester, deliberation)
            try:
                recorded = await self._decide(enrollment, arrival, deliberation)
            except DuplicateEnrollment:
                recorded = None
        if recorded is None:
            # The same request came twice at once and the other one won: answer what it answers.
            return await self._again(*await reread(self._store, enrollment), request.source)
        # Its decision is on record now, whatever the CA says.
        return await self._issuer.issue(recorded) if recorded.state is EnrollmentState.ISSUING else Undecided()

    @contextmanager
    def _refusals_on_record(self, deliberation: Deliberation) -> Iterator[None]:
        try:
            yield
        except EnrollmentError as error:
            if not deliberation.off_record:
                self._refusals.note(
                    deliberation.conclude(DecisionOutcome.REFUSED, self._now(), code=error.code, reason=str(error))
                )
                self._notices.refused(deliberation.request, self._rules.profile, deliberation.device_id, str(error))
            raise

    def _is_past(self, enrollment: Enrollment) -> bool:
        """Tell whether a request ended so long ago that the same one is judged as new.

        A SUDI device has one key for life, and PKCS#1 signatures are deterministic: its requests have the same octets.
        Not before the replay window ends, because scepclient repeats every few seconds what was refused.
        """
        return enrollment.state not in UNDER_WAY and self._now() > enrollment.updated_at + self._rules.replay

    def _digest_to_spend(self, request: EnrollmentRequest) -> bytes | None:
        """Return the digest of the one-time challenge that this request would use up."""
        is_one_time = isinstance(request.proof, StandIn) and isinstance(self._rules.challenge, OneTimeChallenge)
        secret = request.csr.challenge_password if is_one_time else None
        return None if secret is None else challenge_digest(secret)

    def _key(self, transaction_id: str, proof: IdentityProof) -> EnrollmentKey:
        return EnrollmentKey(profile=self._rules.profile, transaction_id=transaction_id, requester=proof.requester)

    def _check_key(self, request: EnrollmentRequest, deliberation: Deliberation) -> None:
        with deliberation.check("key"):
            if request.csr.spki_digest in self._forbidden_keys:
                raise KeyRefused("the key is that of an authority of this server")

    def _new_enrollment(
        self,
        request: EnrollmentRequest,
        key: EnrollmentKey,
        csr_digest: bytes,
        requester: Requester,
        deliberation: Deliberation,
    ) -> Enrollment:
        now = self._now()
        return Enrollment(
            enrollment_id=deliberation.decision_id,
            key=key,
            csr_digest=csr_digest,
            csr=request.csr.without_challenge(),
            spki_digest=request.csr.spki_digest,
            ca=self._ca,
            state=EnrollmentState.PENDING,
            device_id=requester.device_id,
            proof=requester.proof,
            source=request.source,
            renewal_of=requester.renewal_of,
            certificate_serial=None,
            order=None,
            created_at=now,
            updated_at=now,
        )

    async def _decide(self, enrollment: Enrollment, arrival: _Arrival, deliberation: Deliberation) -> Enrollment:
        """Ask AAA about a request that is judged as new, and return it as recorded: PENDING or ISSUING."""
        question = access_request(enrollment, source=enrollment.source, recheck=False, csr=arrival.request.csr.der)
        decision = await self._authorizer.authorize(question)
        match decision:
            case Accept():
                return await self._accepted(enrollment, arrival, decision, deliberation)
            case Reject(reason=reason):
                with deliberation.check("authorization"):
                    raise NotAuthorized(reason)
            case Defer(reason=reason):
                deliberation.put_off("authorization", reason)
                return await self._put_off(enrollment, reason, arrival, deliberation)
            case _:
                assert_never(decision)

    async def _accepted(
        self, enrollment: Enrollment, arrival: _Arrival, accepted: Accept, deliberation: Deliberation
    ) -> Enrollment:
        deliberation.attributes = accepted.attributes
        with deliberation.check("authorization"):
            self._check_service(accepted)
        with deliberation.check("names"):
            deliberation.names = names = self._issuer.names(enrollment, arrival.request.csr, accepted)
        if reason := self._approval_needed(enrollment, accepted):
            deliberation.put_off("approval", reason)
            return await self._put_off(replace(enrollment, hold=reason), reason, arrival, deliberation)
        try:
            return await self._grant(enrollment, arrival, accepted, names, deliberation)
        except SecondKeyFound as error:
            deliberation.put_off("approval", str(error))
            return await self._put_off(replace(enrollment, hold=str(error)), str(error), arrival, deliberation)

    def _check_service(self, accepted: Accept) -> None:
        if self._rules.service and self._rules.service not in accepted.services:
            raise NotAuthorized(f"AAA does not grant the device service {self._rules.service!r}")

    def _approval_needed(self, enrollment: Enrollment, accepted: Accept) -> str:
        """Return why an operator has to approve, "" when nobody has to."""
        is_first = enrollment.renewal_of is None
        if self._rules.approval is Approval.ALWAYS or (self._rules.approval is Approval.FIRST and is_first):
            return "the profile demands approval"
        if accepted.approval and is_first:
            return "AAA demands approval of this device"
        return ""

    async def _put_off(
        self, enrollment: Enrollment, reason: str, arrival: _Arrival, deliberation: Deliberation
    ) -> Enrollment:
        """Record a request that waits; its challenge is taken now, so that it cannot lose it to another request."""
        decision = deliberation.conclude(DecisionOutcome.DEFERRED, self._now(), reason=reason)
        with deliberation.check("limits"), self._store_refusals(enrollment, enrollment.source):
            await self._record(enrollment, arrival, decision, IssuanceLimits(max_waiting=self._rules.max_waiting))
        log.info("enrollment_deferred", **facts_of(enrollment), reason=reason)
        return enrollment

    async def _grant(
        self,
        enrollment: Enrollment,
        arrival: _Arrival,
        accepted: Accept,
        names: CertificateNames,
        deliberation: Deliberation,
    ) -> Enrollment:
        with deliberation.check("certificate contents"):
            reserved = self._issuer.reserve(enrollment, arrival.request.csr, accepted, names)
        decision = deliberation.conclude(DecisionOutcome.AUTHORIZED, self._now(), foreseen="limits")
        with deliberation.check("limits"), self._store_refusals(enrollment, enrollment.source):
            await self._record(reserved, arrival, decision, self._limits(enrollment, approved=False))
        return reserved

    async def _record(
        self, enrollment: Enrollment, arrival: _Arrival, decision: StoredDecision, limits: IssuanceLimits
    ) -> None:
        await self._store.insert_enrollment(
            enrollment, spend=arrival.spend, closes=arrival.closes, decision=decision, limits=limits
        )

    def _limits(self, enrollment: Enrollment, *, approved: bool) -> IssuanceLimits:
        """Return what the store checks when the intent is recorded; nobody can approve what the profile refuses."""
        policy = self._rules.second_key
        is_first = enrollment.renewal_of is None
        may_be_second = policy in (SecondKey.ALLOW, SecondKey.REPLACE) or (policy is SecondKey.HOLD and approved)
        return IssuanceLimits(
            max_active=None if is_first and policy is SecondKey.REPLACE else self._rules.max_active,
            second_key=may_be_second or not is_first,
        )

    @contextmanager
    def _store_refusals(self, enrollment: Enrollment, source: str) -> Iterator[None]:
        """Turn what the store finds in the very transaction into the refusals that they are; a hold stays as it is."""
        try:
            yield
        except ChallengeSpent:
            raise NotAuthorized("the challenge was used by another request meanwhile") from None
        except AlreadyRenewed:
            raise RenewalRefused("the certificate was renewed by another request meanwhile") from None
        except KeyInUse as error:
            raise KeyRefused(str(error)) from error
        except QuotaReached as error:
            raise QuotaExceeded(str(error)) from error
        except SecondKeyFound as error:
            security_event(SecurityEvent.CLONE_SUSPECTED, **facts_of(enrollment), source=source, reason=str(error))
            if self._rules.second_key is SecondKey.HOLD:
                raise
            raise SecondKeyRefused(str(error)) from error

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
            case EnrollmentState.EXPIRED:
                raise NotAuthorized("the request waited too long and has expired")
            case EnrollmentState.FAILED:
                raise IssuanceRefused("the certification authority declined the request")
            case EnrollmentState.PENDING | EnrollmentState.APPROVED:
                return await self._decide_waiting(enrollment, source)
            case EnrollmentState.ISSUING | EnrollmentState.ISSUED if not await self._is_authorized(enrollment, source):
                return Undecided()  # nothing leaves before AAA has answered
            case EnrollmentState.ISSUING:
                return await self._issuer.resume(enrollment)
            case EnrollmentState.ISSUED:
                return Granted(certificate=self._issuer.issued_before(enrollment, certificate))
            case _:
                assert_never(enrollment.state)

    async def resume(self, enrollment: Enrollment) -> Outcome:
        """Carry out an intent found open at start-up or by housekeeping."""
        return await self._issuer.resume(enrollment)

    async def _decide_waiting(self, enrollment: Enrollment, source: str) -> Outcome:
        decision = await self._ask_again(enrollment, source)
        match decision:
            case Accept():
                self._check_service(decision)
                if enrollment.state is EnrollmentState.PENDING and (
                    enrollment.hold or self._approval_needed(enrollment, decision)
                ):
                    return Undecided()
                return await self._authorize(enrollment, decision, source)
            case Reject(reason=reason):
                await self._store.advance(
                    enrollment.enrollment_id, enrollment.state, EnrollmentEvent.REJECT, self._now(), refusal=reason
                )
                raise NotAuthorized(reason)
            case Defer():
                return Undecided()
            case _:
                assert_never(decision)

    async def _authorize(self, enrollment: Enrollment, accepted: Accept, source: str) -> Outcome:
        """Record the intent of a request that has waited long enough."""
        csr = parse_request(enrollment.csr)
        names = self._issuer.names(enrollment, csr, accepted)
        reserved = self._issuer.reserve(enrollment, csr, accepted, names)
        try:
            with self._store_refusals(enrollment, source):
                won = await self._store.advance(
                    enrollment.enrollment_id,
                    enrollment.state,
                    EnrollmentEvent.AUTHORIZE,
                    self._now(),
                    certificate_serial=reserved.certificate_serial,
                    order=reserved.order,
                    subject=reserved.subject,
                    subject_alt_name=reserved.subject_alt_name,
                    limits=self._limits(enrollment, approved=enrollment.state is EnrollmentState.APPROVED),
                )
        except SecondKeyFound:
            return Undecided()  # AAA has decided, an operator has not
        if won:
            return await self._issuer.issue(reserved)
        # Another poll or node was faster; what it reserved counts, not what we did.
        return await self._again(*await reread(self._store, enrollment), source)

    async def _is_authorized(self, enrollment: Enrollment, source: str) -> bool:
        """Ask AAA about what it has accepted before, False when it has not decided now; raise NotAuthorized."""
        decision = await self._ask_again(enrollment, source)
        match decision:
            case Accept():
                self._check_service(decision)
                return True
            case Reject(reason=reason):
                raise NotAuthorized(f"no longer authorized: {reason}")
            case Defer():
                return False
            case _:
                assert_never(decision)

    async def _ask_again(self, enrollment: Enrollment, source: str) -> Decision:
        """Ask AAA; a certificate that lost its right to this successor is a no, whatever AAA says."""
        if enrollment.renewal_of is not None:
            renewed = await self._store.certificate(enrollment.ca, enrollment.renewal_of)
            try:
                check_still_entitled(renewed, enrollment.certificate_serial)
            except RenewalRefused as error:
                return Reject(reason=str(error))
        return await self._authorizer.authorize(access_request(enrollment, source=source, recheck=True))
