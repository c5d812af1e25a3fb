"""Claims about carrying out what was authorized: CAs and AAAs that fail or lie, crashes, stores that lose something.

Numbers like N-52 are those of the project's protocol checklist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, Defer, Reject
from scep_ra.ca.base import Issued, IssueRequest
from scep_ra.ca.local import LocalCA
from scep_ra.enrollment.errors import (
    IssuanceRefused,
    NotAuthorized,
)
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.enrollment.types import Undecided
from scep_ra.errors import Misconfigured, Refused, Unavailable
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import format_name
from scep_ra.pki.profiles import CertificateProfile, KeyUsage
from scep_ra.storage.base import Store
from tests.support.enrollment import (
    DEVICE,
    HOUR,
    Clock,
    Gate,
    Meanwhile,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    Step,
    fail,
    granted,
    key_of,
    local_ca,
    put_off,
    sign,
)
from tests.support.pki import make_ca, make_certificate, sign_tbs

NO: Final = Reject(reason="device is on the list of stolen ones")


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


# --- a CA in other words -------------------------------------------------------------------------------------------


class ForeignCA(ScriptedCA):
    """An authority whose order is no TBSCertificate, and that gives its own serials."""

    def __init__(self, authority: LocalCA, *script: Step) -> None:
        super().__init__(authority, *script)
        self.keeps_serial = False

    def prepare(self, request: IssueRequest) -> bytes:
        return b"order:" + super().prepare(replace(request, certificate_serial=FOREIGN_SERIAL))


FOREIGN_SERIAL: Final = 0x4A
NAMES: Final = NamingRules.compile(
    subject="CN=gw {device.value},O=Decided", subject_alt_name=("dns:{device.value}.example.com",)
)


def foreign(old: bytes = b"", new: bytes = b"") -> Step:
    """Return the step of a foreign CA that exchanges a part of what it certifies for one of the same length."""
    return lie(lambda _, order: swap(order.removeprefix(b"order:"), old, new))


def elsewhere(office: Office, clock: Clock, *script: Step) -> Office:
    """Return a profile that makes the names, over a foreign CA."""
    return office.with_contents(naming=NAMES).other(ca=ForeignCA(local_ca(now=clock), *script))


async def test_a_foreign_ca_is_held_to_the_names_that_were_decided(office: Office, clock: Clock) -> None:
    """Not to those of the request; the serial is its own."""
    certificate = await elsewhere(office, clock, foreign()).enroll()

    assert format_name(certificate.subject) == f"CN=gw {DEVICE},O=Decided"
    assert certificate.certificate_serial == FOREIGN_SERIAL
    assert await office.issued_serials() == [FOREIGN_SERIAL]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b"Decided", b"Granted", "the subject is not"),
        (f"{DEVICE}.example.com".encode(), f"{DEVICE}.example.org".encode(), "the subjectAltName is not"),
        (key_of().spki, key_of("other device").spki, "the public key is not"),
    ],
    ids=["subject", "alternative names", "key"],
)
async def test_a_foreign_ca_that_changes_what_was_decided_is_found(
    office: Office, clock: Clock, old: bytes, new: bytes, complaint: str
) -> None:
    """An octet is enough."""
    with pytest.raises(IssuanceRefused, match=complaint):
        await elsewhere(office, clock, foreign(old, new)).enroll()
    assert await office.store.list_certificates() == []


@pytest.mark.parametrize("waits", [False, True])
async def test_what_was_decided_holds_after_a_restart(
    office: Office, clock: Clock, aaa: ScriptedAuthorizer, *, waits: bool
) -> None:
    """The names stand with the intent, whatever the profile says since; decided at once, or after a wait."""
    aaa.script = [Defer(reason="later"), Accept()] if waits else [Accept()]
    office = elsewhere(office, clock, put_off)
    request = await office.request()
    assert await office.submit(request) == Undecided()
    if waits:
        assert await office.poll(request) == Undecided()
    (intent,) = await office.store.open_intents()

    restarted = elsewhere(office, clock, foreign()).with_contents(naming=NamingRules.compile(subject="CN=other"))
    assert format_name(granted(await restarted.service.resume(intent)).subject) == f"CN=gw {DEVICE},O=Decided"


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


async def test_an_intent_waits_while_aaa_defers(office: Office, aaa: ScriptedAuthorizer, ca: ScriptedCA) -> None:
    """The order is carried out for the device as soon as AAA says yes again."""
    ca.script = [crash]
    request = await office.request()
    with pytest.raises(asyncio.CancelledError):
        await office.submit(request)
    aaa.script = [Defer(reason="AAA gave no answer"), Accept()]
    ca.script, ca.orders = [sign], []

    assert await office.poll(request) == Undecided()
    assert ca.orders == []
    assert granted(await office.poll(request))


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
