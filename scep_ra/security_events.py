"""Security events: what somebody who watches for attacks must hear of, under names that a collector can rely on.

Every part may report one; `telemetry` decides where they go. Ordinary logging does not belong here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import structlog

SECURITY_LOGGER: Final = "scep_ra.security"

_log = structlog.stdlib.get_logger(SECURITY_LOGGER)


class SecurityEvent(StrEnum):
    """All there are; the value is the event's name in the log."""

    REQUEST_REFUSED = "request_refused"
    IDENTITY_CONFLICT = "identity_conflict"
    CHALLENGE_REFUSED = "challenge_refused"
    LOCKOUT = "lockout"
    CLONE_SUSPECTED = "clone_suspected"
    QUOTA_EXCEEDED = "quota_exceeded"
    CERTIFICATE_QUARANTINED = "certificate_quarantined"
    RENEWAL_REFUSED = "renewal_refused"
    INSECURE_ALGORITHM = "insecure_algorithm"
    ACCESS_DENIED = "access_denied"
    RADIUS_DROPPED = "radius_dropped"
    API_REFUSED = "api_refused"
    ACCEPT_ALL = "accept_all"
    AUDIT_HEAD = "audit_head"
    MESSAGE_UNDELIVERED = "message_undelivered"
    MASS_DELETION = "mass_deletion"


# Strangers cause these as often as they like, so each source may only cause so many lines (`telemetry.rate`).
STRANGERS_EVENTS: Final = frozenset(SecurityEvent) - {
    SecurityEvent.ACCEPT_ALL,
    SecurityEvent.AUDIT_HEAD,
    SecurityEvent.MESSAGE_UNDELIVERED,
    SecurityEvent.MASS_DELETION,
}


def security_event(event: SecurityEvent, **facts: object) -> None:
    """Report an event as a warning, or for information when nobody did anything wrong; `source` says who caused it."""
    if event is SecurityEvent.AUDIT_HEAD:
        _log.info(event.value, **facts)
    else:
        _log.warning(event.value, **facts)
