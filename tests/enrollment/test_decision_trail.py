"""Claims about what is on record of a request: one decision each, every check in order, both sides of a conflict.

What a record looks like is test_decisions' matter; here the service writes them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from scep_ra.aaa.base import Accept, Defer, Reject
from scep_ra.enrollment.challenges import StaticChallenge, challenge_digest
from scep_ra.enrollment.decisions import DecisionRecord, Verdict, decode_record
from scep_ra.enrollment.errors import EnrollmentError, IssuanceRefused
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.rules import Approval, SecondKey
from scep_ra.enrollment.types import EnrollmentRequest, ManufacturerCertificate, TrustedRA, Undecided
from scep_ra.errors import Refused, Unavailable
from scep_ra.pki.names import parse_name
from scep_ra.storage.base import DecisionOutcome, Store, StoredDecision
from tests.support.enrollment import (
    DAY,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    fail,
    granted,
    make_request,
)
from tests.support.manufacturer import DEVICE_SERIAL, make_idevid
from tests.support.pki import make_ca, make_ra

OTHER: Final = "FOC9999X0ZZ"
NO: Final = Reject(reason="device was reported stolen")
WAIT: Final = Defer(reason="somebody has to look at it")


async def only_decision(office: Office) -> StoredDecision:
    """Return the one decision about the last request, in the store or among the refusals."""
    (decision,) = [*await office.store.list_decisions(), *office.records.decisions]
    return decision


def trail(decision: StoredDecision) -> list[str]:
    """Return the checks in order; what did not pass says so."""
    return [
        check.name if check.verdict is Verdict.PASSED else f"{check.name}: {check.verdict}"
        for check in decode_record(decision.record).checks
    ]


def record_of(decision: StoredDecision) -> DecisionRecord:
    return decode_record(decision.record)


# --- authorized ----------------------------------------------------------------------------------------------------

ISSUE: Final = ["key", "authorization", "names", "certificate contents", "limits"]


async def test_an_authorized_request_leaves_one_decision_with_every_check(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """And no more when the same request comes again, or polls."""
    aaa.script = [Accept(attributes={"user": "alice"})]
    request = await office.request()
    for ask in (office.submit, office.submit, office.poll):
        assert granted(await ask(request))

    decision = await only_decision(office)

    assert (decision.outcome, decision.code) == (DecisionOutcome.AUTHORIZED, "")
    assert decision.decision_id == (await office.enrollment(request)).enrollment_id
    assert (str(decision.device_id), decision.source) == ("serial:FOC1234X0AB", "192.0.2.1")
    assert trail(decision) == ["identity", "challenge", *ISSUE]
    record = record_of(decision)
    assert record.claims == (
        ("subject.serialNumber", "serial:FOC1234X0AB"), ("subject.commonName", "serial:ROUTER-1"),
    )  # fmt: skip
    assert record.attributes == {"user": "alice"}
    assert record.certificate_subject == "O=Test,serialNumber=FOC1234X0AB,CN=router-1"


async def test_a_renewal_says_which_certificate_it_came_with(office: Office) -> None:
    """In place of a challenge."""
    old = await office.enroll()
    request = make_request(owner="new key", signed_with=old)
    assert granted(await office.submit(request))

    (decision,) = await office.store.find_decisions((await office.enrollment(request)).enrollment_id)

    assert trail(decision) == ["certificate", "identity", "renewal", *ISSUE]
    assert f"our certificate {old.certificate_serial:x}" in record_of(decision).signer


async def test_an_idevid_and_an_ra_are_named(office: Office) -> None:
    """With the store, or the RA, by the name of the configuration."""
    idevid = ManufacturerCertificate(certificate=make_idevid(), store="acme")
    branch = TrustedRA(certificate=make_ra(make_ca("ec-p256")).certificate, ra="branch")
    found: list[StoredDecision] = []
    for proof, device in ((idevid, DEVICE_SERIAL), (branch, OTHER)):
        request = replace(make_request(device=device, owner=device), proof=proof)
        assert granted(await office.submit(request))
        found += await office.store.find_decisions((await office.enrollment(request)).enrollment_id)

    assert [trail(decision)[:2] for decision in found] == [
        ["identity", "manufacturer"], ["identity", "registration authority"],
    ]  # fmt: skip
    assert "manufacturer acme" in record_of(found[0]).signer
    assert "trusted RA branch" in record_of(found[1]).signer


async def test_of_the_same_request_twice_at_once_one_decision_stays(office: Office, second_store: Store) -> None:
    """The one who loses the race says what the winner says."""
    request = await office.request()
    nodes = (office, office.other(store=second_store))

    await asyncio.gather(*(node.submit(request) for node in nodes * 3))

    assert (await only_decision(office)).outcome is DecisionOutcome.AUTHORIZED


async def test_a_ca_that_declines_does_not_change_the_decision(office: Office, ca: ScriptedCA) -> None:
    """It was ours, and on record before the CA was asked; that it failed stands with the enrollment."""
    ca.script = [fail(Refused("out of serials"))]
    with pytest.raises(IssuanceRefused):
        await office.submit(await office.request())

    assert (await only_decision(office)).outcome is DecisionOutcome.AUTHORIZED


# --- put off -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "approval", "checks", "reason"),
    [
        (WAIT, Approval.ALWAYS, ["authorization: deferred"], "somebody has to look at it"),
        (Accept(), Approval.ALWAYS, ["authorization", "names", "approval: deferred"], "the profile demands approval"),
        (
            Accept(approval=True),
            Approval.OFF,
            ["authorization", "names", "approval: deferred"],
            "AAA demands approval of this device",
        ),
    ],
)
async def test_a_request_that_waits_says_for_whom(
    office: Office,
    aaa: ScriptedAuthorizer,
    answer: Accept | Defer,
    approval: Approval,
    *,
    checks: list[str],
    reason: str,
) -> None:
    """Polling leaves no further decisions."""
    aaa.script = [answer]
    office = office.with_rules(approval=approval)
    request = await office.request()
    for ask in (office.submit, office.poll, office.submit):
        assert await ask(request) == Undecided()

    decision = await only_decision(office)

    assert (decision.outcome, record_of(decision).reason) == (DecisionOutcome.DEFERRED, reason)
    assert trail(decision) == ["identity", "challenge", "key", *checks]


async def test_a_second_key_that_is_held_is_told_from_other_approvals(office: Office) -> None:
    """The certificate in the way stands in the reason."""
    old = await office.enroll()
    request = await office.request(owner="second key")
    assert await office.with_rules(second_key=SecondKey.HOLD).submit(request) == Undecided()

    (decision,) = await office.store.list_decisions(outcomes={DecisionOutcome.DEFERRED})

    assert trail(decision) == ["identity", "challenge", *ISSUE[:-1], "approval: deferred"]
    assert f"{old.certificate_serial:x}" in record_of(decision).reason


# --- refused -------------------------------------------------------------------------------------------------------


async def refuse(office: Office, request: EnrollmentRequest) -> StoredDecision:
    """Submit a request that is refused, and return what is on record of it."""
    before = len(await office.store.list_decisions())
    with pytest.raises(EnrollmentError) as refusal:
        await office.submit(request)
    (decision,) = office.records.decisions
    assert len(await office.store.list_decisions()) == before
    assert (decision.outcome, decision.code) == (DecisionOutcome.REFUSED, refusal.value.code)
    assert record_of(decision).reason == str(refusal.value)
    return decision


PROVEN: Final = ["identity", "challenge"]
Change = Callable[[Office], Office]
REFUSALS: Final[list[tuple[Accept | Reject, Change, str, list[str]]]] = [
    (NO, lambda it: it, "not_authorized", [*PROVEN, "key", "authorization: failed"]),
    (Accept(), lambda it: it.with_rules(service="vpn"), "not_authorized", [*PROVEN, "key", "authorization: failed"]),
    (
        Accept(),
        lambda it: it.with_contents(naming=NamingRules.compile()),
        "subject",
        [*PROVEN, "key", "authorization", "names: failed"],
    ),
    (
        Accept(profile="none such"),
        lambda it: it,
        "not_authorized",
        [*PROVEN, "key", "authorization", "names: failed"],
    ),
    (
        Accept(not_after=make_idevid().not_before),
        lambda it: it,
        "not_authorized",
        [*PROVEN, *ISSUE[:3], "certificate contents: failed"],
    ),
    (
        Accept(),
        lambda it: it.other(forbidden_keys=frozenset({make_request(owner="second key").csr.spki_digest})),
        "key",
        [*PROVEN, "key: failed"],
    ),
    (Accept(), lambda it: it.with_rules(max_active=1), "quota", [*PROVEN, *ISSUE[:-1], "limits: failed"]),
    (
        Accept(),
        lambda it: it.with_rules(second_key=SecondKey.REFUSE),
        "second_key",
        [*PROVEN, *ISSUE[:-1], "limits: failed"],
    ),
]


@pytest.mark.parametrize(("answer", "change", "code", "checks"), REFUSALS)
async def test_a_refused_request_leaves_one_decision_that_ends_with_what_was_wrong(
    office: Office, aaa: ScriptedAuthorizer, answer: Accept | Reject, change: Change, *, code: str, checks: list[str]
) -> None:
    """The device has a certificate already; its second request meets one obstacle."""
    await office.enroll()
    aaa.script = [answer]

    decision = await refuse(change(office), await office.request(owner="second key"))

    assert (decision.code, trail(decision)) == (code, checks)
    assert str(decision.device_id) == "serial:FOC1234X0AB"


async def test_a_wrong_challenge_is_told_without_its_text(office: Office) -> None:
    """Somebody may have mistyped a right one."""
    decision = await refuse(office, make_request(challenge="mistyped secret"))

    assert trail(decision) == ["identity", "challenge: failed"]
    assert "mistyped" not in repr(decision)


async def test_both_sides_of_an_identity_conflict_are_told(office: Office) -> None:
    """N-37: as claims with their places, and in the reason."""
    subject = parse_name(f"serialNumber=FOC1234X0AB+CN=a,serialNumber={OTHER}")

    decision = await refuse(office, make_request(subject=subject))

    assert (decision.code, trail(decision), decision.device_id) == ("identity", ["identity: failed"], None)
    record = record_of(decision)
    for value in ("FOC1234X0AB", OTHER):
        assert value in record.reason
        assert ("subject.serialNumber", f"serial:{value}") in record.claims


async def test_an_idevid_that_contradicts_the_request_is_told_with_both(office: Office) -> None:
    """R-15: for the device that the manufacturer certified."""
    request = replace(
        make_request(device=OTHER), proof=ManufacturerCertificate(certificate=make_idevid(), store="acme")
    )

    decision = await refuse(office, request)

    assert (trail(decision), str(decision.device_id)) == (["identity: failed"], f"serial:{DEVICE_SERIAL}")
    assert {device for _, device in record_of(decision).claims} >= {f"serial:{DEVICE_SERIAL}", f"serial:{OTHER}"}


async def test_a_renewal_that_comes_too_late_is_told_with_its_certificate(office: Office) -> None:
    """R-05."""
    old = await office.enroll()
    office.clock.advance(366 * DAY)

    decision = await refuse(office, make_request(owner="new key", signed_with=old))

    assert (decision.code, trail(decision)) == ("renewal", ["certificate", "identity", "renewal: failed"])


async def test_a_second_request_in_a_transaction_is_on_record(office: Office, aaa: ScriptedAuthorizer) -> None:
    """Before anybody asked who it is."""
    aaa.script = [WAIT]
    await office.submit(await office.request())

    decision = await refuse(office, await office.request())

    assert (decision.code, trail(decision)) == ("transaction", [])


async def test_what_the_store_finds_when_a_request_is_put_off_is_told(office: Office) -> None:
    """A stolen key is refused, though an operator was to be asked."""
    old = await office.enroll()
    await office.store.revoke_certificate("default", old.certificate_serial, office.clock(), 1)
    office = office.with_rules(approval=Approval.ALWAYS)

    decision = await refuse(office, await office.request(transaction_id="TX2"))

    assert decision.code == "key"
    assert trail(decision)[-2:] == ["approval: deferred", "limits: failed"]


async def test_an_outage_is_no_decision(office: Office, aaa: ScriptedAuthorizer) -> None:
    """The device asks again, and then there is one."""
    aaa.script = [Unavailable("AAA is down"), Accept()]
    request = await office.request()
    with pytest.raises(Unavailable):
        await office.submit(request)
    assert (await office.store.list_decisions(), office.records.decisions) == ([], [])

    await office.submit(request)
    assert (await only_decision(office)).outcome is DecisionOutcome.AUTHORIZED


# --- secrets -------------------------------------------------------------------------------------------------------


def everything_in(database: Path) -> bytes:
    """Return every value of every table, and what is left in free pages and in the log."""
    with closing(sqlite3.connect(database)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in connection.execute(f'SELECT * FROM "{table}"')]
    values = [value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row]
    assert len(values) > 50
    return b"\n".join([*values, *(file.read_bytes() for file in database.parent.glob(f"{database.name}*"))])


@pytest.mark.parametrize("kind", ["one-time", "static"])
async def test_no_secret_is_kept_or_logged(office: Office, aaa: ScriptedAuthorizer, tmp_path: Path, kind: str) -> None:
    """SR-28, V21: granted, put off or refused; what AAA is shown at first sight is nowhere else."""
    secret = await office.challenge() if kind == "one-time" else "lab-secret-of-everybody"
    if kind == "static":
        office = office.with_rules(challenge=StaticChallenge(digest=challenge_digest(secret)))
    aaa.script = [NO, WAIT, Accept()]
    request = make_request(challenge=secret)

    with capture_logs() as log:
        with pytest.raises(EnrollmentError):
            await office.submit(request)
        assert await office.submit(request) == Undecided()
        assert granted(await office.poll(request))
        with pytest.raises(EnrollmentError):
            await office.submit(make_request(challenge=f"{secret} ", owner="thief", transaction_id="TX2"))

    assert [secret.encode() in asked.csr for asked in aaa.requests] == [True, True, False]
    await office.store.add_decisions(
        [replace(each, decision_id=f"{n:032x}") for n, each in enumerate(office.records.decisions)]
    )
    kept = everything_in(tmp_path / "store.sqlite")
    assert request.csr.subject in kept
    assert secret.encode() not in kept
    assert secret not in repr(log)
