"""Claims about submitting and polling, on a real store: who gets a certificate, how many, and after which mishaps.

Numbers like TX-4, N-35 or T-13 are those of the project's protocol checklist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Defer, Reject
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.ca.base import Issued
from scep_ra.ca.local import LocalCA
from scep_ra.enrollment.challenges import NoChallenge, StaticChallenge, challenge_digest
from scep_ra.enrollment.errors import (
    EnrollmentError,
    IdentityRefused,
    IssuanceRefused,
    NotAuthorized,
    TransactionConflict,
    UnknownTransaction,
)
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import EnrollmentRequest, Outcome, Undecided
from scep_ra.errors import Misconfigured, Refused, Unavailable
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile, KeyUsage
from scep_ra.storage.base import Store
from tests.support.enrollment import (
    DAY,
    DEVICE,
    HOUR,
    Clock,
    Gate,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    Step,
    device_id,
    fail,
    granted,
    key_of,
    local_ca,
    make_request,
    put_off,
    sign,
    subject_of,
)
from tests.support.pki import make_ca, make_certificate, sign_tbs

WAIT: Final = Defer(reason="somebody has to look at it")
NO: Final = Reject(reason="device is on the list of stolen ones")


async def refused(office: Office, request: EnrollmentRequest, pattern: str = "") -> None:
    """Insist that a request is not authorized."""
    with pytest.raises(NotAuthorized, match=pattern):
        await office.submit(request)


async def outcomes(*calls: asyncio.Future[Outcome] | asyncio.Task[Outcome]) -> tuple[list[Certificate], list[object]]:
    """Wait for all; return the certificates and the errors."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors: list[object] = [result for result in results if isinstance(result, BaseException)]
    return [granted(result) for result in results if not isinstance(result, BaseException)], errors


# --- one request ---------------------------------------------------------------------------------------------------


async def test_an_authorized_device_gets_the_certificate_that_it_asked_for(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """Name and key are the request's, AAA was asked about this device and address, and the store has it first."""
    certificate = await office.enroll()

    assert (certificate.subject, certificate.spki) == (subject_of(), key_of().spki)
    (asked,) = aaa.requests
    assert (asked.device_id, asked.profile, asked.source, asked.renewal) == (device_id(), "default", "192.0.2.1", False)
    (stored,) = await office.store.list_certificates()
    assert (stored.der, stored.device_id, stored.profile) == (certificate.der, device_id(), "default")


async def test_validity_starts_a_little_earlier_and_lasts_as_the_profile_says(office: Office, clock: Clock) -> None:
    """Devices whose clocks lag behind must not see a certificate of the future."""
    certificate = await office.enroll()

    assert certificate.not_before < clock.now
    assert certificate.not_after - clock.now == office.rules.contents.validity


async def test_extensions_of_the_request_change_nothing(office: Office) -> None:
    """N-39: the profile decides; a request for a CA certificate gets an ordinary one."""
    wish = Extension(oid=oids.BASIC_CONSTRAINTS, critical=True, value=der.sequence(der.TRUE))

    certificate = await office.enroll(extensions=(wish,))

    assert certificate.extension(oids.BASIC_CONSTRAINTS) == der.sequence()


async def test_the_registry_decides_who_enrolls(office: Office) -> None:
    """N-36: unknown, disabled and removed devices get nothing, and a challenge survives the refusal."""
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))
    request = await office.request()

    await refused(office, request, "not registered")
    await office.register()
    await office.store.set_device_enabled(device_id(), False, office.clock())
    await refused(office, request, "disabled")
    await office.store.set_device_enabled(device_id(), True, office.clock())
    assert granted(await office.submit(request)).spki == key_of().spki


async def test_a_device_that_was_removed_cannot_enroll_with_its_old_challenge(office: Office) -> None:
    """N-36: not even after it has been registered again."""
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))
    await office.register()
    request = await office.request()
    await office.store.remove_device(device_id(), office.clock())
    await office.register()

    await refused(office, request, "missing or unknown")


async def test_a_device_of_another_profile_is_refused(office: Office) -> None:
    """A registration may be bound to one profile."""
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))
    await office.register(profile="lab")

    await refused(office, await office.request(), "bound to profile lab")


# --- challenges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [None, "", "wrong", "ä\U0001f511"])
async def test_a_wrong_or_absent_challenge_is_refused(office: Office, aaa: ScriptedAuthorizer, secret: str) -> None:
    """N-33: before AAA hears of it."""
    await office.challenge()

    await refused(office, make_request(challenge=secret), "missing or unknown")
    assert aaa.requests == []


async def test_an_expired_challenge_is_refused(office: Office, clock: Clock) -> None:
    """N-34: from the very moment that it expires."""
    request = await office.request()
    clock.advance(HOUR)

    await refused(office, request, "expired at")


async def test_a_challenge_serves_once(office: Office) -> None:
    """N-34: another key with the same secret gets nothing."""
    secret = await office.challenge()
    await office.submit(make_request(challenge=secret))

    await refused(office, make_request(challenge=secret, owner="thief"), "has been used")


async def test_a_challenge_serves_the_device_it_was_made_for(office: Office) -> None:
    """N-35: and is not lost when another one tries it."""
    secret = await office.challenge()

    await refused(office, make_request(challenge=secret, device="FOC9999X0ZZ"), f"is for serial:{DEVICE}")
    assert granted(await office.submit(make_request(challenge=secret)))


async def test_a_challenge_of_another_profile_is_refused(office: Office) -> None:
    """Profiles share a store and nothing else."""
    secret = await office.with_rules(profile="lab").challenge()

    await refused(office, make_request(challenge=secret), "is for profile 'lab'")


# --- identity ------------------------------------------------------------------------------------------------------


def serial_number(element: bytes) -> bytes:
    """Return a Name of one serialNumber, whatever its octets."""
    return der.sequence(der.element(der.SET, der.sequence(der.oid(oids.SUBJECT_SERIAL_NUMBER), element)))


def utf8(octets: bytes) -> bytes:
    return der.element(der.UTF8_STRING, octets)


@pytest.mark.parametrize(
    "subject",
    [
        parse_name("serialNumber=FOC1234X0AB,UID=FOC9999X0ZZ"),
        der.sequence(),
        parse_name("O=Test"),
        serial_number(utf8(b"FOC\x00123")),
        serial_number(utf8(b"FOC\n123")),
        serial_number(utf8(b"A" * 300)),
        serial_number(utf8(b"\xff\xfe")),
        serial_number(der.integer(1)),
    ],
    ids=["two devices", "empty", "no identifier", "NUL", "line break", "long", "not UTF-8", "not text"],
)
async def test_a_request_that_does_not_name_one_device_is_refused(
    office: Office, aaa: ScriptedAuthorizer, subject: bytes
) -> None:
    """N-37, N-49, N-50: the challenge is not spent and no backend sees the text."""
    secret = await office.challenge()

    with pytest.raises(IdentityRefused):
        await office.submit(make_request(challenge=secret, subject=subject))
    assert aaa.requests == []
    assert granted(await office.submit(make_request(challenge=secret)))


async def test_a_filter_in_place_of_a_serial_number_is_text_to_the_backend(office: Office) -> None:
    """N-50: it finds no device, and those that are there stay."""
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))
    await office.register()
    text = "*)(uid=*' OR 1=1 --"
    request = make_request(challenge=await office.challenge(text), subject=serial_number(utf8(text.encode())))

    await refused(office, request, "not registered")
    assert len(await office.store.list_devices()) == 1


async def test_a_device_id_may_stand_in_the_alternative_name(office: Office) -> None:
    """It proves its challenge as one in the subject does."""
    uuid = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    uri = der.element(der.context(6, constructed=False), f"urn:uuid:{uuid}".encode())
    name = Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=der.sequence(uri))

    assert await office.enroll(device=f"uuid:{uuid}", subject=parse_name("O=Test"), extensions=(name,))


# --- the same request again ----------------------------------------------------------------------------------------


async def test_the_same_request_gets_the_same_certificate(office: Office, ca: ScriptedCA) -> None:
    """TX-4, T-11, T-17: replayed or polled for, one certificate was signed."""
    request = await office.request()

    first, again, polled = await office.submit(request), await office.submit(request), await office.poll(request)

    assert first == again == polled
    assert len(ca.orders) == 1


async def test_after_the_replay_window_the_same_request_is_refused(office: Office, clock: Clock) -> None:
    """T-12: whoever recorded it years ago learns nothing; the last moment still counts."""
    request = await office.request()
    await office.submit(request)

    clock.advance(office.rules.replay)
    assert granted(await office.submit(request))
    clock.advance(DAY)
    await refused(office, request, "too old")


async def test_a_device_that_is_disabled_or_removed_is_not_answered_again(office: Office) -> None:
    """The certificate exists, and neither a replay nor a poll brings it out."""
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))
    await office.register()
    request = await office.request()
    await office.submit(request)

    await office.store.set_device_enabled(device_id(), False, office.clock())
    await refused(office, request, "no longer authorized: device is disabled")
    await office.store.remove_device(device_id(), office.clock())
    with pytest.raises(NotAuthorized, match="no longer authorized: device not registered"):
        await office.poll(request)


async def test_an_answer_that_aaa_defers_is_not_given_again(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Only a yes is a yes."""
    request = await office.request()
    await office.submit(request)
    aaa.script = [WAIT]

    await refused(office, request, "no longer authorized: somebody")


async def test_a_revoked_certificate_is_not_sent_again(office: Office, clock: Clock) -> None:
    """A lost reply is repeated only while its certificate is good."""
    request = await office.request()
    certificate = granted(await office.submit(request))
    await office.store.revoke_certificate("default", certificate.certificate_serial, clock(), 1)

    await refused(office, request, "was revoked")


async def test_the_same_key_enrolls_again_with_a_new_request(office: Office) -> None:
    """TX-5, TX-7, P-33: transactionIDs derived from the key repeat, and a good certificate is no reason to refuse."""
    first = await office.enroll()
    second = await office.enroll()

    assert first.spki == second.spki
    assert first.certificate_serial != second.certificate_serial


async def test_another_request_meanwhile_under_the_same_transaction_is_a_conflict(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """TX-5, T-13: its challenge is not spent, and the first request goes on."""
    aaa.script = [WAIT, Accept()]
    request, other = await office.request(), await office.request()
    assert await office.submit(request) == Undecided()

    with pytest.raises(TransactionConflict):
        await office.submit(other)
    assert granted(await office.poll(request))
    assert granted(await office.submit(other)), "after completion it is a new transaction"


async def test_two_keys_may_use_one_transaction_id(office: Office) -> None:
    """TX-3, T-14: sscep's are constant for some operations; the key tells requests apart."""
    requests = [await office.request(owner=owner) for owner in ("device", "other device")]

    certificates, errors = await outcomes(*[asyncio.ensure_future(office.submit(request)) for request in requests])

    assert errors == []
    assert {each.spki for each in certificates} == {key_of("device").spki, key_of("other device").spki}


# --- pending and polling -------------------------------------------------------------------------------------------


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


# --- many at once --------------------------------------------------------------------------------------------------


async def test_a_challenge_gives_one_certificate_however_many_race_for_it(office: Office) -> None:
    """A hundred keys, one secret, all at once."""
    secret = await office.challenge()
    requests = [make_request(challenge=secret, owner=f"racer {number}") for number in range(100)]

    certificates, errors = await outcomes(*[asyncio.ensure_future(office.submit(each)) for each in requests])

    assert len(certificates) == 1
    assert len(errors) == 99
    assert all(isinstance(error, NotAuthorized) for error in errors)
    assert await office.issued_serials() == [certificates[0].certificate_serial]


async def test_one_request_gives_one_certificate_however_often_it_comes(office: Office, ca: ScriptedCA) -> None:
    """TX-8, T-15: fifty at once, everybody gets the same octets, and the CA has signed once."""
    request = await office.request()

    certificates, errors = await outcomes(*[asyncio.ensure_future(office.submit(request)) for _ in range(50)])

    assert errors == []
    assert len({each.der for each in certificates}) == 1
    assert len(await office.issued_serials()) == len(ca.orders) == 1


async def test_two_nodes_give_one_certificate(office: Office, second_store: Store) -> None:
    """TX-8: they share nothing but the database."""
    other = office.other(store=second_store)
    request = await office.request()
    calls = [asyncio.ensure_future(each.submit(request)) for _ in range(10) for each in (office, other)]

    certificates, errors = await outcomes(*calls)

    assert errors == []
    assert len({each.der for each in certificates}) == 1
    assert len(await office.issued_serials()) == 1


async def test_two_nodes_that_sign_at_the_same_time_hand_out_one_certificate(
    office: Office, ca: ScriptedCA, clock: Clock, second_store: Store
) -> None:
    """The slower one finds the row of the faster and answers what stands there."""
    slow = Gate()
    ca.script = [slow]
    other = office.other(store=second_store, ca=ScriptedCA(local_ca(now=clock)))
    request = await office.request()
    first = asyncio.ensure_future(office.submit(request))
    await slow.entered.wait()

    second = await other.submit(request)
    slow.opened.set()
    assert await first == second


class Meanwhile(ScriptedAuthorizer):
    """An AAA that says yes, and before its first answer something else happens."""

    def __init__(self, happening: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._happenings = [happening]

    async def authorize(self, request: AccessRequest) -> Decision:
        while self._happenings:
            await self._happenings.pop()()
        return await super().authorize(request)


async def test_of_two_nodes_that_approve_one_is_first_and_both_answer_alike(
    office: Office, aaa: ScriptedAuthorizer, second_store: Store
) -> None:
    """What the first one reserved counts."""
    aaa.script = [WAIT, Accept()]
    request = await office.request()
    await office.submit(request)
    other = office.other(store=second_store)
    late = office.other(authorizer=Meanwhile(lambda: other.poll(request)))

    assert await late.poll(request) == await other.poll(request)
    assert len(await office.issued_serials()) == 1


async def test_a_request_that_loses_the_insertion_answers_as_the_winner(office: Office, second_store: Store) -> None:
    """Both looked before either had written; the second finds the row when it writes its own."""
    request = await office.request()
    other = office.other(store=second_store)
    late = office.other(authorizer=Meanwhile(lambda: other.submit(request)))

    assert await late.submit(request) == await other.submit(request)
    assert len(await office.issued_serials()) == 1


# --- backends that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Unavailable("no answer from AAA"), Misconfigured("wrong shared secret")])
async def test_an_aaa_that_fails_is_not_a_yes(office: Office, aaa: ScriptedAuthorizer, error: Exception) -> None:
    """N-52: the error passes, nothing is recorded, and the same request succeeds later."""
    aaa.script = [error, Accept()]
    request = await office.request()

    with pytest.raises(type(error)):
        await office.submit(request)
    assert granted(await office.submit(request))


async def test_an_aaa_that_fails_does_not_repeat_an_answer(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Unknown is not yes for a certificate that exists, either."""
    request = await office.request()
    await office.submit(request)
    aaa.script = [Unavailable("no answer from AAA")]

    with pytest.raises(Unavailable):
        await office.poll(request)


@pytest.mark.parametrize("step", [fail(Unavailable("the CA is away")), put_off], ids=["unavailable", "pending"])
async def test_a_ca_that_cannot_answer_leaves_the_request_waiting(office: Office, ca: ScriptedCA, step: Step) -> None:
    """N-53: the next poll carries the same order out."""
    ca.script = [step, step, sign]
    request = await office.request()

    assert await office.submit(request) == Undecided()
    assert await office.poll(request) == Undecided()
    assert granted(await office.poll(request))
    assert len(set(ca.orders)) == 1


async def test_while_the_ca_is_away_a_device_can_lose_its_authorization(
    office: Office, aaa: ScriptedAuthorizer, ca: ScriptedCA
) -> None:
    """Nothing is signed for it then."""
    ca.script = [fail(Unavailable("the CA is away")), sign]
    aaa.script = [Accept(), NO]
    request = await office.request()
    await office.submit(request)

    with pytest.raises(NotAuthorized, match="no longer authorized"):
        await office.poll(request)
    assert len(ca.orders) == 1


async def test_a_ca_that_refuses_has_refused_for_good(office: Office, ca: ScriptedCA) -> None:
    """N-53: the same request gets the same answer without asking again; another one may succeed."""
    ca.script = [fail(Refused("name constraints")), sign]
    request = await office.request()

    with pytest.raises(IssuanceRefused, match="name constraints"):
        await office.submit(request)
    with pytest.raises(IssuanceRefused, match="declined"):
        await office.submit(request)
    assert len(ca.orders) == 1
    assert await office.enroll()


async def test_what_the_ca_would_not_prepare_is_refused_before_the_challenge_is_spent(
    office: Office, ca: ScriptedCA
) -> None:
    """A CA at the end of its life, or a key without a usage, is found out before anything is recorded."""
    ca.refusal = Refused("CA 'default' ends today")
    request = await office.request()

    with pytest.raises(IssuanceRefused, match="ends today"):
        await office.submit(request)
    ca.refusal = None
    assert granted(await office.submit(request))


async def test_a_profile_that_allows_a_key_no_usage_refuses_it(office: Office) -> None:
    """An EC key cannot encipher keys."""
    office = office.with_contents(extensions=CertificateProfile(key_usage=(KeyUsage.KEY_ENCIPHERMENT,)))

    with pytest.raises(IssuanceRefused, match="EC key"):
        await office.enroll()


# --- a CA that lies ------------------------------------------------------------------------------------------------


def lie(make: Callable[[LocalCA, bytes], Certificate]) -> Step:
    async def step(authority: LocalCA, order: bytes) -> Issued:
        return Issued(certificate=make(authority, order))

    return step


def swap(order: bytes, old: bytes, new: bytes) -> Certificate:
    """Sign the order with a part exchanged for one of the same length."""
    assert old in order
    return sign_tbs(order.replace(old, new), make_ca("ec-p256").signer)


def promote(order: bytes) -> Certificate:
    """Sign the order with the cA bit set in its basicConstraints."""
    fields = der.Reader(order).enter()
    parts = [fields.element() for _ in range(7)]
    extensions = fields.enter(der.context(3)).enter()
    promoted = []
    while not extensions.at_end():
        extension = extensions.element()
        if der.oid(oids.BASIC_CONSTRAINTS) in extension:
            extension = der.sequence(der.oid(oids.BASIC_CONSTRAINTS), der.octet_string(der.sequence(der.TRUE)))
        promoted.append(extension)
    return sign_tbs(der.sequence(*parts, der.explicit(3, der.sequence(*promoted))), make_ca("ec-p256").signer)


LIES: Final[dict[str, Step]] = {
    "another key": lie(lambda _, order: swap(order, key_of().spki, key_of("other device").spki)),
    "another subject": lie(lambda _, order: swap(order, b"FOC1234X0AB", b"FOC9999X0ZZ")),
    "the CA's own certificate": lie(lambda *_: make_ca("ec-p256").chain[0]),
    "basicConstraints of a CA": lie(lambda _, order: promote(order)),
    "an unknown issuer": lie(lambda *_: make_certificate(make_ca("ec-p256", name="other"), key_of().spki)),
}


@pytest.mark.parametrize("name", LIES)
async def test_what_was_not_ordered_is_kept_from_the_device(office: Office, ca: ScriptedCA, name: str) -> None:
    """The certificate is logged in full for the operator and counts as a refusal."""
    ca.script = [LIES[name]]
    request = await office.request()

    with capture_logs() as log, pytest.raises(IssuanceRefused, match="did not issue what was ordered"):
        await office.submit(request)
    with pytest.raises(IssuanceRefused):
        await office.poll(request)
    assert await office.store.list_certificates() == []
    (quarantined,) = [line for line in log if line["event"] == "certificate_quarantined"]
    assert quarantined["device_id"] == f"serial:{DEVICE}"
    assert bytes.fromhex(quarantined["certificate"]).startswith(b"\x30")


# --- crashes -------------------------------------------------------------------------------------------------------


async def crash(_authority: LocalCA, _order: bytes) -> Issued:
    """End as a process does that is killed before it signs."""
    raise asyncio.CancelledError


class CrashAfterSigning:
    """A step that signs, and ends before anybody hears of it."""

    def __init__(self) -> None:
        self.signed: list[bytes] = []

    async def __call__(self, authority: LocalCA, order: bytes) -> Issued:
        self.signed.append((await authority.issue(order)).certificate.der)
        raise asyncio.CancelledError


@pytest.mark.parametrize("key_type", ["rsa-2048", "ec-p256"])
async def test_an_intent_that_a_crash_left_is_carried_out_with_the_same_octets(
    office: Office, clock: Clock, second_store: Store, key_type: str
) -> None:
    """Between signing and storing: the certificate that may be out there is the one that the next start stores."""
    authority = local_ca(make_ca(key_type), now=clock)
    signing = CrashAfterSigning()
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.other(ca=ScriptedCA(authority, signing)).submit(request)

    clock.advance(HOUR)
    restarted = office.other(store=second_store, ca=ScriptedCA(authority))
    (intent,) = await second_store.open_intents()
    resumed = granted(await restarted.service.resume(intent))

    assert [resumed.der] == signing.signed
    assert granted(await restarted.poll(request)) == resumed
    assert await second_store.open_intents() == []


@pytest.mark.parametrize("key_type", ["rsa-2048", "ec-p256"])
async def test_after_a_crash_before_signing_the_device_asks_again_and_gets_its_certificate(
    office: Office, clock: Clock, second_store: Store, key_type: str
) -> None:
    """Between intent and signing: the reserved serial is used, the challenge was spent for it."""
    authority = local_ca(make_ca(key_type), now=clock)
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.other(ca=ScriptedCA(authority, crash)).submit(request)
    reserved = await office.enrollment(request)

    restarted = office.other(store=second_store, ca=ScriptedCA(authority))
    certificate = granted(await restarted.submit(request))

    assert reserved.state is EnrollmentState.ISSUING
    assert certificate.certificate_serial == reserved.certificate_serial


async def test_an_intent_is_resumed_and_asked_for_at_once(office: Office, ca: ScriptedCA) -> None:
    """A poll that comes while the start carries the order out waits for the same signature."""
    ca.script = [crash]
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.submit(request)
    gate = Gate()
    ca.script, ca.orders = [gate], []
    (intent,) = await office.store.open_intents()

    async def let_go() -> None:
        gate.opened.set()

    restarted = office.other(authorizer=Meanwhile(let_go))
    resumed = asyncio.ensure_future(restarted.service.resume(intent))
    await gate.entered.wait()
    assert await restarted.poll(request) == await resumed
    assert ca.orders == [intent.order]


async def test_an_intent_that_was_carried_out_meanwhile_is_not_signed_again(office: Office, ca: ScriptedCA) -> None:
    """What was read as open and is closed now is answered from the store."""
    ca.script = [crash]
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.submit(request)
    (intent,) = await office.store.open_intents()
    ca.script, ca.orders = [sign], []
    first = await office.service.resume(intent)
    assert await office.service.resume(intent) == first
    assert ca.orders == [intent.order]


async def test_an_intent_that_failed_meanwhile_is_not_signed_either(office: Office, ca: ScriptedCA) -> None:
    """A CA that has refused is not asked again by whoever read the row before."""
    ca.script = [crash]
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.submit(request)
    (intent,) = await office.store.open_intents()
    ca.script, ca.orders = [fail(Refused("name constraints")), sign], []

    for _ in range(2):
        with pytest.raises(IssuanceRefused):
            await office.service.resume(intent)
    assert ca.orders == [intent.order]


async def test_what_has_begun_is_finished_when_the_device_hangs_up(office: Office, ca: ScriptedCA) -> None:
    """The next request finds the certificate."""
    gate = Gate()
    ca.script = [gate]
    request = await office.request()
    call = asyncio.ensure_future(office.submit(request))
    await gate.entered.wait()

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.opened.set()
    assert granted(await office.submit(request))
    assert len(ca.orders) == 1


async def test_an_intent_without_an_order_is_not_issued(office: Office, ca: ScriptedCA) -> None:
    """No store of ours keeps such a row."""
    ca.script = [crash]
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.submit(request)
    (intent,) = await office.store.open_intents()

    with pytest.raises(Unavailable, match="without an order"):
        await office.service.resume(replace(intent, order=None))


# --- a store that lost something -----------------------------------------------------------------------------------


class Forgetful:
    """A store that has lost an enrollment, or the certificate of one."""

    def __init__(self, store: Store, *, enrollment: bool) -> None:
        self._store, self._enrollment = store, enrollment

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def dossier(self, *args: object) -> object:
        found = await self._store.dossier(*args)  # type: ignore[arg-type]
        return replace(found, same=None, certificate=None) if self._enrollment else replace(found, certificate=None)


async def test_a_certificate_that_the_store_has_lost_is_an_outage(office: Office) -> None:
    """Signing another one under the same serial would be worse."""
    request = await office.request()
    await office.submit(request)

    with pytest.raises(Unavailable, match="not in the store"):
        await office.other(store=Forgetful(office.store, enrollment=False)).submit(request)


async def test_an_enrollment_that_vanishes_meanwhile_is_an_outage(office: Office, second_store: Store) -> None:
    """Somebody has deleted rows by hand."""
    request = await office.request()
    await office.submit(request)
    forgetful = office.other(store=Forgetful(office.store, enrollment=True))
    intent = await office.enrollment(request)

    with pytest.raises(Unavailable, match="vanished"):
        await forgetful.service.resume(intent)


async def test_a_winner_that_vanishes_is_an_outage(office: Office, second_store: Store) -> None:
    """The insertion was lost to a request that is not there any more."""
    request = await office.request()
    other = office.other(store=second_store)
    forgetful = office.other(
        store=Forgetful(office.store, enrollment=True), authorizer=Meanwhile(lambda: other.submit(request))
    )

    with pytest.raises(Unavailable, match="vanished"):
        await forgetful.submit(request)


# --- what is logged ------------------------------------------------------------------------------------------------


async def test_no_secret_is_logged(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Neither the challenge nor a key, whatever the outcome."""
    aaa.script = [WAIT, Accept()]
    secret = await office.challenge()
    request = make_request(challenge=secret)

    with capture_logs() as log:
        await office.submit(request)
        await office.submit(request)
        with pytest.raises(EnrollmentError) as error:
            await office.submit(make_request(challenge=secret, owner="thief"))

    assert [line["event"] for line in log] == ["enrollment_deferred", "certificate_issued"]
    assert secret not in f"{log} {error.value}"


async def test_a_static_challenge_serves_every_registered_device(office: Office) -> None:
    """One secret for a management system that knows nothing better; a wrong one gets nothing."""
    await office.register("FOC9999X0ZZ")
    shared = office.with_rules(challenge=StaticChallenge(digest=challenge_digest("lab-secret")))

    assert granted(await shared.submit(make_request(challenge="lab-secret")))
    assert granted(await shared.submit(make_request(challenge="lab-secret", device="FOC9999X0ZZ", owner="other")))
    await refused(shared, make_request(challenge="guess", owner="thief"), "static challenge")
    await refused(shared, make_request(challenge=None, owner="thief"), "static challenge")


async def test_a_profile_without_challenges_enrolls_by_certificate_only(office: Office) -> None:
    """Not even a challenge that is open in the store helps."""
    await refused(office.with_rules(challenge=NoChallenge()), await office.request(), "by certificate only")
