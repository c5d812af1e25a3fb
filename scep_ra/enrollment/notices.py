"""Telling AAA what became of requests, for backends that want to hear it.

A notice is a courtesy: it changes nothing, nobody waits for it, and one that is lost is not made up for.
"""

from __future__ import annotations

from scep_ra.aaa.base import Authorizer, Notice, SupportsNotices
from scep_ra.enrollment.types import EnrollmentRequest
from scep_ra.identity.types import DeviceID
from scep_ra.pki.certificates import Certificate
from scep_ra.storage.base import Enrollment


class Notices:
    """Tells those of the authorizers who want to hear it."""

    def __init__(self, *authorizers: Authorizer) -> None:
        self._listeners = [each for each in authorizers if isinstance(each, SupportsNotices)]

    def issued(self, enrollment: Enrollment, certificate: Certificate) -> None:
        """Tell of a certificate that is stored."""
        self._tell(_notice(enrollment, certificate=certificate.der))

    def failed(self, enrollment: Enrollment, reason: str) -> None:
        """Tell of a request that the CA declined."""
        self._tell(_notice(enrollment, reason=reason))

    def refused(self, request: EnrollmentRequest, profile: str, device_id: DeviceID | None, reason: str) -> None:
        """Tell of a request that was refused at first sight."""
        notice = Notice(
            device_id=device_id,
            profile=profile,
            transaction_id=request.transaction_id,
            source=request.source,
            csr=request.csr.without_challenge(),
            reason=reason,
        )
        self._tell(notice)

    def _tell(self, notice: Notice) -> None:
        for listener in self._listeners:
            listener.notify(notice)


def _notice(enrollment: Enrollment, *, certificate: bytes = b"", reason: str = "") -> Notice:
    return Notice(
        device_id=enrollment.device_id,
        profile=enrollment.key.profile,
        transaction_id=enrollment.key.transaction_id,
        source=enrollment.source,
        csr=enrollment.csr,
        certificate=certificate,
        reason=reason,
    )
