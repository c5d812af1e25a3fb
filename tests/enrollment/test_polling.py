"""Claims about requests that AAA defers: who may poll, for how long, and for what.

Numbers like T-13 are those of the project's protocol checklist.
"""

from __future__ import annotations

from typing import Final

import pytest

from scep_ra.aaa.base import Accept, Defer, Reject
from scep_ra.enrollment.errors import (
    NotAuthorized,
    UnknownTransaction,
)
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import EnrollmentRequest, Undecided
from scep_ra.storage.base import Store
from tests.support.enrollment import (
    DAY,
    HOUR,
    Clock,
    Office,
    ScriptedAuthorizer,
    granted,
    key_of,
    make_request,
)

WAIT: Final = Defer(reason="somebody has to look at it")
NO: Final = Reject(reason="device is on the list of stolen ones")


async def refused(office: Office, request: EnrollmentRequest, pattern: str = "") -> None:
    """Insist that a request is not authorized."""
    with pytest.raises(NotAuthorized, match=pattern):
        await office.submit(request)


async def test_what_aaa_defers_is_pending_until_it_accepts(office: Office, aaa: ScriptedAuthorizer) -> None:
    """T-01, T-02, T-03, T-08: poll, poll, certificate."""
    aaa.script = [WAIT, WAIT, Accept()]
    request = await office.request()

    assert await office.submit(request) == Undecided()
    assert await office.poll(request) == Undecided()
    assert granted(await office.poll(request)).spki == key_of().spki


async def test_the_same_request_again_serves_as_a_poll(office: Office, aaa: ScriptedAuthorizer) -> None:
    """T-09, T-10: scepclient never polls; there is one entry in the queue and one certificate in the end."""
    aaa.script = [WAIT, WAIT, Accept()]
    request = await office.request()

    assert await office.submit(request) == Undecided()
    assert await office.submit(request) == Undecided()
    assert await office.submit(request) == await office.submit(request)
    assert len(await office.issued_serials()) == 1


async def test_a_pending_request_keeps_its_challenge(office: Office, aaa: ScriptedAuthorizer, clock: Clock) -> None:
    """It may expire meanwhile, and nobody else can use it."""
    aaa.script = [WAIT, Accept()]
    secret = await office.challenge()
    request = make_request(challenge=secret)
    await office.submit(request)

    await refused(office, make_request(challenge=secret, owner="thief"), "has been used")
    clock.advance(2 * HOUR)
    assert granted(await office.submit(request))


async def test_a_request_that_is_rejected_stays_rejected(office: Office, aaa: ScriptedAuthorizer) -> None:
    """T-04: AAA may change its mind afterwards; a new request is needed then."""
    aaa.script = [WAIT, NO, Accept()]
    request = await office.request()
    await office.submit(request)

    with pytest.raises(NotAuthorized, match="stolen"):
        await office.poll(request)
    with pytest.raises(NotAuthorized, match="was rejected"):
        await office.poll(request)
    await refused(office, request, "was rejected")
    assert await office.enroll()


async def test_a_rejection_at_once_leaves_no_trace(office: Office, aaa: ScriptedAuthorizer) -> None:
    """The same request with the same challenge succeeds as soon as AAA says yes."""
    aaa.script = [NO, Accept()]
    request = await office.request()

    await refused(office, request, "stolen")
    assert granted(await office.submit(request))


async def test_a_request_that_nobody_approved_expires(office: Office, aaa: ScriptedAuthorizer, clock: Clock) -> None:
    """T-20: approval does not wait for ever."""
    aaa.script = [WAIT, Accept()]
    request = await office.request()
    await office.submit(request)

    clock.advance(9 * DAY)
    assert await office.store.expire_waiting("default", clock() - office.rules.replay, clock()) == 1
    with pytest.raises(NotAuthorized, match="expired"):
        await office.poll(request)


@pytest.mark.parametrize(("transaction_id", "owner"), [("TX2", "device"), ("TX1", "other device")])
async def test_a_poll_for_what_is_not_known_is_refused(
    office: Office, aaa: ScriptedAuthorizer, transaction_id: str, owner: str
) -> None:
    """T-05, T-06: also with the right transactionID and another key; the request is untouched."""
    aaa.script = [WAIT, Accept()]
    request = await office.request()
    await office.submit(request)

    with pytest.raises(UnknownTransaction):
        await office.poll(make_request(transaction_id=transaction_id, owner=owner))
    assert (await office.enrollment(request)).state is EnrollmentState.PENDING


async def test_a_transaction_of_another_profile_is_unknown(office: Office) -> None:
    """A poll at the wrong door."""
    request = await office.request()
    await office.submit(request)

    with pytest.raises(UnknownTransaction):
        await office.with_rules(profile="lab").poll(request)


async def test_polls_leave_nothing_behind(office: Office, aaa: ScriptedAuthorizer) -> None:
    """T-18: a thousand polls do not grow anything."""
    aaa.script = [WAIT]
    request = await office.request()
    await office.submit(request)
    before = await office.enrollment(request)

    for _ in range(1000):
        assert await office.poll(request) == Undecided()
    assert await office.enrollment(request) == before
    assert office.service._issuer._under_way == {}


async def test_a_pending_request_survives_a_restart(
    office: Office, aaa: ScriptedAuthorizer, second_store: Store
) -> None:
    """T-16: another process answers the poll."""
    aaa.script = [WAIT, Accept()]
    request = await office.request()
    await office.submit(request)
    await office.store.close()

    assert granted(await office.other(store=second_store).poll(request))


async def test_a_poll_follows_the_newest_request(office: Office, aaa: ScriptedAuthorizer, clock: Clock) -> None:
    """Key-derived transactionIDs repeat; what the device waits for is what it asked last."""
    old = await office.enroll()
    clock.advance(HOUR)
    aaa.script = [WAIT, Accept()]
    request = await office.request()
    await office.submit(request)

    assert granted(await office.poll(request)).certificate_serial != old.certificate_serial
