"""The tables of the configuration about headends, which ask whether a device may connect: our server, and each of them.

As in `config`, a field is a key and its docstring the help. Whom a disconnect tells besides is in `config_disconnect`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from pydantic import Field, field_validator

from scep_ra.config_base import Table


class RadiusServerConfig(Table):
    """The RADIUS server that headends ask (PKI-AAA, docs/aaa.md); needs pip install "scep-ra[radius]"."""

    bind: str = ""
    """IP address to listen on, one that headends send to: with "0.0.0.0" a machine of several addresses may answer from
    another than it was asked at, and is not believed. "" = off."""

    auth_port: int = Field(default=1812, ge=1, le=65535)
    """UDP port for Access-Requests."""

    accounting_port: int = Field(default=1813, ge=1, le=65535)
    """UDP port for Accounting-Requests; they tell which sessions `scep-ra device disable` has to end."""

    on_error: Literal["silent", "reject"] = "silent"
    """What a headend hears while AAA or the store gives no answer: nothing, so that it asks its next server, or a
    Reject. It is never a yes."""

    session_lifetime_h: int = Field(default=168, ge=1)
    """After so many hours without news a session is taken for ended. Headends send news by interim updates; without
    these it has to be longer than any session."""


class HeadendConfig(Table):
    """A VPN gateway, switch, access point or RADIUS proxy that may ask, and is told to end sessions."""

    address: str = Field(examples=["192.0.2.1"])
    """IP address from which it asks, or a network (192.0.2.0/24) of headends that share everything here. Each machine
    in a table of its own is better: sessions are told apart by headend and session ID."""

    secret_file: str = Field(min_length=1, examples=["headend.secret"])
    """File of mode 0600 with the shared secret alone, relative to the data directory; `openssl rand -hex 32` makes a
    good one."""

    trustpoint: str = Field(default="", pattern=r"^[!-~]{0,128}$")
    """Label of the headend's trustpoint (pki:cert-trustpoint) for which answers are meant; "" = any."""

    profile: str = ""
    """The [profile.NAME] whose certificates let devices in here; "" = all."""

    password: str = "cisco"  # noqa: S105 - a word that everybody knows; the certificate has authenticated the device
    """The User-Password that it sends: a word by convention, no secret. "" = anything."""

    require_message_authenticator: bool = True
    """Drop Access-Requests that are not signed (BlastRADIUS, CVE-2024-3596). Old IOS does not sign them."""

    cert_lifetime_end: bool = False
    """Send pki:cert-lifetime-end, the end of the certificate or of AAA's permission; IOS wants a trustpoint with it."""

    disconnect_port: int = Field(default=3799, ge=0, le=65535)
    """UDP port where it takes Disconnect-Requests (RFC 5176; IOS: 1700 unless told otherwise); 0 = nowhere."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, text: str) -> str:
        ip_network(text)
        return text

    def network(self) -> IPv4Network | IPv6Network:
        """Return the address as a network, of one address where it names a machine."""
        return ip_network(self.address)


def check_headends(
    radius: RadiusServerConfig, headends: Mapping[str, HeadendConfig], profiles: Collection[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the problems that a single table cannot see, each with the key where it is."""
    yield from _check_server(radius, headends)
    first_at: dict[str, str] = {}
    for name, headend in headends.items():
        key = ("headend", name)
        if (first := first_at.setdefault(headend.address, name)) != name:
            yield (*key, "address"), f"is that of [headend.{first}]"
        if headend.profile and headend.profile not in profiles:
            yield (*key, "profile"), f"names [profile.{headend.profile}], which is not there"
        if headend.cert_lifetime_end and not headend.trustpoint:
            yield (*key, "cert_lifetime_end"), "needs a trustpoint: IOS does not heed it otherwise"


def _check_server(radius: RadiusServerConfig, headends: Collection[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if radius.auth_port == radius.accounting_port:
        yield ("radius", "accounting_port"), "is the auth_port: choose two"
    if not radius.bind:
        return
    try:
        ip_address(radius.bind)
    except ValueError as error:
        yield ("radius", "bind"), f"is no IP address: {error}"
    if not headends:
        yield ("radius", "bind"), "is set, but nobody would be answered: add a [headend.NAME]"
