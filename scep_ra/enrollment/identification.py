"""Who asks: which device a request names, and what proves that it may speak for it (RFC 8894 2.3 to 2.5).

A challenge proves a first enrollment, a certificate of ours a renewal; a manufacturer's certificate proves the device
by itself, and a trusted RA vouches for devices behind it. Whether the device may have a certificate is AAA's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from scep_ra.aaa.base import AccessRequest
from scep_ra.enrollment.challenges import (
    Anonymous,
    AskedChallenge,
    NoChallenge,
    OneTimeChallenge,
    StaticChallenge,
    ask_about_challenge,
    check_challenge,
    check_static_challenge,
)
from scep_ra.enrollment.decisions import Deliberation
from scep_ra.enrollment.errors import IdentityRefused, NotAuthorized, RenewalRefused
from scep_ra.enrollment.lockout import Lockout
from scep_ra.enrollment.renewal import check_live, check_renewal, check_window
from scep_ra.enrollment.rules import EnrollmentRules
from scep_ra.enrollment.types import (
    EnrollmentRequest,
    ExistingCertificate,
    ManufacturerCertificate,
    StandIn,
    TrustedRA,
)
from scep_ra.identity.device_certificate import check_same_device, device_certificate_claims
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.extract import ConflictingIdentity, IdentityClaim, choose_device_id, extract_claims
from scep_ra.identity.types import DeviceID
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import MalformedData
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.base import CertificateStore, Challenge, StoredCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """A device that is named and proven."""

    device_id: DeviceID
    proof: str  # as Enrollment.proof
    renewal_of: int | None  # serial of the certificate that is to be renewed


class Identification:
    """Names and proves the requester of one profile."""

    def __init__(
        self,
        *,
        rules: EnrollmentRules,
        ca: str,
        certificates: CertificateStore,
        lockout: Lockout,
        now: Callable[[], datetime],
    ) -> None:
        self._rules = rules
        self._ca = ca
        self._certificates = certificates
        self._lockout = lockout
        self._now = now

    async def identify(
        self, request: EnrollmentRequest, challenge: Challenge | None, deliberation: Deliberation
    ) -> Requester:
        """Return who asks; raise IdentityRefused, NotAuthorized or RenewalRefused. Every check goes on record."""
        match request.proof:
            case StandIn():
                device_id = self._named(request, deliberation)
                with deliberation.check("challenge", self._rules.challenge.kind):
                    await self._check_challenge(request, device_id, challenge, deliberation)
                return Requester(device_id=device_id, proof=self._rules.challenge.kind, renewal_of=None)
            case ExistingCertificate(certificate=signer):
                return await self._identify_holder(request, signer, deliberation)
            case ManufacturerCertificate(certificate=signer):
                return self._identify_manufactured(request, signer, deliberation)
            case TrustedRA(ra=ra):
                device_id = self._named(request, deliberation)
                with deliberation.check("registration authority", f"trusted RA {ra} vouches for the device"):
                    pass
                return Requester(device_id=device_id, proof="ra", renewal_of=None)
            case _:
                assert_never(request.proof)

    # --- names

    def _claims(self, request: EnrollmentRequest) -> tuple[IdentityClaim, ...]:
        return extract_claims(
            subject=request.csr.subject,
            subject_alt_name=request.csr.subject_alt_name,
            unstructured_names=request.csr.unstructured_names,
            rules=self._rules.device_id_rules,
        )

    def _named(self, request: EnrollmentRequest, deliberation: Deliberation) -> DeviceID:
        """Return the device that the request names."""
        with deliberation.check("identity"), _identity_errors(request.source):
            deliberation.claims = self._claims(request)
            deliberation.device_id = choose_device_id(deliberation.claims)
        return deliberation.device_id

    # --- a challenge

    async def _check_challenge(
        self, request: EnrollmentRequest, device_id: DeviceID, challenge: Challenge | None, deliberation: Deliberation
    ) -> None:
        try:
            await self._compare_challenge(request, device_id, challenge)
        except NotAuthorized:
            if self._lockout.failed(request.source, device_id):
                deliberation.off_record = True  # guessing by the thousand must not fill the store
            raise

    async def _compare_challenge(
        self, request: EnrollmentRequest, device_id: DeviceID, challenge: Challenge | None
    ) -> None:
        match self._rules.challenge:
            case OneTimeChallenge():
                check_challenge(challenge, device_id=device_id, profile=self._rules.profile, now=self._now())
            case StaticChallenge() as rule:
                self._lockout.check(request.source, device_id)
                check_static_challenge(request.csr.challenge_password, rule)
            case NoChallenge():
                raise NotAuthorized("this profile enrolls by certificate only")
            case AskedChallenge() as rule:
                self._lockout.check(request.source, device_id)
                await self._ask_about_challenge(request, device_id, rule)
            case Anonymous():
                pass
            case _:
                assert_never(self._rules.challenge)

    async def _ask_about_challenge(self, request: EnrollmentRequest, device_id: DeviceID, rule: AskedChallenge) -> None:
        if request.csr.challenge_password is None:
            raise NotAuthorized("the challenge is missing")  # nobody need be asked
        question = AccessRequest(
            device_id=device_id,
            profile=self._rules.profile,
            source=request.source,
            renewal=False,
            transaction_id=request.transaction_id,
            csr=request.csr.der,
        )
        await ask_about_challenge(question, rule)

    # --- a certificate of ours

    async def _identify_holder(
        self, request: EnrollmentRequest, signer: Certificate, deliberation: Deliberation
    ) -> Requester:
        """Identify by a certificate of ours.

        A challenge beside it is not looked at: FortiOS and Junos send the one of long ago.
        """
        stored = await self._certificates.certificate(self._ca, signer.certificate_serial)
        with deliberation.check("certificate", f"our certificate {signer.certificate_serial:x} is good"):
            held = check_live(stored, signer, self._rules.profile)
        deliberation.device_id = held.device_id
        with deliberation.check("identity", f"the request names the device of the certificate, {held.device_id}"):
            self._check_same_device(request, held, deliberation)
        with deliberation.check("renewal"):
            self._check_renewal(request, held, signer)
        return Requester(device_id=held.device_id, proof="certificate", renewal_of=held.certificate_serial)

    def _check_same_device(
        self, request: EnrollmentRequest, held: StoredCertificate, deliberation: Deliberation
    ) -> None:
        with _identity_errors(request.source):
            deliberation.claims = self._claims(request)
            if not deliberation.claims:
                return  # a profile that makes the names need not find the device in them again
            named = choose_device_id(deliberation.claims)
        # A name of last resort counts where nothing better names a device.
        claim = IdentityClaim(device_id=named, source="request")
        own = IdentityClaim(device_id=held.device_id, source="the certificate")
        try:
            check_same_device([own], [claim])
        except ConflictingIdentity:
            raise RenewalRefused(f"the request names {named}, the certificate is {held.device_id}'s") from None

    def _check_renewal(self, request: EnrollmentRequest, held: StoredCertificate, signer: Certificate) -> None:
        rules = self._rules.renewal
        check_renewal(request.csr, held, signer, rules, same_subject=self._rules.contents.naming.subject is None)
        check_window(signer, self._now(), rules)

    # --- a manufacturer's certificate

    def _identify_manufactured(
        self, request: EnrollmentRequest, signer: Certificate, deliberation: Deliberation
    ) -> Requester:
        """IEEE 802.1AR: the device is what its IDevID says; the request may repeat it and say nothing else."""
        with deliberation.check("identity"), _identity_errors(request.source):
            proven = device_certificate_claims(signer)
            deliberation.claims = proven
            deliberation.device_id = choose_device_id(proven)
            deliberation.claims = (*proven, *self._claims(request))
            check_same_device(proven, deliberation.claims[len(proven) :])
        with deliberation.check("manufacturer"):
            if self._rules.idevid_new_key and request.csr.spki == signer.spki:
                raise NotAuthorized(
                    "the key is that of the manufacturer's certificate, and idevid_require_new_key is on"
                )
        return Requester(device_id=deliberation.device_id, proof="manufacturer", renewal_of=None)


@contextmanager
def _identity_errors(source: str) -> Iterator[None]:
    """Turn what is wrong with names into the refusal that it leads to."""
    try:
        yield
    except ConflictingIdentity as error:
        named = [f"{claim.source} {claim.device_id}" for claim in error.claims]  # two may stand in the same place
        security_event(SecurityEvent.IDENTITY_CONFLICT, source=source, claims=named)
        raise IdentityRefused(str(error)) from error
    except (IdentityError, MalformedData) as error:
        raise IdentityRefused(str(error)) from error
