"""Rows as the store keeps them, every field filled in; name only what a test is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import Any

from scep_ra.enrollment.states import EnrollmentState
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import (
    Challenge,
    DecisionOutcome,
    Device,
    Enrollment,
    EnrollmentKey,
    Store,
    StoredCertificate,
    StoredDecision,
)
from scep_ra.storage.sessions import Disconnection, EntryChange, LiveSession

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
CESSATION = 5  # CRLReason cessationOfOperation (RFC 5280 5.3.1)
SERIAL = 0x7F000102030405060708090A0B0C0D0E0F10  # longer than 64 bits, as all of ours


def device_id(value: str = "SN123", kind: DeviceIDKind = DeviceIDKind.SERIAL) -> DeviceID:
    return DeviceID(kind=kind, value=value)


def make_device(value: str = "SN123", **fields: Any) -> Device:
    return replace(Device(device_id=device_id(value), created_at=NOW), **fields)


def make_challenge(secret: str = "s3cret", **fields: Any) -> Challenge:
    challenge = Challenge(
        digest=sha256(secret.encode()).digest(),
        device_id=device_id(),
        profile="default",
        created_at=NOW,
        expires_at=NOW + HOUR,
    )
    return replace(challenge, **fields)


def make_key(transaction_id: str = "TX1", profile: str = "default", requester: bytes = b"\x01" * 32) -> EnrollmentKey:
    return EnrollmentKey(profile=profile, transaction_id=transaction_id, requester=requester)


def make_enrollment(number: int = 1, **fields: Any) -> Enrollment:
    """Return an enrollment in ISSUING, whose ID, serial and CSR follow from the number."""
    csr = b"csr %d" % number
    enrollment = Enrollment(
        enrollment_id=f"{number:032x}",
        key=make_key(),
        csr_digest=sha256(csr).digest(),
        csr=csr,
        spki_digest=sha256(b"key %d" % number).digest(),
        ca="default",
        state=EnrollmentState.ISSUING,
        device_id=device_id(),
        proof="challenge",
        source="192.0.2.1",
        renewal_of=None,
        certificate_serial=SERIAL + number,
        order=b"order %d" % number,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(enrollment, **fields)


def make_pending(number: int = 1, **fields: Any) -> Enrollment:
    """Return an enrollment that waits for approval."""
    return make_enrollment(
        number, **{"state": EnrollmentState.PENDING, "certificate_serial": None, "order": None, **fields}
    )


def make_decision(number: int = 1, **fields: Any) -> StoredDecision:
    """Return the record of a refused request, whose ID is that of the enrollment with this number."""
    decision = StoredDecision(
        decision_id=f"{number:032x}",
        decided_at=NOW,
        profile="default",
        transaction_id="TX1",
        source="192.0.2.1",
        device_id=device_id(),
        outcome=DecisionOutcome.REFUSED,
        code="not-authorized",
        record='{"why": "stolen"}',
    )
    return replace(decision, **fields)


def make_certificate(number: int = 1, **fields: Any) -> StoredCertificate:
    """Return the certificate of the enrollment with this number."""
    certificate = StoredCertificate(
        certificate_serial=SERIAL + number,
        ca="default",
        profile="default",
        device_id=device_id(),
        der=b"certificate %d" % number,
        spki_digest=sha256(b"key %d" % number).digest(),
        not_before=NOW,
        not_after=NOW + 24 * HOUR,
        issued_at=NOW,
    )
    return replace(certificate, **fields)


def make_session(session_id: str = "0A1B", **fields: Any) -> LiveSession:
    session = LiveSession(
        headend="vpn",
        session_id=session_id,
        user_name="CN=laptop,serialNumber=SN123",
        device_id=device_id(),
        nas_address="192.0.2.7",
        nas_identifier="vpn-1",
        framed_address="198.51.100.9",
        calling_station="203.0.113.5",
        started_at=NOW,
        updated_at=NOW,
    )
    return replace(session, **fields)


async def disconnect_device(store: Store, value: str = "SN123", **changes: Any) -> Disconnection:
    """Cut a device off as alice does by default; message IDs are numbered from 1 for each device."""
    numbers = count(1)
    arguments: dict[str, Any] = {
        "entry": EntryChange.DISABLE,
        "revocation_reason": CESSATION,
        "webhooks": (),
        "by": "alice",
        "new_id": lambda: f"serial:{value} {next(numbers)}",
    }
    return await store.disconnect_device(device_id(value), changes.pop("now", NOW), **{**arguments, **changes})
