"""Certificate profiles: what a certificate of ours holds besides subject and key, whatever the CSR asks for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from scep_ra.pki import oids


class KeyUsage(IntEnum):
    """KeyUsage bits by their position (RFC 5280 4.2.1.3)."""

    DIGITAL_SIGNATURE = 0
    NON_REPUDIATION = 1
    KEY_ENCIPHERMENT = 2
    DATA_ENCIPHERMENT = 3
    KEY_AGREEMENT = 4
    KEY_CERT_SIGN = 5
    CRL_SIGN = 6


class ExtendedKeyUsage(StrEnum):
    """Purposes by the name that the configuration uses; `oid` is what the certificate carries."""

    CLIENT_AUTH = "client_auth"
    SERVER_AUTH = "server_auth"
    EMAIL_PROTECTION = "email_protection"
    IPSEC_IKE = "ipsec_ike"
    OCSP_SIGNING = "ocsp_signing"  # not for devices: whoever has it speaks for the CA (RFC 6960 4.2.2.2)

    @property
    def oid(self) -> str:
        """Return the dotted OID."""
        return _PURPOSES[self]


_PURPOSES: Final = {
    ExtendedKeyUsage.CLIENT_AUTH: oids.CLIENT_AUTH,
    ExtendedKeyUsage.SERVER_AUTH: oids.SERVER_AUTH,
    ExtendedKeyUsage.EMAIL_PROTECTION: oids.EMAIL_PROTECTION,
    ExtendedKeyUsage.IPSEC_IKE: oids.IPSEC_IKE,
    ExtendedKeyUsage.OCSP_SIGNING: oids.OCSP_SIGNING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateProfile:
    """The part of an end-entity certificate that policy decides."""

    key_usage: tuple[KeyUsage, ...] = (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)
    extended_key_usage: tuple[ExtendedKeyUsage, ...] = (ExtendedKeyUsage.CLIENT_AUTH,)
    crl_url: str = ""  # CRL distribution point; "" = no extension
    ca_issuers_url: str = ""  # AIA caIssuers; "" = none
    ocsp_url: str = ""  # AIA ocsp; "" = none
    ocsp_nocheck: bool = False  # id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2.1): only for those who sign OCSP answers
