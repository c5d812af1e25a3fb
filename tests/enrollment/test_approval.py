"""Claims about the approval desk: operators decide about what waits, once, and never against AAA."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Defer, Reject
from scep_ra.enrollment.approval import AlreadyDecided, ApprovalDesk, ApprovalError, StillUndecided, UnknownRequest
from scep_ra.enrollment.approval import standing_of as standing
from scep_ra.enrollment.errors import NotAuthorized
from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.errors import Unavailable
from scep_ra.storage.base import Enrollment, Store
from tests.support.enrollment import Clock, ScriptedAuthorizer
from tests.support.records import NOW, make_certificate, make_enrollment, make_key, make_pending

PENDING, APPROVED, REJECTED = EnrollmentState.PENDING, EnrollmentState.APPROVED, EnrollmentState.REJECTED


@pytest.fixture
def desk(store: Store, aaa: ScriptedAuthorizer, clock: Clock) -> ApprovalDesk:
    return ApprovalDesk(store=store, authorizers={"default": aaa}, now=clock)


async def put(store: Store, number: int = 1, **fields: object) -> str:
    """Store a request that waits and return its ID."""
    pending = make_pending(number, **{"key": make_key(f"TX{number}"), "hold": "the profile demands it", **fields})
    await store.insert_enrollment(pending, spend=None)
    return pending.enrollment_id


async def stored(store: Store, enrollment_id: str) -> Enrollment:
    (found,) = await store.find_enrollments(enrollment_id)
    return found


async def issue(store: Store, enrollment_id: str) -> None:
    """Let the device have the certificate of an approved request."""
    certificate = make_certificate(1)
    assert await store.advance(
        enrollment_id, APPROVED, EnrollmentEvent.AUTHORIZE, NOW,
        certificate_serial=certificate.certificate_serial, order=b"order",
    )  # fmt: skip
    assert await store.complete(enrollment_id, certificate, NOW)


async def test_what_waits_for_a_decision_is_listed_and_nothing_else(store: Store, desk: ApprovalDesk) -> None:
    """An approved request waits for its device, not for an operator."""
    first, second = await put(store, 1), await put(store, 2)
    await desk.approve(first, by="alice")

    assert [each.enrollment_id for each in await desk.waiting()] == [second]


async def test_a_yes_is_kept_with_name_and_words(
    store: Store, desk: ApprovalDesk, aaa: ScriptedAuthorizer, clock: Clock
) -> None:
    """AAA is asked again, with nobody at the line."""
    waits = await put(store)

    approved = await desk.approve(waits, by="alice", note="called the branch office")

    assert approved == await stored(store, waits)
    assert (approved.state, approved.decided_by, approved.note) == (APPROVED, "alice", "called the branch office")
    assert approved.updated_at == clock()
    assert aaa.requests == [
        AccessRequest(
            device_id=approved.device_id, profile="default", source="", renewal=False, recheck=True,
            transaction_id="TX1", csr=approved.csr,
        )
    ]  # fmt: skip


async def test_a_no_of_aaa_rejects_the_request(store: Store, desk: ApprovalDesk, aaa: ScriptedAuthorizer) -> None:
    """The operator hears that nothing was approved, and why."""
    waits = await put(store)
    aaa.script = [Reject(reason="device is disabled")]

    with pytest.raises(NotAuthorized, match=r"AAA says no to serial:SN123: device is disabled; .* now rejected"):
        await desk.approve(waits, by="alice")

    current = await stored(store, waits)
    assert (current.state, current.decided_by, current.refusal) == (REJECTED, "", "device is disabled")
    assert standing(current) == "was rejected by AAA"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(Defer(reason="ask the sponsor"), StillUndecided), (Unavailable("no answer from 192.0.2.9"), Unavailable)],
)
async def test_without_an_answer_of_aaa_it_keeps_waiting(
    store: Store, desk: ApprovalDesk, aaa: ScriptedAuthorizer, answer: Decision | Exception, error: type[Exception]
) -> None:
    """No answer is never a yes; the next attempt may succeed."""
    waits = await put(store)
    aaa.script = [answer, Accept()]

    with pytest.raises(error, match=r"ask the sponsor; nothing was changed|no answer from 192\.0\.2\.9"):
        await desk.approve(waits, by="alice")
    assert (await stored(store, waits)).state is PENDING

    assert (await desk.approve(waits, by="alice")).state is APPROVED


async def test_approving_twice_is_answered_kindly(store: Store, desk: ApprovalDesk, aaa: ScriptedAuthorizer) -> None:
    """Who approved it, and that the device has to ask; AAA is not asked for it."""
    waits = await put(store)
    await desk.approve(waits, by="alice")

    with pytest.raises(AlreadyDecided, match="was approved by alice; the device gets its certificate when it asks"):
        await desk.approve(waits, by="bob")
    assert len(aaa.requests) == 1


@pytest.mark.parametrize("approved_first", [False, True])
async def test_a_no_ends_a_request_approved_or_not(store: Store, desk: ApprovalDesk, *, approved_first: bool) -> None:
    """As long as the device has not come back; AAA is not asked for a no."""
    waits = await put(store)
    if approved_first:
        await desk.approve(waits, by="alice")

    rejected = await desk.reject(waits, by="bob", note="stolen")

    assert (rejected.state, rejected.decided_by, rejected.note) == (REJECTED, "bob", "stolen")
    with pytest.raises(AlreadyDecided, match="was rejected by bob"):
        await desk.reject(waits, by="alice")
    with pytest.raises(AlreadyDecided, match="was rejected by bob"):
        await desk.approve(waits, by="alice")


async def test_a_device_that_has_its_certificate_cannot_be_rejected(store: Store, desk: ApprovalDesk) -> None:
    """The error names the certificate, which can be revoked."""
    waits = await put(store)
    await desk.approve(waits, by="alice")
    await issue(store, waits)

    with pytest.raises(AlreadyDecided, match=f"has its certificate, {make_certificate(1).certificate_serial:x}"):
        await desk.reject(waits, by="bob")


async def test_whoever_loses_a_race_hears_who_won(store: Store, clock: Clock) -> None:
    """Between AAA's yes and the step another operator says no."""
    waits = await put(store)

    class SlowAuthorizer(ScriptedAuthorizer):
        async def authorize(self, request: AccessRequest) -> Decision:
            await other.reject(waits, by="bob")
            return await super().authorize(request)

    other = ApprovalDesk(store=store, authorizers={}, now=clock)
    desk = ApprovalDesk(store=store, authorizers={"default": SlowAuthorizer()}, now=clock)

    with pytest.raises(AlreadyDecided, match=f"meanwhile request {waits} was rejected by bob"):
        await desk.approve(waits, by="alice")
    assert (await stored(store, waits)).decided_by == "bob"


async def test_only_a_whole_id_names_a_request(store: Store, desk: ApprovalDesk) -> None:
    """A prefix is for people; whoever decides must know which request it is."""
    waits = await put(store)
    for missing in ("f" * 32, waits[:31]):
        with pytest.raises(UnknownRequest, match=f"no request has the ID {missing}$"):
            await desk.approve(missing, by="alice")
        with pytest.raises(UnknownRequest):
            await desk.reject(missing, by="alice")


async def test_a_profile_that_is_gone_can_only_be_rejected(store: Store, desk: ApprovalDesk) -> None:
    """There is nobody to ask."""
    waits = await put(store, key=make_key(profile="old"))

    with pytest.raises(ApprovalError, match="profile old of this request is not in the configuration any more"):
        await desk.approve(waits, by="alice")
    assert (await desk.reject(waits, by="alice")).state is REJECTED


@pytest.mark.parametrize(
    ("state", "by", "words"),
    [
        (PENDING, "", "waits: the profile demands it"),
        (APPROVED, "alice", "was approved by alice; the device gets its certificate when it asks next"),
        (EnrollmentState.ISSUING, "", "is about to get its certificate"),
        (EnrollmentState.ISSUING, "alice", "was approved by alice, and its certificate is being made"),
        (EnrollmentState.ISSUED, "alice", "has its certificate, 4a"),
        (REJECTED, "bob", "was rejected by bob"),
        (REJECTED, "", "was rejected by AAA"),
        (EnrollmentState.FAILED, "", "was declined by the certification authority"),
        (EnrollmentState.EXPIRED, "", "expired, because nobody decided in time"),
    ],
)
def test_every_state_has_words(state: EnrollmentState, by: str, words: str) -> None:
    """They follow the name of the request."""
    request = make_enrollment(state=state, decided_by=by, hold="the profile demands it", certificate_serial=0x4A)
    assert standing(request) == words


def test_a_no_of_aaa_after_a_yes_names_both() -> None:
    """Whoever approved it is not said to have rejected it."""
    request = make_enrollment(state=REJECTED, decided_by="alice", refusal="device is disabled")
    assert standing(request) == "was approved by alice, then rejected by AAA"


# --- forgetting ----------------------------------------------------------------------------------------------------


async def test_what_has_ended_can_be_forgotten_once(store: Store, desk: ApprovalDesk, clock: Clock) -> None:
    """The request keeps its end; a second attempt hears that it is done."""
    waits = await put(store)
    rejected = await desk.reject(waits, by="alice")

    assert await desk.forget(waits, by="bob", note="by mistake") == rejected
    assert await stored(store, waits) == replace(rejected, closed_at=clock())
    with pytest.raises(AlreadyDecided, match="is forgotten already"):
        await desk.forget(waits, by="carol")


async def test_what_is_under_way_cannot_be_forgotten(store: Store, desk: ApprovalDesk) -> None:
    """It is decided first; unknown requests are unknown."""
    waits = await put(store)
    with pytest.raises(StillUndecided, match=r"has not ended: it waits: the profile demands it"):
        await desk.forget(waits, by="alice")
    assert (await stored(store, waits)).closed_at is None
    with pytest.raises(UnknownRequest):
        await desk.forget("f" * 32, by="alice")


def test_a_request_that_nobody_holds_waits_for_aaa() -> None:
    """Until AAA says yes; then nobody has to approve it."""
    assert standing(replace(make_pending(), hold="")) == "waits: put off by AAA"
