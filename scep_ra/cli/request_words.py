"""What `scep-ra request` says about a request: a line for lists, everything for programs, and an account for people.

Texts in it come from strangers, so whatever a terminal would take for a command is written out. Nothing is read from
the store here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, assert_never

from scep_ra.cli.certificate import certificate_status
from scep_ra.cli.output import Record, timestamp
from scep_ra.enrollment.approval import standing_of
from scep_ra.enrollment.decisions import DecisionRecord, decode_record
from scep_ra.enrollment.errors import IssuanceRefused, NotAuthorized
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.pki.csr import parse_request
from scep_ra.pki.errors import PKIError
from scep_ra.pki.names import format_name
from scep_ra.revocation.crl import RevocationReason
from scep_ra.storage.base import Enrollment, StoredCertificate, StoredDecision
from scep_ra.web.errors import PUBLIC_TEXT

SHORT_ID: Final = 8  # of 32 digits: among 10,000 requests two begin with the same 8 once in 90 times
REFUSED: Final = "refused"  # the state of a request that became no enrollment
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that is known of one request: what was decided at first sight, and what became of it."""

    decision: StoredDecision
    enrollment: Enrollment | None  # None: it was refused
    certificate: StoredCertificate | None = None
    current: Sequence[StoredCertificate] = ()  # all good ones of the device, of whatever request


def is_other_key(enrollment: Enrollment, certificate: StoredCertificate) -> bool:
    """Tell whether a certificate of the same device and profile is for another key, and not the one to be renewed."""
    return (
        certificate.profile == enrollment.key.profile
        and certificate.spki_digest != enrollment.spki_digest
        and (certificate.ca, certificate.certificate_serial) != (enrollment.ca, enrollment.renewal_of)
    )


# --- a line --------------------------------------------------------------------------------------------------------


def enrollment_line(enrollment: Enrollment, now: datetime) -> Record:
    """Return the columns of a list for a request that was let in or put off."""
    return _line(
        enrollment.enrollment_id,
        age=now - enrollment.created_at,
        state=enrollment.state.value,
        profile=enrollment.key.profile,
        device=str(enrollment.device_id),
        subject=_subject(enrollment.csr),
        source=enrollment.source,
        why=standing_of(enrollment).removeprefix("waits: "),
    )


def refusal_line(decision: StoredDecision, now: datetime) -> Record:
    """Return the same columns for a request that was refused when it came."""
    record = decode_record(decision.record)
    return _line(
        decision.decision_id,
        age=now - decision.decided_at,
        state=REFUSED,
        profile=decision.profile,
        device="" if decision.device_id is None else str(decision.device_id),
        subject=record.subject,
        source=decision.source,
        why=record.reason,
    )


def _line(request_id: str, *, age: timedelta, **columns: str) -> Record:
    shown = {name: _plain(text) for name, text in columns.items()}
    return {"id": request_id[:SHORT_ID], "age": _age(age), **shown}


def _age(age: timedelta) -> str:
    seconds = max(0, int(age.total_seconds()))
    return next((f"{seconds // size} {unit}" for size, unit in _UNITS if seconds >= size), f"{seconds} s")


def _subject(csr: bytes) -> str:
    try:
        return format_name(parse_request(csr).subject)
    except PKIError as error:
        return f"unreadable: {error}"


def _plain(text: str) -> str:
    """Write out what a terminal would obey: controls, marks that turn the direction of text."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# --- everything ----------------------------------------------------------------------------------------------------


def everything_about(case: Case, now: datetime) -> dict[str, Any]:
    """Return everything, for programs; a certificate serial is hexadecimal, as everywhere on the command line."""
    decision, record = case.decision, decode_record(case.decision.record)
    status, code = _told(case)
    return {
        "id": decision.decision_id,
        "state": _state(case),
        "decided_at": timestamp(decision.decided_at),
        "profile": decision.profile,
        "transaction_id": decision.transaction_id,
        "source": decision.source,
        "device": None if decision.device_id is None else str(decision.device_id),
        "outcome": decision.outcome.value,
        **asdict(record),
        "claims": [{"source": source, "device": device} for source, device in record.claims],
        "told": {"status": status, "code": code, "text": PUBLIC_TEXT.get(code, "")},
        "enrollment": None if case.enrollment is None else _enrollment_facts(case.enrollment),
        "certificate": None if case.certificate is None else _certificate_facts(case.certificate, now),
        "device_certificates": [
            {
                "serial": _serial(each.certificate_serial),
                "profile": each.profile,
                "not_after": timestamp(each.not_after),
                "spki_sha256": each.spki_digest.hex(),
            }
            for each in case.current
        ],
    }


def _state(case: Case) -> str:
    return REFUSED if case.enrollment is None else case.enrollment.state.value


def _told(case: Case) -> tuple[str, str]:
    """Return the pkiStatus that the peer has got, or gets when it asks next, and the code of a failure."""
    if case.enrollment is None:
        return "FAILURE", case.decision.code
    match case.enrollment.state:
        case EnrollmentState.PENDING | EnrollmentState.APPROVED | EnrollmentState.ISSUING:
            return "PENDING", ""
        case EnrollmentState.ISSUED:
            return "SUCCESS", ""
        case EnrollmentState.REJECTED | EnrollmentState.EXPIRED:
            return "FAILURE", NotAuthorized.code
        case EnrollmentState.FAILED:
            return "FAILURE", IssuanceRefused.code
        case _:
            assert_never(case.enrollment.state)


def _enrollment_facts(enrollment: Enrollment) -> dict[str, Any]:
    return {
        "ca": enrollment.ca,
        "proof": enrollment.proof,
        "hold": enrollment.hold,
        "renewal_of": _serial(enrollment.renewal_of),
        "certificate_serial": _serial(enrollment.certificate_serial),
        "decided_by": enrollment.decided_by,
        "note": enrollment.note,
        "refusal": enrollment.refusal,
        "updated_at": timestamp(enrollment.updated_at),
        "closed_at": None if enrollment.closed_at is None else timestamp(enrollment.closed_at),
    }


def _certificate_facts(certificate: StoredCertificate, now: datetime) -> dict[str, Any]:
    reason = certificate.revocation_reason
    return {
        "serial": _serial(certificate.certificate_serial),
        "status": certificate_status(certificate, now),
        "not_before": timestamp(certificate.not_before),
        "not_after": timestamp(certificate.not_after),
        "successor": _serial(certificate.successor),
        "revoke_at": None if certificate.revoke_at is None else timestamp(certificate.revoke_at),
        "revoked_at": None if certificate.revoked_at is None else timestamp(certificate.revoked_at),
        "revocation_reason": None if reason is None else RevocationReason(reason).name.lower(),
    }


def _serial(certificate_serial: int | None) -> str | None:
    return None if certificate_serial is None else f"{certificate_serial:x}"


# --- an account ----------------------------------------------------------------------------------------------------


def account(case: Case, now: datetime) -> str:
    """Return in words what was asked, what was found, what was decided, and what happened since."""
    record = decode_record(case.decision.record)
    sections = {
        f"request {case.decision.decision_id}": _arrival(case, now),
        "asked for": _wishes(case, record),
        "signed by": [record.signer],
        "device": _device(case, record),
        "good certificates of the device": [_holding(case, each) for each in case.current if each != case.certificate],
        "checks": [f"{check.verdict:<9} {check.name:<16} {check.detail}" for check in record.checks],
        "AAA said": [f"{name} = {text}" for name, text in record.attributes.items()],
        "left out of the certificate, because nothing vouches for it": list(record.dropped_names),
        "outcome": _outcome(case, record),
        "since then": list(_events(case, now)),
    }
    return "\n\n".join("\n".join(_section(title, lines)) for title, lines in sections.items() if lines)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield title
    yield from (f"    {_plain(line)}".rstrip() for line in lines)


def _arrival(case: Case, now: datetime) -> list[str]:
    decision = case.decision
    return [
        f"came {timestamp(decision.decided_at)} ({_age(now - decision.decided_at)} ago) from {decision.source or '-'}",
        f"to profile {decision.profile}, transactionID {decision.transaction_id}",
    ]


def _wishes(case: Case, record: DecisionRecord) -> list[str]:
    renewal_of = case.enrollment.renewal_of if case.enrollment else None
    wishes = {
        "subject": record.subject,
        "names": ", ".join(record.subject_alt_name),
        "key": f"{record.key}, SHA-256 {record.spki_sha256}" if record.key else "",
        "renewal of": _serial(renewal_of) or "",
    }
    return [f"{name:<11} {text}" for name, text in wishes.items() if text]


def _device(case: Case, record: DecisionRecord) -> list[str]:
    found = [f"{source} says {device}" for source, device in record.claims]
    if case.decision.device_id is None:
        return found
    proof = f", proved by {case.enrollment.proof}" if case.enrollment else ""
    return [f"{case.decision.device_id}{proof}", *found]


def _outcome(case: Case, record: DecisionRecord) -> list[str]:
    status, code = _told(case)
    sentence = f', "{PUBLIC_TEXT[code]}"' if code else ""
    named = [f"certificate for {record.certificate_subject}"] if record.certificate_subject else []
    return [
        f"{case.decision.outcome}{': ' if record.reason else ''}{record.reason}",
        *named,
        f"the peer is told {status}{sentence}",
    ]


def _holding(case: Case, certificate: StoredCertificate) -> str:
    text = f"{_serial(certificate.certificate_serial)} of profile {certificate.profile}"
    until = f"until {timestamp(certificate.not_after)}"
    is_other = case.enrollment is not None and is_other_key(case.enrollment, certificate)
    return f"{text}, {until}{', UNDER ANOTHER KEY than this request' if is_other else ''}"


def _events(case: Case, now: datetime) -> Iterator[str]:
    enrollment = case.enrollment
    if enrollment is None:
        return
    yield f"{timestamp(enrollment.updated_at)}  the request {standing_of(enrollment)}"
    if enrollment.decided_by and enrollment.state in (EnrollmentState.ISSUED, EnrollmentState.FAILED):
        yield f"approved by {enrollment.decided_by}"
    if enrollment.note:
        yield f"note: {enrollment.note}"
    if enrollment.refusal:
        yield f"AAA's reason: {enrollment.refusal}"
    if enrollment.closed_at is not None:
        yield f"{timestamp(enrollment.closed_at)}  forgotten: the same request is judged as a new one"
    if case.certificate is not None:
        yield from _certificate_events(case.certificate, now)


def _certificate_events(certificate: StoredCertificate, now: datetime) -> Iterator[str]:
    facts = _certificate_facts(certificate, now)
    yield f"certificate {facts['serial']} is {facts['status']}: from {facts['not_before']} to {facts['not_after']}"
    if facts["revoked_at"]:
        yield f"revoked at {facts['revoked_at']}: {facts['revocation_reason']}"
    elif facts["revoke_at"]:
        yield f"to be revoked at {facts['revoke_at']}, because another one replaces it"
    if facts["successor"]:
        yield f"renewed by certificate {facts['successor']}"
