"""An outbox over a real store, and headends that answer Disconnect-Requests as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from scep_ra.headend.outbox import Attempt, Verdict
from scep_ra.radius.packets import Code, Packet, Value, decode_request, encode_reply
from scep_ra.storage.sessions import OutboxMessage
from tests.support.radius_server import SECRET, Script
from tests.support.records import NOW

ACK = Attempt(verdict=Verdict.DONE, result="ack")


@dataclass(kw_only=True)
class Clock:
    """A clock that a test sets."""

    moment: datetime = NOW

    def __call__(self) -> datetime:
        return self.moment

    def pass_(self, **duration: float) -> None:
        self.moment += timedelta(**duration)


@dataclass(kw_only=True)
class FakeSender:
    """A Sender that keeps what it is given and answers by its script, the last answer for ever."""

    script: list[Attempt | Exception | Callable[[], object]] = field(default_factory=lambda: [ACK])
    sent: list[OutboxMessage] = field(default_factory=list)
    is_closed: bool = False

    async def send(self, message: OutboxMessage) -> Attempt:
        self.sent.append(message)
        answer = self.script.pop(0) if self.script[1:] else self.script[0]
        match answer:
            case Attempt():
                return answer
            case Exception():
                raise answer
            case wait:
                await wait()  # type: ignore[misc]  # never returns; whoever waits is cancelled
                raise AssertionError

    async def close(self) -> None:
        self.is_closed = True


def answering(code: Code, *attributes: tuple[str, Value], secret: bytes = SECRET) -> Script:
    """Return the script of a headend that says the same to everybody."""

    def script(octets: bytes, _count: int) -> Sequence[bytes]:
        request = decode_request(octets, SECRET)
        return [encode_reply(Packet(code=code, attributes=attributes), request, secret, sign=bool(attributes))]

    return script


def read_request(octets: bytes) -> Packet:
    """Return a Disconnect-Request without the parts that differ each time."""
    request = decode_request(octets, SECRET)
    return replace(request, identifier=0, authenticator=b"")
