"""The authorizer that asks the device registry in our own store; needs no AAA system beside it.

Only entries decide: enabled, not past its end, and bound to this profile or to none. Challenges and certificates prove
who asks and are the enrollment service's business.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from scep_ra.aaa.base import CERTIFICATE_PROFILE, Accept, AccessRequest, Decision, Reject
from scep_ra.identity.types import DeviceID
from scep_ra.storage.base import Device, DeviceStore


class RegistryAuthorizer:
    """aaa.base.Authorizer over the embedded registry."""

    def __init__(self, devices: DeviceStore, now: Callable[[], datetime]) -> None:
        self._devices = devices
        self._now = now

    async def authorize(self, request: AccessRequest) -> Decision:
        """Accept an enabled device of this profile; raise Unavailable."""
        found = await self._find(request.device_id)
        match found:
            case []:
                return Reject(reason="device not registered")
            case [device]:
                return _judge(device, request.profile, self._now())
            case _:
                listed = ", ".join(str(device.device_id) for device in found)
                return Reject(
                    reason=f"device not registered under its kind, and its value belongs to several: {listed}"
                )

    async def check(self) -> None:
        """Verify that the registry can be read; raise Unavailable or Misconfigured."""
        await self._devices.devices_by_value("")

    async def _find(self, device_id: DeviceID) -> list[Device]:
        device = await self._devices.device(device_id)
        if device is not None:
            return [device]
        # A subject's commonName does not tell the kind, and operators register what is printed on the label.
        return list(await self._devices.devices_by_value(device_id.value))


def _judge(device: Device, profile: str, now: datetime) -> Decision:
    if not device.enabled:
        return Reject(reason="device is disabled")
    if device.profile not in ("", profile):
        return Reject(reason=f"device is bound to profile {device.profile}")
    if device.valid_until is not None and now >= device.valid_until:
        return Reject(reason=f"device was registered until {device.valid_until:%Y-%m-%d %H:%M:%SZ}")
    # The free ones first: none of them may pass for what the entry itself says.
    named = {**device.attributes, "device": str(device.device_id), "user": device.user, "note": device.note}
    return Accept(
        attributes={name: text for name, text in named.items() if text},
        not_after=device.valid_until,
        profile=device.attributes.get(CERTIFICATE_PROFILE, ""),
        services=frozenset(device.services),
        approval=device.approval,
    )
