"""Plays one cell: a copy of the world's database, a message over HTTP, and a look at what became of it.

What is observed is the answer and the store, never the product's own opinion of what it did.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from asn1crypto import cms

from scep_ra.aaa.base import Accept, Decision, Defer, Reject
from scep_ra.enrollment.approval import ApprovalDesk
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.errors import Unavailable
from scep_ra.pki import oids
from scep_ra.pki.certificates import parse_certificate
from scep_ra.storage.base import EnrollmentKey, Store
from tests.matrix.oracle import AAA, Approval, Cell, Challenge, Kind, Outcome, Profile, Signer, Standing, Verdict
from tests.matrix.world import (
    DEVICE,
    SUBJECT,
    TRANSACTION,
    Line,
    Policy,
    World,
    certified_key_of,
    key_of,
    make_front,
    message_of,
    open_line,
    recipient_of,
)
from tests.support.enrollment import ScriptedAuthorizer, open_store
from tests.support.keys import spki
from tests.support.scep_messages import issuer_and_serial
from tests.support.scep_replies import certificates_of, read_reply

ANSWERS: Final[Mapping[AAA, Decision | Exception]] = {
    AAA.YES: Accept(),
    AAA.NO: Reject(reason="nobody knows this device"),
    AAA.ERROR: Unavailable("the AAA server said 500"),
    AAA.TIMEOUT: Unavailable("the AAA server gave no answer within 5 s"),
}
FAIL_INFO: Final = {
    "1": Outcome.BAD_MESSAGE_CHECK.value,
    "2": Outcome.BAD_REQUEST.value,
    "4": Outcome.BAD_CERT_ID.value,
}
ALL_STATES: Final = frozenset(EnrollmentState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What came of a message."""

    outcome: str
    certificates: int  # that were not there before
    requests: int  # recorded that were not there before
    asked_aaa: bool
    spent: frozenset[Challenge]


def expected(cell: Cell, wanted: Verdict) -> Observation:
    """Return what is to be seen when the policy holds."""
    is_request = cell.kind in (Kind.PKCS_REQ, Kind.RENEWAL_REQ)
    return Observation(
        outcome=wanted.outcome.value,
        certificates=wanted.certificates,
        requests=int(is_request and wanted.outcome in (Outcome.ISSUED, Outcome.PENDING)),
        asked_aaa=wanted.asks_aaa,
        spent=frozenset({Challenge.RIGHT} if wanted.spends_challenge else ()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the store remembers."""

    certificates: frozenset[bytes]
    requests: Mapping[str, EnrollmentState]
    used_by: Mapping[Challenge, str | None]


@dataclass(kw_only=True)
class Bench:
    """Plays cell after cell; the database is copied anew only when something has changed in it."""

    world: World
    directory: Path
    line: Line
    authorizer: ScriptedAuthorizer = field(default_factory=ScriptedAuthorizer)
    store: Store | None = None
    situation: object = None  # what the store was made for
    wanted: Signer = Signer.OURS  # whose certificate a GetCert asks for

    async def play(self, cell: Cell) -> Observation:
        """Put the world as the cell wants it, send the message, and say what came of it."""
        begun = (Signer.SELF_MADE, cell.challenge, Standing.UNDECIDED) if cell.kind is Kind.CERT_POLL else None
        await self._prepare(Policy(proof=cell.proof, approval=cell.approval), begun)
        return await self._observe(cell)

    async def collect(self, cell: Cell, begun_by: Signer, standing: Standing) -> Observation:
        """Poll for a request that another, or the same, signer has begun, and on which an operator has to decide."""
        await self._prepare(Policy(approval=cell.approval), (begun_by, cell.challenge, standing))
        return await self._observe(cell)

    async def fetch(self, wanted: Signer) -> str:
        """Let the holder of OURS ask for a certificate by issuer and serial."""
        await self._prepare(Policy(), None)
        self.wanted = wanted
        cell = Cell(kind=Kind.GET_CERT, signer=Signer.OURS, challenge=Challenge.NONE, aaa=AAA.YES, profile=Profile.OWN)
        certificate = self.world.certificates[wanted]
        message = message_of(
            cell.kind,
            cell.signer,
            self.world.certificates[cell.signer],
            issuer_and_serial(certificate),
            cell.profile.value,
        )
        status, body = await self.line.post(cell.profile.value, message)
        assert status == 200
        return self._read(cell, body, frozenset())

    # --- before

    async def _prepare(self, policy: Policy, begun: tuple[Signer, Challenge, Standing] | None) -> None:
        if self.situation == (policy, begun):
            return
        await self.close()
        shutil.copy(self.world.directory / "store.sqlite", self.directory / "store.sqlite")
        self.store = await open_store(self.directory)
        self.line.front = make_front(self.store, self.authorizer, self.world.clock, policy)
        if begun is not None:
            # Where no operator is to decide, a request waits because AAA wants to think about it.
            waits = policy.approval is Approval.OFF
            self.authorizer.script = [Defer(reason="ask again tomorrow") if waits else Accept()]
            await self._begin(self.store, *begun)
        self.situation = policy, begun

    async def _begin(self, store: Store, signer: Signer, challenge: Challenge, standing: Standing) -> None:
        """Send a request that will wait, and let an operator decide about it."""
        message = self.world.message(Kind.PKCS_REQ, signer, challenge, Profile.OWN)
        await self.line.post(Profile.OWN.value, message)
        desk = ApprovalDesk(store=store, authorizers={Profile.OWN.value: self.authorizer}, now=self.world.clock)
        for waiting in await desk.waiting():
            if standing is Standing.APPROVED:
                await desk.approve(waiting.enrollment_id, by="operator")
            elif standing is Standing.REJECTED:
                await desk.reject(waiting.enrollment_id, by="operator")

    async def close(self) -> None:
        """Let go of the database."""
        if self.store is not None:
            await self.store.close()
        for file in self.directory.iterdir():
            file.unlink()
        self.store = self.situation = None

    # --- the message, and after it

    async def _observe(self, cell: Cell) -> Observation:
        self.authorizer.script = [ANSWERS[cell.aaa]]
        self.authorizer.requests.clear()
        before = await self._records()
        message = self.world.message(cell.kind, cell.signer, cell.challenge, cell.profile)
        status, body = await self.line.post(cell.profile.value, message)
        after = await self._records()
        if after != before:
            self.situation = None
        for request in self.authorizer.requests:
            assert (request.device_id.value, request.profile) == (DEVICE, cell.profile.value)
        new = after.certificates - before.certificates
        return Observation(
            outcome=self._read(cell, body, new) if status == 200 else f"HTTP {status}",
            certificates=len(new),
            requests=len(after.requests.keys() - before.requests.keys()),
            asked_aaa=bool(self.authorizer.requests),
            spent=frozenset(each for each in Challenge if after.used_by.get(each) != before.used_by.get(each)),
        )

    async def _records(self) -> Records:
        assert self.store is not None
        nobody = EnrollmentKey(profile="", transaction_id="", requester=b"")
        used_by = {}
        for challenge, secret in self.world.secrets.items():
            dossier = await self.store.dossier(nobody, b"", hashlib.sha256(secret.encode()).digest())
            used_by[challenge] = None if dossier.challenge is None else dossier.challenge.used_by
        return Records(
            certificates=frozenset(row.der for row in await self.store.list_certificates()),
            requests={row.enrollment_id: row.state for row in await self.store.list_enrollments(ALL_STATES)},
            used_by=used_by,
        )

    def _read(self, cell: Cell, body: bytes, new: frozenset[bytes]) -> str:
        """Verify a CertRep and say in the oracle's words what it is."""
        reply = read_reply(body, recipient_of(cell.profile.value))
        assert reply.text(oids.TRANSACTION_ID) == TRANSACTION
        match reply.text(oids.PKI_STATUS):
            case "0":
                return self._read_content(cell, reply.open(key_of(cell.signer))[1], new)
            case "3":
                return Outcome.PENDING.value
            case _:
                info = reply.text(oids.FAIL_INFO)
                return FAIL_INFO.get(info, f"FAILURE {info}")

    def _read_content(self, cell: Cell, certs_only: bytes, new: frozenset[bytes]) -> str:
        """Look at what a SUCCESS brings: a certificate is new only if it is for the key and name that asked."""
        if not certificates_of(certs_only):
            (crl,) = cms.ContentInfo.load(certs_only)["content"]["crls"]
            return Outcome.CRL.value if crl.chosen.native else "no CRL"
        (certificate,) = map(parse_certificate, certificates_of(certs_only))
        if cell.kind is Kind.GET_CERT:
            assert certificate == self.world.certificates[self.wanted]
            return Outcome.CERTIFICATE.value
        assert new == {certificate.der}
        assert (certificate.spki, certificate.subject) == (spki(certified_key_of(cell.signer)), SUBJECT)
        return Outcome.ISSUED.value


@asynccontextmanager
async def bench_in(world: World, directory: Path) -> AsyncIterator[Bench]:
    """Open a bench that keeps its database in this empty directory."""
    async with open_line() as line:
        bench = Bench(world=world, directory=directory, line=line)
        try:
            yield bench
        finally:
            await bench.close()
