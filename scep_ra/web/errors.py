"""The one table from our errors to the wire: which failInfo, which HTTP status, which words.

A peer learns the sentence of a code and nothing else; reasons stay in the log. `tests/web/test_errors.py` checks
that every error class has its place here.
"""

from __future__ import annotations

from typing import Final

from scep_ra.enrollment.errors import EnrollmentError, UnknownCertificate
from scep_ra.scep.errors import RefusedMessage
from scep_ra.scep.terms import FailInfo

# By code, coarse on purpose: unknown device and wrong challenge, for example, are one sentence.
_SENTENCES: Final = {
    "algorithm": "An algorithm or key of the request is not allowed here.",
    "bad_request": "The request is not one that this server can accept.",
    "certificate": "No such certificate or CRL.",
    "identity": "The request does not name one device.",
    "integrity": "The message could not be verified or opened.",
    "key": "The key of the request cannot be certified.",
    "not_authorized": "The request is not authorized.",
    "quota": "The device holds as many certificates as it may.",
    "refused": "The certification authority declined the request.",
    "renewal": "The certificate that signed the request cannot be renewed now.",
    "second_key": "The device holds a certificate under another key.",
    "subject": "A name in the request is not one that this device may have.",
    "time": "The signing time is too far from the server's clock.",
    "transaction": "The transaction is unknown or in conflict with another one.",
}
# failInfoText: the code for programs and for `request list`, the sentence for people.
PUBLIC_TEXT: Final = {code: f"{code}: {sentence}" for code, sentence in _SENTENCES.items()}


def public_failure(error: RefusedMessage | EnrollmentError) -> tuple[FailInfo, str]:
    """Return failInfo and failInfoText of an error."""
    if isinstance(error, RefusedMessage):
        return error.fail_info, PUBLIC_TEXT[error.code]
    info = FailInfo.BAD_CERT_ID if isinstance(error, UnknownCertificate) else FailInfo.BAD_REQUEST
    return info, PUBLIC_TEXT[error.code]
