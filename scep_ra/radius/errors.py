"""What can go wrong with a RADIUS packet.

    RadiusError
    ├── MalformedPacket     octets that are no packet of the kind expected
    ├── NotAuthentic        made with another secret, forged, or not signed where it has to be
    └── UnfitAttribute      a value of ours that does not go into a packet

No message holds a secret or a password.
"""

from __future__ import annotations

from scep_ra.errors import ScepRaError


class RadiusError(ScepRaError):
    """Base of what can be wrong with a RADIUS packet."""


class MalformedPacket(RadiusError):
    """The octets are not a RADIUS packet, or not one of the kind expected."""


class NotAuthentic(RadiusError):
    """The packet was not made by somebody who knows the secret, or cannot prove it as it has to."""


class UnfitAttribute(RadiusError):
    """The value does not fit into its attribute, or the attributes not into one packet."""
