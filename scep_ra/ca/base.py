"""The port to the certification authority that signs.

Issuing takes two steps so that the caller can store what is about to be signed before anything is signed:
`prepare` turns a request into an order (opaque octets, repeatable), `issue` carries the order out.
The same order always ends in the same certificate, however often it is issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from scep_ra.pki.certificates import Certificate
from scep_ra.pki.profiles import CertificateProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueRequest:
    """An authorized certificate to be: every field is decided by us, none is copied unseen from the CSR."""

    certificate_serial: int  # positive, at most 20 octets, at least 127 random bits
    subject: bytes  # DER Name
    spki: bytes  # DER SubjectPublicKeyInfo, policy checked
    subject_alt_name: bytes | None  # DER GeneralNames
    not_before: datetime
    not_after: datetime
    profile: CertificateProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The certificate exists."""

    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuePending:
    """The authority took the order and has not decided; issue the same order again later."""


class CertificateAuthority(Protocol):
    """Sign certificates."""

    name: str
    keeps_serial: bool  # certificates have the serial of the IssueRequest; False: one that the authority chooses

    async def chain(self) -> Sequence[Certificate]:
        """Return the issuing certificate, then its issuers up to and including the root."""
        ...

    def prepare(self, request: IssueRequest) -> bytes:
        """Return the order for this request; pure, so that it can be stored before `issue`."""
        ...

    async def issue(self, order: bytes) -> Issued | IssuePending:
        """Carry an order out; idempotent. Raise Unavailable (outcome unknown, repeat) or Refused (final)."""
        ...

    async def check(self) -> None:
        """Verify that the authority can sign now; raise Unavailable or Misconfigured."""
        ...


@runtime_checkable
class SupportsCRL(Protocol):
    """An authority whose key is here signs its own revocation lists; asked for with isinstance at start-up."""

    name: str
    crl_validity: timedelta  # nextUpdate after thisUpdate

    async def chain(self) -> Sequence[Certificate]:
        """Return the issuing certificate, whose key signs the CRLs, first."""
        ...

    async def sign_crl(self, tbs_cert_list: bytes) -> bytes:
        """Sign a DER TBSCertList and return the DER CertificateList; raise Unavailable or Refused."""
        ...


@runtime_checkable
class SupportsOCSP(Protocol):
    """An authority that lets a key of ours answer OCSP in its name; asked for with isinstance at start-up.

    Only one all of whose certificates we store: of any other we would have to say "unknown" (RFC 6960 2.2).
    """

    name: str

    async def chain(self) -> Sequence[Certificate]:
        """Return the issuing certificate, about whose certificates we answer, first."""
        ...

    async def certify_ocsp_key(self, spki: bytes) -> Certificate:
        """Issue a certificate of some days to the key that signs answers (DER SubjectPublicKeyInfo).

        It has the purpose id-kp-OCSPSigning and the extension id-pkix-ocsp-nocheck (RFC 6960 4.2.2.2). Raise
        Unavailable or Refused.
        """
        ...
