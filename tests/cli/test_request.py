"""Claims about `scep-ra request`: what waits is seen, understood and decided from a terminal."""

from __future__ import annotations

import getpass
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from scep_ra.cli.session import Session
from scep_ra.enrollment.decisions import Check, DecisionRecord, Verdict, encode_record
from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.parts import utc_now
from scep_ra.pki.csr import build_request
from scep_ra.pki.names import parse_name
from scep_ra.storage.base import DecisionOutcome, Enrollment, Retirement, StoredCertificate, StoredDecision
from scep_ra.web.errors import PUBLIC_TEXT
from tests.support.command_line import CommandLine
from tests.support.pki import make_key
from tests.support.records import (
    device_id,
    make_certificate,
    make_device,
    make_enrollment,
    make_pending,
)
from tests.support.records import (
    make_key as make_enrollment_key,
)

WAITS, OTHER, REFUSED = "3f2a" * 8, "3f2b" * 8, "c0de" * 8
HOLD = "the profile demands approval"
RECORD = DecisionRecord(
    subject="CN=router-1,serialNumber=SN123",
    subject_alt_name=("dns:router-1.example.com", "ip:192.0.2.7"),
    key="RSA, 2048 bits",
    spki_sha256="ab" * 32,
    signer="the key of the request itself",
    claims=(("subject.serialNumber", "serial:SN123"),),
    checks=(
        Check(name="identity", verdict=Verdict.PASSED),
        Check(name="approval", verdict=Verdict.DEFERRED, detail=HOLD),
    ),
    attributes={"user": "alice"},
    certificate_subject="CN=SN123",
    dropped_names=("ip:192.0.2.7",),
    reason=HOLD,
)
REFUSAL = StoredDecision(
    decision_id=REFUSED,
    decided_at=utc_now() - timedelta(minutes=5),
    profile="default",
    transaction_id="TX9",
    source="192.0.2.66",
    device_id=device_id("SN666"),
    outcome=DecisionOutcome.REFUSED,
    code="not_authorized",
    record=encode_record(
        replace(
            RECORD,
            subject="CN=thief",
            checks=(Check(name="challenge", verdict=Verdict.FAILED, detail="the challenge has been used"),),
            attributes={},
            certificate_subject="",
            reason="the challenge has been used",
        )
    ),
)


def waiting(enrollment_id: str = WAITS, number: int = 1, **fields: object) -> Enrollment:
    csr = build_request(subject=parse_name("serialNumber=SN123,CN=router-1"), key=make_key("ec-p256"))
    came_at = utc_now() - timedelta(hours=3 * number)
    row = make_pending(
        number, enrollment_id=enrollment_id, key=make_enrollment_key(f"TX{number}"), csr=csr, hold=HOLD,
        created_at=came_at, updated_at=came_at,
    )  # fmt: skip
    return replace(row, **fields)  # type: ignore[arg-type] # fields of any type


def put(scep_ra: CommandLine, *enrollments: Enrollment, registered: bool = True) -> None:
    """Store requests that wait, with their records, for a device that is registered."""

    async def work(session: Session) -> None:
        if registered:
            await session.store.add_device(make_device())
        for each in enrollments:
            decision = replace(
                REFUSAL, decision_id=each.enrollment_id, decided_at=each.created_at, device_id=each.device_id,
                outcome=DecisionOutcome.DEFERRED, code="", record=encode_record(RECORD),
                transaction_id=each.key.transaction_id, source=each.source,
            )  # fmt: skip
            await session.store.insert_enrollment(each, spend=None, decision=decision)

    scep_ra.in_store(work)


def refuse(scep_ra: CommandLine, *decisions: StoredDecision) -> None:
    async def work(session: Session) -> None:
        await session.store.add_decisions(decisions)

    scep_ra.in_store(work)


def issue(scep_ra: CommandLine) -> None:
    """Let the device come back for the certificate of its approved request."""

    async def work(session: Session) -> None:
        now = utc_now()
        assert await session.store.advance(
            WAITS, EnrollmentState.APPROVED, EnrollmentEvent.AUTHORIZE, now, certificate_serial=0x4A, order=b"order"
        )
        assert await session.store.complete(WAITS, certificate(0x4A), now)

    scep_ra.in_store(work)


def renew(scep_ra: CommandLine) -> None:
    """Let the device renew its certificate, in a profile that revokes the old one a day later."""

    async def work(session: Session) -> None:
        now = utc_now()
        renewal = make_enrollment(2, key=make_enrollment_key("TX2"), renewal_of=0x4A, certificate_serial=0x5B)
        await session.store.insert_enrollment(renewal, spend=None)
        retirement = Retirement(renewed_at=now + timedelta(days=1))
        assert await session.store.complete(renewal.enrollment_id, certificate(0x5B), now, retirement=retirement)

    scep_ra.in_store(work)


def certificate(certificate_serial: int) -> StoredCertificate:
    now = utc_now()
    return replace(
        make_certificate(not_before=now, not_after=now + timedelta(days=365)), certificate_serial=certificate_serial
    )


def fail(scep_ra: CommandLine) -> None:
    """Let the CA decline an approved request."""

    async def work(session: Session) -> None:
        now = utc_now()
        assert await session.store.advance(
            WAITS, EnrollmentState.APPROVED, EnrollmentEvent.AUTHORIZE, now, certificate_serial=0x4A, order=b"order"
        )
        assert await session.store.advance(WAITS, EnrollmentState.ISSUING, EnrollmentEvent.FAIL, now)

    scep_ra.in_store(work)


def states(scep_ra: CommandLine, *options: str) -> list[tuple[str, str]]:
    return [(each["id"], each["state"]) for each in scep_ra.ok("request", "list", "--json", *options).json]


def hold(scep_ra: CommandLine, *certificates: StoredCertificate) -> None:
    """Let the device have these certificates already."""

    async def work(session: Session) -> None:
        for number, each in enumerate(certificates, 50):
            key = make_enrollment_key(f"TX{number}", profile=each.profile)
            await session.store.insert_enrollment(make_enrollment(number, key=key), spend=None)
            assert await session.store.complete(f"{number:032x}", each, utc_now())

    scep_ra.in_store(work)


# --- list ----------------------------------------------------------------------------------------------------------


def test_what_waits_is_listed_with_everything_that_a_decision_needs(scep_ra: CommandLine) -> None:
    """Newest first; the short ID is enough for the other commands."""
    put(scep_ra, waiting(), waiting(OTHER, 2, device_id=device_id("SN2")))
    refuse(scep_ra, REFUSAL)

    lines = scep_ra.ok("request", "list").out.splitlines()

    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["ID", "AGE", "STATE", "PROFILE", "DEVICE", "SUBJECT", "SOURCE", "WHY"],
        ["3f2a3f2a", "3 h", "pending", "default", "serial:SN123", "serialNumber=SN123,CN=router-1", "192.0.2.1", HOLD],
        ["3f2b3f2b", "6 h", "pending", "default", "serial:SN2", "serialNumber=SN123,CN=router-1", "192.0.2.1", HOLD],
    ]


def test_refused_requests_are_listed_with_their_reason(scep_ra: CommandLine) -> None:
    """A message that could not be read names neither device nor subject."""
    unread = replace(REFUSAL, decision_id="d" * 32, device_id=None, decided_at=utc_now() - timedelta(days=2), source="")
    unread = replace(unread, record=encode_record(DecisionRecord(signer="x", reason="bad signature")))
    refuse(scep_ra, replace(REFUSAL, decided_at=utc_now() - timedelta(minutes=5)), unread)

    listed = scep_ra.ok("request", "list", "--refused", "--json").json

    assert listed[0] == {
        "id": "c0dec0de", "age": "5 min", "state": "refused", "profile": "default", "device": "serial:SN666",
        "subject": "CN=thief", "source": "192.0.2.66", "why": "the challenge has been used",
    }  # fmt: skip
    assert (listed[1]["age"], listed[1]["device"], listed[1]["why"]) == ("2 d", "", "bad signature")


def test_lists_are_chosen_by_state_and_device(scep_ra: CommandLine) -> None:
    """--all takes every state and the refused ones."""
    put(scep_ra, waiting(), waiting(OTHER, 2, device_id=device_id("SN2")))
    refuse(scep_ra, REFUSAL)
    scep_ra.ok("request", "reject", OTHER)

    assert states(scep_ra) == [("3f2a3f2a", "pending")]
    assert states(scep_ra, "--state", "rejected") == [("3f2b3f2b", "rejected")]
    assert states(scep_ra, "--state", "rejected", "--state", "pending", "--refused") == [
        ("c0dec0de", "refused"), ("3f2a3f2a", "pending"), ("3f2b3f2b", "rejected"),
    ]  # fmt: skip
    assert len(states(scep_ra, "--all")) == 3
    assert states(scep_ra, "--all", "--device", "SN2") == [("3f2b3f2b", "rejected")]
    assert states(scep_ra, "--refused", "--device", "SN666", "--kind", "serial") == [("c0dec0de", "refused")]
    assert states(scep_ra, "--device", "NOBODY") == []


def test_a_list_that_was_cut_says_so(scep_ra: CommandLine) -> None:
    """On standard error, where no program reads it."""
    scep_ra.data.mkdir(mode=0o700)
    put(scep_ra, waiting(), waiting(OTHER, 2))
    refuse(scep_ra, REFUSAL)

    cut = scep_ra.ok("request", "list", "--all", "--limit", "2", "--json")
    assert [each["id"] for each in cut.json] == ["c0dec0de", "3f2a3f2a"]
    assert cut.err == "these are the newest 2; --limit shows more\n"
    assert scep_ra.ok("request", "list", "--all", "--limit", "4").err == ""


def test_what_a_terminal_would_obey_is_written_out(scep_ra: CommandLine) -> None:
    """Strangers choose these texts."""
    hostile = replace(RECORD, subject="CN=\x1b]0;pwned\x07", reason="\u202eevil", signer="\x9b2J")
    refuse(scep_ra, replace(REFUSAL, record=encode_record(hostile)))

    for shown in (scep_ra.ok("request", "list", "--refused").out, scep_ra.ok("request", "show", "c0de").out):
        assert not set(shown) & {"\x1b", "\x07", "\u202e", "\x9b"}
        assert r"\x1b]0;pwned\x07" in shown
        assert r"\u202eevil" in shown


def test_a_csr_that_cannot_be_read_does_not_spoil_the_list(scep_ra: CommandLine) -> None:
    """It says so in its place."""
    put(scep_ra, waiting(csr=b"0", created_at=utc_now()))
    (line,) = scep_ra.ok("request", "list", "--json").json
    assert line["subject"].startswith("unreadable: ")
    assert line["age"].endswith(" s")


# --- show ----------------------------------------------------------------------------------------------------------


def test_a_request_that_waits_is_explained(scep_ra: CommandLine) -> None:
    """By any beginning of its ID, in capitals, too."""
    put(scep_ra, waiting())
    told = scep_ra.ok("request", "show", "3F2A").out
    came = re.search(r"came (\S+) ", told)
    assert came is not None
    assert told == (
        f"request {WAITS}\n"
        f"    came {came[1]} (3 h ago) from 192.0.2.1\n"
        "    to profile default, transactionID TX1\n"
        "\n"
        "asked for\n"
        "    subject     CN=router-1,serialNumber=SN123\n"
        "    names       dns:router-1.example.com, ip:192.0.2.7\n"
        f"    key         RSA, 2048 bits, SHA-256 {'ab' * 32}\n"
        "\n"
        "signed by\n"
        "    the key of the request itself\n"
        "\n"
        "device\n"
        "    serial:SN123, proved by challenge\n"
        "    subject.serialNumber says serial:SN123\n"
        "\n"
        "checks\n"
        "    passed    identity\n"
        f"    deferred  approval         {HOLD}\n"
        "\n"
        "AAA said\n"
        "    user = alice\n"
        "\n"
        "left out of the certificate, because nothing vouches for it\n"
        "    ip:192.0.2.7\n"
        "\n"
        "outcome\n"
        f"    deferred: {HOLD}\n"
        "    certificate for CN=SN123\n"
        "    the peer is told PENDING\n"
        "\n"
        "since then\n"
        f"    {came[1]}  the request waits: {HOLD}\n"
    )


def test_a_refused_request_is_explained_with_what_the_peer_was_told(scep_ra: CommandLine) -> None:
    """The reason stays here; the peer got a sentence that says nothing about devices."""
    refuse(scep_ra, REFUSAL)
    told = scep_ra.ok("request", "show", REFUSED).out
    assert "    failed    challenge        the challenge has been used\n" in told
    assert "    refused: the challenge has been used\n" in told
    assert f'    the peer is told FAILURE, "{PUBLIC_TEXT["not_authorized"]}"\n' in told
    assert "since then" not in told


def test_a_message_that_could_not_be_read_is_explained_as_far_as_it_is_known(scep_ra: CommandLine) -> None:
    """No device, no key, no checks."""
    record = encode_record(
        DecisionRecord(signer="a certificate (CN=x, SHA-256 00)", reason="the envelope does not open")
    )
    refuse(scep_ra, replace(REFUSAL, device_id=None, source="", code="integrity", record=record))
    told = scep_ra.ok("request", "show", "c").out
    assert " from -\n" in told
    assert not re.search("^(asked for|device|checks|AAA said)$", told, re.MULTILINE)


def test_what_happened_since_is_told(scep_ra: CommandLine) -> None:
    """Who approved it and why, the certificate, and that it is gone."""
    put(scep_ra, waiting(renewal_of=0x49, hold=""))
    scep_ra.ok("request", "approve", "3f2a", "--as", "alice", "--note", "called the branch office")
    assert "was approved by alice; the device gets" in scep_ra.ok("request", "show", WAITS).out
    issue(scep_ra)
    told = scep_ra.ok("request", "show", WAITS).out
    assert re.search(r"Z  the request has its certificate, 4a\n    approved by alice\n    note: called the br", told)
    assert "    renewal of  49\n" in told
    assert "    the peer is told SUCCESS\n" in told
    assert re.search(r"certificate 4a is valid: from \S+Z to \S+Z\n$", told)

    scep_ra.ok("certificate", "revoke", "4a", "--reason", "key_compromise")
    told = scep_ra.ok("request", "show", WAITS).out
    assert re.search(r"certificate 4a is revoked: .*\n    revoked at \S+Z: key_compromise\n$", told)


def test_a_successor_is_named(scep_ra: CommandLine) -> None:
    """Who asks about a request wants to know what the device uses today."""
    put(scep_ra, waiting())
    scep_ra.ok("request", "approve", "3f2a")
    issue(scep_ra)
    renew(scep_ra)
    told = scep_ra.ok("request", "show", WAITS).out
    assert re.search(
        r"    to be revoked at \S+Z, because another one replaces it\n    renewed by certificate 5b\n$", told
    )


@pytest.mark.parametrize(("declined", "code"), [(False, "not_authorized"), (True, "refused")])
def test_a_request_that_ended_badly_says_what_the_device_hears(
    scep_ra: CommandLine, *, declined: bool, code: str
) -> None:
    """Rejected by an operator, or declined by the CA."""
    put(scep_ra, waiting())
    if declined:
        scep_ra.ok("request", "approve", WAITS, "--as", "alice")
        fail(scep_ra)
    else:
        scep_ra.ok("request", "reject", WAITS, "--as", "alice")
    told = scep_ra.ok("request", "show", WAITS).out
    assert f'"{code}: ' in told
    assert "by alice" in told


def test_programs_get_everything(scep_ra: CommandLine) -> None:
    """Every field of the record, the enrollment and the certificate."""
    put(scep_ra, waiting())
    before = scep_ra.ok("request", "show", WAITS, "--json").json
    assert before["told"] == {"status": "PENDING", "code": "", "text": ""}
    assert before["certificate"] is None
    scep_ra.ok("request", "approve", WAITS, "--as", "alice", "--note", "seen")
    issue(scep_ra)

    shown = scep_ra.ok("request", "show", WAITS, "--json").json

    assert (shown["id"], shown["state"], shown["outcome"], shown["device"]) == (
        WAITS, "issued", "deferred", "serial:SN123",
    )  # fmt: skip
    assert shown["claims"] == [{"source": "subject.serialNumber", "device": "serial:SN123"}]
    assert shown["checks"][1] == {"name": "approval", "verdict": "deferred", "detail": HOLD}
    assert shown["attributes"] == {"user": "alice"}
    assert (shown["enrollment"]["decided_by"], shown["enrollment"]["note"]) == ("alice", "seen")
    assert (shown["enrollment"]["proof"], shown["enrollment"]["renewal_of"]) == ("challenge", None)
    assert (shown["certificate"]["serial"], shown["certificate"]["status"]) == ("4a", "valid")


def test_programs_get_refusals_too(scep_ra: CommandLine) -> None:
    """With nothing where nothing is."""
    refuse(scep_ra, replace(REFUSAL, device_id=None))
    shown = scep_ra.ok("request", "show", REFUSED, "--json").json
    assert (shown["state"], shown["device"], shown["enrollment"], shown["certificate"]) == ("refused", None, None, None)
    assert shown["told"] == {"status": "FAILURE", "code": "not_authorized", "text": PUBLIC_TEXT["not_authorized"]}


# --- IDs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["show", "approve", "reject"])
def test_an_id_that_means_several_requests_is_refused(scep_ra: CommandLine, command: str) -> None:
    """Nothing is decided about either."""
    put(scep_ra, waiting(), waiting(OTHER, 2))
    outcome = scep_ra("request", command, "3f2")
    assert (outcome.status, f"such as {WAITS} and {OTHER}: give more digits" in outcome.err) == (2, True)
    assert len(states(scep_ra)) == 2


@pytest.mark.parametrize("command", ["show", "approve", "reject"])
def test_an_id_that_nobody_has_is_not_found(scep_ra: CommandLine, command: str) -> None:
    """Status 1, and where to look."""
    scep_ra.data.mkdir(mode=0o700)
    outcome = scep_ra("request", command, "abc")
    assert (outcome.status, outcome.err) == (
        1, "scep-ra: no request has an ID that begins with abc; `scep-ra request list --all` shows them\n",
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "%", "3g", "0" * 33])
def test_what_is_no_id_is_a_usage_error(scep_ra: CommandLine, text: str) -> None:
    """Before the store is opened."""
    outcome = scep_ra("request", "show", text)
    assert (outcome.status, "hexadecimal digits" in outcome.err) == (2, True)


# --- approve and reject --------------------------------------------------------------------------------------------


def test_a_request_is_approved_by_whoever_is_logged_in(scep_ra: CommandLine) -> None:
    """Unless --as says who it is."""
    put(scep_ra, waiting(), waiting(OTHER, 2))
    outcome = scep_ra.ok("request", "approve", "3f2a")
    assert outcome.out == "approved 3f2a3f2a: serial:SN123 gets its certificate when it asks next\n"
    scep_ra.ok("request", "approve", "3f2b", "--as", "alice")

    deciders = [scep_ra.ok("request", "show", each, "--json").json["enrollment"] for each in (WAITS, OTHER)]
    assert [each["decided_by"] for each in deciders] == [getpass.getuser(), "alice"]
    assert states(scep_ra) == []


def test_a_login_without_a_name_has_to_say_who_it_is(scep_ra: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a bare user ID."""

    def nobody() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", nobody)
    put(scep_ra, waiting())
    outcome = scep_ra("request", "approve", WAITS)
    assert (outcome.status, "say who decides with --as NAME" in outcome.err) == (2, True)
    scep_ra.ok("request", "approve", WAITS, "--as", "alice")


def test_aaa_has_the_last_word(scep_ra: CommandLine) -> None:
    """A device that was never registered, or is not any more, cannot be approved."""
    scep_ra.data.mkdir(mode=0o700)
    put(scep_ra, waiting(), registered=False)
    outcome = scep_ra("request", "approve", WAITS)
    assert outcome.status == 1
    assert re.match(r"scep-ra: AAA says no to serial:SN123: .*; the request is now rejected\n", outcome.err)
    assert states(scep_ra, "--state", "rejected") == [("3f2a3f2a", "rejected")]


def test_a_rejected_request_stays_rejected(scep_ra: CommandLine) -> None:
    """Status 1, and who was it."""
    put(scep_ra, waiting())
    outcome = scep_ra.ok("request", "reject", "3f2a", "--as", "bob", "--note", "stolen")
    assert outcome.out == "rejected 3f2a3f2a: serial:SN123 gets no certificate for it\n"
    for command in ("approve", "reject"):
        again = scep_ra("request", command, "3f2a")
        assert (again.status, again.err) == (1, f"scep-ra: request {WAITS} was rejected by bob\n")


@pytest.mark.parametrize("command", ["approve", "reject"])
def test_what_was_refused_when_it_came_waits_for_nobody(scep_ra: CommandLine, command: str) -> None:
    """The device is not at the line any more."""
    refuse(scep_ra, REFUSAL)
    outcome = scep_ra("request", command, "c0de")
    assert (outcome.status, "was refused when it came: the device has to ask anew" in outcome.err) == (1, True)


# --- other keys ----------------------------------------------------------------------------------------------------


def test_good_certificates_of_the_device_are_shown_beside_its_request(scep_ra: CommandLine) -> None:
    """Each with serial, profile and end, and whether it is for another key; other profiles are other matters."""
    spare, clone = certificate(0x5B), replace(certificate(0x6C), spki_digest=b"6" * 32)
    hold(scep_ra, spare, clone, replace(certificate(0x7D), spki_digest=b"7" * 32, profile="vpn"))
    put(scep_ra, waiting())

    told = scep_ra.ok("request", "show", WAITS).out
    assert re.search(
        r"good certificates of the device\n"
        r"    7d of profile vpn, until \S+Z\n"
        r"    6c of profile default, until \S+Z, UNDER ANOTHER KEY than this request\n"
        r"    5b of profile default, until \S+Z\n\n",
        told,
    )
    held = scep_ra.ok("request", "show", WAITS, "--json").json["device_certificates"]
    assert [(each["serial"], each["profile"]) for each in held] == [("7d", "vpn"), ("6c", "default"), ("5b", "default")]
    assert held[1]["spki_sha256"] == (b"6" * 32).hex()


def test_approving_beside_another_key_says_so(scep_ra: CommandLine) -> None:
    """An operator who approves for another reason must see it; the certificate to be renewed is no surprise."""
    renewed, clone = (replace(certificate(serial), spki_digest=b"6" * 32) for serial in (0x49, 0x6C))
    hold(scep_ra, renewed, clone)
    put(scep_ra, waiting(renewal_of=0x49))

    approved, *other = scep_ra.ok("request", "approve", "3f2a").out.splitlines()
    assert approved.startswith("approved 3f2a3f2a")
    (line,) = other
    assert re.fullmatch(
        r"it has certificate 6c under another key as well, good until \S+Z: was it reset, or .*\?", line
    )


def test_a_refused_request_is_shown_with_what_its_device_has(scep_ra: CommandLine) -> None:
    """Its key was not kept, so nothing is said about keys."""
    refuse(scep_ra, replace(REFUSAL, device_id=device_id()))
    hold(scep_ra, certificate(0x5B))
    told = scep_ra.ok("request", "show", REFUSED).out
    assert re.search(r"good certificates of the device\n    5b of profile default, until \S+Z\n\n", told)


# --- forget --------------------------------------------------------------------------------------------------------


def test_what_ended_can_be_forgotten_and_stays_on_record(scep_ra: CommandLine) -> None:
    """Once; a request that waits has not ended, one that was refused is not there."""
    put(scep_ra, waiting())
    refuse(scep_ra, REFUSAL)
    assert "has not ended" in scep_ra("request", "forget", "3f2a").err
    scep_ra.ok("request", "reject", "3f2a", "--as", "alice")

    told = scep_ra.ok("request", "forget", "3f2a", "--as", "bob", "--note", "by mistake").out
    assert told == "forgot 3f2a3f2a: what serial:SN123 sends next is judged as a new request\n"

    assert re.search(
        r"Z  forgotten: the same request is judged as a new one\n$", scep_ra.ok("request", "show", WAITS).out
    )
    assert scep_ra.ok("request", "show", WAITS, "--json").json["enrollment"]["closed_at"].endswith("Z")
    assert "is forgotten already" in scep_ra("request", "forget", "3f2a").err
    assert "was refused when it came" in scep_ra("request", "forget", "c0de").err
    (record,) = scep_ra.ok("audit", "list", "--last", "1", "--json").json
    assert (record["event"], record["facts"]["by"], record["facts"]["note"]) == (
        "enrollment_closed",
        "bob",
        "by mistake",
    )


def test_a_no_of_aaa_to_an_approved_device_is_told_with_its_reason(scep_ra: CommandLine) -> None:
    """Beside the name of whoever approved it."""
    put(scep_ra, waiting())
    scep_ra.ok("request", "approve", "3f2a", "--as", "alice", "--note", "seen")

    async def come_back(session: Session) -> None:
        step = (WAITS, EnrollmentState.APPROVED, EnrollmentEvent.REJECT, utc_now())
        assert await session.store.advance(*step, refusal="device is disabled")

    scep_ra.in_store(come_back)
    told = scep_ra.ok("request", "show", WAITS).out
    assert told.endswith("rejected by AAA\n    note: seen\n    AAA's reason: device is disabled\n")
    assert "was approved by alice, then rejected by AAA" in told
