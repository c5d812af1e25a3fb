"""Measure what one enrollment costs the server, against what its RSA operations alone cost on this machine now.

Starts the server on 127.0.0.1 with a new data directory (SQLite, synchronous=FULL), makes devices, challenges and
RSA-2048 requests beforehand, replays them over keep-alive connections, and prints JSON:

    cpu_ms_per_enrollment   user and system time of the server's processes
    limit_ms                3 RSA-2048 private operations + 2 verifications + 1 encryption, same library, same run
    ratio                   the first by the second: what everything that is not RSA costs
    throughput_per_s, p50_ms, p99_ms, failures
    by_worker               enrollments that each of several workers carried out: how the connections are spread

Usage: scripts/bench [--requests 600] [--clients 32] [--workers 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from scep_ra.enrollment.challenges import new_challenge
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.pki import names
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import build_request
from scep_ra.pki.enveloped_data import seal_envelope
from scep_ra.pki.keys import SoftwareKey, generate_key, load_private_key
from scep_ra.pki.signed_data import MessageSigner, parse_signed_data
from scep_ra.scep.client import self_signed_certificate
from scep_ra.scep.message import build_message, parse_message
from scep_ra.scep.terms import MessageType, PKIStatus
from scep_ra.storage.base import Device
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 20


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    seconds: float
    is_issued: bool


def make_key(_: int) -> bytes:
    """Return a new RSA-2048 key as PEM, from a worker process."""
    return generate_key("rsa-2048").private_pem()


async def register(data: Path, count: int) -> list[tuple[str, str]]:
    """Put devices and challenges straight into the store; return (serial, secret) of each."""
    store = SqlStore(await SqliteDatabase.open(data / "scep-ra.sqlite"))
    now = datetime.now(UTC)
    serials = [f"BENCH{number:06d}" for number in range(count)]
    ids = [DeviceID(kind=DeviceIDKind.SERIAL, value=serial) for serial in serials]
    await store.import_devices(Device(device_id=device_id, created_at=now) for device_id in ids)
    pairs = []
    for serial, device_id in zip(serials, ids, strict=True):
        secret, challenge = new_challenge(
            device_id=device_id,
            profile="default",
            now=now,
            lifetime=timedelta(hours=1),
            random=secrets.token_bytes,
        )
        await store.add_challenge(challenge)
        pairs.append((serial, secret))
    await store.close()
    return pairs


def build(key: SoftwareKey, serial: str, secret: str, recipient: Certificate) -> bytes:
    """Return a PKCSReq as a modern client sends it: SHA-256, AES-128."""
    subject = names.parse_name(f"serialNumber={serial},CN={serial}")
    csr = build_request(subject=subject, key=key, challenge_password=secret)
    stand_in = self_signed_certificate(subject, key, now=datetime.now(UTC), random=secrets.token_bytes)
    return build_message(
        signer=MessageSigner(key, stand_in),
        digest=Digest.SHA256,
        message_type=MessageType.PKCS_REQ,
        transaction_id=secrets.token_hex(20),
        sender_nonce=secrets.token_bytes(16),
        content=seal_envelope(csr, recipient, Cipher.AES128, secrets.token_bytes),
    )


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str, body: bytes) -> bytes:
    """Send one HTTP request on an open connection and return the body of the answer."""
    writer.write(f"{head} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    header = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in header.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(int(length.split(b":")[1]))


async def one_client(port: int, requests: Iterator[bytes], answers: list[Answer]) -> None:
    """Send requests from the shared iterator, one after the other, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        start = time.perf_counter()
        body = await call(reader, writer, "POST /scep?operation=PKIOperation", request)
        seconds = time.perf_counter() - start
        answers.append(Answer(seconds=seconds, is_issued=parse_message(body).pki_status is PKIStatus.SUCCESS))
    writer.close()


async def replay(port: int, requests: Sequence[bytes], clients: int) -> list[Answer]:
    """Send all requests with so many clients at once."""
    answers: list[Answer] = []
    shared = iter(requests)
    await asyncio.gather(*(one_client(port, shared, answers) for _ in range(clients)))
    return answers


async def ra_certificate(port: int) -> Certificate:
    """Fetch what clients encrypt to: the first certificate of the GetCACert answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = await call(reader, writer, "GET /scep?operation=GetCACert", b"")
    writer.close()
    return parse_certificate(parse_signed_data(body).certificates[0])


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and its children so far (proc(5), fields 4, 14 and 15)."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # other processes come and go
            fields = stat.read_text().rpartition(")")[2].split()
            if stat.parent.name == str(pid) or fields[1] == str(pid):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def issued_by_worker(log: str) -> dict[str, int]:
    """Count the certificates that each worker has issued, from the server's log."""
    records = [json.loads(line) for line in log.splitlines()]
    issuers = Counter(record.get("worker") for record in records if record["event"] == "certificate_issued")
    return {str(worker): count for worker, count in sorted(issuers.items())}


def limit_ms(rounds: int = 100) -> float:
    """Return the CPU time of the RSA operations that one enrollment cannot do without, in milliseconds."""
    key = rsa.generate_private_key(65537, 2048)
    public, scheme, digest = key.public_key(), padding.PKCS1v15(), hashes.SHA256()
    signature, encrypted = key.sign(b"message", scheme, digest), public.encrypt(b"k" * 16, scheme)
    start = time.process_time()
    for _ in range(rounds):
        key.decrypt(encrypted, scheme)
        key.sign(b"certificate", scheme, digest)
        key.sign(b"reply", scheme, digest)
        public.verify(signature, b"message", scheme, digest)
        public.verify(signature, b"message", scheme, digest)
        public.encrypt(b"k" * 16, scheme)
    return (time.process_time() - start) * 1000 / rounds


@contextmanager
def server(data: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Run the server on a free port; yield (pid, port)."""
    command = [sys.executable, "-m", "scep_ra", "serve", "--data", str(data), "--bind", "127.0.0.1", "--port", "0"]
    command += ["--workers", str(workers)]
    with (data.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            line = next((text for text in process.stdout if b"http://127.0.0.1:" in text), None)
            if line is None:
                raise SystemExit((data.parent / "server.log").read_text())
            yield process.pid, int(line.split(b"127.0.0.1:")[1].split(b"/")[0])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="enrollments to measure (default 600)")
    parser.add_argument("--clients", type=int, default=32, help="connections at once (default 32)")
    parser.add_argument("--workers", type=int, default=1, help="server processes (default 1)")
    options = parser.parse_args()
    count = options.requests + WARM_UP
    with ProcessPoolExecutor() as makers:
        keys = [load_private_key(pem) for pem in makers.map(make_key, range(count), chunksize=8)]
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "var"
        with server(data, options.workers) as (pid, port):
            devices = asyncio.run(register(data, count))
            recipient = asyncio.run(ra_certificate(port))
            requests = [build(key, *device, recipient) for key, device in zip(keys, devices, strict=True)]
            asyncio.run(replay(port, requests[:WARM_UP], 1))
            limits = [limit_ms()]
            before, start = cpu_seconds(pid), time.perf_counter()
            answers = asyncio.run(replay(port, requests[WARM_UP:], options.clients))
            elapsed, used = time.perf_counter() - start, cpu_seconds(pid) - before
            limits.append(limit_ms())
        log = (Path(scratch) / "server.log").read_text()
    cost = used * 1000 / len(answers)
    limit = statistics.mean(limits)
    times = sorted(answer.seconds * 1000 for answer in answers)
    print(
        json.dumps(
            {
                "requests": len(answers),
                "clients": options.clients,
                "workers": options.workers,
                "cpu_ms_per_enrollment": round(cost, 3),
                "limit_ms": round(limit, 3),
                "ratio": round(cost / limit, 2),
                "throughput_per_s": round(len(answers) / elapsed, 1),
                "p50_ms": round(statistics.median(times), 2),
                "p99_ms": round(times[int(len(times) * 0.99)], 2),
                "failures": sum(not answer.is_issued for answer in answers),
                **({"by_worker": issued_by_worker(log)} if options.workers > 1 else {}),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
