"""`python -m tests.support.crashing_server`: scep-ra as it is, but it kills itself where a ticket says so.

CRASH_DIRECTORY holds two files. `ticket`, put there by whoever wants a crash, names a point and a number: the process
that passes that point for at least that many times removes it and sends itself SIGKILL. Of several workers only one can
remove it. `signed` is the CA's own book: each device certificate that it signed, whether or not anybody has seen it
since.
Commits are slow here, so that whoever does not wait for them is caught. The product knows nothing of all this; methods
of its classes are wrapped.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NoReturn

from aiohttp import hdrs, web

from scep_ra.aaa.base import Accept, AccessRequest, Decision
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.ca.base import Issued
from scep_ra.ca.local import LocalCA
from scep_ra.cli.main import main
from scep_ra.pki import oids
from scep_ra.storage.sql import SqlStore
from scep_ra.web.connections import ConnectionGuard
from scep_ra.web.scep import ScepFront

DIRECTORY: Final = "CRASH_DIRECTORY"
_CERT_REP: Final = b"application/x-pki-message"
# Much longer than it takes to sign an answer.
_SLOW_COMMIT_S: Final = 0.02


class CrashPoint(StrEnum):
    """Where an enrollment can be cut off."""

    RECEIVED = "request received"
    AUTHORIZED = "AAA said yes"
    INTENDED = "intent committed"
    SIGNED = "CA signed"
    STORED = "certificate committed"
    ANSWERED = "all but the last byte sent"


class CrashDirectory:
    """The files by which a test and the server that it crashes speak to each other."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._ticket = path / "ticket"
        self._book = path / "signed"

    def order_crash(self, point: CrashPoint, passage: int) -> None:
        """Have a process die at this passage of a point, or at the next if it has passed more often."""
        draft = self.path / "draft"
        draft.write_text(f"{passage} {point}")
        draft.replace(self._ticket)  # nobody reads half of it

    def ordered_crash(self) -> tuple[CrashPoint, int] | None:
        """Return what is ordered and has not happened."""
        with suppress(FileNotFoundError):
            passage, _, point = self._ticket.read_text().partition(" ")
            return CrashPoint(point), int(passage)
        return None

    def claim_crash(self) -> bool:
        """Take the ticket; False when another process did."""
        with suppress(FileNotFoundError):
            self._ticket.unlink()
            return True
        return False

    def note_signed(self, certificate: bytes) -> None:
        """Write a device's certificate into the CA's book, so that it is there after a SIGKILL."""
        with self._book.open("ab", buffering=0) as book:
            book.write(certificate.hex().encode() + b"\n")

    def signed(self) -> set[bytes]:
        """Return all certificates of devices that were signed."""
        return set(map(bytes.fromhex, self._book.read_text().splitlines())) if self._book.exists() else set()


class CrashingProcess:
    """Counts what passes and dies when its time has come."""

    def __init__(self, directory: CrashDirectory) -> None:
        self._directory = directory
        self._passages: Counter[CrashPoint] = Counter()

    def is_last(self, point: CrashPoint) -> bool:
        """Count a passage and tell whether this process is to die now."""
        self._passages[point] += 1
        match self._directory.ordered_crash():
            case (ordered, passage) if ordered is point and self._passages[point] >= passage:
                return self._directory.claim_crash()
            case _:
                return False

    def pass_by(self, point: CrashPoint) -> None:
        """Count a passage, and die if it is the one."""
        if self.is_last(point):
            die()

    # --- what is wrapped

    def arm(self) -> None:
        """Put every point in its place."""
        self._arm_commit("insert_enrollment", CrashPoint.INTENDED)
        self._arm_commit("complete", CrashPoint.STORED)
        self._arm_authorizer()
        self._arm_authority()
        self._arm_front()
        self._arm_connections()

    def _arm_commit(self, name: str, point: CrashPoint) -> None:
        original: Callable[..., Awaitable[Any]] = getattr(SqlStore, name)

        async def commit(*arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(_SLOW_COMMIT_S)
            result = await original(*arguments, **options)
            self.pass_by(point)
            return result

        setattr(SqlStore, name, commit)

    def _arm_authority(self) -> None:
        original = LocalCA.issue

        async def issue(authority: LocalCA, order: bytes) -> Issued:
            issued = await original(authority, order)
            # Every start certifies a key for OCSP; no device asks for that, and it is in no store.
            if issued.certificate.extension(oids.OCSP_NOCHECK) is None:
                self._directory.note_signed(issued.certificate.der)
                self.pass_by(CrashPoint.SIGNED)
            return issued

        setattr(LocalCA, "issue", issue)  # noqa: B010 - mypy refuses to assign to a method

    def _arm_authorizer(self) -> None:
        original = RegistryAuthorizer.authorize

        async def authorize(authorizer: RegistryAuthorizer, request: AccessRequest) -> Decision:
            decision = await original(authorizer, request)
            # Asked again about a request that is known, AAA has no part in what is issued.
            if isinstance(decision, Accept) and not request.recheck:
                self.pass_by(CrashPoint.AUTHORIZED)
            return decision

        setattr(RegistryAuthorizer, "authorize", authorize)  # noqa: B010 - mypy refuses to assign to a method

    def _arm_front(self) -> None:
        original = ScepFront.handle

        async def handle(front: ScepFront, request: web.Request) -> web.Response:
            if request.method == hdrs.METH_POST and await request.read():
                self.pass_by(CrashPoint.RECEIVED)
            return await original(front, request)

        setattr(ScepFront, "handle", handle)  # noqa: B010 - mypy refuses to assign to a method

    def _arm_connections(self) -> None:
        original = ConnectionGuard.connection_made

        def connection_made(guard: ConnectionGuard, transport: Any) -> None:
            self._arm_transport(transport)
            original(guard, transport)

        setattr(ConnectionGuard, "connection_made", connection_made)  # noqa: B010 - mypy refuses to assign to a method

    def _arm_transport(self, transport: Any) -> None:
        send: Callable[[bytes], None] = transport.write

        def write(data: bytes) -> None:
            if _CERT_REP in data and self.is_last(CrashPoint.ANSWERED):
                send(data[:-1])  # the kernel has it when this returns: nothing else waits to be sent
                die()
            send(data)

        transport.write = write
        transport.writelines = lambda chunks: write(b"".join(chunks))


def die() -> NoReturn:
    """End this process as a power cut would, as far as a process can."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process that was killed goes on")


if __name__ == "__main__":
    CrashingProcess(CrashDirectory(Path(os.environ[DIRECTORY]))).arm()
    main()
