"""Authorizers that do as a test tells them, and questions to ask them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Notice
from scep_ra.identity.types import DeviceID, parse_device_id


def question(device: str = "SN1", *, profile: str = "default", csr: bytes = b"") -> AccessRequest:
    """Return a question about a device."""
    return AccessRequest(device_id=parse_device_id(device), profile=profile, source="192.0.2.1", renewal=False, csr=csr)


def notice(device: str = "SN1", **fields: Any) -> Notice:
    """Return a notice that a device's request was refused, unless the fields say otherwise."""
    told = {"profile": "default", "transaction_id": "T1", "source": "192.0.2.1", "csr": b"", "reason": "no", **fields}
    return Notice(device_id=parse_device_id(device), **told)


@dataclass(kw_only=True)
class Scripted:
    """An Authorizer that answers, raises or, told neither, stays silent until it is cancelled."""

    answer: Decision | BaseException | None = field(default_factory=Accept)
    questions: list[AccessRequest] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False
    flushed: list[DeviceID] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    async def authorize(self, request: AccessRequest) -> Decision:
        self.questions.append(request)
        self.asked.set()
        return await self._speak()

    async def check(self) -> None:
        await self._speak()

    def flush(self, device_id: DeviceID) -> None:
        self.flushed.append(device_id)

    def notify(self, notice: Notice) -> None:
        self.notices.append(notice)

    async def _speak(self) -> Decision:
        if isinstance(self.answer, BaseException):
            raise self.answer
        if self.answer is not None:
            return self.answer
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


@dataclass(kw_only=True)
class Stopwatch:
    """A monotonic clock that goes when it is told."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s
