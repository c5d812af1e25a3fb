"""Claims about who counts as the same requester between messages."""

from __future__ import annotations

import hashlib

from scep_ra.enrollment.types import ExistingCertificate, ManufacturerCertificate, StandIn, TrustedRA
from tests.support.keys import rsa_key
from tests.support.scep_messages import certificate

FIRST = certificate(rsa_key(), certificate_serial=1)
SECOND = certificate(rsa_key(), certificate_serial=2)


def test_a_stand_in_is_known_by_its_key() -> None:
    """It is made anew for every message by some clients."""
    assert StandIn(certificate=FIRST).requester == StandIn(certificate=SECOND).requester


def test_certificates_of_an_authority_are_known_octet_by_octet() -> None:
    """Two over one key are two requesters; the standing of a certificate does not change whose transaction it is."""
    for octets in (FIRST, SECOND):
        digest = hashlib.sha256(octets.der).digest()
        assert ExistingCertificate(certificate=octets).requester == digest
        assert ManufacturerCertificate(certificate=octets, store="acme").requester == digest
        assert TrustedRA(certificate=octets, ra="branch").requester == digest
