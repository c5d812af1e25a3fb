"""A ScepServer core for tests, and short ways to hand it messages and to look at what it makes of them."""

from __future__ import annotations

import secrets
from dataclasses import replace

from scep_ra.ca.directory import CAMaterial, RAMaterial
from scep_ra.pki.enveloped_data import Random
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.scep.http_binding import ScepCall
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import EnrollmentRequested, RecipientKey, Refused, ScepEvent, ScepServer, ServerRules
from scep_ra.scep.standing import NOBODY, SignerTrust
from scep_ra.scep.terms import FailInfo, Operation
from tests.support.pki import NOW, make_ca, make_ra
from tests.support.scep_messages import Message

STANDARD = AlgorithmPolicy()
EVERYTHING = AlgorithmPolicy.of(sha1=True, triple_des=True, des_and_md5=True, password_envelope=True)


def make_server(
    rules: ServerRules | None = None,
    *,
    ca: CAMaterial | None = None,
    ra: RAMaterial | None = None,
    trust: SignerTrust = NOBODY,
    random: Random = secrets.token_bytes,
) -> ScepServer:
    """Return a server with one RA certificate."""
    ca, ra = ca or make_ca(), ra or make_ra()
    return ScepServer(
        signer=MessageSigner(ra.key, ra.certificate),
        recipients=[RecipientKey(certificate=ra.certificate, key=ra.key)],
        ca_certificates=ca.chain,
        rules=rules or ServerRules(),
        trust=trust,
        random=random,
    )


def server_of(policy: AlgorithmPolicy) -> ScepServer:
    return make_server(replace(ServerRules(), algorithms=policy))


def receive(server: ScepServer, message: Message | bytes) -> ScepEvent:
    """Hand a message over as a PKIOperation."""
    octets = message if isinstance(message, bytes) else message.encode()
    return server.receive(ScepCall(operation=Operation.PKI_OPERATION, message=octets), NOW)


def enroll(server: ScepServer, message: Message | bytes) -> EnrollmentRequested:
    """Hand over a message that has to come out as an enrollment."""
    event = receive(server, message)
    assert isinstance(event, EnrollmentRequested), event
    return event


def refuse(server: ScepServer, message: Message | bytes) -> tuple[FailInfo, str]:
    """Hand over a message that has to be refused; return what the peer is told."""
    event = receive(server, message)
    assert isinstance(event, Refused), event
    return event.error.fail_info, event.error.code
