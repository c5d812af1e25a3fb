"""One profile's enrollment service over a real SQLite store, with an AAA and a CA that do as a test tells them.

Keys are EC, because the service does not care and thousands are made in a second.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Decision
from scep_ra.ca.base import CertificateAuthority, Issued, IssuePending, IssueRequest
from scep_ra.ca.directory import CAMaterial
from scep_ra.ca.local import LocalCA
from scep_ra.enrollment.challenges import new_challenge
from scep_ra.enrollment.lockout import Lockout
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.rules import CertificateRules, EnrollmentRules
from scep_ra.enrollment.service import EnrollmentService
from scep_ra.enrollment.types import EnrollmentRequest, ExistingCertificate, Granted, IdentityProof, Outcome, StandIn
from scep_ra.identity.types import DeviceID, parse_device_id
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.csr import build_request, parse_request
from scep_ra.pki.keys import Signer
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile
from scep_ra.scep.client import self_signed_certificate
from scep_ra.storage.base import Device, Enrollment, Store, StoredDecision
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.pki import NOW, make_ca, make_key

DEVICE: Final = "FOC1234X0AB"
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
RULES: Final = EnrollmentRules(
    profile="default",
    device_id_rules=("subject.serialNumber", "subject.userId", "san", "subject.commonName"),
    contents=CertificateRules(
        extensions=CertificateProfile(),
        validity=365 * DAY,
        naming=NamingRules.compile(subject_unchecked=True),
    ),
    replay=8 * DAY,
)


class Records:
    """Refusals on record, in order; a `service.Refusals`."""

    def __init__(self) -> None:
        self.decisions: list[StoredDecision] = []

    def note(self, decision: StoredDecision) -> None:
        self.decisions.append(decision)


def service_of(
    *,
    rules: EnrollmentRules,
    store: Store,
    authorizer: Authorizer,
    ca: CertificateAuthority,
    clock: Clock,
    records: Records | None = None,
    lockout: Lockout | None = None,
    **parts: Any,
) -> EnrollmentService:
    """Return a service whose other parts forbid and remember nothing unless they are given."""
    return EnrollmentService(
        rules=rules,
        store=store,
        authorizer=authorizer,
        ca=ca,
        lockout=lockout or Lockout(attempts=0, window_s=300),
        refusals=records or Records(),
        now=clock,
        random=secrets.token_bytes,
        **{"forbidden_keys": frozenset(), "other_contents": {}, **parts},
    )


class Clock:
    """The time of a test; it stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


class ScriptedAuthorizer:
    """An AAA that gives the answers of its script in turn, the last one for ever; an exception is raised."""

    def __init__(self, *script: Decision | Exception) -> None:
        self.script = list(script or (Accept(),))
        self.requests: list[AccessRequest] = []

    async def authorize(self, request: AccessRequest) -> Decision:
        self.requests.append(request)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def check(self) -> None:
        if isinstance(self.script[0], Exception):
            raise self.script[0]


class Meanwhile(ScriptedAuthorizer):
    """An AAA that says yes, and before its first answer something else happens."""

    def __init__(self, happening: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._happenings = [happening]

    async def authorize(self, request: AccessRequest) -> Decision:
        while self._happenings:
            await self._happenings.pop()()
        return await super().authorize(request)


Step = Callable[[LocalCA, bytes], Awaitable[Issued | IssuePending]]


async def sign(authority: LocalCA, order: bytes) -> Issued | IssuePending:
    """Carry the order out, as an honest CA does."""
    return await authority.issue(order)


def fail(error: BaseException) -> Step:
    """Return a step that raises instead of signing."""

    async def step(_authority: LocalCA, _order: bytes) -> Issued | IssuePending:
        raise error

    return step


async def put_off(_authority: LocalCA, _order: bytes) -> Issued | IssuePending:
    """Take the order and do not decide."""
    return IssuePending()


class ScriptedCA:
    """A local CA that takes the steps of its script in turn, the last one for ever."""

    def __init__(self, authority: LocalCA, *script: Step) -> None:
        self.name = authority.name
        self.keeps_serial = authority.keeps_serial
        self.script = list(script or (sign,))
        self.orders: list[bytes] = []
        self.refusal: Exception | None = None  # of `prepare`
        self._authority = authority

    async def chain(self) -> Sequence[Certificate]:
        return await self._authority.chain()

    def prepare(self, request: IssueRequest) -> bytes:
        if self.refusal is not None:
            raise self.refusal
        return self._authority.prepare(request)

    async def issue(self, order: bytes) -> Issued | IssuePending:
        self.orders.append(order)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await step(self._authority, order)

    async def check(self) -> None:
        await self._authority.check()


class Gate:
    """A step that signs when it is let to, so that a test can look around meanwhile."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self, authority: LocalCA, order: bytes) -> Issued | IssuePending:
        self.entered.set()
        await self.opened.wait()
        return await authority.issue(order)


async def open_store(directory: Path) -> Store:
    """Open the one database of a directory; each call is another node."""
    return SqlStore(await SqliteDatabase.open(directory / "store.sqlite"))


def local_ca(material: CAMaterial | None = None, *, now: Callable[[], datetime], name: str = "default") -> LocalCA:
    """Return a CA with an EC key, or with this key."""
    material = material or make_ca("ec-p256")
    return LocalCA(
        name=name, signer=material.signer, chain=material.chain, crl_validity=timedelta(days=7), now=now, run=run_here
    )


async def run_here(function: Callable[[], Any], /) -> Any:
    """Run CPU work on the loop: fast enough for tests, and in an order that repeats."""
    return function()


def device_id(text: str = DEVICE) -> DeviceID:
    return parse_device_id(text)


def key_of(owner: str = "device") -> Signer:
    """Return the EC key of this owner."""
    return make_key("ec-p256", owner)


def subject_of(device: str = DEVICE) -> bytes:
    return parse_name(f"O=Test,serialNumber={device},CN=router-1")


def make_request(
    *,
    challenge: str | None = None,
    device: str = DEVICE,
    subject: bytes | None = None,
    owner: str = "device",
    extensions: tuple[Extension, ...] = (),
    transaction_id: str = "TX1",
    signed_with: Certificate | None = None,
) -> EnrollmentRequest:
    """Return a request whose proof is a stand-in over the owner's key, unless a certificate is given."""
    key = key_of(owner)
    subject = subject_of(device) if subject is None else subject
    csr = parse_request(build_request(subject=subject, key=key, challenge_password=challenge, extensions=extensions))
    proof: IdentityProof = (
        StandIn(certificate=self_signed_certificate(subject, key, NOW, secrets.token_bytes))
        if signed_with is None
        else ExistingCertificate(certificate=signed_with)
    )
    return EnrollmentRequest(transaction_id=transaction_id, csr=csr, proof=proof, source="192.0.2.1")


def granted(outcome: Outcome) -> Certificate:
    """Return the certificate of a grant."""
    assert isinstance(outcome, Granted)
    return outcome.certificate


@dataclass(kw_only=True)
class Office:
    """One profile: its service, what is behind it, and short words for what tests do with it."""

    store: Store
    authorizer: Authorizer
    ca: CertificateAuthority
    clock: Clock
    rules: EnrollmentRules = RULES
    records: Records = field(default_factory=Records)
    lockout: Lockout | None = None
    forbidden_keys: frozenset[bytes] = frozenset()
    other_contents: Mapping[str, CertificateRules] = field(default_factory=dict)
    service: EnrollmentService = field(init=False)

    def __post_init__(self) -> None:
        self.service = service_of(**{each.name: getattr(self, each.name) for each in fields(self) if each.init})

    def other(self, **changes: Any) -> Office:
        """Return another service that differs in what is given: a restart, a node, a profile."""
        parts = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return Office(**{**parts, **changes})

    def with_rules(self, **changes: Any) -> Office:
        return self.other(rules=replace(self.rules, **changes))

    def with_contents(self, **changes: Any) -> Office:
        """Return a service whose certificates differ in what is given."""
        return self.with_rules(contents=replace(self.rules.contents, **changes))

    async def register(self, *values: str, profile: str = "") -> None:
        for value in values or (DEVICE,):
            await self.store.add_device(Device(device_id=device_id(value), profile=profile, created_at=self.clock()))

    async def challenge(self, device: str = DEVICE, *, lifetime: timedelta = HOUR) -> str:
        """Store a challenge of this profile and return its secret."""
        secret, row = new_challenge(
            device_id=device_id(device),
            profile=self.rules.profile,
            now=self.clock(),
            lifetime=lifetime,
            random=secrets.token_bytes,
        )
        await self.store.add_challenge(row)
        return secret

    async def request(self, **fields: Any) -> EnrollmentRequest:
        """Return a request with a fresh challenge."""
        return make_request(challenge=await self.challenge(fields.get("device", DEVICE)), **fields)

    async def submit(self, request: EnrollmentRequest) -> Outcome:
        return await self.service.submit(request)

    async def poll(self, request: EnrollmentRequest) -> Outcome:
        """Ask how this request stands."""
        return await self.service.poll(request.transaction_id, request.proof, request.source)

    async def enroll(self, **fields: Any) -> Certificate:
        """Enroll with a fresh challenge and return the certificate."""
        return granted(await self.submit(await self.request(**fields)))

    async def enrollment(self, request: EnrollmentRequest) -> Enrollment:
        """Return what the store knows of this request."""
        found = await self.store.latest_enrollment(
            self.service._key(request.transaction_id, request.proof)  # the key is the service's own secret
        )
        assert found is not None
        return found[0]

    async def issued_serials(self) -> list[int]:
        return [row.certificate_serial for row in await self.store.list_certificates()]
