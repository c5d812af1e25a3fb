"""Claims about submitting and polling, on a real store: who gets a certificate, how many, and after which mishaps.

Numbers like TX-4, N-35 or T-13 are those of the project's protocol checklist.
"""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from scep_ra.aaa.base import Accept, Defer
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.enrollment.challenges import NoChallenge, StaticChallenge, challenge_digest
from scep_ra.enrollment.errors import (
    IdentityRefused,
    NotAuthorized,
    TransactionConflict,
)
from scep_ra.enrollment.types import EnrollmentRequest, Outcome, Undecided
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.names import parse_name
from scep_ra.storage.base import Store
from tests.support.enrollment import (
    DAY,
    DEVICE,
    HOUR,
    Clock,
    Gate,
    Meanwhile,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    device_id,
    granted,
    key_of,
    local_ca,
    make_request,
    subject_of,
)

WAIT: Final = Defer(reason="somebody has to look at it")


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
    await refused(office, request, "has been used")
    with pytest.raises(NotAuthorized, match="too old"):
        await office.poll(request)
    assert len(await office.issued_serials()) == 1


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


async def test_an_answer_waits_while_aaa_defers(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Only a yes is a yes; but an AAA that is away for a minute must not cost the device its certificate."""
    request = await office.request()
    certificate = granted(await office.submit(request))
    aaa.script = [WAIT, WAIT, Accept()]

    assert await office.submit(request) == Undecided()
    assert await office.poll(request) == Undecided()
    assert granted(await office.poll(request)) == certificate


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


# --- other challenge rules ----------------------------------------------------------------------------------------


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
