"""Claims about chains: what follows from the answers of their members, all combinations of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product

import pytest

from scep_ra.aaa.accept_all import AcceptAll
from scep_ra.aaa.base import Accept, Decision, Defer, Reject
from scep_ra.aaa.chain import AllOf, AnyOf, Chain, FirstOf
from scep_ra.errors import BackendError, Misconfigured, Unavailable
from tests.support.authorizers import Scripted, notice, question

YES = Accept(attributes={"user": "alice"})
NO = Reject(reason="unknown")
LATER = Defer(reason="busy")
SILENCE = Unavailable("no route")
BROKEN = Misconfigured("bad password")
PAIRS = list(product((YES, NO, LATER, SILENCE, BROKEN), repeat=2))
EARLY = datetime(2027, 1, 1, tzinfo=UTC)
LATE = datetime(2028, 1, 1, tzinfo=UTC)

Answer = Decision | BackendError


def members(*answers: Answer) -> dict[str, Scripted]:
    return {f"m{number}": Scripted(answer=answer) for number, answer in enumerate(answers)}


async def outcome(chain: AllOf | AnyOf | FirstOf) -> Answer:
    """Ask, and return what comes back, however it comes."""
    try:
        return await chain.authorize(question())
    except BackendError as error:
        return error


def strongest(answers: Sequence[Answer], *kinds: type) -> type:
    """Return the first of these kinds that is among the answers."""
    return next(kind for kind in kinds if any(isinstance(answer, kind) for answer in answers))


@pytest.mark.parametrize("answers", PAIRS, ids=str)
async def test_all_says_yes_only_when_every_member_does(answers: tuple[Answer, ...]) -> None:
    """A no beats no answer, which beats "not yet", which beats a yes."""
    expected = strongest(answers, Reject, BackendError, Defer, Accept)
    assert isinstance(await outcome(AllOf(members(*answers))), expected)


@pytest.mark.parametrize("answers", PAIRS, ids=str)
async def test_any_says_no_only_when_every_member_does(answers: tuple[Answer, ...]) -> None:
    """A yes beats "not yet", which beats no answer, which beats a no."""
    expected = strongest(answers, Accept, Defer, BackendError, Reject)
    assert isinstance(await outcome(AnyOf(members(*answers))), expected)


@pytest.mark.parametrize("answers", PAIRS, ids=str)
async def test_first_passes_over_silence_and_nothing_else(answers: tuple[Answer, ...]) -> None:
    """The next member is not even asked."""
    chain = members(*answers)
    result = await outcome(FirstOf(chain))
    if answers[0] is not SILENCE:
        assert result is answers[0]
        assert chain["m1"].questions == []
    elif answers[1] is not SILENCE:
        assert result is answers[1]
    else:
        assert str(result) == "no route; no route"
        assert isinstance(result, Unavailable)


@pytest.mark.parametrize("kind", [AllOf, AnyOf])
async def test_members_are_asked_at_once(kind: type[AllOf | AnyOf]) -> None:
    """Each waits here until the other has been asked."""
    one, other = Scripted(), Scripted()

    class Waiting(AcceptAll):
        def __init__(self, own: Scripted, another: Scripted) -> None:
            self.own, self.another = own, another

        async def authorize(self, _request: object) -> Decision:
            self.own.asked.set()
            await self.another.asked.wait()
            return YES

    assert await kind({"a": Waiting(one, other), "b": Waiting(other, one)}).authorize(question()) == YES


async def test_all_joins_what_its_members_say() -> None:
    """The first that gives an attribute or profile, the earliest end, the services common to all who name any."""
    accepted = await AllOf(
        members(
            Accept(attributes={"user": "alice"}, not_after=LATE, services=frozenset({"vpn", "wifi"})),
            Accept(attributes={"user": "bob", "dns": "a.example"}, not_after=EARLY, profile="p", approval=True),
            Accept(services=frozenset({"wifi", "mail"}), profile="q"),
        )
    ).authorize(question())
    assert accepted == Accept(
        attributes={"user": "alice", "dns": "a.example"},
        not_after=EARLY,
        profile="p",
        services=frozenset({"wifi"}),
        approval=True,
    )


async def test_services_that_members_do_not_share_leave_none() -> None:
    """No member alone can grant one."""
    chain = AllOf(members(Accept(services=frozenset({"vpn"})), Accept(services=frozenset({"wifi"}))))
    assert await chain.authorize(question()) == Accept()


async def test_any_says_yes_as_the_first_member_in_order() -> None:
    """Whichever was faster: the same answers make the same certificate."""
    chain = AnyOf(members(NO, YES, Accept(attributes={"user": "bob"})))
    assert await chain.authorize(question()) is YES


@pytest.mark.parametrize("kind", [AllOf, AnyOf])
async def test_a_no_names_the_members_that_said_it(kind: type[AllOf | AnyOf]) -> None:
    """For the log and the operator."""
    assert await kind(members(NO, Reject(reason="expired"))).authorize(question()) == Reject(
        reason="m0: unknown; m1: expired"
    )


@pytest.mark.parametrize(
    ("kind", "times", "until"),
    [
        (AllOf, (EARLY, LATE), LATE),
        (AllOf, (None, LATE), LATE),
        (AllOf, (None, None), None),
        (AnyOf, (EARLY, LATE), EARLY),
        (AnyOf, (None, LATE), None),
    ],
)
async def test_a_wait_ends_when_asking_again_may_help(
    kind: type[AllOf | AnyOf], times: tuple[datetime | None, ...], until: datetime | None
) -> None:
    """For all: when the last may say yes. For any: when the first may."""
    chain = kind(members(*(Defer(reason="busy", until=time) for time in times)))
    assert await chain.authorize(question()) == Defer(reason="m0: busy; m1: busy", until=until)


@pytest.mark.parametrize("kind", [AllOf, AnyOf, FirstOf])
async def test_notices_reach_every_member_that_wants_them(kind: type[Chain]) -> None:
    """Whoever of them was asked."""
    first, second = Scripted(), Scripted()
    kind({"first": first, "lab": AcceptAll(), "second": second}).notify(notice())
    assert first.notices == second.notices == [notice()]


@pytest.mark.parametrize("kind", [AllOf, AnyOf])
async def test_a_check_finds_the_member_that_is_away(kind: type[Chain]) -> None:
    """Its answer would be missing."""
    ill = Scripted(answer=SILENCE)
    chain = kind({"well": AcceptAll(), "ill": ill})
    with pytest.raises(Unavailable, match="no route"):
        await chain.check()
    ill.answer = YES
    await chain.check()


async def test_for_failover_one_member_is_enough() -> None:
    """Only when all are away nobody can answer."""
    one, other = Scripted(answer=SILENCE), Scripted()
    chain = FirstOf({"one": one, "other": other})
    await chain.check()
    other.answer = SILENCE
    with pytest.raises(Unavailable, match="no route; no route"):
        await chain.check()
    one.answer = BROKEN
    with pytest.raises(Misconfigured):
        await chain.check()


@pytest.mark.parametrize("kind", [AllOf, AnyOf, FirstOf])
async def test_a_flush_reaches_every_member(kind: type[Chain]) -> None:
    """Of members that remember nothing it is not expected."""
    one, other = Scripted(), Scripted()
    kind({"one": one, "lab": AcceptAll(), "other": other}).flush(question().device_id)
    assert one.flushed == other.flushed == [question().device_id]
