"""Claims about requests that come twice: one answer for both, for a while."""

from __future__ import annotations

import pytest

from scep_ra.headend import duplicates
from scep_ra.headend.duplicates import Duplicates
from tests.support.stopwatch import Stopwatch


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


def test_an_answer_is_kept_for_five_seconds(clock: Stopwatch) -> None:
    """A headend that uses its identifier again after that is heard anew."""
    kept = Duplicates(clock)
    kept.begin("key")
    kept.end("key", b"answer")
    clock.advance(4.9)
    assert kept.find("key") == b"answer"
    clock.advance(0.1)
    assert kept.find("key") is None


def test_a_request_is_under_way_until_its_end(clock: Stopwatch) -> None:
    """Without an answer it may be made again at once."""
    kept = Duplicates(clock)
    kept.begin("key")
    assert kept.is_under_way("key")
    kept.end("key", None)
    assert not kept.is_under_way("key")
    assert kept.find("key") is None


def test_the_oldest_answers_make_room(clock: Stopwatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, however many ask."""
    monkeypatch.setattr(duplicates, "_MAX_ANSWERS", 3)
    kept = Duplicates(clock)
    for number in range(5):
        kept.end(number, b"answer")
    assert [number for number in range(5) if kept.find(number)] == [2, 3, 4]
