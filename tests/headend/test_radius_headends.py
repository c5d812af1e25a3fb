"""Claims about who may ask by RADIUS: the machine with the address, by the smallest table that has it."""

from __future__ import annotations

import pytest

from scep_ra.headend.radius_headends import RadiusHeadends
from scep_ra.radius.errors import NotAuthentic
from scep_ra.radius.packets import encode_request
from tests.support.headends import SECRET, access_request, make_headend

HEADENDS = RadiusHeadends(
    [
        make_headend("everybody", "192.0.2.0/24"),
        make_headend("vpn", "192.0.2.1"),
        make_headend("six", "2001:db8::/32"),
        make_headend("link", "fe80::1"),
    ]
)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("192.0.2.1", "vpn"),
        ("192.0.2.2", "everybody"),
        ("::ffff:192.0.2.1", "vpn"),
        ("2001:db8::7", "six"),
        ("fe80::1%eth0", "link"),
    ],
)
def test_a_headend_is_found_by_its_address(source: str, name: str) -> None:
    """The most particular table counts; sockets may write addresses in their own way."""
    headend = HEADENDS.at(source)
    assert headend is not None
    assert headend.name == name
    assert headend.is_single is (name in ("vpn", "link"))


@pytest.mark.parametrize("source", ["192.0.3.1", "::1", "2001:db9::1"])
def test_a_stranger_is_nobody(source: str) -> None:
    """Of either family."""
    assert HEADENDS.at(source) is None


def test_a_headend_has_to_sign_unless_told_otherwise() -> None:
    """BlastRADIUS lives on requests that are not signed."""
    unsigned = encode_request(access_request(), SECRET, sign=False)
    with pytest.raises(NotAuthentic):
        make_headend().decode(unsigned)
    assert make_headend(require_message_authenticator=False).decode(unsigned).text("User-Name") == "SN123"


def test_no_secret_is_shown() -> None:
    """Wherever a headend is printed."""
    assert SECRET.decode() not in repr(make_headend())
