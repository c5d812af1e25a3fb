"""The port to PKI-AAA, which answers whether a device may have a certificate of a profile.

Authentication (who is it) happened before: signature, challenge or certificate. Here only authorization is asked
(RFC 2904: the backend is the decision point, the enrollment service the enforcement point).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from scep_ra.identity.types import DeviceID


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """What the backend is asked: the device, and the circumstances it may want to weigh."""

    device_id: DeviceID
    profile: str
    source: str  # address of the peer, text; "" when unknown
    renewal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Yes, and what the certificate and the network should know about the device."""

    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """No; `reason` is for the log and the operator, never for the peer."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Not yet: ask again when the client polls, or not before `until` (aware, UTC)."""

    reason: str
    until: datetime | None = None


Decision = Accept | Reject | Defer


class Authorizer(Protocol):
    """Decide whether a device may hold a certificate."""

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return the decision; raise Unavailable or Misconfigured, which never count as a yes."""
        ...

    async def check(self) -> None:
        """Verify that the backend can answer; raise Unavailable or Misconfigured."""
        ...
