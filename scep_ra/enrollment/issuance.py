"""From an authorized enrollment to its certificate: the intent, the signature, the check of what the CA returned.

The intent (serial and order) is stored by the caller before `issue`; the certificate is stored here before anybody sees
it. Every step can be repeated: the same order ends in the same certificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from scep_ra.aaa.base import Accept
from scep_ra.ca.base import CertificateAuthority, Issued, IssuePending, IssueRequest
from scep_ra.enrollment.errors import IssuanceRefused, NotAuthorized
from scep_ra.enrollment.naming import CertificateNames, NamingFacts
from scep_ra.enrollment.notices import Notices
from scep_ra.enrollment.rules import CertificateRules, EnrollmentRules, SecondKey
from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.enrollment.types import Granted, Outcome, Undecided
from scep_ra.errors import Refused, Unavailable
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import CertificationRequest, parse_request
from scep_ra.pki.issuance import new_certificate_serial
from scep_ra.pki.lint import CertificateFault, check_end_entity, check_signature
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.base import Enrollment, Retirement, Store, StoredCertificate

log = structlog.stdlib.get_logger(__name__)

# Clocks of devices lag behind ours; a certificate from the future is refused by VPN peers.
_BACKDATE: Final = timedelta(minutes=5)


class Issuer:
    """Turns authorized enrollments of one profile into certificates."""

    def __init__(
        self,
        *,
        rules: EnrollmentRules,
        other_contents: Mapping[str, CertificateRules],
        store: Store,
        ca: CertificateAuthority,
        notices: Notices,
        now: Callable[[], datetime],
        random: Callable[[int], bytes],
    ) -> None:
        """`other_contents` are those of the profiles of the same CA, which AAA may choose by name."""
        self._rules = rules
        self._contents = {**other_contents, "": rules.contents, rules.profile: rules.contents}
        self._store = store
        self._ca = ca
        self._notices = notices
        self._now = now
        self._random = random
        self._under_way: dict[str, asyncio.Task[Outcome]] = {}

    # --- before anything is signed

    def names(self, enrollment: Enrollment, csr: CertificationRequest, accepted: Accept) -> CertificateNames:
        """Return subject and SAN as the profile and AAA will have them; raise NameNotVouched or NamingImpossible."""
        facts = NamingFacts(
            device_id=enrollment.device_id,
            profile=enrollment.key.profile,
            attributes=accepted.attributes,
            csr_subject=csr.subject,
            csr_subject_alt_name=csr.subject_alt_name,
        )
        return self._contents_for(accepted).naming.names(facts)

    def _contents_for(self, accepted: Accept) -> CertificateRules:
        contents = self._contents.get(accepted.profile)
        if contents is None:
            raise NotAuthorized(
                f"AAA wants a certificate as of profile {accepted.profile!r}, which CA {self._ca.name!r} does not serve"
            )
        return contents

    def reserve(
        self, enrollment: Enrollment, csr: CertificationRequest, accepted: Accept, names: CertificateNames
    ) -> Enrollment:
        """Return the enrollment as ISSUING, with a serial and the order that will be signed."""
        now = self._now()
        contents = self._contents_for(accepted)
        serial = new_certificate_serial(self._random)
        wanted = IssueRequest(
            certificate_serial=serial,
            subject=names.subject,
            spki=csr.spki,
            subject_alt_name=names.subject_alt_name,
            not_before=now - _BACKDATE,
            not_after=self._not_after(contents, accepted, now),
            profile=contents.extensions,
        )
        try:
            order = self._ca.prepare(wanted)
        except Refused as error:
            raise IssuanceRefused(str(error)) from error
        return replace(
            enrollment,
            state=EnrollmentState.ISSUING,
            certificate_serial=serial,
            order=order,
            subject=names.subject,
            subject_alt_name=names.subject_alt_name,
            updated_at=now,
        )

    def _not_after(self, contents: CertificateRules, accepted: Accept, now: datetime) -> datetime:
        not_after = now + contents.validity
        if accepted.not_after is None:
            return not_after
        if accepted.not_after <= now:
            raise NotAuthorized(
                f"AAA lets the certificate last until {accepted.not_after:%Y-%m-%d %H:%M:%SZ}: too late"
            )
        return min(not_after, accepted.not_after)

    # --- carrying out

    async def issue(self, enrollment: Enrollment) -> Outcome:
        """Carry out an intent that has just been recorded."""
        return await self._once(enrollment, self._carry_out)

    async def resume(self, enrollment: Enrollment) -> Outcome:
        """Carry out an intent found open; the same order gives the same certificate, should it exist already."""
        return await self._once(enrollment, self._finish)

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
            return Granted(certificate=self.issued_before(current, certificate))
        if current.state is EnrollmentState.FAILED:
            raise IssuanceRefused("the certification authority declined the request")
        return await self._carry_out(enrollment)

    async def _carry_out(self, enrollment: Enrollment) -> Outcome:
        if enrollment.order is None:
            raise Unavailable("an enrollment without an order cannot be issued")
        try:
            result = await self._ca.issue(enrollment.order)
        except Unavailable as error:
            log.warning("ca_unavailable", **facts_of(enrollment), reason=str(error))
            return Undecided()
        except Refused as error:
            await self._fail(enrollment, str(error))
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
        """Trust no CA: the certificate is for the key and names that were authorized, or nobody gets it."""
        issuer = (await self._ca.chain())[0]
        try:
            if certificate.tbs == enrollment.order:  # a CA of ours: what was signed is what was approved, to the bit
                check_signature(certificate, issuer=issuer)
            else:
                check_end_entity(
                    certificate,
                    issuer=issuer,
                    certificate_serial=enrollment.certificate_serial if self._ca.keeps_serial else None,
                    subject=enrollment.subject or b"",
                    subject_alt_name=enrollment.subject_alt_name,
                    spki=parse_request(enrollment.csr).spki,
                )
        except CertificateFault as error:
            security_event(
                SecurityEvent.CERTIFICATE_QUARANTINED,
                **facts_of(enrollment),
                reason=str(error),
                certificate=certificate.der.hex(),
            )
            await self._fail(enrollment, str(error))
            raise IssuanceRefused(f"CA {self._ca.name!r} did not issue what was ordered: {error}") from error

    async def _fail(self, enrollment: Enrollment, reason: str) -> None:
        await self._store.advance(enrollment.enrollment_id, EnrollmentState.ISSUING, EnrollmentEvent.FAIL, self._now())
        self._notices.failed(enrollment, reason)

    async def _keep(self, enrollment: Enrollment, certificate: Certificate) -> Outcome:
        """Store the certificate before anybody sees it."""
        now = self._now()
        stored = StoredCertificate(
            certificate_serial=certificate.certificate_serial,
            ca=self._ca.name,
            profile=self._rules.profile,
            device_id=enrollment.device_id,
            der=certificate.der,
            spki_digest=enrollment.spki_digest,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            issued_at=now,
        )
        kept = await self._store.complete(
            enrollment.enrollment_id, stored, now, retirement=self._retirement(enrollment, now)
        )
        if kept is None:
            # Another node carried the same order out; its row is the truth.
            current, kept = await self._reread(enrollment)
            return Granted(certificate=self.issued_before(current, kept))
        log.info(
            "certificate_issued",
            **facts_of(enrollment),
            certificate_serial=f"{certificate.certificate_serial:x}",
            not_after=certificate.not_after.isoformat(),
        )
        _check_not_revoked(kept)
        self._notices.issued(enrollment, certificate)
        return Granted(certificate=certificate)

    def _retirement(self, enrollment: Enrollment, now: datetime) -> Retirement:
        """Say when the certificates that this one replaces are to be revoked."""
        if enrollment.renewal_of is not None:
            delay = self._rules.renewal.revoke_old_after
            return Retirement(renewed_at=None if delay is None else now + delay)
        return Retirement(others_at=now if self._rules.second_key is SecondKey.REPLACE else None)

    # --- afterwards

    def issued_before(self, enrollment: Enrollment, stored: StoredCertificate | None) -> Certificate:
        """Return the certificate of an ISSUED enrollment; raise NotAuthorized when it must not leave again."""
        if stored is None:
            raise Unavailable("an issued certificate is not in the store")
        _check_not_revoked(stored)
        if self._now() > enrollment.updated_at + self._rules.replay:
            raise NotAuthorized("the request is too old to be answered again")
        return parse_certificate(stored.der)

    async def _reread(self, enrollment: Enrollment) -> tuple[Enrollment, StoredCertificate | None]:
        return await reread(self._store, enrollment)


def _check_not_revoked(stored: StoredCertificate) -> None:
    if stored.revoked_at is not None:
        raise NotAuthorized("the certificate of this request was revoked")


async def reread(store: Store, enrollment: Enrollment) -> tuple[Enrollment, StoredCertificate | None]:
    """Return an enrollment as it is now, and its certificate; raise Unavailable when it is gone."""
    dossier = await store.dossier(enrollment.key, enrollment.csr_digest, None)
    if dossier.same is None:
        raise Unavailable("an enrollment vanished while it was under way")
    return dossier.same, dossier.certificate


def facts_of(enrollment: Enrollment) -> dict[str, str]:
    """Return what a log line about an enrollment says of it."""
    return {
        "profile": enrollment.key.profile,
        "device_id": str(enrollment.device_id),
        "transaction_id": enrollment.key.transaction_id,
        "enrollment_id": enrollment.enrollment_id,
    }
