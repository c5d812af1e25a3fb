"""The decision record: why one request was let in, put off or refused, check by check, in words for the operator.

A `Deliberation` collects it while the enrollment service goes through its checks; what cannot be read back from the
store later is kept, secrets and the request itself are not. Nothing here decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never

from scep_ra.enrollment.errors import EnrollmentError
from scep_ra.enrollment.naming import CertificateNames
from scep_ra.enrollment.types import (
    EnrollmentRequest,
    ExistingCertificate,
    IdentityProof,
    ManufacturerCertificate,
    StandIn,
    TrustedRA,
)
from scep_ra.identity.extract import IdentityClaim
from scep_ra.identity.types import DeviceID
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import PKIError
from scep_ra.pki.general_names import parse_general_names
from scep_ra.pki.keys import describe_key
from scep_ra.pki.names import format_name
from scep_ra.storage.base import DecisionOutcome, StoredDecision

# A name may fill a whole message. Records are bounded, or refused requests would fill the disk.
_MAX_CHARACTERS: Final = 500
_MAX_ENTRIES: Final = 8
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class Verdict(StrEnum):
    """What a check found."""

    PASSED = "passed"
    FAILED = "failed"
    DEFERRED = "deferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: its name, what it found, and the words that go with it."""

    name: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """Everything that `scep-ra request show` tells of a decision; all values are text made for people."""

    subject: str = ""
    subject_alt_name: tuple[str, ...] = ()
    key: str = ""
    spki_sha256: str = ""
    signer: str
    claims: tuple[tuple[str, str], ...] = ()  # (source, device ID)
    checks: tuple[Check, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)  # of the AAA answer
    certificate_subject: str = ""
    dropped_names: tuple[str, ...] = ()  # alternative names that the request asked for and nothing vouches for
    reason: str = ""  # of a refusal or a deferral


_MEMBERS: Final = tuple(member.name for member in fields(DecisionRecord))


def encode_record(record: DecisionRecord) -> str:
    """Return the record as JSON, pure ASCII, so that no text of strangers keeps it out of a database."""
    # By name, one level deep: `asdict` would copy every text, at a tenth of what a whole enrollment costs beside RSA.
    members = {name: getattr(record, name) for name in _MEMBERS}
    members["checks"] = [{"name": each.name, "verdict": each.verdict, "detail": each.detail} for each in record.checks]
    return _encode(members)


def decode_record(text: str) -> DecisionRecord:
    """Return the record that `encode_record` wrote."""
    members: dict[str, Any] = json.loads(text)
    members["subject_alt_name"] = tuple(members["subject_alt_name"])
    members["dropped_names"] = tuple(members["dropped_names"])
    members["claims"] = tuple((source, device) for source, device in members["claims"])
    members["checks"] = tuple(
        Check(name=each["name"], verdict=Verdict(each["verdict"]), detail=each["detail"]) for each in members["checks"]
    )
    return DecisionRecord(**members)


class Deliberation:
    """The record in the making, of one request."""

    def __init__(self, request: EnrollmentRequest, *, decision_id: str, profile: str) -> None:
        self.decision_id = decision_id
        self.device_id: DeviceID | None = None
        self.claims: Sequence[IdentityClaim] = ()
        self.attributes: Mapping[str, str] = {}
        self.names: CertificateNames | None = None
        self.off_record = False  # a refusal beyond what one source or device may leave behind
        self.request: Final = request
        self._profile = profile
        self._checks: list[Check] = []

    @contextmanager
    def check(self, name: str, detail: str = "") -> Iterator[None]:
        """Note that a check passed, or with which words it failed; the error goes on."""
        try:
            yield
        except EnrollmentError as error:
            self._note(name, Verdict.FAILED, str(error))
            raise
        self._note(name, Verdict.PASSED, detail)

    def put_off(self, name: str, reason: str) -> None:
        """Note that a check ended in waiting."""
        self._note(name, Verdict.DEFERRED, reason)

    def _note(self, name: str, verdict: Verdict, detail: str) -> None:
        self._checks.append(Check(name=name, verdict=verdict, detail=_bounded(detail)))

    def conclude(
        self, outcome: DecisionOutcome, now: datetime, *, code: str = "", reason: str = "", foreseen: str = ""
    ) -> StoredDecision:
        """Return the record as it is stored; `foreseen` is a check that the store makes when it takes the record."""
        request = self.request
        checks = list(self._checks)
        if foreseen:
            checks.append(Check(name=foreseen, verdict=Verdict.PASSED))
        subject = _readable(request.csr.subject)
        record = DecisionRecord(
            subject=subject,
            subject_alt_name=_readable_names(request),
            key=describe_key(request.csr.spki),
            spki_sha256=request.csr.spki_digest.hex(),
            signer=describe_signer(request.proof),
            claims=tuple((claim.source, str(claim.device_id)) for claim in self.claims[:_MAX_ENTRIES]),
            checks=tuple(checks),
            attributes={_bounded(name): _bounded(text) for name, text in self.attributes.items()},
            certificate_subject=self._certificate_subject(subject),
            dropped_names=() if self.names is None else _first(self.names.dropped),
            reason=_bounded(reason),
        )
        return StoredDecision(
            decision_id=self.decision_id,
            decided_at=now,
            profile=self._profile,
            transaction_id=request.transaction_id,
            source=request.source,
            device_id=self.device_id,
            outcome=outcome,
            code=code,
            record=encode_record(record),
        )

    def _certificate_subject(self, requested: str) -> str:
        """Return the subject that is granted, in words; mostly it is as requested, and that is in words already."""
        if self.names is None:
            return ""
        return requested if self.names.subject == self.request.csr.subject else _readable(self.names.subject)


def refused_message(
    *,
    decision_id: str,
    now: datetime,
    profile: str,
    transaction_id: str,
    source: str,
    signer: Certificate,
    code: str,
    reason: str,
) -> StoredDecision:
    """Return the record of a message that was refused before its request could be read."""
    record = DecisionRecord(signer=f"a certificate {_facts(signer)}", reason=_bounded(reason))
    return StoredDecision(
        decision_id=decision_id,
        decided_at=now,
        profile=profile,
        transaction_id=transaction_id,
        source=source,
        device_id=None,
        outcome=DecisionOutcome.REFUSED,
        code=code,
        record=encode_record(record),
    )


def describe_signer(proof: IdentityProof) -> str:
    """Say in words who signed a request."""
    match proof:
        case StandIn():
            return "the key of the request itself"
        case ExistingCertificate(certificate=certificate):
            return f"our certificate {certificate.certificate_serial:x} ({_readable(certificate.subject)})"
        case ManufacturerCertificate(certificate=certificate, store=store):
            return f"a certificate of manufacturer {store} {_facts(certificate)}"
        case TrustedRA(certificate=certificate, ra=ra):
            return f"the trusted RA {ra} {_facts(certificate)}"
        case _:
            assert_never(proof)


def _facts(certificate: Certificate) -> str:
    return f"({_readable(certificate.subject)}, SHA-256 {certificate.fingerprint()})"


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}... ({len(text)} characters)"


def _readable(name: bytes) -> str:
    try:
        return _bounded(format_name(name))
    except PKIError as error:
        return f"unreadable: {error}"


def _readable_names(request: EnrollmentRequest) -> tuple[str, ...]:
    try:
        octets = request.csr.subject_alt_name
        return () if octets is None else _first([str(name) for name in parse_general_names(octets)])
    except PKIError as error:
        return (f"unreadable: {error}",)


def _first(texts: Sequence[str]) -> tuple[str, ...]:
    shown = tuple(_bounded(text) for text in texts[:_MAX_ENTRIES])
    more = len(texts) - len(shown)
    return (*shown, f"... and {more} more") if more else shown
