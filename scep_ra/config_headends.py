"""The tables [headend.NAME] of the configuration: who lets devices in, and is told when one is cut off.

As in `config`, a field is a key and its docstring the help.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from pydantic import Field, field_validator

from scep_ra.config_base import Table


class HeadendConfig(Table):
    """A VPN gateway, switch or access point that speaks RADIUS with us, or all of a network that share a secret."""

    address: str = Field(examples=["192.0.2.10"])
    """IP address, or network such as 192.0.2.0/24."""

    secret_file: str = "radius.secret"  # noqa: S105 - the name of a file
    """File of mode 0600 with the shared secret alone, relative to the data directory."""

    disconnect_port: int = Field(default=3799, ge=0, le=65535)
    """UDP port where it takes Disconnect-Requests (RFC 5176), for IOS mostly 1700; 0 = it takes none."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, text: str) -> str:
        ip_network(text)
        return text

    def network(self) -> IPv4Network | IPv6Network:
        """Return the address as a network, of one member where it is a single one."""
        return ip_network(self.address)
