"""Storage ports of the other direction: live sessions at headends, the instant disconnect, messages still to be sent.

As in `base`: every method is one transaction, times are aware datetimes in UTC, a lost race is an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from scep_ra.errors import BackendError
from scep_ra.identity.types import DeviceID


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A connection that a headend has reported by RADIUS accounting and not ended (RFC 2866)."""

    headend: str  # name in the configuration
    session_id: str  # Acct-Session-Id, unique at its headend
    user_name: str  # as the headend wrote it; a disconnect must repeat it
    device_id: DeviceID | None  # None: the name means no device that we know
    nas_address: str = ""
    nas_identifier: str = ""
    framed_address: str = ""
    calling_station: str = ""
    started_at: datetime
    updated_at: datetime


class TooManySessions(BackendError):
    """A headend reports more live sessions than are kept of one."""


class SessionStore(Protocol):
    """Live sessions."""

    async def record_session(self, session: LiveSession, *, most: int | None = None) -> None:
        """Insert or refresh (start, interim update); `started_at` of a known session stays.

        Raise TooManySessions when this one is new and its headend has `most`.
        """
        ...

    async def end_session(self, headend: str, session_id: str) -> bool:
        """Forget a session (stop); return False when it was not known."""
        ...

    async def end_sessions(self, headend: str) -> int:
        """Forget all sessions of a headend (Accounting-On, Accounting-Off); return how many."""
        ...

    async def list_sessions(self, device_id: DeviceID | None = None, limit: int = 1000) -> Sequence[LiveSession]:
        """Return live sessions, newest first."""
        ...

    async def expire_sessions(self, before: datetime) -> int:
        """Forget sessions that nobody has spoken of since `before`; return how many."""
        ...


class MessageKind(StrEnum):
    """What an outgoing message is."""

    DISCONNECT = "disconnect"  # RFC 5176 Disconnect-Request to a headend
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMessage:
    """Something that has to reach somebody else, however often we are restarted meanwhile."""

    message_id: str  # 32 hex digits
    kind: MessageKind
    target: str  # name of the headend or webhook in the configuration
    payload: Mapping[str, str]
    device_id: DeviceID
    created_at: datetime
    due_at: datetime
    attempts: int = 0
    settled_at: datetime | None = None
    result: str = ""  # of the last attempt: "ack", "nak 503", "timeout", "200", ...


class OutboxStore(Protocol):
    """Outgoing messages, at least once."""

    async def claim_messages(
        self, now: datetime, lease_until: datetime, limit: int, device_id: DeviceID | None = None
    ) -> Sequence[OutboxMessage]:
        """Take messages that are due, oldest first, so that no other node takes them before the lease ends.

        `attempts` counts this one; what is neither settled nor put off by then is due again. With `device_id` only
        those that are due because of this device.
        """
        ...

    async def put_off_message(self, message_id: str, due_at: datetime, result: str) -> None:
        """Note how an attempt ended and when the next is due."""
        ...

    async def settle_message(self, message_id: str, now: datetime, result: str) -> None:
        """Note that nothing more is to be done, and how it ended."""
        ...

    async def messages_of(self, message_ids: Collection[str]) -> Sequence[OutboxMessage]:
        """Return these messages as they stand, for whoever waits for the outcome."""
        ...

    async def prune_messages(self, before: datetime) -> int:
        """Delete messages settled before; return how many."""
        ...


class EntryChange(StrEnum):
    """What a disconnect does to the device's entry in the embedded registry."""

    DISABLE = "disable"
    REMOVE = "remove"
    KEEP = "keep"  # the entry that went is somebody else's


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnection:
    """What one disconnect has changed, all in one transaction."""

    device_id: DeviceID
    entry_changed: bool  # False: there was none, or it was off already
    challenges_voided: int
    requests_rejected: int  # PENDING and APPROVED
    revoked: tuple[tuple[str, int], ...]  # (CA, certificate serial)
    messages: tuple[OutboxMessage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A device that holds a certificate of a profile that has neither expired nor was revoked."""

    device_id: DeviceID
    profile: str


class DisconnectStore(Protocol):
    """The instant disconnect."""

    async def disconnect_device(
        self,
        device_id: DeviceID,
        now: datetime,
        *,
        entry: EntryChange,
        revocation_reason: int,
        webhooks: Collection[str],
        by: str,
        new_id: Callable[[], str],
    ) -> Disconnection:
        """Cut a device off: entry, open challenges, waiting requests, all its certificates; one transaction.

        It also puts a DISCONNECT message for each live session and a WEBHOOK message for each of `webhooks`
        into the outbox, due at once; messages that an earlier disconnect has left there are returned with them. Can be
        repeated; what was done before is not done again. The certificate of an intent that is open, or that AAA allowed
        before this moment, is revoked when it is stored.
        """
        ...

    async def end_if_cut_off(self, session: LiveSession, now: datetime, message_id: str) -> bool:
        """Have a recorded session ended if its device was cut off and holds no certificate since; say whether so.

        Who was on the way in when the disconnect looked for sessions is heard of later. A message that is still to be
        sent is not put into the outbox twice.
        """
        ...

    async def disconnected_since(self, moment: datetime) -> Sequence[DeviceID]:
        """Return the devices that were cut off at or after a moment, and not let in again."""
        ...

    async def certificate_holders(self, now: datetime, after: Holder | None, limit: int) -> Sequence[Holder]:
        """Return those who hold a live certificate, by device and profile, from behind `after`."""
        ...
