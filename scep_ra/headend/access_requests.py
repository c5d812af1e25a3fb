"""Access-Requests of headends and their answers, by the convention of Cisco PKI-AAA (RFC 2865).

The certificate has authenticated the device, so the password is a constant. What may be said yes to is decided by
`access`, and packets are proven to be the headend's before they get here.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from scep_ra.errors import BackendError
from scep_ra.headend.access import AccessEngine, Deny, Permit
from scep_ra.headend.av_pairs import CERT_SERIAL, av_pairs, read_serial
from scep_ra.headend.radius_headends import RadiusHeadend
from scep_ra.radius.packets import MAX_TEXT_OCTETS, Code, Packet, Value, cisco_av_pairs
from scep_ra.security_events import SecurityEvent, security_event


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequests:
    """Answers Access-Requests; a `server.Handler`."""

    engine: AccessEngine
    reject_on_error: bool = False  # whether a headend hears a Reject, or nothing, while AAA gives no answer

    async def answer(self, request: Packet, headend: RadiusHeadend, source: str) -> Packet:
        """Return Access-Accept or Access-Reject; raise a BackendError when nothing is to be said."""
        try:
            decision = await self._decide(request, headend, source)
        except BackendError:
            if self.reject_on_error:
                return Packet(code=Code.ACCESS_REJECT)
            raise
        if isinstance(decision, Permit):
            return Packet(code=Code.ACCESS_ACCEPT, attributes=tuple(_attributes(decision, headend)))
        return Packet(code=Code.ACCESS_REJECT)

    async def _decide(self, request: Packet, headend: RadiusHeadend, source: str) -> Permit | Deny:
        if reason := _unfit(request, headend):
            security_event(SecurityEvent.ACCESS_DENIED, headend=headend.name, source=source, reason=reason)
            return Deny(reason=reason)
        serials = cisco_av_pairs(request).get(CERT_SERIAL, ())
        return await self.engine.decide(
            request.text("User-Name"),
            headend=headend.name,
            source=source,
            profile=headend.profile,
            certificate_serial=read_serial(serials[0]) if serials else None,
        )


def _unfit(request: Packet, headend: RadiusHeadend) -> str:
    """Return why a request is no question of this convention, "" when it is one."""
    if len(request.values("User-Name")) != 1:
        return "there has to be one User-Name"
    password = request.text("User-Password")
    if headend.password and not hmac.compare_digest(password.encode(), headend.password.encode()):
        return "the password is not the one of [headend.NAME]: set `authorization password` on the headend, or there"
    serials = cisco_av_pairs(request).get(CERT_SERIAL, ())
    if len(serials) > 1 or any(read_serial(serial) is None for serial in serials):
        return f"{CERT_SERIAL} is not the hexadecimal serial of one certificate"
    return ""


def _attributes(permit: Permit, headend: RadiusHeadend) -> Iterator[tuple[str, Value]]:
    """Yield what an IOS router wants to hear, and whom it shall name in its accounts."""
    for pair in av_pairs(permit, trustpoint=headend.trustpoint, lifetime_end=headend.send_lifetime_end):
        yield "Cisco-AVPair", pair
    # Headends repeat it in their accounts (RFC 2865 5.25), which then name the device beyond doubt.
    name = str(permit.device_id).encode()
    if len(name) <= MAX_TEXT_OCTETS:
        yield "Class", name
