"""Claims about the tables of headends: what is refused before anything is served, and what is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest

from scep_ra.config import Settings
from scep_ra.config_file import load_settings
from scep_ra.config_warnings import warnings_about
from scep_ra.errors import ConfigurationError

VPN = """
[headend.vpn]
address = "192.0.2.1"
secret_file = "vpn.secret"
"""


def load(directory: Path, toml: str) -> Settings:
    file = directory / "scep-ra.toml"
    file.write_text(toml)
    return load_settings(config=file, data=directory)


def test_a_headend_is_an_address_and_a_secret(tmp_path: Path) -> None:
    """Everything else has a default that is safe."""
    vpn = load(tmp_path, VPN).config.headend["vpn"]
    assert str(vpn.network()) == "192.0.2.1/32"
    assert vpn.require_message_authenticator
    assert warnings_about(load(tmp_path, VPN).config) == []


def test_a_headend_may_be_a_network(tmp_path: Path) -> None:
    """Of IPv6 as well."""
    vpn = load(tmp_path, VPN.replace("192.0.2.1", "2001:db8::/48")).config.headend["vpn"]
    assert vpn.network().num_addresses == 2**80


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        (VPN.replace("192.0.2.1", "vpn.example.com"), "headend.vpn.address .*does not appear to be an IPv4 or IPv6"),
        (VPN.replace("192.0.2.1", "192.0.2.1/24"), "headend.vpn.address .*has host bits set"),
        (VPN + VPN.replace("headend.vpn", "headend.vpn2"), r"headend.vpn2.address is that of \[headend.vpn\]"),
        (VPN + 'profile = "wifi"', r"headend.vpn.profile names \[profile.wifi\], which is not there"),
        (VPN + "cert_lifetime_end = true", "headend.vpn.cert_lifetime_end needs a trustpoint"),
        ('[headend.vpn]\naddress = "192.0.2.1"', "headend.vpn.secret_file is missing"),
        ('[radius]\nbind = "127.0.0.1"', r"radius.bind is set, but nobody would be answered: add a \[headend.NAME\]"),
        ('[radius]\nbind = "localhost"' + VPN, "radius.bind is no IP address"),
        ("[radius]\nauth_port = 1813", "radius.accounting_port is the auth_port"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, toml: str, complaint: str) -> None:
    """With the key at fault."""
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, toml)


def test_unsigned_requests_are_warned_of(tmp_path: Path) -> None:
    """They are what BlastRADIUS needs."""
    (warning,) = warnings_about(load(tmp_path, VPN + "require_message_authenticator = false").config)
    assert "headend.vpn.require_message_authenticator is off" in warning
