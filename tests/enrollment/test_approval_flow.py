"""Claims about requests that wait: for AAA, for an operator, for both; and what becomes of them.

Numbers like T-13 are those of the project's protocol checklist.
"""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from scep_ra.aaa.base import Accept, Decision, Defer, Reject
from scep_ra.enrollment.approval import ApprovalDesk
from scep_ra.enrollment.errors import (
    IssuanceRefused,
    NameNotVouched,
    NotAuthorized,
    TransactionConflict,
    UnknownTransaction,
)
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.rules import Approval
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import EnrollmentRequest, Granted, Undecided
from scep_ra.errors import Refused, Unavailable
from scep_ra.storage.base import Store
from tests.support.enrollment import (
    DAY,
    HOUR,
    Clock,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    granted,
    key_of,
    make_request,
    put_off,
    sign,
)

WAIT: Final = Defer(reason="somebody has to look at it")
NO: Final = Reject(reason="device was reported stolen")
ON_APPROVAL: Final = Accept(approval=True)


def desk(office: Office) -> ApprovalDesk:
    return ApprovalDesk(store=office.store, authorizers={"default": office.authorizer}, now=office.clock)


async def approve(office: Office, request: EnrollmentRequest) -> None:
    await desk(office).approve((await office.enrollment(request)).enrollment_id, by="alice", note="seen on site")


async def hold(office: Office, **fields: str) -> EnrollmentRequest:
    """Submit a request that is put off."""
    request = await office.request(**fields)
    assert await office.submit(request) == Undecided()
    return request


async def state_of(office: Office, request: EnrollmentRequest) -> EnrollmentState:
    return (await office.enrollment(request)).state


@pytest.fixture
def strict(office: Office) -> Office:
    """Return a profile in which an operator approves every request."""
    return office.with_rules(approval=Approval.ALWAYS)


# --- who has to be approved ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approval", "first_waits", "renewal_waits"),
    [(Approval.OFF, False, False), (Approval.FIRST, True, False), (Approval.ALWAYS, True, True)],
)
async def test_the_profile_says_which_requests_wait(
    office: Office, approval: Approval, *, first_waits: bool, renewal_waits: bool
) -> None:
    """A renewal comes from a device that was approved once; `always` wants to see it all the same."""
    old = await office.enroll()
    held = office.with_rules(approval=approval)

    first = await held.submit(await held.request(owner="second key"))
    renewal = await held.submit(make_request(owner="third key", signed_with=old))

    assert isinstance(first, Undecided if first_waits else Granted)
    assert isinstance(renewal, Undecided if renewal_waits else Granted)


async def test_aaa_can_demand_approval_of_a_first_enrollment(office: Office, aaa: ScriptedAuthorizer) -> None:
    """The operator is told who wanted it; a renewal is not held up."""
    old = await office.enroll()
    aaa.script = [ON_APPROVAL]
    request = await hold(office, owner="second key")

    assert (await office.enrollment(request)).hold == "AAA demands approval of this device"
    assert granted(await office.submit(make_request(owner="third key", signed_with=old)))


# --- yes -----------------------------------------------------------------------------------------------------------


async def test_an_approved_device_gets_its_certificate_when_it_polls(strict: Office, ca: ScriptedCA) -> None:
    """T-01 to T-03: approval itself signs nothing."""
    request = await hold(strict)
    assert await strict.poll(request) == Undecided()

    await approve(strict, request)
    assert (await state_of(strict, request), ca.orders) == (EnrollmentState.APPROVED, [])

    certificate = granted(await strict.poll(request))
    assert certificate.spki == key_of().spki
    assert granted(await strict.poll(request)) == certificate
    enrollment = await strict.enrollment(request)
    assert (enrollment.decided_by, enrollment.note) == ("alice", "seen on site")


async def test_an_approved_device_may_send_its_request_again_instead(strict: Office) -> None:
    """T-09, T-10: scepclient never polls; the request is one entry in the queue all the time."""
    request = await hold(strict)
    assert await strict.submit(request) == Undecided()
    assert len(await desk(strict).waiting()) == 1
    await approve(strict, request)

    certificate = granted(await strict.submit(request))

    assert granted(await strict.submit(request)) == certificate
    assert await strict.issued_serials() == [certificate.certificate_serial]


async def test_many_polls_after_approval_give_one_certificate(
    strict: Office, ca: ScriptedCA, second_store: Store
) -> None:
    """T-15: on two nodes."""
    request = await hold(strict)
    await approve(strict, request)
    nodes = (strict, strict.other(store=second_store))

    outcomes = await asyncio.gather(*(node.poll(request) for node in nodes * 5))

    assert len({granted(outcome).der for outcome in outcomes}) == 1
    assert len(await strict.issued_serials()) == 1


async def test_approval_survives_a_restart(strict: Office, second_store: Store) -> None:
    """T-16: held by one process, approved through a second, handed out by a third."""
    request = await hold(strict)
    await strict.store.close()
    restarted = strict.other(store=second_store)
    await approve(restarted, request)

    assert granted(await restarted.other().poll(request))


async def test_an_approved_renewal_succeeds_its_certificate(office: Office, strict: Office) -> None:
    """The right to renew is looked at again, and still there."""
    old = await office.enroll()
    request = make_request(owner="new key", signed_with=old)
    assert await strict.submit(request) == Undecided()
    await approve(strict, request)

    new = granted(await strict.poll(request))

    row = await office.store.certificate("default", old.certificate_serial)
    assert row is not None
    assert row.successor == new.certificate_serial


# --- no, and not yet -----------------------------------------------------------------------------------------------


async def test_aaa_has_the_last_word(strict: Office, aaa: ScriptedAuthorizer, ca: ScriptedCA) -> None:
    """An operator's yes does not help a device that AAA has struck off meanwhile, nor does AAA's yes afterwards."""
    request = await hold(strict)
    await approve(strict, request)
    aaa.script = [NO, Accept()]

    with pytest.raises(NotAuthorized, match="reported stolen"):
        await strict.poll(request)
    with pytest.raises(NotAuthorized, match="was rejected"):
        await strict.poll(request)
    assert ca.orders == []
    assert [asked.recheck for asked in aaa.requests] == [False, True, True]


async def test_what_is_approved_can_still_be_deferred(strict: Office, aaa: ScriptedAuthorizer) -> None:
    """The approval is kept until AAA has made up its mind."""
    request = await hold(strict)
    await approve(strict, request)
    aaa.script = [WAIT, Accept()]

    assert await strict.poll(request) == Undecided()
    assert await state_of(strict, request) is EnrollmentState.APPROVED
    assert granted(await strict.poll(request))


async def test_an_aaa_that_does_not_answer_leaves_an_approval_as_it_is(strict: Office, aaa: ScriptedAuthorizer) -> None:
    """SR-13: an outage is neither yes nor no."""
    request = await hold(strict)
    await approve(strict, request)
    aaa.script = [Unavailable("AAA is down"), Accept()]

    with pytest.raises(Unavailable):
        await strict.poll(request)
    assert await state_of(strict, request) is EnrollmentState.APPROVED
    assert granted(await strict.poll(request))


@pytest.mark.parametrize("approved_first", [False, True])
async def test_a_rejected_device_is_told_so(strict: Office, *, approved_first: bool) -> None:
    """T-04: to a poll and to the same request again; the operator may even take an approval back."""
    request = await hold(strict)
    if approved_first:
        await approve(strict, request)
    await desk(strict).reject((await strict.enrollment(request)).enrollment_id, by="bob")

    for ask in (strict.poll, strict.submit):
        with pytest.raises(NotAuthorized, match="was rejected"):
            await ask(request)


@pytest.mark.parametrize("approved_first", [False, True])
async def test_nobody_waits_for_ever(strict: Office, clock: Clock, *, approved_first: bool) -> None:
    """T-20: approved or not, a device that does not come back in time has to ask anew."""
    request = await hold(strict)
    if approved_first:
        await approve(strict, request)
    clock.advance(9 * DAY)
    assert await strict.store.expire_waiting("default", clock() - strict.rules.replay, clock()) == 1

    for ask in (strict.poll, strict.submit):
        with pytest.raises(NotAuthorized, match="has expired"):
            await ask(request)


async def test_another_key_cannot_fetch_what_was_approved(strict: Office) -> None:
    """T-06: knowing the transactionID is not enough, nor is a challenge of the same device."""
    request = await hold(strict)
    await approve(strict, request)

    with pytest.raises(UnknownTransaction):
        await strict.poll(make_request(owner="thief"))
    assert await strict.submit(await strict.request(owner="thief")) == Undecided()
    assert await state_of(strict, request) is EnrollmentState.APPROVED


async def test_a_held_request_keeps_its_challenge(strict: Office, clock: Clock) -> None:
    """Nobody else can use it meanwhile, and it may expire before the operator comes."""
    secret = await strict.challenge()
    request = make_request(challenge=secret)
    assert await strict.submit(request) == Undecided()

    with pytest.raises(NotAuthorized, match="has been used"):
        await strict.submit(make_request(challenge=secret, owner="thief"))
    clock.advance(2 * HOUR)
    await approve(strict, request)
    assert granted(await strict.poll(request))


# --- what AAA and operator say does not replace one another --------------------------------------------------------


@pytest.mark.parametrize("script", [[WAIT, ON_APPROVAL], [ON_APPROVAL, Accept()]], ids=["later", "no longer"])
async def test_approval_that_was_demanded_once_is_needed(
    office: Office, aaa: ScriptedAuthorizer, script: list[Decision]
) -> None:
    """AAA may come to demand it while the request waits; that it stops to is no operator's yes."""
    aaa.script = list(script)
    request = await hold(office)
    assert await office.poll(request) == Undecided()

    await approve(office, request)
    assert granted(await office.poll(request))


async def test_a_device_that_aaa_deferred_waits_for_the_operator_as_well(
    strict: Office, aaa: ScriptedAuthorizer
) -> None:
    """AAA's late yes does not open a profile that demands approval."""
    aaa.script = [WAIT, Accept()]
    request = await hold(strict)

    assert await strict.poll(request) == Undecided()
    assert await state_of(strict, request) is EnrollmentState.PENDING


async def test_names_that_nobody_vouches_for_any_more_are_not_certified(
    strict: Office, aaa: ScriptedAuthorizer, ca: ScriptedCA
) -> None:
    """What AAA says at the end counts; the request waits on, so that an operator can mend the cause."""
    vouched = Accept(attributes={"O": "Test", "CN": "router-1"})
    office = strict.with_contents(naming=NamingRules.compile())
    aaa.script = [vouched]
    request = await hold(office)
    await approve(office, request)

    aaa.script = [Accept(attributes={"O": "Test", "CN": "router-2"})]
    with pytest.raises(NameNotVouched, match="commonName 'router-1'"):
        await office.poll(request)
    assert (await state_of(office, request), ca.orders) == (EnrollmentState.APPROVED, [])
    aaa.script = [vouched]
    assert granted(await office.poll(request))


async def test_a_service_that_was_withdrawn_ends_the_way_to_a_certificate(
    strict: Office, aaa: ScriptedAuthorizer
) -> None:
    """Before it is issued, and before it is handed out once more."""
    office = strict.with_rules(service="vpn")
    allowed = Accept(services=frozenset({"vpn"}))
    aaa.script = [allowed]
    request = await hold(office)
    await approve(office, request)

    for _ in range(2):
        aaa.script = [Accept(services=frozenset({"wlan"}))]
        with pytest.raises(NotAuthorized, match="service 'vpn'"):
            await office.poll(request)
        aaa.script = [allowed]
        assert granted(await office.poll(request))


async def test_what_the_ca_would_not_prepare_waits_on(strict: Office, ca: ScriptedCA) -> None:
    """An approved request is not lost to a mistake in the configuration of the CA."""
    request = await hold(strict)
    await approve(strict, request)
    ca.refusal = Refused("not_after beyond that of the CA")

    with pytest.raises(IssuanceRefused, match="beyond"):
        await strict.poll(request)
    ca.refusal = None
    assert granted(await strict.poll(request))


# --- one transaction at a time -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [EnrollmentState.PENDING, EnrollmentState.APPROVED, EnrollmentState.ISSUING])
async def test_while_a_request_is_under_way_its_transaction_carries_no_other(
    strict: Office, ca: ScriptedCA, state: EnrollmentState
) -> None:
    """T-13: the other one keeps its challenge, and may come when the first is done."""
    ca.script = [put_off]
    request = await hold(strict)
    if state is not EnrollmentState.PENDING:
        await approve(strict, request)
    if state is EnrollmentState.ISSUING:
        assert await strict.poll(request) == Undecided()
    assert await state_of(strict, request) is state
    other = await strict.request()

    with pytest.raises(TransactionConflict):
        await strict.submit(other)

    if state is EnrollmentState.PENDING:
        await approve(strict, request)
    ca.script = [sign]
    assert granted(await strict.poll(request))
    assert await strict.submit(other) == Undecided()


async def test_the_same_transaction_id_under_two_keys_is_two_transactions(strict: Office) -> None:
    """T-14: each gets the certificate of its own key."""
    one, other = await hold(strict), await hold(strict, owner="other device", device="FOC9999X0ZZ")
    for request in (other, one):
        await approve(strict, request)

    assert granted(await strict.poll(other)).spki == key_of("other device").spki
    assert granted(await strict.poll(one)).spki == key_of().spki


async def test_a_poll_that_loses_the_race_to_an_operator_answers_what_is_true_then(
    strict: Office,
) -> None:
    """AAA's answer takes its time, and the operator takes the approval back meanwhile."""
    request = await hold(strict)
    await approve(strict, request)
    identifier = (await strict.enrollment(request)).enrollment_id

    class Slow:
        async def authorize(self, _: object) -> Decision:
            await desk(strict).reject(identifier, by="bob")
            return Accept()

        async def check(self) -> None:
            raise NotImplementedError

    with pytest.raises(NotAuthorized, match="was rejected"):
        await strict.other(authorizer=Slow()).poll(request)
    assert await strict.issued_serials() == []
