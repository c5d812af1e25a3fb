"""The world in which the matrix is played: two CAs, three profiles, one device and everybody who claims to be it.

Messages are the tests' own, octet by octet, and answers are read by another library; between them is the real stack,
from HTTP to the database file.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, assert_never

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa

from scep_ra.aaa.base import Authorizer
from scep_ra.ca.directory import CAMaterial
from scep_ra.enrollment import challenges, rules
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.queries import QueryService
from scep_ra.identity.types import parse_device_id
from scep_ra.pki import der
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.names import parse_name
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.revocation.service import RevocationService
from scep_ra.scep.server import RecipientKey, ScepServer, ServerRules
from scep_ra.scep.standing import NOBODY, RegistrationAuthority, SignerTrust
from scep_ra.storage.base import Store
from scep_ra.web.crypto_pool import CryptoPool
from scep_ra.web.scep import Endpoint, ScepFront
from tests.matrix.oracle import (
    Approval,
    Challenge,
    Kind,
    Profile,
    Proof,
    Signer,
)
from tests.support import manufacturer, scep_messages
from tests.support.enrollment import (
    DAY,
    HOUR,
    RULES,
    Clock,
    Records,
    ScriptedAuthorizer,
    local_ca,
    open_store,
    run_here,
    service_of,
)
from tests.support.keys import rsa_key, spki
from tests.support.pki import make_ca, make_certificate, make_key, make_ra
from tests.support.scep_messages import Envelope, Message, Request
from tests.support.scep_replies import certificates_of, read_reply

DEVICE: Final = manufacturer.DEVICE_SERIAL
SUBJECT: Final = parse_name(f"serialNumber={DEVICE}")
TRANSACTION: Final = "MATRIX"
TENANT: Final = "tenant"  # a profile that nobody asks in the matrix; it shares the CA of OWN
PATHS: Final = {"default": "/scep", "other": "/scep/other", "tenant": "/scep/tenant"}
AUTHORITIES: Final[Mapping[str, CAMaterial]] = {
    "default": make_ca("ec-p256", name="own"),
    "other": make_ca("ec-p256", name="other"),
}
AUTHORITY_OF: Final = {"default": "default", "other": "other", "tenant": "default"}
FOREIGN: Final = make_ca("ec-p256", name="foreign")
# Our CA's name over a key of somebody else's.
IMPOSTOR: Final = CAMaterial(signer=make_key("ec-p256", "impostor"), chain=AUTHORITIES["default"].chain)
RULE_OF: Final[Mapping[Proof, challenges.ChallengeRule]] = {
    Proof.CHALLENGE: challenges.OneTimeChallenge(),
    Proof.CERTIFICATE: challenges.NoChallenge(),
    Proof.ANONYMOUS: challenges.Anonymous(),
}


def key_of(signer: Signer) -> rsa.RSAPrivateKey:
    """Return the key with which this signer signs."""
    return manufacturer.DEVICE_KEY if signer is Signer.SUDI else rsa_key(f"matrix {signer.name}")


def certified_key_of(signer: Signer) -> rsa.RSAPrivateKey:
    """Return the key that the request of this signer is about."""
    return key_of(signer) if signer is Signer.SELF_MADE else rsa_key("matrix successor")


def certificate_of(ca: CAMaterial, signer: Signer) -> Certificate:
    return make_certificate(ca, spki(key_of(signer)), subject=SUBJECT)


SIGNERS: Final[Mapping[Signer, Certificate]] = {
    Signer.SELF_MADE: scep_messages.stand_in(key_of(Signer.SELF_MADE)),
    Signer.FOREIGN: certificate_of(FOREIGN, Signer.FOREIGN),
    Signer.SUDI: manufacturer.make_idevid(),
    Signer.TRUSTED_RA: certificate_of(FOREIGN, Signer.TRUSTED_RA),
    Signer.IMPOSTOR: certificate_of(IMPOSTOR, Signer.IMPOSTOR),
}
TRUST: Final = SignerTrust(
    manufacturers=[manufacturer.make_store()],
    registration_authorities=[RegistrationAuthority(name="branch", pinned=(SIGNERS[Signer.TRUSTED_RA],))],
)


def recipient_of(profile: str) -> Certificate:
    """Return the RA certificate of a profile."""
    name = AUTHORITY_OF[profile]
    return make_ra(AUTHORITIES[name], name=name).certificate


# --- the stack -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """In what the profile OWN differs from cell to cell."""

    proof: Proof = Proof.CHALLENGE
    approval: Approval = Approval.OFF
    validity: timedelta = RULES.contents.validity


def make_front(store: Store, authorizer: Authorizer, clock: Clock, policy: Policy) -> ScepFront:
    """Join the parts of three profiles as the composition root does."""
    return ScepFront(
        endpoints={profile: _endpoint(profile, store, authorizer, clock, policy) for profile in PATHS},
        pool=CryptoPool(threads=0, max_waiting=1),
        now=clock,
        max_message_bytes=65536,
    )


def _endpoint(profile: str, store: Store, authorizer: Authorizer, clock: Clock, policy: Policy) -> Endpoint:
    name = AUTHORITY_OF[profile]
    material, ra = AUTHORITIES[name], make_ra(AUTHORITIES[name], name=name)
    authority, refusals = local_ca(material, now=clock, name=name), Records()
    contents = replace(RULES.contents, naming=NamingRules.compile(), validity=policy.validity)
    return Endpoint(
        profile=profile,
        server=ScepServer(
            signer=MessageSigner(ra.key, ra.certificate),
            recipients=[RecipientKey(certificate=ra.certificate, key=ra.key)],
            ca_certificates=material.chain,
            rules=ServerRules(),
            trust=TRUST if profile == Profile.OWN.value else NOBODY,
            random=secrets.token_bytes,
        ),
        enrollment=service_of(
            rules=replace(
                RULES,
                profile=profile,
                contents=contents,
                challenge=RULE_OF[policy.proof],
                approval=rules.Approval(policy.approval.value),
            ),
            store=store,
            authorizer=authorizer,
            ca=authority,
            clock=clock,
        ),
        queries=QueryService(
            profile=profile,
            ca=name,
            ca_certificates=material.chain,
            ra_certificate=ra.certificate,
            store=store,
            crls=RevocationService(store=store, cas={name: authority}, now=clock, run=run_here),
            enabled=True,
            now=clock,
        ),
        challenges=store,
        refusals=refusals,
    )


@dataclass(kw_only=True)
class Line:
    """HTTP to a front, which may change meanwhile."""

    session: ClientSession
    front: ScepFront = field(init=False)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        return await self.front.handle(request)

    async def post(self, profile: str, message: bytes) -> tuple[int, bytes]:
        """Send a PKIOperation; return HTTP status and body."""
        url = f"{self.url}{PATHS[profile]}?operation=PKIOperation"
        async with self.session.post(url, data=message) as response:
            return response.status, await response.read()


@asynccontextmanager
async def open_line() -> AsyncIterator[Line]:
    """Serve on a port of this machine; whoever opens the line sets its front."""
    async with ClientSession() as session:
        line = Line(session=session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", line.handle)
        async with TestServer(app) as server:
            line.url = str(server.make_url("")).rstrip("/")
            yield line


# --- the past ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class World:
    """What happened before: a database of which every cell gets a copy, and what was handed out on the way."""

    directory: Path
    clock: Clock
    certificates: Mapping[Signer, Certificate]
    secrets: Mapping[Challenge, str]
    messages: dict[tuple[Kind, Signer, Challenge, Profile], bytes] = field(default_factory=dict)

    def message(self, kind: Kind, signer: Signer, challenge: Challenge, profile: Profile) -> bytes:
        """Return the encoded message, made once."""
        wanted = kind, signer, challenge, profile
        if wanted not in self.messages:
            body = self._body(kind, signer, challenge, profile)
            self.messages[wanted] = message_of(kind, signer, self.certificates[signer], body, profile.value)
        return self.messages[wanted]

    def _body(self, kind: Kind, signer: Signer, challenge: Challenge, profile: Profile) -> bytes:
        match kind:
            case Kind.PKCS_REQ | Kind.RENEWAL_REQ | Kind.UPDATE_REQ | Kind.UNKNOWN:
                return request_of(signer, self.secrets.get(challenge))
            case Kind.CERT_POLL:
                return der.sequence(recipient_of(profile.value).subject, SUBJECT)
            case Kind.GET_CERT | Kind.GET_CRL:
                return scep_messages.issuer_and_serial(self.certificates[Signer.OURS])
            case _:
                assert_never(kind)


def request_of(signer: Signer, secret: str | None) -> bytes:
    """Return the PKCS#10 with which a signer asks in the device's name."""
    attributes = () if secret is None else (scep_messages.challenge(secret),)
    return Request(key=certified_key_of(signer), subject=SUBJECT, attributes=attributes).encode()


def message_of(kind: Kind, signer: Signer, certificate: Certificate, body: bytes, profile: str) -> bytes:
    """Return the signed message."""
    return Message(
        key=key_of(signer),
        signer=certificate,
        content=Envelope(content=body, recipient=recipient_of(profile)).encode(),
        message_type=kind.value,
        transaction_id=TRANSACTION,
    ).encode()


async def make_world(directory: Path) -> World:
    """Enroll the device three times and a tenant's once, let time pass, and revoke one of them."""
    clock, store = Clock(), await open_store(directory)
    try:
        past = _Past(store=store, clock=clock)
        used = await past.challenge(lifetime=DAY)
        certificates = {
            **SIGNERS,
            Signer.OURS: await past.enroll(Signer.OURS, used),
            Signer.REVOKED: await past.enroll(Signer.REVOKED, await past.challenge()),
            Signer.EXPIRED: await past.enroll(Signer.EXPIRED, await past.challenge(), Policy(validity=HOUR)),
            Signer.TENANT: await past.enroll(Signer.TENANT, await past.challenge(profile=TENANT), profile=TENANT),
        }
        expired = await past.challenge()
        clock.advance(2 * HOUR)
        serial = certificates[Signer.REVOKED].certificate_serial
        assert await store.revoke_certificate("default", serial, clock(), reason=0)
        given = {
            Challenge.WRONG: "abcdefghijklmnopqrstuvwxyz",
            Challenge.USED: used,
            Challenge.EXPIRED: expired,
            Challenge.OTHER_DEVICES: await past.challenge("FTX9999ZZZZ"),
            Challenge.RIGHT: await past.challenge(),
        }
    finally:
        await store.close()
    return World(directory=directory, clock=clock, certificates=certificates, secrets=given)


@dataclass(frozen=True, kw_only=True)
class _Past:
    """Does what devices and operators did before the matrix begins."""

    store: Store
    clock: Clock

    async def challenge(
        self, device: str = DEVICE, profile: str = Profile.OWN.value, *, lifetime: timedelta = HOUR
    ) -> str:
        secret, row = challenges.new_challenge(
            device_id=parse_device_id(device),
            profile=profile,
            now=self.clock(),
            lifetime=lifetime,
            random=secrets.token_bytes,
        )
        await self.store.add_challenge(row)
        return secret

    async def enroll(
        self, signer: Signer, secret: str, policy: Policy | None = None, profile: str = Profile.OWN.value
    ) -> Certificate:
        """Enroll the key of this signer with a stand-in certificate."""
        key = key_of(signer)
        body = Request(key=key, subject=SUBJECT, attributes=(scep_messages.challenge(secret),)).encode()
        async with open_line() as line:
            line.front = make_front(self.store, ScriptedAuthorizer(), self.clock, policy or Policy())
            stand_in = scep_messages.stand_in(key)
            status, reply = await line.post(profile, message_of(Kind.PKCS_REQ, signer, stand_in, body, profile))
        assert status == 200
        _, certs_only = read_reply(reply, recipient_of(profile)).open(key)
        (certificate,) = certificates_of(certs_only)
        return parse_certificate(certificate)
