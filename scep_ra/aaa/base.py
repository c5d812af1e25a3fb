"""The port to PKI-AAA, which answers whether a device may have a certificate of a profile.

Authentication (who is it) happened before: signature, challenge or certificate. Here only authorization is asked
(RFC 2904: the backend is the decision point, the enrollment service the enforcement point).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, runtime_checkable

from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID

# The free attribute of a registered device that becomes Accept.profile.
CERTIFICATE_PROFILE: Final = "certificate_profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """What the backend is asked: the device, and the circumstances it may want to weigh."""

    device_id: DeviceID
    profile: str
    source: str  # address of the peer, text; "" when unknown
    renewal: bool  # a certificate of ours signed the request
    certificate_serial: int | None = None  # of that certificate
    recheck: bool = False  # the request was accepted before: does the answer still hold?
    transaction_id: str = ""
    csr: bytes = b""  # DER; for backends that look at names or keys themselves, or, unless rechecking, the challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Yes, and what shapes the certificate: the request itself supplies a key and a claim only."""

    attributes: Mapping[str, str] = field(default_factory=dict)  # free: names are vouched for and made from these
    not_after: datetime | None = None  # the certificate ends no later
    profile: str = ""  # certificate contents of another profile of the same CA; "" = of the one asked for
    services: frozenset[str] = frozenset()  # what the device may use
    approval: bool = False  # an operator has to approve a first enrollment


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


class MalformedAnswer(Unavailable):
    """The backend is there, but what it says of this device cannot be read, which is no answer."""


@runtime_checkable
class SupportsClose(Protocol):
    """An Authorizer that holds connections."""

    async def close(self) -> None:
        """Let go of everything; nothing is asked afterwards."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What became of a request: a certificate, or the reason why there is none."""

    device_id: DeviceID | None  # None: the request was refused before it was known
    profile: str
    transaction_id: str
    source: str
    csr: bytes  # DER, without its challenge
    certificate: bytes = b""  # DER; b"" = refused
    reason: str = ""  # for the operator, never for the device


@runtime_checkable
class SupportsNotices(Protocol):
    """An Authorizer that wants to hear what became of requests, those that it never saw included."""

    def notify(self, notice: Notice) -> None:
        """Take a notice; neither wait nor raise."""
        ...


@runtime_checkable
class SupportsFlush(Protocol):
    """An Authorizer that may repeat answers."""

    def flush(self, device_id: DeviceID) -> None:
        """Forget every answer about a device, those that are on their way included."""
        ...
