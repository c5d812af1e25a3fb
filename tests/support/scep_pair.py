"""A client core and a server core joined by a fake wire: every call passes through the HTTP forms of `http_binding`."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from scep_ra.ca.directory import CAMaterial, RAMaterial
from scep_ra.pki.certificates import Certificate, Extension
from scep_ra.pki.csr import build_request
from scep_ra.pki.keys import SoftwareKey
from scep_ra.pki.names import parse_name
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.scep import message as pki_message
from scep_ra.scep.client import (
    ClientRules,
    ClientTransaction,
    Requester,
    self_signed_certificate,
    transaction_id_for,
)
from scep_ra.scep.discovery import CABundle, parse_ca_certificates
from scep_ra.scep.http_binding import ScepCall, encode_call, parse_call
from scep_ra.scep.message import parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import PKIEvent, RecipientKey, ScepServer, ServerRules
from scep_ra.scep.standing import NOBODY, SignerTrust
from scep_ra.scep.terms import MessageType, PKIStatus
from tests.support.pki import NOW, make_ca, make_certificate, make_key, make_ra

EVERYTHING: Final = AlgorithmPolicy.of(sha1=True, triple_des=True, des_and_md5=True, password_envelope=True)
SUBJECT: Final = parse_name("O=Test,serialNumber=FOC1234X0AB,CN=router-1")
CHALLENGE: Final = "correct-horse-battery-staple"
URL: Final = "http://scep.test/scep"
_MAX_MESSAGE_BYTES: Final = 65536


def make_server(
    ca: CAMaterial, ra: RAMaterial | None, policy: AlgorithmPolicy = EVERYTHING, trust: SignerTrust = NOBODY
) -> ScepServer:
    """Return the server core with this RA, or with the CA speaking for itself."""
    key, certificate = (ca.signer, ca.chain[0]) if ra is None else (ra.key, ra.certificate)
    return ScepServer(
        signer=MessageSigner(key, certificate),
        recipients=[RecipientKey(certificate=certificate, key=key)],
        ca_certificates=ca.chain,
        rules=ServerRules(algorithms=policy),
        trust=trust,
        random=secrets.token_bytes,
    )


def make_requester(key: SoftwareKey, *, subject: bytes = SUBJECT, challenge: str = CHALLENGE) -> Requester:
    """Return a requester with a stand-in certificate over its key."""
    certificate = self_signed_certificate(subject, key, NOW, secrets.token_bytes)
    return Requester(key=key, certificate=certificate, password=challenge.encode())


def make_csr(key: SoftwareKey, *, challenge: str | None = CHALLENGE, extensions: tuple[Extension, ...] = ()) -> bytes:
    """Return a DER request for SUBJECT."""
    return build_request(subject=SUBJECT, key=key, challenge_password=challenge, extensions=extensions)


@dataclass(kw_only=True)
class ScepPair:
    """A server with an RA, and a client that has its certificates."""

    ca: CAMaterial = field(default_factory=make_ca)
    ra: RAMaterial = field(default_factory=make_ra)
    policy: AlgorithmPolicy = EVERYTHING
    trust: SignerTrust = NOBODY

    def __post_init__(self) -> None:
        self.server = make_server(self.ca, self.ra, self.policy, self.trust)
        answer = self.server.ca_cert()
        self.bundle: CABundle = parse_ca_certificates(answer.content_type, answer.body)

    def client(
        self, requester: Requester, rules: ClientRules | None = None, *, bundle: CABundle | None = None
    ) -> ClientTransaction:
        """Return a new transaction of this requester."""
        return ClientTransaction(
            bundle=bundle or self.bundle,
            requester=requester,
            transaction_id=transaction_id_for(requester.key.spki),
            rules=rules or ClientRules(replies=EVERYTHING),
            random=secrets.token_bytes,
        )

    def carry(self, call: ScepCall, *, post: bool = True) -> PKIEvent:
        """Send a call as HTTP request through the wire and return what the server makes of it."""
        request = encode_call(call, URL, post=post)
        parts = urlsplit(request.url)
        target = f"{parts.path}?{parts.query}"
        received = parse_call(request.method, target, request.body or b"", max_message_bytes=_MAX_MESSAGE_BYTES)
        event = self.server.receive(received, NOW)
        assert isinstance(event, PKIEvent)
        return event

    def issue(self, spki: bytes) -> Certificate:
        """Issue a certificate for SUBJECT."""
        return make_certificate(self.ca, spki, subject=SUBJECT)


def forge(
    call: ScepCall,
    signer: MessageSigner,
    *,
    message_type: MessageType = MessageType.CERT_REP,
    transaction_id: str | None = None,
    recipient_nonce: bytes | None = None,
    sender_nonce: bytes | None = None,
    content: bytes | None = b"",
    extra: tuple[bytes, ...] = (pki_message.pki_status(PKIStatus.PENDING),),
) -> bytes:
    """Sign an answer to a call that is right but for what is given here."""
    request = parse_message(call.message)
    return pki_message.build_message(
        signer=signer,
        digest=ClientRules().digest,
        message_type=message_type,
        transaction_id=transaction_id or request.transaction_id,
        sender_nonce=sender_nonce or secrets.token_bytes(16),
        content=content,
        extra=(*extra, pki_message.recipient_nonce(recipient_nonce or request.sender_nonce)),
    )


def device_key(key_type: str = "rsa-2048", owner: str = "scep client") -> SoftwareKey:
    """Return a key of the client, the same throughout the session."""
    return make_key(key_type, owner)
