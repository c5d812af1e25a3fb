"""Our reasons to say no; the text is for the log and the operator, `code` is all that a peer may learn.

EnrollmentError
├── NotAuthorized        no challenge, wrong challenge, unknown or disabled device: one code for all
├── IdentityRefused      the device ID is missing, malformed or contradicts itself
├── NameNotVouched       the request claims a name that nothing but itself speaks for
├── NamingImpossible     the profile's templates make no name of what is known about the device
├── RenewalRefused       the certificate that signed may not have a successor now
├── KeyRefused           the key is another device's, an authority's, or blocked
├── SecondKeyRefused     the device holds a certificate under another key: reset, or cloned?
├── QuotaExceeded        the device has as many certificates as it may have
├── TransactionConflict  another request is pending under this transactionID
├── UnknownTransaction   CertPoll for something we never saw
├── IssuanceRefused      the CA declined
└── UnknownCertificate   GetCert or GetCRL for something that is not ours
"""

from __future__ import annotations

from typing import ClassVar

from scep_ra.errors import ScepRaError


class EnrollmentError(ScepRaError):
    """Base of all refusals by policy."""

    code: ClassVar[str] = "refused"


class NotAuthorized(EnrollmentError):
    """Challenge or AAA said no; one code, or the answer would tell which devices exist."""

    code = "not_authorized"


class IdentityRefused(EnrollmentError):
    """The request does not name one device."""

    code = "identity"


class NameNotVouched(EnrollmentError):
    """The request claims a name for which neither device ID, nor AAA, nor the profile speaks."""

    code = "subject"


class NamingImpossible(EnrollmentError):
    """A template needs a value that is missing, or that cannot stand where it is wanted."""

    code = "subject"


class RenewalRefused(EnrollmentError):
    """The signer's certificate does not entitle to a successor."""

    code = "renewal"


class KeyRefused(EnrollmentError):
    """The key is certified for another device, belongs to an authority, or was revoked as stolen."""

    code = "key"


class SecondKeyRefused(EnrollmentError):
    """The device holds an active certificate under another key, and the profile says refuse."""

    code = "second_key"


class QuotaExceeded(EnrollmentError):
    """The device holds as many active certificates as the profile lets it have."""

    code = "quota"


class TransactionConflict(EnrollmentError):
    """Another CSR is under way under the same transactionID and key."""

    code = "transaction"


class UnknownTransaction(EnrollmentError):
    """No request is known under this transactionID and key (RFC 8894 4.4: MUST reject)."""

    code = "transaction"


class IssuanceRefused(EnrollmentError):
    """The certification authority declined the request for good."""

    code = "refused"


class UnknownCertificate(EnrollmentError):
    """No such certificate or CRL here (badCertId)."""

    code = "certificate"
