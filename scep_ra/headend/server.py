"""The RADIUS server: two UDP sockets, and everything between a datagram and its answer that is the same for both.

Strangers and whoever does not know the secret are not answered, repetitions are answered as before, and no more is
taken on than can be carried. What an answer says is the handlers' business (`access_requests`, `accounting`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, Self

import structlog

from scep_ra.errors import BackendError, Misconfigured
from scep_ra.headend.duplicates import Duplicates
from scep_ra.headend.radius_headends import RadiusHeadend, RadiusHeadends
from scep_ra.radius.errors import RadiusError
from scep_ra.radius.packets import Code, Packet, encode_reply
from scep_ra.security_events import SecurityEvent, security_event

log = structlog.stdlib.get_logger(__name__)

# Each waits for the store or AAA; whoever comes on top sends again after a second or two (RFC 5080 2.2.1).
MAX_AT_WORK: Final = 512
# One headend that runs wild, or somebody who sends in its name what needs no signature, leaves room for the others.
MAX_AT_WORK_OF_ONE: Final = 384

Source = tuple[str, int]  # address and port; IPv6 adds two more


class Handler(Protocol):
    """Makes the answer to one kind of request."""

    async def answer(self, request: Packet, headend: RadiusHeadend, source: str) -> Packet:
        """Return the answer; raise a BackendError or RadiusError when there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one of the two ports is for."""

    code: Code  # of the requests that it takes, besides Status-Server
    alive: Code  # how it answers Status-Server (RFC 5997 3)
    handler: Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where to listen; port 0 takes any that is free."""

    address: str
    access_port: int
    accounting_port: int


class RadiusServer:
    """Both ports."""

    def __init__(self, access: RadiusPort, accounting: RadiusPort) -> None:
        self.access: Final = access
        self.accounting: Final = accounting

    @classmethod
    async def start(
        cls, binding: Binding, headends: RadiusHeadends, *, access: Handler, accounting: Handler
    ) -> RadiusServer:
        """Listen; raise Misconfigured when an address is not to be had."""
        service = Service(code=Code.ACCESS_REQUEST, alive=Code.ACCESS_ACCEPT, handler=access)
        first = await RadiusPort.open(binding.address, binding.access_port, headends, service)
        service = Service(code=Code.ACCOUNTING_REQUEST, alive=Code.ACCOUNTING_RESPONSE, handler=accounting)
        try:
            return cls(first, await RadiusPort.open(binding.address, binding.accounting_port, headends, service))
        except Misconfigured:
            await first.drain(0)
            raise

    async def drain(self, patience_s: float) -> None:
        """Take nothing on any more, finish what is under way, and close."""
        await asyncio.gather(self.access.drain(patience_s), self.accounting.drain(patience_s))


class RadiusPort(asyncio.DatagramProtocol):
    """One UDP socket."""

    def __init__(self, headends: RadiusHeadends, service: Service) -> None:
        self._headends = headends
        self._service = service
        self._duplicates = Duplicates(asyncio.get_running_loop().time)
        self._at_work: set[asyncio.Task[None]] = set()
        self._at_work_of: Counter[str] = Counter()  # by name of the headend
        self._is_draining = False
        self._transport: asyncio.DatagramTransport
        self._closed = asyncio.Event()

    @classmethod
    async def open(cls, address: str, port: int, headends: RadiusHeadends, service: Service) -> Self:
        """Listen; raise Misconfigured when the address is not to be had."""
        try:
            _, opened = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: cls(headends, service), local_addr=(address, port)
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot listen for RADIUS on {address} port {port}/udp: {error.strerror or error}; see [radius]"
            ) from error
        return opened

    @property
    def port(self) -> int:
        """Return the UDP port."""
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    # typeshed: of any kind; a datagram endpoint makes this one
    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note the end."""
        self._closed.set()

    def error_received(self, exc: Exception) -> None:
        """Go on: an answer could not be delivered, and who asked will ask again."""
        log.debug("radius_send_failed", reason=str(exc))

    def datagram_received(self, data: bytes, addr: Source) -> None:
        """Find out who asks and whether it was asked before; take it on, or drop it."""
        if self._is_draining:
            return
        source = addr[0]
        headend = self._headends.at(source)
        if headend is None:
            _dropped(source, "no [headend.NAME] has this address")
            return
        try:
            request = headend.decode(data)
        except RadiusError as error:
            _dropped(source, str(error), headend)
            return
        if request.code is Code.STATUS_SERVER:
            self._send(Packet(code=self._service.alive), request, headend, addr)
        elif request.code is self._service.code:
            self._take_on(request, headend, addr)
        else:
            _dropped(source, f"{request.code.name} does not belong on this port", headend)

    def _take_on(self, request: Packet, headend: RadiusHeadend, addr: Source) -> None:
        key = (addr, request.identifier, request.authenticator)
        answer = self._duplicates.find(key)
        if answer is not None:
            self._transport.sendto(answer, addr)
        elif self._duplicates.is_under_way(key):
            return
        elif len(self._at_work) >= MAX_AT_WORK or self._at_work_of[headend.name] >= MAX_AT_WORK_OF_ONE:
            log.warning("radius_overloaded", headend=headend.name, source=addr[0], at_work=len(self._at_work))
        else:
            self._duplicates.begin(key)
            task = asyncio.get_running_loop().create_task(self._answer(key, request, headend, addr))
            self._at_work.add(task)
            self._at_work_of[headend.name] += 1
            task.add_done_callback(partial(self._finished, headend.name))

    def _finished(self, name: str, task: asyncio.Task[None]) -> None:
        self._at_work.discard(task)
        self._at_work_of[name] -= 1

    async def _answer(self, key: Hashable, request: Packet, headend: RadiusHeadend, addr: Source) -> None:
        octets = None
        try:
            answer = await self._service.handler.answer(request, headend, addr[0])
            octets = self._send(answer, request, headend, addr)
        except RadiusError as error:
            _dropped(addr[0], str(error), headend)
        except BackendError as error:
            # Silence: the headend asks again, or another server.
            log.warning("radius_unanswered", headend=headend.name, source=addr[0], reason=str(error))
        except Exception:
            # A bug that one request meets must not end the server; it is never a yes.
            log.exception("radius_failed", headend=headend.name, source=addr[0])
        finally:
            self._duplicates.end(key, octets)

    def _send(self, answer: Packet, request: Packet, headend: RadiusHeadend, addr: Source) -> bytes:
        octets = encode_reply(answer, request, headend.secret)
        self._transport.sendto(octets, addr)
        return octets

    async def drain(self, patience_s: float) -> None:
        """Take nothing on any more, finish what is under way as far as patience goes, and close."""
        self._is_draining = True
        if self._at_work:
            _, late = await asyncio.wait(self._at_work, timeout=patience_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._transport.close()
        await self._closed.wait()


def _dropped(source: str, reason: str, headend: RadiusHeadend | None = None) -> None:
    facts: Mapping[str, str] = {} if headend is None else {"headend": headend.name}
    security_event(SecurityEvent.RADIUS_DROPPED, source=source, **facts, reason=reason)
