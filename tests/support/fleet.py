"""Devices that enroll, many at a time, and do not give up: whoever gets no answer sends the same request again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector
from cryptography.hazmat.primitives.asymmetric import rsa

from scep_ra.config_file import load_settings
from scep_ra.enrollment.challenges import new_challenge
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.parts import open_store
from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from scep_ra.storage.base import Device
from tests.support.node import PATIENCE_S, Site
from tests.support.related_keys import related_keys
from tests.support.scep_messages import Envelope, Message, Request, challenge, stand_in
from tests.support.scep_replies import certificates_of, read_reply

# What a device waits before it asks again; real ones are more patient.
_BACK_OFF_S: Final = 0.02
_SUCCESS: Final = "0"
_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """A request for one certificate that can be sent as often as needed."""

    device_serial: str
    challenge: str
    key: rsa.RSAPrivateKey

    def request(self, recipient: Certificate) -> bytes:
        """Return a PKCSReq, other octets each time: whoever wants to repeat one keeps it."""
        subject = parse_name(f"serialNumber={self.device_serial},CN={self.device_serial}")
        csr = Request(key=self.key, subject=subject, attributes=(challenge(self.challenge),)).encode()
        envelope = Envelope(content=csr, recipient=recipient).encode()
        return Message(
            key=self.key, signer=stand_in(self.key), content=envelope, transaction_id=self.device_serial
        ).encode()

    def certificate_in(self, reply: bytes, signer: Certificate) -> bytes | None:
        """Return the DER certificate of a CertRep, None when it says FAILURE."""
        read = read_reply(reply, signer)
        if read.text(oids.PKI_STATUS) != _SUCCESS:
            return None
        (certificate,) = certificates_of(read.open(self.key)[1])
        return certificate


async def register(site: Site, number: int, *, challenges: int = 1) -> list[Applicant]:
    """Register so many new devices; return an applicant with a key of its own for each challenge of each."""
    keys = iter(await asyncio.to_thread(list, related_keys(number * challenges)))
    now = datetime.now(UTC)
    serials = [f"CRASH{next(_numbers):06d}" for _ in range(number)]
    applicants = []
    async with open_store(load_settings(data=site.data, environ={}), actor="test", chain="test") as store:
        ids = [DeviceID(kind=DeviceIDKind.SERIAL, value=serial) for serial in serials]
        await store.import_devices(Device(device_id=device_id, created_at=now) for device_id in ids)
        rows = []
        for device_id in ids:
            for _ in range(challenges):
                secret, row = new_challenge(
                    device_id=device_id,
                    profile="default",
                    now=now,
                    lifetime=timedelta(hours=1),
                    random=secrets.token_bytes,
                )
                rows.append(store.add_challenge(row))
                applicants.append(Applicant(device_serial=device_id.value, challenge=secret, key=next(keys)))
        await asyncio.gather(*rows)
    return applicants


def many_connections() -> ClientSession:
    """Return an HTTP client that queues no request behind another."""
    return ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=PATIENCE_S))


async def send(session: ClientSession, base_url: str, message: bytes) -> tuple[int, bytes]:
    """POST a PKIMessage; return HTTP status and body, or raise ClientError when the answer is not complete."""
    async with session.post(f"{base_url}/scep?operation=PKIOperation", data=message) as response:
        return response.status, await response.read()


class Fleet:
    """Clients that enroll one applicant after the other while there is a server, and wait while there is none."""

    def __init__(self, applicants: Iterable[Applicant], recipient: Certificate) -> None:
        self._applicants = iter(applicants)
        self._recipient = recipient
        self._base_url = ""
        self._open = asyncio.Event()
        self._changed = asyncio.Condition()
        self._is_over = False
        self.acknowledged: dict[str, bytes] = {}
        """The certificate that each device has, by its serial."""
        self.cut_off: set[str] = set()
        """Devices that got no complete answer since the last `go`."""
        self.put_off: set[str] = set()
        """Devices that were told to come back later (503), ever."""

    def go(self, base_url: str) -> None:
        """Let the clients send to this server."""
        self._base_url = base_url
        self.cut_off = set()
        self._open.set()

    def hold(self) -> None:
        """Have the clients wait for the next `go`."""
        self._open.clear()

    def finish(self) -> None:
        """Have each client end after the enrollment that it is at."""
        self._is_over = True

    async def work(self, clients: int) -> None:
        """Enroll with so many clients until `finish`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._serve_client())

    async def wait_acknowledged(self, more: int) -> None:
        """Wait until so many more devices have their certificate."""
        enough = len(self.acknowledged) + more
        await self._wait_until(lambda: len(self.acknowledged) >= enough)

    async def wait_put_off(self) -> None:
        """Wait until a device has been told to come back later."""
        await self._wait_until(lambda: bool(self.put_off))

    async def _wait_until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(predicate)

    async def _serve_client(self) -> None:
        async with many_connections() as session:
            while not self._is_over:
                applicant = next(self._applicants, None)
                assert applicant is not None, "there are too few applicants for this test"
                await self._enroll(session, applicant)

    async def _enroll(self, session: ClientSession, applicant: Applicant) -> None:
        message = applicant.request(self._recipient)
        reply = None
        while reply is None:
            await self._open.wait()
            reply = await self._try(session, applicant.device_serial, message)
        certificate = applicant.certificate_in(reply, self._recipient)
        assert certificate is not None, f"{applicant.device_serial} was refused"
        self.acknowledged[applicant.device_serial] = certificate
        await self._notify()

    async def _try(self, session: ClientSession, device_serial: str, message: bytes) -> bytes | None:
        """Return the answer, None when there is none yet."""
        try:
            status, body = await send(session, self._base_url, message)
        except (ClientError, ConnectionError):
            self.cut_off.add(device_serial)
        else:
            if status == 200:
                return body
            assert status == 503, body
            self.put_off.add(device_serial)
        await self._notify()
        await asyncio.sleep(_BACK_OFF_S)
        return None

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def enroll_at_once(
    base_urls: Sequence[str], applicants: Sequence[Applicant], recipient: Certificate
) -> list[tuple[Applicant, bytes | None]]:
    """Send the requests of all applicants at the same moment, each to every server; return who got what."""
    requests = [(applicant, applicant.request(recipient)) for applicant in applicants]
    sent = [(applicant, url, request) for applicant, request in requests for url in base_urls]
    async with many_connections() as session:
        answers = await asyncio.gather(*(send(session, url, request) for _, url, request in sent))
    assert {status for status, _ in answers} == {200}
    return [
        (applicant, applicant.certificate_in(body, recipient))
        for (applicant, _, _), (_, body) in zip(sent, answers, strict=True)
    ]
