"""Claims about who may have a successor: the rules one by one, and renewals on a real store.

Numbers like R-05 are those of the project's protocol checklist.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import cache
from hashlib import sha256
from typing import Final

import pytest

from scep_ra.aaa.base import Accept, Defer, Reject
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.enrollment.errors import EnrollmentError, NotAuthorized, RenewalRefused
from scep_ra.enrollment.renewal import (
    RenewalRules,
    check_live,
    check_renewal,
    check_still_entitled,
    check_validity,
    check_window,
)
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import ExistingCertificate, Granted, Outcome, StandIn, Undecided
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile, KeyUsage
from scep_ra.storage.base import Store, StoredCertificate
from tests.support.enrollment import (
    DAY,
    Clock,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    device_id,
    granted,
    key_of,
    make_request,
    subject_of,
)
from tests.support.pki import NOW, make_ca, make_certificate, make_ra

WAIT: Final = Defer(reason="somebody has to look at it")


def make_signer(owner: str = "device", profile: CertificateProfile | None = None) -> Certificate:
    return make_certificate(make_ca("ec-p256"), key_of(owner).spki, subject=subject_of(), profile=profile)


@cache
def signer() -> Certificate:
    return make_signer()


def stored(certificate: Certificate | None = None) -> StoredCertificate:
    certificate = certificate or signer()
    return StoredCertificate(
        certificate_serial=certificate.certificate_serial,
        ca="default",
        profile="default",
        device_id=device_id(),
        der=certificate.der,
        spki_digest=sha256(certificate.spki).digest(),
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        issued_at=NOW,
    )


# --- the rules -----------------------------------------------------------------------------------------------------


def test_a_good_certificate_of_ours_is_live() -> None:
    """Octet by octet the one in the store."""
    assert check_live(stored(), signer(), "default") == stored()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "was not issued here"),
        (stored(make_signer("other device")), "was not issued here"),
        (replace(stored(), profile="lab"), "belongs to profile 'lab'"),
        (replace(stored(), revoked_at=NOW), "was revoked at"),
    ],
    ids=["unknown", "other octets", "other profile", "revoked"],
)
def test_every_other_certificate_is_not(row: StoredCertificate | None, reason: str) -> None:
    """R-06, R-08: the same serial with another key is a forgery."""
    with pytest.raises(RenewalRefused, match=reason):
        check_live(row, signer(), "default")


def with_key_usage(value: bytes | None) -> Certificate:
    others = tuple(each for each in signer().extensions if each.oid != oids.KEY_USAGE)
    mine = () if value is None else (Extension(oid=oids.KEY_USAGE, critical=True, value=value),)
    return replace(signer(), extensions=others + mine)


@pytest.mark.parametrize("value", [None, der.named_bits(0), der.named_bits(0, 2)])
def test_a_key_that_may_sign_messages_may_sign_a_renewal(value: bytes | None) -> None:
    """RFC 5280 4.2.1.3: without the extension every use is allowed."""
    assert check_live(stored(), with_key_usage(value), "default")


@pytest.mark.parametrize("value", [der.named_bits(2), der.named_bits(), der.octet_string(b"\x80")])
def test_a_key_that_may_not_sign_messages_is_refused(value: bytes) -> None:
    """R-16: nor is one whose usage cannot be read."""
    with pytest.raises(RenewalRefused, match=r"digital signatures|keyUsage"):
        check_live(stored(), with_key_usage(value), "default")


@pytest.mark.parametrize("grace_days", [0, 3])
def test_validity_is_from_the_first_to_the_last_moment_and_grace_comes_on_top(grace_days: int) -> None:
    """R-05: a microsecond beyond is too late."""
    grace, moment = timedelta(days=grace_days), timedelta(microseconds=1)
    check_validity(signer(), signer().not_before, grace)
    check_validity(signer(), signer().not_after + grace, grace)
    for now in (signer().not_before - moment, signer().not_after + grace + moment):
        with pytest.raises(RenewalRefused, match="is valid from"):
            check_validity(signer(), now, grace)


def test_the_window_opens_some_days_before_the_end() -> None:
    """And closes with the grace after it."""
    rules = RenewalRules(window=30 * DAY, grace=DAY)
    opens = signer().not_after - 30 * DAY
    check_window(signer(), opens, rules)
    check_window(signer(), signer().not_after + DAY, rules)
    with pytest.raises(RenewalRefused, match="too early: the window opens at"):
        check_window(signer(), opens - timedelta(seconds=1), rules)
    with pytest.raises(RenewalRefused, match="is valid from"):
        check_window(signer(), signer().not_after + 2 * DAY, rules)


def test_without_a_window_renewal_is_possible_at_any_time() -> None:
    """From the first day."""
    check_window(signer(), signer().not_before, RenewalRules())


def test_only_the_key_may_differ() -> None:
    """R-01, R-09: string types of the subject may, too."""
    request = make_request(owner="new key", signed_with=signer())
    check_renewal(request.csr, stored(), signer(), RenewalRules())
    check_renewal(replace(request.csr, subject=utf8_names(subject_of())), stored(), signer(), RenewalRules())


def utf8_names(name: bytes) -> bytes:
    """Return the name with every PrintableString as UTF8String."""
    return bytes(name).replace(b"\x13\x04Test", b"\x0c\x04Test")


@pytest.mark.parametrize(
    ("subject", "successor", "rules", "reason"),
    [
        (subject_of(), None, RenewalRules(enabled=False), "renewal is off"),
        (subject_of(), 0xABC, RenewalRules(), r"has a successor already \(abc\)"),
        (parse_name("O=Test,serialNumber=FOC1234X0AB,CN=admin"), None, RenewalRules(), "subject is not that"),
    ],
    ids=["off", "successor", "subject"],
)
def test_what_a_renewal_may_not_be(subject: bytes, successor: int | None, rules: RenewalRules, reason: str) -> None:
    """Each rule has its own reason in the log."""
    csr = make_request(owner="new key", subject=subject, signed_with=signer()).csr
    with pytest.raises(RenewalRefused, match=reason):
        check_renewal(csr, replace(stored(), successor=successor), signer(), rules)


def test_the_same_key_is_a_matter_of_the_profile() -> None:
    """R-03: scepclient renews with its old key, which a fresh key should replace otherwise."""
    csr = make_request(signed_with=signer()).csr
    check_renewal(csr, stored(), signer(), RenewalRules(allow_same_key=True))
    with pytest.raises(RenewalRefused, match="allow_same_key is off"):
        check_renewal(csr, stored(), signer(), RenewalRules())


@pytest.mark.parametrize(
    ("row", "successor"),
    [
        (stored(), None),
        (replace(stored(), successor=0xA), 0xA),
        (replace(stored(), successor=0xA, revoke_at=NOW), 0xA),
        (replace(stored(), successor=0xA, revoke_at=NOW, revoked_at=NOW, revocation_reason=4), 0xA),
        (replace(stored(), successor=0xA, revoke_at=NOW), None),  # the store says AlreadyRenewed
    ],
)
def test_being_replaced_by_its_own_successor_takes_no_right_away(row: StoredCertificate, successor: int | None) -> None:
    """A device whose answer was lost asks again, when the old certificate may be superseded already."""
    check_still_entitled(row, successor)


@pytest.mark.parametrize(
    ("row", "successor", "reason"),
    [
        (None, None, "is gone"),
        (replace(stored(), revoked_at=NOW, revocation_reason=4), None, "revoked meanwhile"),
        (replace(stored(), revoke_at=NOW), None, "revoked meanwhile"),
        (replace(stored(), revoke_at=NOW), 0xA, "revoked meanwhile"),
        (replace(stored(), successor=0xA, revoked_at=NOW, revocation_reason=1), 0xA, "revoked meanwhile"),
        (replace(stored(), successor=0xA, revoked_at=NOW, revocation_reason=4), 0xB, "revoked meanwhile"),
    ],
    ids=["gone", "revoked", "replaced", "replaced while issuing", "stolen", "another successor"],
)
def test_a_certificate_can_lose_its_right_to_a_successor_on_the_way(
    row: StoredCertificate | None, successor: int | None, reason: str
) -> None:
    """R-06, between the request and the certificate."""
    with pytest.raises(RenewalRefused, match=reason):
        check_still_entitled(row, successor)


# --- on a store ----------------------------------------------------------------------------------------------------


async def renew(office: Office, certificate: Certificate, *, owner: str = "new key", tid: str = "TX2") -> Outcome:
    return await office.submit(make_request(owner=owner, signed_with=certificate, transaction_id=tid))


async def refused(office: Office, certificate: Certificate, pattern: str) -> None:
    with pytest.raises(EnrollmentError, match=pattern):
        await renew(office, certificate)


async def test_a_renewal_gives_the_device_a_successor(office: Office, aaa: ScriptedAuthorizer) -> None:
    """R-01: no challenge is needed, AAA is told that it is a renewal, and the old row points to the new."""
    old = await office.enroll()

    new = granted(await renew(office, old))

    assert (new.subject, new.spki) == (old.subject, key_of("new key").spki)
    assert [request.renewal for request in aaa.requests] == [False, True]
    row = await office.store.certificate("default", old.certificate_serial)
    assert row is not None
    assert row.successor == new.certificate_serial


async def test_a_successor_can_be_renewed_in_its_turn(office: Office) -> None:
    """A chain of any length, each link once."""
    first = await office.enroll()
    second = granted(await renew(office, first, owner="second key"))

    assert granted(await renew(office, second, owner="third key", tid="TX3"))


async def test_a_renewal_with_the_same_key_is_not_taken_for_the_enrollment_before(office: Office) -> None:
    """R-03: same key, same transactionID, same octets of the request, and still a new certificate."""
    office = office.with_rules(renewal=RenewalRules(allow_same_key=True))
    request = await office.request()
    old = granted(await office.submit(request))

    new = granted(await office.submit(replace(request, proof=ExistingCertificate(certificate=old))))

    assert new.spki == old.spki
    assert new.certificate_serial != old.certificate_serial


async def test_a_challenge_beside_the_certificate_is_not_looked_at(office: Office) -> None:
    """R-11: FortiOS and Junos send the one of the first enrollment for ever."""
    old = await office.enroll()
    request = make_request(owner="new key", challenge="of long ago", signed_with=old)

    assert granted(await office.submit(request))


async def test_a_good_challenge_beside_a_bad_certificate_does_not_help(office: Office, clock: Clock) -> None:
    """Nor is it spent."""
    old = await office.enroll()
    await office.store.revoke_certificate("default", old.certificate_serial, clock(), 1)
    secret = await office.challenge()

    with pytest.raises(RenewalRefused):
        await office.submit(make_request(owner="new key", challenge=secret, signed_with=old))
    assert granted(await office.submit(make_request(owner="new key", challenge=secret)))


async def test_a_certificate_is_renewed_once(office: Office) -> None:
    """Whoever copies an old key cannot fork the device."""
    old = await office.enroll()
    await renew(office, old)

    with pytest.raises(RenewalRefused, match="has a successor already"):
        await renew(office, old, owner="thief", tid="TX3")


async def test_the_same_renewal_again_gets_the_same_certificate(office: Office) -> None:
    """TX-4: a lost reply is no reason to enroll anew."""
    old = await office.enroll()
    request = make_request(owner="new key", signed_with=old)

    assert await office.submit(request) == await office.submit(request) == await office.poll(request)


async def test_of_two_renewals_at_once_one_is_granted(office: Office, second_store: Store) -> None:
    """On two nodes, each with a key of its own."""
    old = await office.enroll()
    nodes = (office, office.other(store=second_store))

    results = await asyncio.gather(
        *(renew(node, old, owner=f"key {n}", tid=f"TX{n}") for n, node in enumerate(nodes * 5)), return_exceptions=True
    )

    assert len([each for each in results if isinstance(each, Granted)]) == 1
    assert len([each for each in results if isinstance(each, RenewalRefused)]) == 9


async def test_of_two_renewals_that_wait_the_first_to_be_approved_wins(office: Office, aaa: ScriptedAuthorizer) -> None:
    """The other one is told so, and not that something is out of order."""
    old = await office.enroll()
    aaa.script = [WAIT, WAIT, Accept()]
    one, other = (make_request(owner=f"key {n}", signed_with=old, transaction_id=f"TX{n}") for n in (1, 2))
    assert await office.submit(one) == await office.submit(other) == Undecided()

    assert granted(await office.poll(one))
    with pytest.raises(RenewalRefused, match="renewed by another request"):
        await office.poll(other)


async def test_a_revoked_certificate_is_not_renewed(office: Office, clock: Clock) -> None:
    """R-06."""
    old = await office.enroll()
    await office.store.revoke_certificate("default", old.certificate_serial, clock(), 1)

    await refused(office, old, "was revoked")


async def test_a_renewal_that_waits_is_rejected_when_its_certificate_is_revoked(
    office: Office, aaa: ScriptedAuthorizer, clock: Clock
) -> None:
    """R-06: whatever AAA says afterwards."""
    old = await office.enroll()
    aaa.script = [WAIT, Accept()]
    request = make_request(owner="new key", signed_with=old)
    await office.submit(request)
    await office.store.revoke_certificate("default", old.certificate_serial, clock(), 1)

    with pytest.raises(NotAuthorized, match="revoked meanwhile"):
        await office.poll(request)
    assert (await office.enrollment(request)).state is EnrollmentState.REJECTED


async def test_a_renewal_is_not_sent_again_when_its_certificate_was_revoked(office: Office, clock: Clock) -> None:
    """The key that would read the answer is the one that nobody trusts any more."""
    old = await office.enroll()
    request = make_request(owner="new key", signed_with=old)
    await office.submit(request)
    await office.store.revoke_certificate("default", old.certificate_serial, clock(), 1)

    with pytest.raises(NotAuthorized, match="revoked meanwhile"):
        await office.submit(request)


async def test_a_device_that_is_gone_from_aaa_does_not_renew(office: Office) -> None:
    """R-06: removing it there ends its access at the latest with its certificate."""
    old = await office.enroll()
    office = office.other(authorizer=RegistryAuthorizer(office.store, office.clock))

    await refused(office, old, "device not registered")


async def test_a_rejected_renewal_may_be_tried_again(office: Office, aaa: ScriptedAuthorizer) -> None:
    """A no of AAA does not use the certificate up."""
    old = await office.enroll()
    aaa.script = [Reject(reason="maintenance"), Accept()]

    await refused(office, old, "maintenance")
    assert granted(await renew(office, old))


@pytest.mark.parametrize(("days", "pattern"), [(0, "too early"), (340, ""), (368, "is valid from")])
async def test_the_profile_says_when(office: Office, clock: Clock, days: int, pattern: str) -> None:
    """R-05: window and grace."""
    office = office.with_rules(renewal=RenewalRules(window=30 * DAY, grace=2 * DAY))
    old = await office.enroll()
    clock.advance(days * DAY)

    if pattern:
        await refused(office, old, pattern)
    else:
        assert granted(await renew(office, old))


@pytest.mark.parametrize(
    ("subject", "error", "pattern"),
    [
        (subject_of("FOC9999X0ZZ"), RenewalRefused, "names serial:FOC9999X0ZZ"),
        (parse_name("O=Test"), RenewalRefused, "subject is not that"),
    ],
)
async def test_a_renewal_for_another_device_is_refused(
    office: Office, subject: bytes, error: type[EnrollmentError], pattern: str
) -> None:
    """R-09: the certificate speaks for its own device only."""
    old = await office.enroll()

    with pytest.raises(error, match=pattern):
        await office.submit(make_request(owner="new key", subject=subject, signed_with=old))


async def test_a_renewal_that_names_another_device_in_its_alternative_name_is_refused(office: Office) -> None:
    """R-09, R-10: the subject is unchanged, and the strongest rule looks elsewhere."""
    office = office.with_rules(device_id_rules=("san", "subject.commonName"))
    old = await office.enroll(device="router-1", subject=subject_of())
    uri = der.element(der.context(6, constructed=False), b"urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
    name = Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=der.sequence(uri))

    with pytest.raises(RenewalRefused, match=r"the request names uuid:.*, the certificate is serial:ROUTER-1's"):
        await office.submit(make_request(owner="new key", extensions=(name,), signed_with=old))


async def test_another_profiles_certificate_is_refused(office: Office) -> None:
    """Profiles may share a CA and do not share rights."""
    old = await office.with_rules(profile="lab").enroll()

    await refused(office, old, "belongs to profile 'lab'")


async def test_certificates_that_were_not_enrolled_here_are_refused(office: Office) -> None:
    """R-17: those of the CA and the RA, and any that the CA signed without our knowing."""
    ca = make_ca("ec-p256")

    for certificate in (*ca.chain, make_ra(ca).certificate, make_signer()):
        await refused(office, certificate, "not issued here")


async def test_a_certificate_that_may_not_sign_is_refused(office: Office) -> None:
    """R-16: issued by a profile for key agreement only."""
    office = office.with_contents(extensions=CertificateProfile(key_usage=(KeyUsage.KEY_AGREEMENT,)))
    old = await office.enroll()

    await refused(office, old, "not for digital signatures")


async def test_a_stand_in_over_the_key_of_a_certificate_is_no_renewal(office: Office) -> None:
    """R-08: holding the key is not holding the right; a challenge is asked for."""
    old = await office.enroll()
    request = make_request()
    assert isinstance(request.proof, StandIn)
    assert request.proof.certificate.spki == old.spki

    with pytest.raises(NotAuthorized, match="challenge is missing"):
        await office.submit(request)


async def test_a_crash_in_a_renewal_is_mended_as_any_other(office: Office, ca: ScriptedCA) -> None:
    """The successor is noted when the intent is carried out."""

    async def crash(*_: object) -> None:
        raise asyncio.CancelledError

    old = await office.enroll()
    ca.script = [crash]  # type: ignore[list-item]  # never returns
    with pytest.raises(asyncio.CancelledError):
        await renew(office, old)
    (intent,) = await office.store.open_intents()
    ca.script = [lambda authority, order: authority.issue(order)]

    new = granted(await office.other().service.resume(intent))

    row = await office.store.certificate("default", old.certificate_serial)
    assert row is not None
    assert row.successor == new.certificate_serial
