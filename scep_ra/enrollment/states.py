"""The life of one enrollment as a table: nothing else decides which step may follow which.

    PENDING ──authorize──────────────────> ISSUING ──complete──> ISSUED
       ├────approve───> APPROVED ──authorize──^  └──fail──> FAILED
       ├────reject────> REJECTED <──reject── APPROVED
       └────expire────> EXPIRED  <──expire── APPROVED

An enrollment is born PENDING (authorization deferred, or an operator must approve) or ISSUING (authorized, intent
recorded). Revocation is a state of the certificate, not of the enrollment.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class EnrollmentState(StrEnum):
    """Where an enrollment stands; the value is what storage holds."""

    PENDING = "pending"
    APPROVED = "approved"
    ISSUING = "issuing"
    ISSUED = "issued"
    REJECTED = "rejected"
    FAILED = "failed"
    EXPIRED = "expired"


class EnrollmentEvent(StrEnum):
    """What can happen to an enrollment."""

    APPROVE = "approve"  # an operator said yes
    AUTHORIZE = "authorize"  # AAA said yes and the intent is recorded
    REJECT = "reject"  # an operator or AAA said no
    EXPIRE = "expire"  # nobody said anything for too long
    COMPLETE = "complete"  # the certificate is stored
    FAIL = "fail"  # the certification authority declined


TRANSITIONS: Final[dict[tuple[EnrollmentState, EnrollmentEvent], EnrollmentState]] = {
    (EnrollmentState.PENDING, EnrollmentEvent.APPROVE): EnrollmentState.APPROVED,
    (EnrollmentState.PENDING, EnrollmentEvent.AUTHORIZE): EnrollmentState.ISSUING,
    (EnrollmentState.PENDING, EnrollmentEvent.REJECT): EnrollmentState.REJECTED,
    (EnrollmentState.PENDING, EnrollmentEvent.EXPIRE): EnrollmentState.EXPIRED,
    (EnrollmentState.APPROVED, EnrollmentEvent.AUTHORIZE): EnrollmentState.ISSUING,
    (EnrollmentState.APPROVED, EnrollmentEvent.REJECT): EnrollmentState.REJECTED,
    (EnrollmentState.APPROVED, EnrollmentEvent.EXPIRE): EnrollmentState.EXPIRED,
    (EnrollmentState.ISSUING, EnrollmentEvent.COMPLETE): EnrollmentState.ISSUED,
    (EnrollmentState.ISSUING, EnrollmentEvent.FAIL): EnrollmentState.FAILED,
}
# What can still change; everything else is how it ended.
UNDER_WAY: Final = frozenset(state for state, _ in TRANSITIONS)
# Waiting for somebody's decision; the same transactionID cannot carry another request meanwhile.
WAITING: Final = frozenset({EnrollmentState.PENDING, EnrollmentState.APPROVED})


class IllegalTransition(ValueError):
    """The event does not apply in this state: a bug of the caller or a lost race, never a peer's fault."""


def next_state(state: EnrollmentState, event: EnrollmentEvent) -> EnrollmentState:
    """Return the state that follows; raise IllegalTransition for a pair that the table does not hold."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} does not apply to an enrollment that is {state}") from None
