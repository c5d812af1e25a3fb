"""The transition table, pair by pair."""

from __future__ import annotations

from itertools import product

import pytest

from scep_ra.enrollment.states import TRANSITIONS, EnrollmentEvent, EnrollmentState, IllegalTransition, next_state

# Written out a second time on purpose: the table must not change unnoticed.
LEGAL = {
    ("pending", "approve"): "issuing",
    ("pending", "reject"): "rejected",
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
    """Nothing leads out of ISSUED, REJECTED and FAILED, and from each other state one of them can be reached."""
    final = set(EnrollmentState) - {state for state, _ in TRANSITIONS}
    assert final == {EnrollmentState.ISSUED, EnrollmentState.REJECTED, EnrollmentState.FAILED}
    assert final <= set(TRANSITIONS.values())
