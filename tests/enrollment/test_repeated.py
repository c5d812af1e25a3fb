"""Claims about devices whose requests are always the same: when the old answer holds, and when they are judged anew.

EC signatures are random, so each test sends one request several times, as a device with an RSA key for life does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from scep_ra.aaa.base import Accept, Reject
from scep_ra.enrollment.approval import ApprovalDesk
from scep_ra.enrollment.challenges import OneTimeChallenge, StaticChallenge, challenge_digest
from scep_ra.enrollment.errors import (
    EnrollmentError,
    IssuanceRefused,
    NotAuthorized,
    QuotaExceeded,
    RenewalRefused,
    UnknownTransaction,
)
from scep_ra.enrollment.rules import Approval, SecondKey
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import EnrollmentRequest, Granted, ManufacturerCertificate, Undecided
from scep_ra.errors import Refused
from scep_ra.storage.base import DecisionOutcome
from tests.support.enrollment import (
    DAY,
    Clock,
    Meanwhile,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    fail,
    granted,
    local_ca,
    make_request,
)
from tests.support.manufacturer import DEVICE_SERIAL, make_idevid

SECRET: Final = "one secret for all"
MOMENT: Final = timedelta(microseconds=1)


def shared() -> EnrollmentRequest:
    """Return a request with the secret that all devices share."""
    return make_request(challenge=SECRET)


def factory_fresh() -> EnrollmentRequest:
    """Return a request that a manufacturer's certificate proves."""
    proof = ManufacturerCertificate(certificate=make_idevid(), store="acme")
    return replace(make_request(device=DEVICE_SERIAL), proof=proof)


@pytest.fixture
def office(office: Office) -> Office:
    return office.with_rules(challenge=StaticChallenge(digest=challenge_digest(SECRET)))


def desk(office: Office) -> ApprovalDesk:
    return ApprovalDesk(store=office.store, authorizers={"default": office.authorizer}, now=office.clock)


async def reject(office: Office, request: EnrollmentRequest) -> None:
    await desk(office).reject((await office.enrollment(request)).enrollment_id, by="alice")


async def end(office: Office, request: EnrollmentRequest, state: EnrollmentState) -> None:
    """Bring a first request to this end."""
    strict = office.with_rules(approval=Approval.ALWAYS)
    match state:
        case EnrollmentState.ISSUED:
            assert granted(await office.submit(request))
        case EnrollmentState.FAILED:
            failing = office.other(ca=ScriptedCA(local_ca(now=office.clock), fail(Refused("no"))))
            with pytest.raises(IssuanceRefused):
                await failing.submit(request)
        case EnrollmentState.REJECTED:
            assert await strict.submit(request) == Undecided()
            await reject(strict, request)
        case _:
            assert await strict.submit(request) == Undecided()
            assert await office.store.expire_waiting("default", office.clock() + DAY, office.clock()) == 1
    assert (await office.enrollment(request)).state is state


ENDS: Final = (EnrollmentState.ISSUED, EnrollmentState.FAILED, EnrollmentState.REJECTED, EnrollmentState.EXPIRED)


@pytest.mark.parametrize("make", [shared, factory_fresh], ids=["static challenge", "SUDI"])
@pytest.mark.parametrize("state", ENDS)
async def test_the_same_request_is_judged_anew_when_the_replay_window_is_over(
    office: Office, clock: Clock, state: EnrollmentState, make: Callable[[], EnrollmentRequest]
) -> None:
    """Until its last moment it hears what it heard before; then it enrolls, with a record of its own."""
    request = make()
    await end(office, request, state)
    before = await office.enrollment(request)

    clock.advance(office.rules.replay)
    if state is EnrollmentState.ISSUED:
        assert granted(await office.submit(request))
    else:
        with pytest.raises(EnrollmentError):
            await office.submit(request)
    assert await office.enrollment(request) == before

    clock.advance(MOMENT)
    assert isinstance(await office.submit(request), Granted)
    after = await office.enrollment(request)
    assert after.enrollment_id != before.enrollment_id
    assert (await office.store.find_enrollments(before.enrollment_id))[0].closed_at == clock()
    (decision,) = await office.store.find_decisions(after.enrollment_id)
    assert decision.outcome is DecisionOutcome.AUTHORIZED
    assert granted(await office.poll(request)).spki == request.csr.spki


async def test_a_rejected_device_that_repeats_itself_opens_nothing(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Scepclient does so every 30 seconds: FAILURE each time, and AAA is left in peace."""
    strict, request = office.with_rules(approval=Approval.ALWAYS), shared()
    await end(office, request, EnrollmentState.REJECTED)
    asked = len(aaa.requests)
    for _ in range(20):
        with pytest.raises(NotAuthorized, match="was rejected"):
            await strict.submit(request)
    assert len(await office.store.list_enrollments(frozenset(EnrollmentState))) == 1
    assert len(aaa.requests) == asked


async def test_a_refusal_of_the_repeated_request_leaves_the_old_one_as_it_is(
    office: Office, clock: Clock, aaa: ScriptedAuthorizer
) -> None:
    """Judged anew means: AAA may say no. Polls still find how it ended."""
    request = shared()
    await end(office, request, EnrollmentState.REJECTED)
    clock.advance(office.rules.replay + MOMENT)
    aaa.script = [Reject(reason="device is disabled"), Accept()]
    with pytest.raises(NotAuthorized, match="device is disabled"):
        await office.submit(request)
    assert (await office.enrollment(request)).closed_at is None
    with pytest.raises(NotAuthorized, match="was rejected"):
        await office.poll(request)
    assert granted(await office.submit(request))


async def test_what_waits_is_never_judged_anew(office: Office, clock: Clock) -> None:
    """However long; housekeeping ends it."""
    strict, request = office.with_rules(approval=Approval.ALWAYS), shared()
    assert await strict.submit(request) == Undecided()
    clock.advance(10 * office.rules.replay)
    assert await strict.submit(request) == Undecided()
    assert len(await office.store.list_enrollments(frozenset(EnrollmentState))) == 1


async def test_two_nodes_judge_a_repeated_request_once(office: Office, clock: Clock) -> None:
    """The one that comes second answers what the first has recorded."""
    request = shared()
    await end(office, request, EnrollmentState.ISSUED)
    clock.advance(office.rules.replay + MOMENT)
    other = office.other()

    late = office.other(authorizer=Meanwhile(lambda: other.submit(request)))

    assert granted(await late.submit(request)) == granted(await other.poll(request))
    assert len(await office.issued_serials()) == 2


async def test_an_operator_lets_a_device_try_again_at_once(office: Office) -> None:
    """Polls about the forgotten request find nothing, the request itself is a new one."""
    request = shared()
    await end(office, request, EnrollmentState.REJECTED)
    await desk(office).forget((await office.enrollment(request)).enrollment_id, by="alice")
    with pytest.raises(UnknownTransaction):
        await office.poll(request)
    assert granted(await office.submit(request))


async def test_forgetting_does_not_bring_back_a_challenge(office: Office) -> None:
    """T-12: what was spent is spent."""
    office = office.with_rules(challenge=OneTimeChallenge())
    request = await office.request()
    assert granted(await office.submit(request))
    await desk(office).forget((await office.enrollment(request)).enrollment_id, by="alice")
    with pytest.raises(NotAuthorized, match="has been used"):
        await office.submit(request)


async def test_forgetting_does_not_bring_a_second_successor(office: Office) -> None:
    """Nor does the end of the replay window."""
    request = make_request(owner="new key", signed_with=granted(await office.submit(shared())))
    assert granted(await office.submit(request))
    office.clock.advance(office.rules.replay + MOMENT)
    with pytest.raises(RenewalRefused, match="has a successor already"):
        await office.submit(request)
    await desk(office).forget((await office.enrollment(request)).enrollment_id, by="alice")
    with pytest.raises(RenewalRefused, match="has a successor already"):
        await office.submit(request)


# --- how many may wait ---------------------------------------------------------------------------------------------


async def test_so_many_requests_of_a_device_wait_and_no_more(office: Office) -> None:
    """Whatever their keys; the refusal is on record, and room is made by a decision. Other devices are not counted."""
    office = office.with_rules(approval=Approval.ALWAYS, max_waiting=2)
    requests = [make_request(challenge=SECRET, owner=f"key {number}") for number in range(3)]
    for request in requests[:2]:
        assert await office.submit(request) == Undecided()
    with pytest.raises(QuotaExceeded, match=r"2 requests of .* wait in profile default and 2 may"):
        await office.submit(requests[2])
    assert (office.records.decisions[-1].code, office.records.decisions[-1].outcome) == ("quota", "refused")

    assert await office.submit(make_request(challenge=SECRET, device="FOC9999X0ZZ", owner="other")) == Undecided()
    assert await office.submit(requests[0]) == Undecided()
    await reject(office, requests[0])
    assert await office.submit(requests[2]) == Undecided()


async def test_what_is_held_as_a_second_key_counts_as_waiting(office: Office) -> None:
    """A clone cannot fill the queue of the operators."""
    office = office.with_rules(second_key=SecondKey.HOLD, max_waiting=1)
    assert granted(await office.submit(shared()))
    assert await office.submit(make_request(challenge=SECRET, owner="clone 1")) == Undecided()
    with pytest.raises(QuotaExceeded):
        await office.submit(make_request(challenge=SECRET, owner="clone 2"))


# --- what AAA says to an approved device ---------------------------------------------------------------------------


async def test_a_no_of_aaa_keeps_the_name_of_who_approved(office: Office, aaa: ScriptedAuthorizer) -> None:
    """With AAA's reason beside the operator's words."""
    strict, request = office.with_rules(approval=Approval.ALWAYS), shared()
    assert await strict.submit(request) == Undecided()
    await desk(strict).approve((await strict.enrollment(request)).enrollment_id, by="alice", note="seen on site")
    aaa.script = [Reject(reason="device is disabled")]
    with pytest.raises(NotAuthorized, match="device is disabled"):
        await strict.poll(request)
    ended = await strict.enrollment(request)
    assert (ended.state, ended.decided_by, ended.note) == (EnrollmentState.REJECTED, "alice", "seen on site")
    assert ended.refusal == "device is disabled"
