"""The words and numbers of RFC 8894: message types, status, failInfo, operations, capabilities, media types."""

from __future__ import annotations

from enum import Enum, IntEnum, StrEnum
from typing import Final


class MessageType(IntEnum):
    """RFC 8894 3.2.1.2; every other value is an error, 18 (UpdateReq of some drafts) included."""

    CERT_REP = 3
    RENEWAL_REQ = 17
    PKCS_REQ = 19
    CERT_POLL = 20  # GetCertInitial in drafts and old clients
    GET_CERT = 21
    GET_CRL = 22


class PKIStatus(IntEnum):
    """RFC 8894 3.2.1.3; 1 is undefined."""

    SUCCESS = 0
    FAILURE = 2
    PENDING = 3


class FailInfo(IntEnum):
    """RFC 8894 3.2.1.4."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4


class Operation(StrEnum):
    """The `operation` of the query string (RFC 8894 4.1); compared without regard to case on input."""

    GET_CA_CAPS = "GetCACaps"
    GET_CA_CERT = "GetCACert"
    GET_NEXT_CA_CERT = "GetNextCACert"
    PKI_OPERATION = "PKIOperation"


class Capability(StrEnum):
    """Keywords of GetCACaps (RFC 8894 3.5.2), in the order in which we announce them.

    certmonger 0.79 takes the first cipher keyword of the list, so the strongest come first; strongSwan 5.9.8
    only enrolls where SHA-384 is listed too, although the RFC does not name it.
    """

    AES = "AES"
    POST_PKI_OPERATION = "POSTPKIOperation"
    RENEWAL = "Renewal"
    SHA_512 = "SHA-512"
    SHA_384 = "SHA-384"
    SHA_256 = "SHA-256"
    SCEP_STANDARD = "SCEPStandard"
    GET_NEXT_CA_CERT = "GetNextCACert"
    SHA_1 = "SHA-1"
    DES3 = "DES3"


class EmptyContent(Enum):
    """How a CertRep without pkcsPKIEnvelope says so (RFC 8894 3.3.2.2 leaves the encoding open)."""

    ZERO_LENGTH = "zero-length"  # certmonger (OpenSSL) cannot read the other form
    ABSENT = "absent"


# Clients compare these as whole strings; a charset parameter breaks scepclient, certmonger and Apple.
CA_CAPS_TYPE: Final = "text/plain"
CA_CERT_TYPE: Final = "application/x-x509-ca-cert"
CA_RA_CERT_TYPE: Final = "application/x-x509-ca-ra-cert"
PKI_MESSAGE_TYPE: Final = "application/x-pki-message"
