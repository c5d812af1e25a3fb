"""What must hold of keys and of a device's certificates before an intent counts, inside a unit of work.

Each rule is one statement over certificates and open intents together: at READ COMMITTED a statement sees one moment,
so an intent that becomes a certificate meanwhile is seen as one of the two. Whoever records an intent calls
`exclude_rivals` first. What the rules are, enrollment decides; nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import Enrollment, IssuanceLimits, KeyInUse, QuotaReached, SecondKeyFound
from scep_ra.storage.database import Row, Session, decode_serial, encode_time

_KEY_COMPROMISE: Final = 1  # CRLReason (RFC 5280 5.3.1)
# By how much the clocks of two nodes may differ: NTP keeps them within milliseconds, this is for one that starts up.
_CLOCK_DIFFERENCE: Final = timedelta(seconds=5)


async def exclude_rivals(session: Session, enrollment: Enrollment, limits: IssuanceLimits) -> None:
    """Wait until no other intent for this key, or for this device where limits count its certificates, is recorded.

    And until nobody is disconnecting the device.
    """
    names = [f"key {enrollment.spki_digest.hex()}", disconnect_lock(enrollment.device_id)]
    if _is_limited(limits):
        names.append(device_lock(enrollment.key.profile, enrollment.device_id))
    await session.serialise(*names)


async def exclude_waiting(session: Session, enrollment: Enrollment, limits: IssuanceLimits) -> None:
    """Wait until no other request of this device begins to wait, where limits count those."""
    if limits.max_waiting is not None:
        await session.serialise(device_lock(enrollment.key.profile, enrollment.device_id))


def device_lock(profile: str, device_id: DeviceID) -> str:
    """Return the name under which units exclude one another that count a device's certificates in a profile."""
    return f"certificates {profile} {device_id}"


def disconnect_lock(device_id: DeviceID) -> str:
    """Return the name under which a device's disconnect and its intents exclude one another."""
    return f"access of {device_id}"


async def condemn_if_disconnected(session: Session, enrollment: Enrollment) -> None:
    """Have the certificate of a new intent revoked when it is stored, if the device was cut off since it asked."""
    await session.execute(
        "UPDATE enrollment SET revocation_reason = disconnection.revocation_reason FROM disconnection"
        " WHERE enrollment.enrollment_id = $1 AND disconnection.device_kind = $2 AND disconnection.device_value = $3"
        " AND disconnection.disconnected_at >= $4",
        enrollment.enrollment_id,
        enrollment.device_id.kind.value,
        enrollment.device_id.value,
        encode_time(enrollment.created_at - _CLOCK_DIFFERENCE),
    )


async def check_key(session: Session, enrollment: Enrollment) -> None:
    """Raise KeyInUse when the key is, or is about to be, another device's, or was revoked as stolen."""
    rows = await session.fetch(
        "SELECT device_kind, device_value, revocation_reason FROM certificate"
        " WHERE spki_digest = $1 AND (device_kind <> $2 OR device_value <> $3 OR revocation_reason = $4)"
        " UNION ALL SELECT device_kind, device_value, NULL FROM enrollment"
        " WHERE spki_digest = $1 AND state = 'issuing' AND (device_kind <> $2 OR device_value <> $3) LIMIT 1",
        enrollment.spki_digest,
        enrollment.device_id.kind.value,
        enrollment.device_id.value,
        _KEY_COMPROMISE,
    )
    if not rows:
        return
    if rows[0]["revocation_reason"] == _KEY_COMPROMISE:
        raise KeyInUse("a certificate for this key was revoked because the key was stolen: make a new key")
    owner = DeviceID(kind=DeviceIDKind(rows[0]["device_kind"]), value=rows[0]["device_value"])
    raise KeyInUse(f"the key of {enrollment.device_id} is in use by {owner}: make a new key on one of them")


async def check_limits(session: Session, enrollment: Enrollment, limits: IssuanceLimits, now: datetime) -> None:
    """Raise SecondKeyFound or QuotaReached when what the device has at `now` leaves no room for this intent."""
    if not _is_limited(limits):
        return
    active = await _find_active(session, enrollment, now)
    others = [row for row in active if not _is_renewed(row, enrollment)]
    renews_active = len(others) < len(active)
    if not limits.second_key and not renews_active:
        _check_second_key(enrollment, others)
    if limits.max_active is not None and len(others) >= limits.max_active:
        raise QuotaReached(
            f"{enrollment.device_id} has {len(others)} active certificates in profile {enrollment.key.profile}"
            f" and may have {limits.max_active}: revoke one, or let it expire"
        )


async def check_waiting(session: Session, enrollment: Enrollment, limits: IssuanceLimits) -> None:
    """Raise QuotaReached when as many other requests of the device wait as may, after `exclude_waiting`."""
    if limits.max_waiting is None:
        return
    rows = await session.fetch(
        "SELECT COUNT(*) AS waiting FROM enrollment WHERE device_kind = $1 AND device_value = $2 AND profile = $3"
        " AND state IN ('pending', 'approved') AND enrollment_id <> $4",
        enrollment.device_id.kind.value,
        enrollment.device_id.value,
        enrollment.key.profile,
        enrollment.enrollment_id,
    )
    if rows[0]["waiting"] >= limits.max_waiting:
        raise QuotaReached(
            f"{rows[0]['waiting']} requests of {enrollment.device_id} wait in profile {enrollment.key.profile}"
            f" and {limits.max_waiting} may: decide about them, or let them expire"
        )


def _is_limited(limits: IssuanceLimits) -> bool:
    return limits.max_active is not None or not limits.second_key


async def _find_active(session: Session, enrollment: Enrollment, now: datetime) -> Sequence[Row]:
    return await session.fetch(
        "SELECT ca, certificate_serial, spki_digest FROM certificate"
        " WHERE device_kind = $1 AND device_value = $2 AND profile = $3 AND not_after > $4"
        " AND successor IS NULL AND revoke_at IS NULL AND revoked_at IS NULL"
        " UNION ALL SELECT ca, certificate_serial, spki_digest FROM enrollment"
        " WHERE device_kind = $1 AND device_value = $2 AND profile = $3 AND state = 'issuing' AND enrollment_id <> $5",
        enrollment.device_id.kind.value,
        enrollment.device_id.value,
        enrollment.key.profile,
        encode_time(now),
        enrollment.enrollment_id,
    )


def _is_renewed(row: Row, enrollment: Enrollment) -> bool:
    return bool(row["ca"] == enrollment.ca) and decode_serial(row["certificate_serial"]) == enrollment.renewal_of


def _check_second_key(enrollment: Enrollment, others: Sequence[Row]) -> None:
    serials = sorted(
        f"{decode_serial(row['certificate_serial']):x}"
        for row in others
        if row["spki_digest"] != enrollment.spki_digest
    )
    if serials:
        raise SecondKeyFound(
            f"{enrollment.device_id} has active certificates under other keys in profile {enrollment.key.profile}:"
            f" {', '.join(serials)}"
        )
