"""Claims about what proves a requester: a challenge, a manufacturer's certificate, a trusted RA, or nothing at all.

Numbers like R-15 are those of the project's protocol checklist.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, Defer, Reject
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.enrollment.challenges import Anonymous, AskedChallenge, NoChallenge, StaticChallenge, challenge_digest
from scep_ra.enrollment.errors import (
    EnrollmentError,
    IdentityRefused,
    KeyRefused,
    NotAuthorized,
    RenewalRefused,
    TransactionConflict,
)
from scep_ra.enrollment.lockout import Lockout
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.rules import SecondKey
from scep_ra.enrollment.types import EnrollmentRequest, ManufacturerCertificate, TrustedRA, Undecided
from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from scep_ra.storage.base import Device
from tests.support.authorizers import Scripted
from tests.support.enrollment import (
    HOUR,
    Clock,
    Office,
    ScriptedAuthorizer,
    device_id,
    granted,
    key_of,
    make_request,
)
from tests.support.manufacturer import DEVICE_SERIAL, HARDWARE_TYPE, make_idevid
from tests.support.pki import make_ca, make_ra
from tests.support.stopwatch import Stopwatch

OTHER: Final = "FOC9999X0ZZ"
ATTEMPTS: Final = 3


def factory_fresh(
    idevid: Certificate | None = None, *, device: str = DEVICE_SERIAL, **fields: Any
) -> EnrollmentRequest:
    """Return a request that an IDevID signed, without a challenge."""
    proof = ManufacturerCertificate(certificate=idevid or make_idevid(), store="acme")
    return replace(make_request(device=device, **fields), proof=proof)


def behind_ra(device: str, owner: str, transaction_id: str, *, subject: bytes | None = None) -> EnrollmentRequest:
    """Return a request that the RA of a branch office forwards, without a challenge."""
    proof = TrustedRA(certificate=make_ra(make_ca("ec-p256")).certificate, ra="branch")
    request = make_request(device=device, owner=owner, transaction_id=transaction_id, subject=subject)
    return replace(request, proof=proof)


@pytest.fixture
def closed(office: Office) -> Office:
    """Return a profile that no challenge opens, over a registry."""
    return office.with_rules(challenge=NoChallenge()).other(authorizer=RegistryAuthorizer(office.store, office.clock))


# --- a manufacturer's certificate ----------------------------------------------------------------------------------


async def test_an_idevid_proves_its_device(closed: Office) -> None:
    """R-13: no challenge is needed; AAA is asked about the serial that the manufacturer certified."""
    await closed.register(DEVICE_SERIAL)
    request = factory_fresh()

    certificate = granted(await closed.submit(request))

    assert certificate.spki == key_of().spki
    enrollment = await closed.enrollment(request)
    assert (enrollment.device_id, enrollment.proof) == (device_id(DEVICE_SERIAL), "manufacturer")


async def test_a_device_is_what_its_idevid_says_though_the_request_is_silent(closed: Office) -> None:
    """Or says something in a name that people choose."""
    await closed.register(DEVICE_SERIAL)

    for number, subject in enumerate((parse_name("O=Test"), parse_name(f"CN={OTHER}"))):
        request = factory_fresh(owner=f"key {number}", subject=subject)
        assert granted(await closed.submit(request))
        assert (await closed.enrollment(request)).device_id == device_id(DEVICE_SERIAL)


async def test_a_request_for_another_device_than_the_signer_is_refused(closed: Office) -> None:
    """R-15: both names are in the security event."""
    await closed.register(DEVICE_SERIAL, OTHER)

    with capture_logs() as log, pytest.raises(IdentityRefused, match="says"):
        await closed.submit(factory_fresh(device=OTHER))

    (event,) = [line for line in log if line["event"] == "identity_conflict"]
    assert event["claims"] == [
        f"signer.subject.serialNumber serial:{DEVICE_SERIAL}", f"subject.serialNumber serial:{OTHER}",
    ]  # fmt: skip


async def test_two_serials_in_one_place_are_a_conflict_of_which_both_are_told(office: Office) -> None:
    """N-37: not only between places."""
    subject = parse_name(f"serialNumber=FOC1234X0AB+CN=a,serialNumber={OTHER}")

    with capture_logs() as log, pytest.raises(IdentityRefused):
        await office.enroll(subject=subject)

    (event,) = [line for line in log if line["event"] == "identity_conflict"]
    assert event["claims"] == ["subject.serialNumber serial:FOC1234X0AB", f"subject.serialNumber serial:{OTHER}"]


@pytest.mark.parametrize("subject", ["CN=TST-1000", "serialNumber=0,CN=TST-1000"])
async def test_an_idevid_without_a_usable_identifier_proves_nothing(closed: Office, subject: str) -> None:
    """IEEE 802.1AR 8: whatever the request says instead."""
    with pytest.raises(IdentityRefused):
        await closed.submit(factory_fresh(make_idevid(parse_name(subject), extensions=())))


async def test_an_authentic_device_that_nobody_registered_gets_nothing(closed: Office) -> None:
    """Authentication is not authorization."""
    with pytest.raises(NotAuthorized, match="not registered"):
        await closed.submit(factory_fresh())


@pytest.mark.parametrize("new_key_demanded", [True, False])
async def test_whether_the_key_of_an_idevid_is_certified_again_is_for_the_profile(
    closed: Office, *, new_key_demanded: bool
) -> None:
    """IEEE 802.1AR: an LDevID may share it; a security team may not want that."""
    await closed.register(DEVICE_SERIAL)
    office = closed.with_rules(idevid_new_key=new_key_demanded)
    same_key = factory_fresh(replace(make_idevid(), spki=key_of().spki))

    if new_key_demanded:
        with pytest.raises(NotAuthorized, match="idevid_require_new_key"):
            await office.submit(same_key)
        assert granted(await office.submit(factory_fresh()))
    else:
        assert granted(await office.submit(same_key))


async def test_a_challenge_beside_an_idevid_is_not_spent(office: Office) -> None:
    """It proves nothing that the signature does not."""
    secret = await office.challenge(DEVICE_SERIAL)

    assert granted(await office.submit(factory_fresh(challenge=secret)))
    assert granted(await office.submit(make_request(device=DEVICE_SERIAL, owner="second key", challenge=secret)))


async def test_a_device_after_a_factory_reset_replaces_its_certificate(closed: Office) -> None:
    """Zero touch: nobody has to revoke by hand."""
    await closed.register(DEVICE_SERIAL)
    office = closed.with_rules(second_key=SecondKey.REPLACE, max_active=1)
    old = granted(await office.submit(factory_fresh()))

    assert granted(await office.submit(factory_fresh(owner="second key")))

    row = await office.store.certificate("default", old.certificate_serial)
    assert row is not None
    assert row.revoke_at == office.clock()


async def test_what_an_idevid_brought_is_renewed_like_any_other(closed: Office) -> None:
    """The certificate of ours is the proof from then on."""
    await closed.register(DEVICE_SERIAL)
    old = granted(await closed.submit(factory_fresh()))

    assert granted(await closed.submit(make_request(device=DEVICE_SERIAL, owner="new key", signed_with=old)))


async def test_a_module_renews_under_the_serial_in_its_name(closed: Office) -> None:
    """Known by hardwareModuleName; what its request calls serialNumber is the serial part of it (802.1AR 8.6)."""
    module = DeviceID(kind=DeviceIDKind.HARDWARE_MODULE, value=f"{HARDWARE_TYPE}:{DEVICE_SERIAL}")
    await closed.store.add_device(Device(device_id=module, created_at=closed.clock()))
    old = granted(await closed.submit(factory_fresh(make_idevid(parse_name("O=Acme Mfg,CN=TST-1000")))))
    row = await closed.store.certificate("default", old.certificate_serial)
    assert row is not None
    assert row.device_id == module

    with pytest.raises(RenewalRefused, match=f"the request names serial:{OTHER}, the certificate is .*{DEVICE_SERIAL}"):
        await closed.submit(make_request(device=OTHER, owner="new key", signed_with=old))
    new = granted(await closed.submit(make_request(device=DEVICE_SERIAL, owner="new key", signed_with=old)))
    serials = {each.certificate_serial for each in await closed.store.list_certificates(module)}
    assert serials == {old.certificate_serial, new.certificate_serial}


# --- a trusted RA --------------------------------------------------------------------------------------------------


async def test_a_trusted_ra_speaks_for_the_devices_behind_it(closed: Office) -> None:
    """An IOS router in RA mode: one signer, many devices, each its own certificate and its own polls."""
    await closed.register("FOC1234X0AB", OTHER)
    requests = [behind_ra("FOC1234X0AB", "device", "TX1"), behind_ra(OTHER, "other device", "TX2")]

    certificates = [granted(await closed.submit(request)) for request in requests]

    assert [each.spki for each in certificates] == [key_of().spki, key_of("other device").spki]
    assert [granted(await closed.poll(request)) for request in requests] == certificates
    assert [(await closed.enrollment(request)).proof for request in requests] == ["ra", "ra"]


async def test_aaa_decides_about_devices_behind_an_ra_as_about_others(closed: Office) -> None:
    """The RA vouches for who it is, not for what it may."""
    with pytest.raises(NotAuthorized, match="not registered"):
        await closed.submit(behind_ra(OTHER, "other device", "TX2"))


async def test_an_ra_has_to_name_the_device(closed: Office) -> None:
    """Its own name is nobody's."""
    with pytest.raises(IdentityRefused, match="no identifier"):
        await closed.submit(behind_ra("", "device", "TX1", subject=parse_name("O=Test")))


async def test_devices_behind_an_ra_do_not_get_into_each_others_transactions(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """One transactionID for two devices: the second has to wait for the first, or take another one."""
    aaa.script = [Defer(reason="somebody has to look at it")]
    assert await office.submit(behind_ra("FOC1234X0AB", "device", "TX1")) == Undecided()

    with pytest.raises(TransactionConflict):
        await office.submit(behind_ra(OTHER, "other device", "TX1"))


# --- nothing at all ------------------------------------------------------------------------------------------------


async def test_an_anonymous_profile_asks_aaa_alone(office: Office) -> None:
    """Insecure by its name; a secret that is sent all the same is not looked up."""
    await office.register()
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock)).with_rules(challenge=Anonymous())
    request = make_request(challenge="whatever")

    assert granted(await office.submit(request))
    assert (await office.enrollment(request)).proof == "anonymous"
    with pytest.raises(NotAuthorized, match="not registered"):
        await office.submit(make_request(device=OTHER, owner="other device"))
    await office.register(OTHER)
    with pytest.raises(KeyRefused):
        await office.submit(make_request(device=OTHER))


# --- a challenge that somebody else made ---------------------------------------------------------------------------


async def test_a_challenge_is_good_when_whoever_made_it_says_so(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Who gets to see it, with the very request; AAA is asked about the device all the same."""
    judge = Scripted()
    request = make_request(challenge="made elsewhere")
    asked = office.with_rules(challenge=AskedChallenge(authorizer=judge))

    assert granted(await asked.submit(request))
    assert (await asked.enrollment(request)).proof == "webhook challenge"
    (about,) = judge.questions
    assert (about.csr, about.device_id) == (request.csr.der, device_id())
    assert (about.profile, about.source, about.transaction_id) == ("default", "192.0.2.1", "TX1")
    assert not about.renewal
    assert len(aaa.requests) == 1


async def test_a_challenge_that_is_not_good_opens_nothing(office: Office, aaa: ScriptedAuthorizer) -> None:
    """AAA is not asked; what was sent without one, nobody is."""
    judge = Scripted(answer=Reject(reason="never made"))
    office = office.with_rules(challenge=AskedChallenge(authorizer=judge))

    with pytest.raises(NotAuthorized, match="says no: never made"):
        await office.submit(make_request(challenge="a guess"))
    with pytest.raises(NotAuthorized, match="challenge is missing"):
        await office.submit(make_request(owner="other"))
    assert len(judge.questions) == 1
    assert not aaa.requests


@pytest.mark.parametrize("answer", [Defer(reason="busy"), Unavailable("busy")])
async def test_while_nobody_says_whether_a_challenge_is_good_the_same_request_may_come_again(
    office: Office, answer: Defer | Unavailable
) -> None:
    """It is not kept, because the challenge would be kept with it; and it is no refusal."""
    judge = Scripted(answer=answer)
    office = office.with_rules(challenge=AskedChallenge(authorizer=judge))
    request = make_request(challenge="made elsewhere")

    with pytest.raises(Unavailable, match="busy"):
        await office.submit(request)
    assert not office.records.decisions
    judge.answer = Accept()
    assert granted(await office.submit(request))


async def test_who_guesses_challenges_made_elsewhere_is_locked_out(office: Office) -> None:
    """And then nobody is asked any more."""
    judge = Scripted(answer=Reject(reason="never made"))
    lockout = Lockout(attempts=ATTEMPTS, window_s=300, monotonic=Stopwatch())
    office = office.other(lockout=lockout).with_rules(challenge=AskedChallenge(authorizer=judge))

    for number in range(2 * ATTEMPTS):
        with pytest.raises(NotAuthorized):
            await office.submit(guess(number))
    assert len(judge.questions) == ATTEMPTS


# --- guessing ------------------------------------------------------------------------------------------------------


def guess(number: int, source: str = "192.0.2.66") -> EnrollmentRequest:
    return replace(make_request(challenge=f"guess {number}", owner="thief"), source=source)


@pytest.fixture
def shared(office: Office) -> Office:
    """Return a profile with one secret for all devices."""
    lockout = Lockout(attempts=ATTEMPTS, window_s=300, monotonic=Stopwatch())
    return office.other(lockout=lockout).with_rules(challenge=StaticChallenge(digest=challenge_digest("lab-secret")))


async def guess_often(office: Office, times: int = ATTEMPTS) -> None:
    for number in range(times):
        with pytest.raises(NotAuthorized, match=r"missing or wrong|unknown|locked out"):
            await office.submit(guess(number))


async def test_who_guesses_a_static_challenge_is_locked_out(shared: Office) -> None:
    """V14: then the right one does not help either, from there; the true device gets in from its own address."""
    await guess_often(shared)

    lucky = replace(make_request(challenge="lab-secret", owner="thief"), source="192.0.2.66")
    with pytest.raises(NotAuthorized, match="locked out"):
        await shared.submit(lucky)
    assert granted(await shared.submit(make_request(challenge="lab-secret")))


async def test_a_right_one_time_challenge_passes_under_a_lock(office: Office) -> None:
    """V14: 128 bits are no guess, so behind one address the true device is not locked out."""
    office = office.other(lockout=Lockout(attempts=ATTEMPTS, window_s=300, monotonic=Stopwatch()))
    await guess_often(office, 2 * ATTEMPTS)

    assert granted(await office.submit(replace(await office.request(), source="192.0.2.66")))


async def test_what_is_guessed_beyond_the_limit_is_off_the_record(shared: Office) -> None:
    """Or guessing would fill the store."""
    await guess_often(shared, 10 * ATTEMPTS)

    assert len(shared.records.decisions) == ATTEMPTS


# --- strangers learn nothing ---------------------------------------------------------------------------------------


@pytest.fixture
async def touchy(office: Office, aaa: ScriptedAuthorizer) -> Office:
    """Return a profile in which nearly everything about a request is a reason to refuse it."""
    await office.register("FOC1234X0AB", "FOC0000OFF1")
    await office.store.set_device_enabled(device_id("FOC0000OFF1"), False, office.clock())
    await office.enroll()
    aaa.requests.clear()
    strict = office.with_rules(max_active=1, second_key=SecondKey.REFUSE)
    return strict.with_contents(naming=NamingRules.compile(subject="CN={attribute.missing}")).other(
        forbidden_keys=frozenset({make_request(owner="RA").csr.spki_digest})
    )


async def secret_of(office: Office, clock: Clock, kind: str) -> str | None:
    """Return a secret that does not prove the device."""
    match kind:
        case "none":
            return None
        case "wrong":
            return "a guess"
        case "another device's":
            return await office.challenge("FOC5555X0YY")
        case "another profile's":
            return await office.with_rules(profile="lab").challenge()
        case _:
            secret = await office.challenge()
            clock.advance(HOUR)
            return secret


@pytest.mark.parametrize("kind", ["none", "wrong", "another device's", "another profile's", "expired"])
async def test_without_proof_every_request_is_refused_alike(
    touchy: Office, aaa: ScriptedAuthorizer, clock: Clock, kind: str
) -> None:
    """Device known, unknown or disabled, key taken, authority's or new, name fitting or not."""
    secret = await secret_of(touchy, clock, kind)
    codes = set()
    for device in ("FOC1234X0AB", "FOC0000OFF1", OTHER):
        for owner in ("device", "RA", "thief"):
            with pytest.raises(EnrollmentError) as refusal:
                await touchy.submit(make_request(challenge=secret, device=device, owner=owner, transaction_id="TX2"))
            codes.add(refusal.value.code)

    assert codes == {"not_authorized"}
    assert aaa.requests == []


async def test_with_proof_a_device_that_aaa_does_not_know_hears_what_a_wrong_challenge_hears(office: Office) -> None:
    """Or whoever holds a challenge of a removed device could tell."""
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))
    codes = set()
    for secret in (await office.challenge(), "a guess"):
        with pytest.raises(EnrollmentError) as refusal:
            await office.submit(make_request(challenge=secret))
        codes.add(refusal.value.code)

    assert codes == {"not_authorized"}
