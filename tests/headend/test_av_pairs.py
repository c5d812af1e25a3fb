"""Claims about the AV pairs of PKI-AAA."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scep_ra.headend.access import Permit
from scep_ra.headend.av_pairs import av_pairs, read_serial
from scep_ra.identity.types import parse_device_id


def permit(certificate_serial: int = 0xABC) -> Permit:
    return Permit(
        device_id=parse_device_id("SN1"),
        ca="default",
        certificate_serial=certificate_serial,
        not_after=datetime(2027, 3, 1, 9, 5, tzinfo=UTC),
        profile="default",
    )


def test_an_answer_permits_and_pins_the_certificate() -> None:
    """In whole octets, as IOS prints them."""
    assert av_pairs(permit()) == ["pki:cert-application=all", "pki:cert-serial=0ABC"]
    assert av_pairs(permit(0))[1] == "pki:cert-serial=00"


def test_an_answer_may_name_trustpoint_and_end() -> None:
    """The end as IOS writes it, whatever the locale."""
    assert av_pairs(permit(), trustpoint="RA-TP", lifetime_end=True) == [
        "pki:cert-application=all",
        "pki:cert-trustpoint=RA-TP",
        "pki:cert-serial=0ABC",
        "pki:cert-lifetime-end=09:05 Mar 1, 2027",
    ]


@pytest.mark.parametrize(
    ("text", "serial"),
    [("0abc", 0xABC), ("0A:BC", 0xABC), ("ff" * 20, 2**160 - 1), ("", None), ("0x1", None), ("0" * 41, None)],
)
def test_a_serial_is_hexadecimal(text: str, serial: int | None) -> None:
    """Of at most 20 octets (RFC 5280 4.1.2.2)."""
    assert read_serial(text) == serial
