"""The SCEP endpoint on a port of 127.0.0.1, with a store in a file, and devices that speak to it over HTTP."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from aiohttp import ClientSession, web
from yarl import URL

from scep_ra.aaa.base import Authorizer
from scep_ra.ca.base import CertificateAuthority
from scep_ra.ca.directory import CAMaterial, RAMaterial
from scep_ra.enrollment.challenges import ChallengeSeal, new_challenge
from scep_ra.enrollment.queries import QueryService
from scep_ra.enrollment.renewal import RenewalRules
from scep_ra.identity.types import parse_device_id
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.csr import build_request
from scep_ra.pki.keys import SoftwareKey
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.revocation.service import RevocationService
from scep_ra.scep.client import (
    Answer,
    ClientRules,
    ClientTransaction,
    Requester,
    self_signed_certificate,
    transaction_id_for,
)
from scep_ra.scep.discovery import CABundle, parse_ca_certificates
from scep_ra.scep.http_binding import ScepCall, encode_call
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import RecipientKey, ScepServer, ServerRules
from scep_ra.scep.standing import NOBODY, SignerTrust
from scep_ra.storage.base import Store
from scep_ra.web.crypto_pool import CryptoPool
from scep_ra.web.listener import Listener
from scep_ra.web.scep import Endpoint, ScepFront
from tests.support.enrollment import (
    DEVICE,
    HOUR,
    RULES,
    Clock,
    Records,
    ScriptedAuthorizer,
    local_ca,
    run_here,
    service_of,
    subject_of,
)
from tests.support.listening import free_port, limits
from tests.support.pki import NOW, make_ca, make_key, make_ra

MAX_MESSAGE_BYTES: Final = 65536
SEAL: Final = ChallengeSeal(key=bytes(range(32)))


@dataclass(kw_only=True)
class Profile:
    """What one profile is made of; the CA is EC and the RA, as clients need it, RSA."""

    store: Store
    clock: Clock
    name: str = "default"
    material: CAMaterial = field(default_factory=lambda: make_ca("ec-p256"))
    has_ra: bool = True
    authorizer: Authorizer = field(default_factory=ScriptedAuthorizer)
    authority: CertificateAuthority | None = None
    policy: AlgorithmPolicy = field(default_factory=AlgorithmPolicy)
    renewal: RenewalRules = field(default_factory=RenewalRules)
    trust: SignerTrust = NOBODY
    sends_chain: bool = False
    is_sealed: bool = False
    refusals: Records = field(default_factory=Records)

    @property
    def ra(self) -> RAMaterial:
        if self.has_ra:
            return make_ra(self.material)
        return RAMaterial(key=self.material.signer, certificate=self.material.chain[0])

    def endpoint(self) -> Endpoint:
        """Join the parts as the composition root does."""
        authority = local_ca(self.material, now=self.clock)
        return Endpoint(
            profile=self.name,
            server=ScepServer(
                signer=MessageSigner(self.ra.key, self.ra.certificate),
                recipients=[RecipientKey(certificate=self.ra.certificate, key=self.ra.key)],
                ca_certificates=self.material.chain,
                rules=ServerRules(algorithms=self.policy),
                trust=self.trust,
                random=secrets.token_bytes,
            ),
            enrollment=service_of(
                rules=replace(RULES, profile=self.name, renewal=self.renewal),
                store=self.store,
                authorizer=self.authorizer,
                ca=self.authority or authority,
                clock=self.clock,
                records=self.refusals,
            ),
            queries=QueryService(
                profile=self.name,
                ca="default",
                ca_certificates=self.material.chain,
                ra_certificate=self.ra.certificate,
                store=self.store,
                crls=RevocationService(store=self.store, cas={"default": authority}, now=self.clock, run=run_here),
                enabled=True,
                now=self.clock,
            ),
            extra_certificates=self.material.chain if self.sends_chain else (),
            challenges=self.store,
            refusals=self.refusals,
            seal=SEAL if self.is_sealed else None,
        )

    async def challenge(self, device: str = DEVICE) -> str:
        """Store a challenge of this profile, sealed where the profile wants it, and return its secret."""
        secret, row = new_challenge(
            device_id=parse_device_id(device),
            profile=self.name,
            now=self.clock(),
            lifetime=HOUR,
            random=secrets.token_bytes,
            seal=SEAL if self.is_sealed else None,
        )
        await self.store.add_challenge(row)
        return secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers["Content-Type"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A running endpoint; `send` is an HTTP client that leaves the target as it is."""

    port: int
    session: ClientSession

    async def send(
        self,
        method: str,
        target: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        url = URL(f"http://127.0.0.1:{self.port}{target}", encoded=True)
        async with self.session.request(method, url, data=body, headers=headers) as response:
            return Answered(status=response.status, headers=response.headers, body=await response.read())

    async def get(self, target: str) -> Answered:
        return await self.send("GET", target)

    async def bundle(self, path: str = "/scep") -> CABundle:
        """Ask for the CA's certificates and trust them."""
        answer = await self.get(f"{path}?operation=GetCACert")
        assert answer.status == 200
        return parse_ca_certificates(answer.content_type, answer.body)


@asynccontextmanager
async def serving(
    *profiles: Profile,
    threads: int = 0,
    max_waiting: int = 256,
    max_at_work: int = 256,
    max_requests_per_address_per_s: float = 0,
    routes: Iterable[web.RouteDef] = (),
) -> AsyncIterator[Site]:
    """Serve these profiles behind the real listener."""
    pool = CryptoPool(threads=threads, max_waiting=max_waiting)
    front = ScepFront(
        endpoints={profile.name: profile.endpoint() for profile in profiles},
        pool=pool,
        now=profiles[0].clock,
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_at_work=max_at_work,
        max_requests_per_address_per_s=max_requests_per_address_per_s,
    )
    app = web.Application(client_max_size=MAX_MESSAGE_BYTES * 3 // 2)
    app.add_routes(routes)
    app.router.add_route("*", "/{path:.*}", front.handle)
    listener = await Listener.start(app, sock=free_port(), limits=limits())
    try:
        async with ClientSession(skip_auto_headers=("Content-Type",)) as session:
            yield Site(port=listener.port, session=session)
    finally:
        await listener.drain(timeout_s=1)
        pool.close()


@dataclass(kw_only=True)
class Device:
    """A SCEP client with a key, a stand-in certificate and, later, an issued one."""

    site: Site
    path: str = "/scep"
    key: SoftwareKey = field(default_factory=lambda: make_key("rsa-2048"))
    subject: bytes = field(default_factory=subject_of)
    rules: ClientRules = field(default_factory=ClientRules)
    certificate: Certificate | None = None  # what signs; None: a stand-in
    password: bytes | None = None
    uses_get: bool = False
    transaction_id: str | None = None

    async def transaction(self, bundle: CABundle | None = None) -> ClientTransaction:
        stand_in = self.certificate or self_signed_certificate(self.subject, self.key, NOW, secrets.token_bytes)
        return ClientTransaction(
            bundle=bundle or await self.site.bundle(self.path),
            requester=Requester(key=self.key, certificate=stand_in, password=self.password),
            transaction_id=self.transaction_id or transaction_id_for(self.key.spki),
            rules=self.rules,
            random=secrets.token_bytes,
        )

    def csr(
        self, challenge: str | None = None, *, key: SoftwareKey | None = None, subject: bytes | None = None
    ) -> bytes:
        return build_request(subject=subject or self.subject, key=key or self.key, challenge_password=challenge)

    async def send(self, call: ScepCall) -> Answered:
        """Send a call as the client's rules say."""
        request = encode_call(call, self.path, post=not self.uses_get)
        headers = {} if request.content_type is None else {"Content-Type": request.content_type}
        return await self.site.send(request.method, request.url, request.body, headers)

    async def ask(self, transaction: ClientTransaction, call: ScepCall) -> Answer:
        """Send a call and read the CertRep."""
        answer = await self.send(call)
        assert (answer.status, answer.content_type) == (200, "application/x-pki-message")
        return transaction.receive(answer.body)

    async def enroll(self, challenge: str | None) -> Answer:
        transaction = await self.transaction()
        return await self.ask(transaction, transaction.enroll(self.csr(challenge)))
