"""Facts of an enrollment for tests of naming."""

from __future__ import annotations

from scep_ra.enrollment.vouching import NamingFacts
from scep_ra.identity.types import parse_device_id
from scep_ra.pki.general_names import encode_general_names, read_general_name
from scep_ra.pki.names import parse_name

SERIAL = "FTX1234A0BC"


def facts(
    subject: str = "", *alternatives: str, device: str = SERIAL, profile: str = "vpn", **attributes: str
) -> NamingFacts:
    """Return what is known when the device's CSR has this subject and these `kind:value` names."""
    return NamingFacts(
        device_id=parse_device_id(device),
        profile=profile,
        attributes=attributes,
        csr_subject=parse_name(subject),
        csr_subject_alt_name=encode_general_names(map(read_general_name, alternatives)) if alternatives else None,
    )
