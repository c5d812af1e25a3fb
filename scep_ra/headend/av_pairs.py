"""AV pairs of Cisco PKI-AAA, as text: what an answer tells a router, and what a question says of a certificate.

RADIUS carries them as vendor attributes and HTTP as JSON; neither is known here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from scep_ra.headend.access import Permit

CERT_SERIAL: Final = "pki:cert-serial"
# 20 octets are the longest serial (RFC 5280 4.1.2.2).
_HEX: Final = re.compile(r"[0-9A-Fa-f]{1,40}")
# Not strftime, which depends on the locale.
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def av_pairs(permit: Permit, *, trustpoint: str = "", lifetime_end: bool = False) -> Sequence[str]:
    """Return what a router wants to hear of a device that may connect; `trustpoint` is a label, "" = any."""
    serial = permit.certificate_serial
    pairs = [
        "pki:cert-application=all",
        *([f"pki:cert-trustpoint={trustpoint}"] if trustpoint else []),
        f"{CERT_SERIAL}={serial.to_bytes(max(1, (serial.bit_length() + 7) // 8)).hex().upper()}",
    ]
    if lifetime_end:
        # IOS reads hh:mm Mon dd, yyyy in its own time zone, which should be UTC.
        end = permit.not_after
        pairs.append(f"pki:cert-lifetime-end={end:%H:%M} {_MONTHS[end.month - 1]} {end.day}, {end.year}")
    return pairs


def read_serial(text: str) -> int | None:
    """Return a certificate serial of hexadecimal digits, with the colons of OpenVPN and GnuTLS or without; or None."""
    digits = text.replace(":", "")
    return int(digits, 16) if _HEX.fullmatch(digits) else None
