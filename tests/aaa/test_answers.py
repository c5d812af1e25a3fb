"""Claims about the short memory for yes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scep_ra.aaa import answers as module
from scep_ra.aaa.answers import Answers
from scep_ra.aaa.base import Accept
from tests.support.authorizers import Stopwatch, question

YES = Accept(attributes={"user": "alice"})


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def answers(clock: Stopwatch) -> Answers:
    return Answers(60, clock)


def keep(answers: Answers, device: str = "SN1") -> None:
    answers.keep(question(device), YES, begun=answers.begin())


def test_a_yes_is_repeated_for_its_time_and_no_longer(answers: Answers, clock: Stopwatch) -> None:
    """To the second."""
    keep(answers)
    clock.now_s += 59.9
    assert answers.find(question()) == YES
    clock.now_s += 0.1
    assert answers.find(question()) is None


def test_a_yes_answers_the_very_same_question_only(answers: Answers) -> None:
    """Another device, profile, address, request or occasion is another question."""
    answers.keep(question(csr=b"request"), YES, begun=answers.begin())
    same = question(csr=b"request")
    assert answers.find(same) == YES
    for other in (
        question("SN2", csr=b"request"),
        question(csr=b"another"),
        replace(same, profile="vpn"),
        replace(same, source="192.0.2.2"),
        replace(same, renewal=True),
        replace(same, recheck=True),
    ):
        assert answers.find(other) is None


def test_without_a_lifetime_nothing_is_kept(clock: Stopwatch) -> None:
    """That is the default."""
    answers = Answers(0, clock)
    keep(answers)
    assert answers.find(question()) is None


def test_a_flush_forgets_one_device(answers: Answers) -> None:
    """The others keep their answers."""
    keep(answers, "SN1")
    keep(answers, "SN2")
    answers.flush(question("SN1").device_id)
    assert answers.find(question("SN1")) is None
    assert answers.find(question("SN2")) == YES


def test_a_yes_that_was_on_its_way_during_a_flush_is_not_kept(answers: Answers) -> None:
    """It was given before the device was cut off."""
    begun = answers.begin()
    answers.flush(question().device_id)
    answers.keep(question(), YES, begun=begun)
    assert answers.find(question()) is None


def test_the_memory_is_bounded(answers: Answers, clock: Stopwatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answers go first; one given again counts as new."""
    monkeypatch.setattr(module, "_MAX_ANSWERS", 2)
    for device in ("SN1", "SN2", "SN1", "SN3"):
        keep(answers, device)
        clock.now_s += 1
    assert [answers.find(question(device)) for device in ("SN1", "SN2", "SN3")] == [YES, None, YES]
