"""Approval by operators: see what waits, say yes or no. AAA has the last word, and is asked again for every yes.

Nothing is issued here: an approved request gets its certificate when the device asks next, from the enrollment service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import assert_never

import structlog

from scep_ra.aaa.base import Accept, Authorizer, Defer, Reject
from scep_ra.enrollment.authorization import access_request
from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.enrollment.states import UNDER_WAY, WAITING, EnrollmentEvent, EnrollmentState
from scep_ra.errors import ScepRaError
from scep_ra.storage.base import Enrollment, EnrollmentStore

log = structlog.stdlib.get_logger(__name__)


class ApprovalError(ScepRaError):
    """An operator's decision cannot be carried out; the text says how the request stands."""


class UnknownRequest(ApprovalError):
    """No request has this ID."""


class AlreadyDecided(ApprovalError):
    """Somebody else, or AAA, or time was faster, or the decision was taken before."""


class StillUndecided(ApprovalError):
    """AAA wants to wait, so nobody can approve yet; or nobody has decided, so there is nothing to forget."""


class ApprovalDesk:
    """Where operators decide about requests that wait; authorizers by name of profile."""

    def __init__(
        self, *, store: EnrollmentStore, authorizers: Mapping[str, Authorizer], now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._authorizers = authorizers
        self._now = now

    async def waiting(self) -> Sequence[Enrollment]:
        """Return the requests that wait for a decision, newest first."""
        return await self._store.list_enrollments({EnrollmentState.PENDING})

    async def approve(self, enrollment_id: str, *, by: str, note: str = "") -> Enrollment:
        """Approve a request on AAA's yes, and return it as it stands then; `by` names the operator.

        Raise NotAuthorized when AAA says no (the request is then rejected), StillUndecided when it wants to wait, its
        own BackendError when it gives no answer (nothing has changed in both cases), AlreadyDecided, UnknownRequest.
        """
        enrollment = await self._find(enrollment_id)
        if enrollment.state is not EnrollmentState.PENDING:
            raise AlreadyDecided(f"request {enrollment_id} {standing_of(enrollment)}")
        decision = await self._authorizer(enrollment).authorize(access_request(enrollment, source="", recheck=True))
        match decision:
            case Accept():
                return await self._advance(enrollment, EnrollmentEvent.APPROVE, by=by, note=note)
            case Reject(reason=reason):
                await self._advance(enrollment, EnrollmentEvent.REJECT, refusal=reason)
                raise NotAuthorized(f"AAA says no to {enrollment.device_id}: {reason}; the request is now rejected")
            case Defer(reason=reason):
                raise StillUndecided(f"AAA has not decided about {enrollment.device_id}: {reason}; nothing was changed")
            case _:
                assert_never(decision)

    async def forget(self, enrollment_id: str, *, by: str, note: str = "") -> Enrollment:
        """Have the same request judged as a new one when it comes again; `by` names the operator.

        Raise StillUndecided while the request is under way, AlreadyDecided when it is forgotten, and UnknownRequest.
        """
        enrollment = await self._find(enrollment_id)
        if enrollment.state in UNDER_WAY:
            raise StillUndecided(f"request {enrollment_id} has not ended: it {standing_of(enrollment)}")
        if not await self._store.close_enrollment(enrollment_id, self._now(), by=by, note=note):
            raise AlreadyDecided(f"request {enrollment_id} is forgotten already: the device may ask again")
        log.info("request_forgotten", enrollment_id=enrollment_id, device_id=str(enrollment.device_id), by=by)
        return enrollment

    async def reject(self, enrollment_id: str, *, by: str, note: str = "") -> Enrollment:
        """Reject a request that waits, approved or not, and return it as it stands then.

        Raise AlreadyDecided when it does not wait any more, and UnknownRequest.
        """
        enrollment = await self._find(enrollment_id)
        if enrollment.state not in WAITING:
            raise AlreadyDecided(f"request {enrollment_id} {standing_of(enrollment)}")
        return await self._advance(enrollment, EnrollmentEvent.REJECT, by=by, note=note)

    def _authorizer(self, enrollment: Enrollment) -> Authorizer:
        profile = enrollment.key.profile
        if profile not in self._authorizers:
            raise ApprovalError(f"profile {profile} of this request is not in the configuration any more: reject it")
        return self._authorizers[profile]

    async def _advance(
        self, enrollment: Enrollment, event: EnrollmentEvent, *, by: str = "", note: str = "", refusal: str = ""
    ) -> Enrollment:
        advanced = await self._store.advance(
            enrollment.enrollment_id, enrollment.state, event, self._now(), by=by, note=note, refusal=refusal
        )
        current = await self._find(enrollment.enrollment_id)
        if not advanced:
            raise AlreadyDecided(f"meanwhile request {enrollment.enrollment_id} {standing_of(current)}")
        log.info(
            "request_decided",
            enrollment_id=current.enrollment_id,
            device_id=str(current.device_id),
            state=str(current.state),
            by=by or "AAA",
        )
        return current

    async def _find(self, enrollment_id: str) -> Enrollment:
        for found in await self._store.find_enrollments(enrollment_id):
            if found.enrollment_id == enrollment_id:
                return found
        raise UnknownRequest(f"no request has the ID {enrollment_id}")


def standing_of(enrollment: Enrollment) -> str:  # noqa: PLR0911 - one return a state
    """Say in words how a request stands, as what follows its name: "was rejected by alice"."""
    by = f" by {enrollment.decided_by}" if enrollment.decided_by else ""
    match enrollment.state:
        case EnrollmentState.PENDING:
            return f"waits: {enrollment.hold or 'put off by AAA'}"
        case EnrollmentState.APPROVED:
            return f"was approved{by}; the device gets its certificate when it asks next"
        case EnrollmentState.ISSUING:
            return f"was approved{by}, and its certificate is being made" if by else "is about to get its certificate"
        case EnrollmentState.ISSUED:
            return f"has its certificate, {enrollment.certificate_serial or 0:x}"
        case EnrollmentState.REJECTED if enrollment.refusal and by:
            return f"was approved{by}, then rejected by AAA"
        case EnrollmentState.REJECTED:
            return f"was rejected{by or ' by AAA'}"
        case EnrollmentState.FAILED:
            return "was declined by the certification authority"
        case EnrollmentState.EXPIRED:
            return "expired, because nobody decided in time"
        case _:
            assert_never(enrollment.state)
