"""The headends that may ask by RADIUS: how each is told from strangers, and what its answers hold.

Made from [headend.NAME] by the composition root. Who connects through a headend is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from scep_ra.radius.packets import Packet, decode_request

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusHeadend:
    """A RADIUS client (RFC 2865), or all those of a network that share a secret."""

    name: str
    network: Network
    secret: bytes = field(repr=False)
    trustpoint: str = ""  # label of the trustpoint for which answers are meant; "" = any
    profile: str = ""  # whose certificates count; "" = of all
    password: str = "cisco"  # noqa: S105 - a word by convention, no secret; "" = any will do
    require_message_authenticator: bool = True
    send_lifetime_end: bool = False

    @property
    def is_single(self) -> bool:
        """Tell whether one machine has this name."""
        return self.network.num_addresses == 1

    def decode(self, octets: bytes) -> Packet:
        """Return a request that this headend has made; raise RadiusError."""
        return decode_request(octets, self.secret, require_message_authenticator=self.require_message_authenticator)


class RadiusHeadends:
    """All of them, found by address."""

    def __init__(self, headends: Iterable[RadiusHeadend]) -> None:
        # The smallest network first: a machine may be named apart from those around it.
        self._headends: Final = sorted(headends, key=lambda each: each.network.prefixlen, reverse=True)

    def at(self, source: str) -> RadiusHeadend | None:
        """Return the headend with this IP address."""
        # The kernel names the interface of a link-local address, and a socket for both families maps IPv4.
        address = ip_address(source.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return next((headend for headend in self._headends if address in headend.network), None)
