"""Write certificate revocation lists (RFC 5280 5): reasons by their RFC words, entries, and the TBSCertList.

Pure and linear in the number of entries. Signing is the authority's, and remembering what is revoked the store's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import IntEnum
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.issuance import (
    authority_key_identifier,
    encode_extension,
    issuer_key_identifier,
    signature_algorithm,
)
from scep_ra.storage.base import Revocation

_VERSION_2: Final = der.integer(1)


class RevocationReason(IntEnum):
    """CRLReason (RFC 5280 5.3.1); 7 is unused there, and removeFromCRL belongs to delta CRLs, which we do not make."""

    UNSPECIFIED = 0
    KEY_COMPROMISE = 1
    CA_COMPROMISE = 2
    AFFILIATION_CHANGED = 3
    SUPERSEDED = 4
    CESSATION_OF_OPERATION = 5
    CERTIFICATE_HOLD = 6
    PRIVILEGE_WITHDRAWN = 9
    AA_COMPROMISE = 10

    @property
    def word(self) -> str:
        """Return the word that RFC 5280 has for it."""
        return _WORDS[self]


_WORDS: Final = {
    RevocationReason.UNSPECIFIED: "unspecified",
    RevocationReason.KEY_COMPROMISE: "keyCompromise",
    RevocationReason.CA_COMPROMISE: "cACompromise",
    RevocationReason.AFFILIATION_CHANGED: "affiliationChanged",
    RevocationReason.SUPERSEDED: "superseded",
    RevocationReason.CESSATION_OF_OPERATION: "cessationOfOperation",
    RevocationReason.CERTIFICATE_HOLD: "certificateHold",
    RevocationReason.PRIVILEGE_WITHDRAWN: "privilegeWithdrawn",
    RevocationReason.AA_COMPROMISE: "aACompromise",
}


def _reason_extension(reason: RevocationReason) -> bytes:
    if reason is RevocationReason.UNSPECIFIED:
        return b""  # RFC 5280 5.3.1: better absent than unspecified
    code = der.element(der.ENUMERATED, bytes((reason,)))
    return der.sequence(encode_extension(oids.CRL_REASON, code))


_REASON_EXTENSIONS: Final[dict[int, bytes]] = {reason: _reason_extension(reason) for reason in RevocationReason}


def build_tbs_crl(
    issuer: Certificate,
    revocations: Iterable[Revocation],
    *,
    crl_number: int,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """Return the DER TBSCertList (v2) that the key of this CA certificate is to sign."""
    entries = b"".join(map(_entry, revocations))
    extensions = authority_key_identifier(issuer_key_identifier(issuer)) + encode_extension(
        oids.CRL_NUMBER, der.integer(crl_number)
    )
    return der.sequence(
        _VERSION_2,
        signature_algorithm(issuer.spki),
        issuer.subject,
        der.time(this_update),
        der.time(next_update),
        # RFC 5280 5.1.2.6: an empty list must be absent
        der.element(der.SEQUENCE, entries) if entries else b"",
        der.explicit(0, der.element(der.SEQUENCE, extensions)),
    )


def _entry(revocation: Revocation) -> bytes:
    return der.sequence(
        der.integer(revocation.certificate_serial),
        der.time(revocation.revoked_at),
        _REASON_EXTENSIONS[revocation.reason],
    )
