"""Claims about decision records: they say why, in words, and hold neither secrets nor more than a few KiB."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.enrollment.decisions import (
    Check,
    DecisionRecord,
    Deliberation,
    Verdict,
    decode_record,
    describe_signer,
    encode_record,
    refused_message,
)
from scep_ra.enrollment.errors import NotAuthorized
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
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Extension
from scep_ra.pki.names import parse_name
from scep_ra.storage.base import DecisionOutcome, StoredDecision
from tests.support.enrollment import device_id, make_request
from tests.support.keys import rsa_key
from tests.support.pki import NOW
from tests.support.scep_messages import certificate

# Of a message of 64 KiB nothing but names; a record stays well below.
MAX_RECORD = 24_000
SIGNER = certificate(rsa_key(), certificate_serial=0x4A)


def deliberate(request: EnrollmentRequest | None = None) -> Deliberation:
    return Deliberation(request or make_request(), decision_id="3f" * 16, profile="default")


def with_names(*encoded: bytes) -> EnrollmentRequest:
    """Return a request with this subjectAltName."""
    names = Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=der.sequence(*encoded))
    return make_request(extensions=(names,))


def dns(text: str) -> bytes:
    return der.element(der.context(2, constructed=False), text.encode())


def concluded(deliberation: Deliberation, **fields: Any) -> DecisionRecord:
    return decode_record(deliberation.conclude(DecisionOutcome.REFUSED, NOW, **fields).record)


def test_a_decision_says_whose_request_it_was_and_what_became_of_it() -> None:
    """Whatever is not known yet is empty."""
    deliberation = deliberate()
    decision = deliberation.conclude(DecisionOutcome.REFUSED, NOW, code="identity", reason="no device is named")

    assert decision == StoredDecision(
        decision_id="3f" * 16,
        decided_at=NOW,
        profile="default",
        transaction_id="TX1",
        source="192.0.2.1",
        device_id=None,
        outcome=DecisionOutcome.REFUSED,
        code="identity",
        record=decision.record,
    )
    record = decode_record(decision.record)
    assert (record.subject, record.key, record.reason) == (
        "O=Test,serialNumber=FOC1234X0AB,CN=router-1", "EC, secp256r1", "no device is named",
    )  # fmt: skip
    assert record.spki_sha256 == make_request().csr.spki_digest.hex()
    assert (record.subject_alt_name, record.claims, record.checks, record.attributes) == ((), (), (), {})
    assert record.certificate_subject == ""


def test_every_check_is_kept_with_its_verdict() -> None:
    """The error that ended a check goes on; what the store is to find is foreseen."""
    deliberation = deliberate()
    deliberation.device_id = device_id()
    with deliberation.check("identity", "one device is named"):
        pass
    deliberation.put_off("approval", "the profile demands approval")
    with pytest.raises(NotAuthorized), deliberation.check("challenge"):
        raise NotAuthorized("the challenge has been used")
    with pytest.raises(KeyError), deliberation.check("a bug"):
        raise KeyError

    decision = deliberation.conclude(DecisionOutcome.AUTHORIZED, NOW, foreseen="limits")

    assert decision.device_id == device_id()
    assert decode_record(decision.record).checks == (
        Check(name="identity", verdict=Verdict.PASSED, detail="one device is named"),
        Check(name="approval", verdict=Verdict.DEFERRED, detail="the profile demands approval"),
        Check(name="challenge", verdict=Verdict.FAILED, detail="the challenge has been used"),
        Check(name="limits", verdict=Verdict.PASSED),
    )


def test_claims_attributes_and_names_are_kept() -> None:
    """Where each device ID stood, what AAA said, what the certificate was to be called and what was left out."""
    deliberation = deliberate(with_names(dns("router-1.example.com")))
    deliberation.claims = [IdentityClaim(device_id=device_id(), source="subject.serialNumber")]
    deliberation.attributes = {"user": "alice"}
    deliberation.names = CertificateNames(
        subject=parse_name("CN=router"), subject_alt_name=None, dropped=("dns:router-1.example.com",)
    )

    record = concluded(deliberation)

    assert record.claims == (("subject.serialNumber", "serial:FOC1234X0AB"),)
    assert record.attributes == {"user": "alice"}
    assert record.subject_alt_name == ("dns:router-1.example.com",)
    assert (record.certificate_subject, record.dropped_names) == ("CN=router", ("dns:router-1.example.com",))


def test_the_challenge_is_not_in_it() -> None:
    """Nor the request, in which it is."""
    request = make_request(challenge="correct horse battery staple")
    decision = deliberate(request).conclude(DecisionOutcome.AUTHORIZED, NOW)

    assert "staple" not in decision.record
    assert request.csr.der.hex() not in decision.record


def test_a_record_stays_small_whatever_the_request_holds() -> None:
    """Refused requests must not fill the disk."""
    much = "x" * 60_000
    deliberation = deliberate(with_names(*[dns("y" * 600)] * 100))
    deliberation.claims = [IdentityClaim(device_id=device_id("ZY" * 125), source="subject.serialNumber")] * 250
    deliberation.attributes = {"note": much}
    deliberation.names = CertificateNames(subject=parse_name(f"CN={much}"), subject_alt_name=None, dropped=(much,) * 99)
    with pytest.raises(NotAuthorized), deliberation.check("authorization"):
        raise NotAuthorized(much)

    decision = deliberation.conclude(DecisionOutcome.REFUSED, NOW, reason=much)

    assert len(decision.record) < MAX_RECORD
    record = decode_record(decision.record)
    assert record.reason == f"{'x' * 500}... (60000 characters)"
    assert record.subject_alt_name[-1] == "... and 92 more"
    assert len(record.subject_alt_name) == 9


def test_names_that_cannot_be_read_say_so() -> None:
    """They may be the reason of the refusal."""
    assert concluded(deliberate(make_request(subject=b"\x30\x01\x00"))).subject.startswith("unreadable: ")
    (names,) = concluded(deliberate(with_names(b"\x82\x05a"))).subject_alt_name
    assert names.startswith("unreadable: ")


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (StandIn(certificate=SIGNER), "the key of the request itself"),
        (ExistingCertificate(certificate=SIGNER), "our certificate 4a (CN=device-1)"),
        (
            ManufacturerCertificate(certificate=SIGNER, store="acme"),
            f"a certificate of manufacturer acme (CN=device-1, SHA-256 {SIGNER.fingerprint()})",
        ),
        (
            TrustedRA(certificate=SIGNER, ra="branch"),
            f"the trusted RA branch (CN=device-1, SHA-256 {SIGNER.fingerprint()})",
        ),
    ],
)
def test_whoever_signed_is_described(proof: IdentityProof, words: str) -> None:
    """So that the certificate can be found."""
    assert describe_signer(proof) == words
    assert concluded(deliberate(replace(make_request(), proof=proof))).signer == words


def test_a_message_that_was_refused_leaves_what_is_known() -> None:
    """Who signed, from where, and why it ended; the request itself was not read."""
    decision = refused_message(
        decision_id="c0" * 16, now=NOW, profile="default", transaction_id="TX1", source="192.0.2.1",
        signer=SIGNER, code="integrity", reason="the envelope does not open",
    )  # fmt: skip

    assert (decision.outcome, decision.code, decision.device_id) == (DecisionOutcome.REFUSED, "integrity", None)
    assert decode_record(decision.record) == DecisionRecord(
        signer=f"a certificate (CN=device-1, SHA-256 {SIGNER.fingerprint()})", reason="the envelope does not open"
    )


@given(st.text(), st.text())
def test_a_record_comes_back_as_it_was(subject: str, detail: str) -> None:
    """Through text that every database takes."""
    record = DecisionRecord(
        subject=subject,
        signer="x",
        claims=(("san.uri", detail),),
        checks=(Check(name="challenge", verdict=Verdict.FAILED, detail=detail),),
        attributes={detail: subject},
    )
    encoded = encode_record(record)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert decode_record(encoded) == record
