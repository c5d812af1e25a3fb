"""The life of one enrollment as a table: nothing else decides which step may follow which.

    PENDING ──approve──> ISSUING ──complete──> ISSUED
       └──────reject──────> REJECTED              ISSUING ──fail──> FAILED

An enrollment is born PENDING (authorization deferred) or ISSUING (authorized, intent recorded).
Revocation is a state of the certificate, not of the enrollment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class EnrollmentState(StrEnum):
    """Where an enrollment stands; the value is what storage holds."""

    PENDING = "pending"
    ISSUING = "issuing"
    ISSUED = "issued"
    REJECTED = "rejected"
    FAILED = "failed"


class EnrollmentEvent(StrEnum):
    """What can happen to an enrollment."""

    APPROVE = "approve"
    REJECT = "reject"
    COMPLETE = "complete"
    FAIL = "fail"


TRANSITIONS: Final[dict[tuple[EnrollmentState, EnrollmentEvent], EnrollmentState]] = {
    (EnrollmentState.PENDING, EnrollmentEvent.APPROVE): EnrollmentState.ISSUING,
    (EnrollmentState.PENDING, EnrollmentEvent.REJECT): EnrollmentState.REJECTED,
    (EnrollmentState.ISSUING, EnrollmentEvent.COMPLETE): EnrollmentState.ISSUED,
    (EnrollmentState.ISSUING, EnrollmentEvent.FAIL): EnrollmentState.FAILED,
}


class IllegalTransition(ValueError):
    """The event does not apply in this state: a bug of the caller or a lost race, never a peer's fault."""


def next_state(state: EnrollmentState, event: EnrollmentEvent) -> EnrollmentState:
    """Return the state that follows; raise IllegalTransition for a pair that the table does not hold."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} does not apply to an enrollment that is {state}") from None
