"""The transition table, pair by pair."""

from __future__ import annotations

from itertools import product

import pytest

from scep_ra.enrollment.states import (
    TRANSITIONS,
    WAITING,
    EnrollmentEvent,
    EnrollmentState,
    IllegalTransition,
    next_state,
)

# Written out a second time on purpose: the table must not change unnoticed.
LEGAL = {
    ("pending", "approve"): "approved",
    ("pending", "authorize"): "issuing",
    ("pending", "reject"): "rejected",
    ("pending", "expire"): "expired",
    ("approved", "authorize"): "issuing",
    ("approved", "reject"): "rejected",
    ("approved", "expire"): "expired",
    ("issuing", "complete"): "issued",
    ("issuing", "fail"): "failed",
}
ALL_PAIRS = list(product(EnrollmentState, EnrollmentEvent))


@pytest.mark.parametrize(("state", "event"), ALL_PAIRS)
def test_each_pair_is_legal_or_refused_as_the_table_says(state: EnrollmentState, event: EnrollmentEvent) -> None:
    """Every combination there is; a refusal names both."""
    expected = LEGAL.get((state.value, event.value))
    assert ((state, event) in TRANSITIONS) == (expected is not None)
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"{event} does not apply .* {state}"):
            next_state(state, event)
    else:
        assert next_state(state, event) == expected


def test_an_outcome_is_final() -> None:
    """Nothing leads out of ISSUED, REJECTED, FAILED and EXPIRED, and each of them can be reached."""
    final = set(EnrollmentState) - {state for state, _ in TRANSITIONS}
    assert {state.value for state in final} == {"issued", "rejected", "failed", "expired"}
    assert final <= set(TRANSITIONS.values())


def test_what_waits_is_what_can_expire() -> None:
    """A request is waiting for somebody exactly as long as nobody's silence could end it otherwise."""
    assert {state for state in EnrollmentState if (state, EnrollmentEvent.EXPIRE) in TRANSITIONS} == WAITING
