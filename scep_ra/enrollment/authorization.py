"""Asking AAA about an enrollment: the same question at first sight, at approval and before a certificate leaves.

What follows from the answer is decided by whoever asks.
"""

from __future__ import annotations

from scep_ra.aaa.base import AccessRequest
from scep_ra.storage.base import Enrollment


def access_request(enrollment: Enrollment, *, source: str, recheck: bool, csr: bytes | None = None) -> AccessRequest:
    """Return what the authorizer is asked; `source` is the peer's address now, "" when nobody is at the line.

    `csr` is the DER request as received, while it is at hand; what is kept of it lacks the challenge.
    """
    return AccessRequest(
        device_id=enrollment.device_id,
        profile=enrollment.key.profile,
        source=source,
        renewal=enrollment.renewal_of is not None,
        certificate_serial=enrollment.renewal_of,
        recheck=recheck,
        transaction_id=enrollment.key.transaction_id,
        csr=enrollment.csr if csr is None else csr,
    )
