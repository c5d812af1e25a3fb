"""Claims about how many certificates a device may have, under how many keys, and whose keys they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, Defer
from scep_ra.enrollment.approval import ApprovalDesk
from scep_ra.enrollment.errors import (
    EnrollmentError,
    KeyRefused,
    NotAuthorized,
    QuotaExceeded,
    RenewalRefused,
    SecondKeyRefused,
)
from scep_ra.enrollment.renewal import RenewalRules
from scep_ra.enrollment.rules import Approval, SecondKey
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import EnrollmentRequest, Granted, Undecided
from scep_ra.pki.certificates import Certificate
from scep_ra.revocation.crl import RevocationReason
from scep_ra.revocation.service import RevocationService
from scep_ra.storage.base import Store, StoredCertificate
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

OTHER: Final = "FOC9999X0ZZ"
WAIT: Final = Defer(reason="somebody has to look at it")


async def approve(office: Office, request: EnrollmentRequest) -> None:
    desk = ApprovalDesk(store=office.store, authorizers={"default": office.authorizer}, now=office.clock)
    await desk.approve((await office.enrollment(request)).enrollment_id, by="alice")


async def revoke(office: Office, certificate: Certificate, reason: int = 4) -> None:
    assert await office.store.revoke_certificate("default", certificate.certificate_serial, office.clock(), reason)


async def revoke_due(office: Office) -> int:
    """Do what housekeeping does."""
    return await RevocationService(store=office.store, cas={}, now=office.clock).revoke_due()


async def row_of(office: Office, certificate: Certificate) -> StoredCertificate:
    row = await office.store.certificate("default", certificate.certificate_serial)
    assert row is not None
    return row


def renewal_of(certificate: Certificate, owner: str = "renewed key") -> EnrollmentRequest:
    return make_request(owner=owner, signed_with=certificate)


# --- how many ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_active", [1, 3])
async def test_a_device_gets_as_many_certificates_as_the_profile_says(office: Office, max_active: int) -> None:
    """SR-16: the last one that is allowed, and not one more; a refusal spends nothing."""
    office = office.with_rules(max_active=max_active)
    first, *_ = [await office.enroll(owner=f"key {number}") for number in range(max_active)]
    request = await office.request(owner="one too many")

    with pytest.raises(QuotaExceeded, match=f"has {max_active} active certificates .* may have {max_active}"):
        await office.submit(request)
    await revoke(office, first)
    assert granted(await office.submit(request))


async def expire(office: Office, certificate: Certificate) -> None:
    office.clock.now = certificate.not_after


async def renew(office: Office, certificate: Certificate) -> None:
    assert granted(await office.submit(renewal_of(certificate)))


@pytest.mark.parametrize("end", [expire, revoke])
async def test_what_has_ended_is_not_counted(
    office: Office, end: Callable[[Office, Certificate], Awaitable[None]]
) -> None:
    """A certificate that nobody can use takes no room."""
    office = office.with_rules(max_active=1)
    await end(office, await office.enroll())

    assert await office.enroll(owner="second key")


async def test_a_renewal_takes_the_place_of_what_it_renews(office: Office) -> None:
    """Neither is it refused for the old one, nor does the old one count beside it."""
    office = office.with_rules(max_active=2)
    await renew(office, await office.enroll())

    assert await office.enroll(owner="second key")
    with pytest.raises(QuotaExceeded):
        await office.enroll(owner="third key")


async def test_other_profiles_and_devices_have_quotas_of_their_own(office: Office) -> None:
    """One full device keeps nobody else out."""
    office = office.with_rules(max_active=1)
    await office.enroll()

    assert await office.enroll(device=OTHER, owner="other device")
    assert await office.with_rules(profile="lab").enroll(owner="second key")


async def test_a_certificate_that_is_being_made_counts(office: Office, ca: ScriptedCA) -> None:
    """The CA takes its time; whoever asks meanwhile does not get a second one."""
    office = office.with_rules(max_active=1)
    ca.script = [put_off]
    request = await office.request()
    assert await office.submit(request) == Undecided()

    with pytest.raises(QuotaExceeded):
        await office.submit(await office.request(owner="second key"))
    ca.script = [sign]
    assert granted(await office.poll(request))


async def test_a_quota_holds_against_requests_at_once(office: Office, second_store: Store) -> None:
    """SR-16: ten challenges, ten keys, two nodes, two certificates."""
    office = office.with_rules(max_active=2)
    nodes = (office, office.other(store=second_store))
    requests = [await office.request(owner=f"key {number}") for number in range(10)]

    outcomes = await asyncio.gather(
        *(nodes[number % 2].submit(request) for number, request in enumerate(requests)), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes if not isinstance(outcome, Granted)] == [QuotaExceeded] * 8
    assert len(await office.issued_serials()) == 2


async def test_approval_does_not_lift_the_quota(office: Office) -> None:
    """Two requests were approved, there is room for one; the other waits until there is room again."""
    office = office.with_rules(max_active=1, approval=Approval.ALWAYS)
    one, other = [await office.request(owner=f"key {number}") for number in range(2)]
    for request in (one, other):
        assert await office.submit(request) == Undecided()
        await approve(office, request)

    first = granted(await office.poll(one))
    with pytest.raises(QuotaExceeded):
        await office.poll(other)
    await revoke(office, first)
    assert granted(await office.poll(other))


# --- a second key --------------------------------------------------------------------------------------------------


async def test_a_second_key_is_allowed_unless_the_profile_says_otherwise(office: Office) -> None:
    """TX-7: a device that was reset comes back; both certificates stay."""
    old, new = await office.enroll(), await office.enroll(owner="second key")

    assert await revoke_due(office) == 0
    assert sorted(await office.issued_serials()) == sorted((old.certificate_serial, new.certificate_serial))


async def test_a_second_key_is_refused_and_reported(office: Office) -> None:
    """The device may be a clone; when the old certificate is revoked, the very same request is granted."""
    office = office.with_rules(second_key=SecondKey.REFUSE)
    old = await office.enroll()
    request = await office.request(owner="second key")

    with capture_logs() as log, pytest.raises(SecondKeyRefused, match=f"{old.certificate_serial:x}"):
        await office.submit(request)

    (event,) = [line for line in log if line["event"] == "clone_suspected"]
    assert (event["device_id"], event["source"]) == ("serial:FOC1234X0AB", "192.0.2.1")
    await revoke(office, old)
    assert granted(await office.submit(request))


async def test_nobody_can_approve_what_the_profile_refuses(office: Office) -> None:
    """The operator approved a request, not a second key that the request did not show."""
    office = office.with_rules(second_key=SecondKey.REFUSE, approval=Approval.FIRST)
    await office.with_rules(approval=Approval.OFF).enroll()
    request = await office.request(owner="second key")
    assert await office.submit(request) == Undecided()
    await approve(office, request)

    with pytest.raises(SecondKeyRefused):
        await office.poll(request)


async def test_a_second_key_can_be_held_for_an_operator(office: Office) -> None:
    """Who is told which certificate is in the way, and whose yes counts; both certificates live then."""
    office = office.with_rules(second_key=SecondKey.HOLD)
    old = await office.enroll()
    request = await office.request(owner="second key")

    with capture_logs() as log:
        assert await office.submit(request) == Undecided()
        assert await office.poll(request) == Undecided()

    assert [line["event"] for line in log].count("clone_suspected") == 1
    assert f"{old.certificate_serial:x}" in (await office.enrollment(request)).hold
    await approve(office, request)
    assert granted(await office.poll(request))
    assert (await row_of(office, old)).revoke_at is None


async def test_a_second_key_that_shows_late_is_held_as_well(office: Office, aaa: ScriptedAuthorizer) -> None:
    """AAA deferred the request, and the device got another certificate meanwhile."""
    office = office.with_rules(second_key=SecondKey.HOLD)
    aaa.script = [WAIT, Accept()]
    request = await office.request(owner="second key")
    assert await office.submit(request) == Undecided()
    await office.enroll()

    with capture_logs() as log:
        assert await office.poll(request) == Undecided()

    assert [line["event"] for line in log] == ["clone_suspected"]
    assert (await office.enrollment(request)).state is EnrollmentState.PENDING
    await approve(office, request)
    assert granted(await office.poll(request))


async def test_a_second_key_can_replace_the_first(office: Office) -> None:
    """Issued beyond the quota, for the others are revoked as superseded by the next housekeeping."""
    office = office.with_rules(second_key=SecondKey.REPLACE, max_active=1)
    old = await office.enroll()
    bystanders = [
        await office.enroll(device=OTHER, owner="other device"),
        await office.with_rules(profile="lab").enroll(owner="key of the lab"),
    ]

    new = await office.enroll(owner="second key")

    assert await revoke_due(office) == 1
    assert await revoke_due(office) == 0
    assert (await row_of(office, old)).revocation_reason == RevocationReason.SUPERSEDED
    for certificate in (new, *bystanders):
        assert (await row_of(office, certificate)).revoked_at is None


async def test_what_was_replaced_cannot_come_back_by_renewal(office: Office) -> None:
    """Not even in the moment before housekeeping revokes it."""
    office = office.with_rules(second_key=SecondKey.REPLACE)
    old = await office.enroll()
    await office.enroll(owner="second key")

    with pytest.raises(RenewalRefused, match="was replaced by one under another key"):
        await office.submit(renewal_of(old))


async def test_a_renewal_that_waits_ends_when_its_certificate_is_replaced(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """As it does when the certificate is revoked."""
    office = office.with_rules(second_key=SecondKey.REPLACE)
    request = renewal_of(await office.enroll())
    aaa.script = [WAIT, Accept()]
    assert await office.submit(request) == Undecided()
    await office.enroll(owner="second key")

    with pytest.raises(NotAuthorized, match="revoked meanwhile"):
        await office.poll(request)
    assert (await office.enrollment(request)).state is EnrollmentState.REJECTED


async def test_a_renewal_under_way_does_not_outlive_the_replacement(office: Office, ca: ScriptedCA) -> None:
    """The old key asked first and the CA took its time: the certificate is revoked when it comes, and kept back."""
    office = office.with_rules(second_key=SecondKey.REPLACE)
    request = renewal_of(await office.enroll())
    ca.script = [put_off, sign]
    assert await office.submit(request) == Undecided()
    new = await office.enroll(owner="second key")

    (intent,) = await office.store.open_intents()
    with pytest.raises(NotAuthorized, match="certificate of this request was revoked"):
        await office.service.resume(intent)

    await revoke_due(office)
    good = [row for row in await office.store.list_certificates() if row.revoked_at is None]
    assert [row.certificate_serial for row in good] == [new.certificate_serial]
    with pytest.raises(NotAuthorized):
        await office.poll(request)


async def test_an_expired_certificate_does_not_come_back_after_a_replacement(office: Office, clock: Clock) -> None:
    """Though the profile grants some days of grace."""
    office = office.with_rules(second_key=SecondKey.REPLACE, renewal=RenewalRules(grace=30 * DAY))
    old = await office.enroll()
    clock.now = old.not_after + DAY
    await office.enroll(owner="second key")

    with pytest.raises(RenewalRefused, match="was replaced by one under another key"):
        await office.submit(renewal_of(old))


@pytest.mark.parametrize("policy", SecondKey)
async def test_the_same_key_again_is_no_second_key(office: Office, policy: SecondKey) -> None:
    """TX-7: a device that lost its certificate, not its key."""
    office = office.with_rules(second_key=policy)
    await office.enroll()

    assert await office.enroll(transaction_id="TX2")


@pytest.mark.parametrize("policy", SecondKey)
async def test_a_renewal_brings_a_new_key_by_nature(office: Office, policy: SecondKey) -> None:
    """R-01: it proves itself with the old one, and replaces nothing else."""
    bystander = await office.enroll(owner="second key")
    office = office.with_rules(second_key=policy)
    old = await office.with_rules(second_key=SecondKey.ALLOW).enroll()

    assert granted(await office.submit(renewal_of(old)))
    assert (await row_of(office, bystander)).revoke_at is None


# --- what a renewal leaves behind ----------------------------------------------------------------------------------


async def test_a_renewed_certificate_is_revoked_after_its_time(office: Office, clock: Clock) -> None:
    """The device needs a moment to change over."""
    office = office.with_rules(renewal=RenewalRules(revoke_old_after=2 * HOUR))
    old = await office.enroll()
    await renew(office, old)

    clock.advance(2 * HOUR - timedelta(seconds=1))
    assert await revoke_due(office) == 0
    clock.advance(timedelta(seconds=1))
    assert await revoke_due(office) == 1
    row = await row_of(office, old)
    assert (row.revoked_at, row.revocation_reason) == (clock(), RevocationReason.SUPERSEDED)


async def test_without_a_delay_a_renewed_certificate_stays_until_it_expires(office: Office, clock: Clock) -> None:
    """The default: CRLs stay short."""
    await renew(office, await office.enroll())
    clock.advance(100 * DAY)

    assert await revoke_due(office) == 0


async def test_a_device_whose_answer_was_lost_gets_its_renewal_though_the_old_one_is_superseded(
    office: Office, clock: Clock
) -> None:
    """TX-4: superseded by that very renewal; stolen, it would not."""
    office = office.with_rules(renewal=RenewalRules(revoke_old_after=HOUR))
    old = await office.enroll()
    request = renewal_of(old)
    new = granted(await office.submit(request))
    clock.advance(HOUR)
    await revoke_due(office)

    assert granted(await office.submit(request)) == granted(await office.poll(request)) == new


# --- whose key -----------------------------------------------------------------------------------------------------


async def test_a_key_belongs_to_one_device(office: Office) -> None:
    """SR-10: two devices with one key are one secret in two places; the challenge stays good for another key."""
    await office.enroll()
    secret = await office.challenge(OTHER)

    with pytest.raises(KeyRefused, match=r"in use by serial:FOC1234X0AB") as refusal:
        await office.submit(make_request(device=OTHER, challenge=secret))
    assert refusal.value.code == "key"
    assert granted(await office.submit(make_request(device=OTHER, owner="other device", challenge=secret)))


async def test_a_key_is_taken_from_the_moment_that_it_is_ordered(office: Office, ca: ScriptedCA) -> None:
    """The CA has not signed yet."""
    ca.script = [put_off]
    assert await office.submit(await office.request()) == Undecided()

    with pytest.raises(KeyRefused):
        await office.submit(await office.request(device=OTHER, transaction_id="TX2"))


async def test_of_two_devices_that_wait_with_one_key_one_gets_its_certificate(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """Both were put off when the key was nobody's."""
    aaa.script = [WAIT, WAIT, Accept()]
    one, other = await office.request(), await office.request(device=OTHER, transaction_id="TX2")
    assert await office.submit(one) == await office.submit(other) == Undecided()

    assert granted(await office.poll(one))
    with pytest.raises(KeyRefused):
        await office.poll(other)


@pytest.mark.parametrize("held", [False, True])
async def test_a_stolen_key_is_not_certified_again(office: Office, *, held: bool) -> None:
    """SR-10: not for its own device either, and no operator is asked about it."""
    await revoke(office, await office.enroll(), RevocationReason.KEY_COMPROMISE)
    office = office.with_rules(approval=Approval.ALWAYS if held else Approval.OFF)

    with pytest.raises(KeyRefused, match="stolen: make a new key"):
        await office.enroll(transaction_id="TX2")


async def test_a_key_of_a_certificate_that_was_given_up_may_be_used_again(office: Office) -> None:
    """Revoked for another reason, by its own device."""
    await revoke(office, await office.enroll(), RevocationReason.CESSATION_OF_OPERATION)

    assert await office.enroll(transaction_id="TX2")


@pytest.mark.parametrize("renewal", [False, True])
async def test_keys_of_authorities_are_nobodys(office: Office, aaa: ScriptedAuthorizer, *, renewal: bool) -> None:
    """SR-10: refused before AAA hears of it, with proof or without one the same way as ever."""
    old = await office.enroll()
    office = office.other(forbidden_keys=frozenset({make_request(owner="RA").csr.spki_digest}))
    request = renewal_of(old, "RA") if renewal else await office.request(owner="RA")

    with pytest.raises(KeyRefused, match="of an authority"):
        await office.submit(request)
    with pytest.raises(NotAuthorized):
        await office.submit(make_request(owner="RA", challenge="guess"))
    assert len(aaa.requests) == 1
    assert key_of("RA").spki == request.csr.spki


async def test_a_refusal_leaves_nothing_that_stands_in_the_way(office: Office) -> None:
    """Whatever the store refused: no row, no spent challenge, so the same request may come again."""
    office = office.with_rules(max_active=1, second_key=SecondKey.REFUSE)
    await office.enroll()
    requests = [await office.request(owner="second key"), await office.request(transaction_id="TX2")]
    requests += [await office.request(device=OTHER)]

    for request in requests * 2:
        with pytest.raises(EnrollmentError) as refusal:
            await office.submit(request)
        assert refusal.value.code in {"second_key", "quota", "key"}
    assert len(await office.store.list_enrollments(frozenset(EnrollmentState))) == 1
