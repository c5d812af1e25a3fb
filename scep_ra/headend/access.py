"""Whether a device may connect now: what headends ask when it has shown its certificate, by RADIUS or by HTTP.

That the device has the certificate and its key, the headend has checked; here is asked whether both are still good:
the certificate is the current one, and AAA has not changed its mind. Wire formats are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, assert_never

import structlog

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Defer, Reject
from scep_ra.headend.user_names import read_user_name
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.types import DeviceID
from scep_ra.security_events import SecurityEvent, security_event
from scep_ra.storage.base import StoredCertificate

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Yes, with this certificate and until then."""

    device_id: DeviceID
    ca: str
    certificate_serial: int  # of the current certificate
    not_after: datetime  # of the certificate, or when AAA lets the device go, whichever is earlier
    profile: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    services: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """No; `reason` is for the log and the operator, never for the device."""

    reason: str
    device_id: DeviceID | None = None  # None: the name means no single device


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileAccess:
    """What decides about the holders of a profile's certificates."""

    authorizer: Authorizer
    service: str = ""  # that AAA must grant; "" = none is asked for


class CertificateLookup(Protocol):
    """What is read of storage.base.CertificateStore."""

    async def current_certificates(
        self, device_ids: Collection[DeviceID], now: datetime
    ) -> Sequence[StoredCertificate]:
        """Return the certificates of these devices that are good and have no successor, newest first."""
        ...

    async def list_certificates(self, device_id: DeviceID | None = None) -> Sequence[StoredCertificate]:
        """Return certificates, newest first."""
        ...


class AccessEngine:
    """The decision point for headends; `profiles` are those of the configuration by name."""

    def __init__(
        self, *, certificates: CertificateLookup, profiles: Mapping[str, ProfileAccess], now: Callable[[], datetime]
    ) -> None:
        self._certificates = certificates
        self._profiles: Final = profiles
        self._now = now

    async def decide(
        self,
        user_name: str,
        *,
        headend: str,
        source: str = "",
        profile: str = "",
        certificate_serial: int | None = None,
    ) -> Permit | Deny:
        """Say whether the device of this name may connect; raise a BackendError, which is never a yes.

        `headend` is its name in the configuration and `source` its address. Of a device with several certificates the
        newest counts: of `profile`, if one is given. With `certificate_serial`, which the device has shown, that
        certificate has to be a current one, and it counts.
        """
        try:
            found = await self._find(user_name, profile, certificate_serial)
            certificate = _shown(found, certificate_serial)
            answer: Permit | Deny = await self._ask(certificate, source)
        except _Denied as denied:
            answer = denied.answer
        _report(answer, user_name=user_name, headend=headend, source=source)
        return answer

    async def identify(self, user_name: str) -> DeviceID | None:
        """Return the device that has or had certificates under this name, None when there is no single one."""
        try:
            device_ids = read_user_name(user_name)
        except IdentityError:
            return None
        current = await self._certificates.current_certificates(device_ids, self._now())
        holders = {certificate.device_id for certificate in current}
        if not holders:
            holders = {each for each in device_ids if await self._certificates.list_certificates(each)}
        return _single(device_ids, holders)

    async def _find(self, user_name: str, profile: str, certificate_serial: int | None) -> Sequence[StoredCertificate]:
        """Return the current certificates of the one device that is meant, newest first, at least one."""
        try:
            device_ids = read_user_name(user_name)
        except IdentityError as error:
            raise _Denied(f"the user name means no device: {error}") from error
        current = await self._certificates.current_certificates(device_ids, self._now())
        certificates = [each for each in current if profile in ("", each.profile)]
        if not certificates:
            of_profile = f" of profile {profile}" if profile else ""
            raise _Denied(f"there is no current certificate{of_profile}", device_ids[0])
        holders = {certificate.device_id for certificate in certificates}
        # What a device has shown says which it is; imei:X and serial:X are two, and a disconnect of one is no other's.
        shown = {each.device_id for each in certificates if each.certificate_serial == certificate_serial}
        meant = _single(device_ids, shown or holders)
        if meant is None:
            listed = ", ".join(sorted(map(str, holders)))
            raise _Denied(f"the user name means several devices: {listed}; have the headend send kind:value")
        return [each for each in certificates if each.device_id == meant]

    async def _ask(self, certificate: StoredCertificate, source: str) -> Permit:
        """Return what AAA says of the holder of a certificate."""
        access = self._profiles.get(certificate.profile)
        if access is None:
            raise _Denied(f"there is no profile {certificate.profile} any more", certificate.device_id)
        question = AccessRequest(
            device_id=certificate.device_id,
            profile=certificate.profile,
            source=source,
            renewal=True,
            certificate_serial=certificate.certificate_serial,
            recheck=True,
        )
        answer = await access.authorizer.authorize(question)
        match answer:
            case Accept():
                return self._permit(certificate, answer, access.service)
            case Reject(reason=reason) | Defer(reason=reason):
                raise _Denied(reason, certificate.device_id)
            case _:
                assert_never(answer)

    def _permit(self, certificate: StoredCertificate, accepted: Accept, service: str) -> Permit:
        if service and service not in accepted.services:
            raise _Denied(f"AAA does not grant the device service {service!r}", certificate.device_id)
        not_after = min(certificate.not_after, accepted.not_after or certificate.not_after)
        if not_after <= self._now():
            raise _Denied(f"AAA let the device go at {not_after:%Y-%m-%d %H:%M:%SZ}", certificate.device_id)
        return Permit(
            device_id=certificate.device_id,
            ca=certificate.ca,
            certificate_serial=certificate.certificate_serial,
            not_after=not_after,
            profile=certificate.profile,
            attributes=accepted.attributes,
            services=accepted.services,
        )


class _Denied(Exception):
    """Ends a decision."""

    def __init__(self, reason: str, device_id: DeviceID | None = None) -> None:
        super().__init__(reason)
        self.answer: Final = Deny(reason=reason, device_id=device_id)


def _single(device_ids: Sequence[DeviceID], holders: Collection[DeviceID]) -> DeviceID | None:
    """Return the one holder; of several the one that a name most likely means, None when that is none of them."""
    if len(holders) == 1:
        return next(iter(holders))
    return device_ids[0] if device_ids[0] in holders else None


def _shown(certificates: Sequence[StoredCertificate], certificate_serial: int | None) -> StoredCertificate:
    """Return the certificate that a device has shown, or its newest where the headend does not say which."""
    if certificate_serial is None:
        return certificates[0]
    for certificate in certificates:
        if certificate.certificate_serial == certificate_serial:
            return certificate
    newest = certificates[0]
    raise _Denied(
        f"certificate {certificate_serial:x} is not the current one, which is {newest.certificate_serial:x}",
        newest.device_id,
    )


def _report(answer: Permit | Deny, *, user_name: str, headend: str, source: str) -> None:
    facts = {"headend": headend, "source": source, "user_name": user_name, "device_id": str(answer.device_id or "")}
    match answer:
        case Permit():
            serial = f"{answer.certificate_serial:x}"
            log.info("access_permitted", **facts, certificate_serial=serial, profile=answer.profile)
        case Deny():
            security_event(SecurityEvent.ACCESS_DENIED, **facts, reason=answer.reason)
        case _:
            assert_never(answer)
