"""The client side of RFC 8894 without I/O: calls to send, and what to make of the replies.

Sockets, waiting between polls and files are the caller's; `now` and `random` are arguments. Whom to trust is settled
before, in `discovery`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, Protocol, assert_never

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest, parse_cipher
from scep_ra.pki.ber import Limits, normalise
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import parse_request
from scep_ra.pki.enveloped_data import EnvelopedData, Random, open_envelope, parse_enveloped_data, seal_envelope
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, PKIError
from scep_ra.pki.issuance import assemble_signed, assemble_tbs, key_usage, signature_algorithm, signing_scheme
from scep_ra.pki.keys import Decrypter, Signer, load_public_key
from scep_ra.pki.password import open_password_envelope, seal_password_envelope
from scep_ra.pki.profiles import KeyUsage
from scep_ra.pki.signed_data import MessageSigner, SignedData, issuer_and_serial, parse_signed_data
from scep_ra.scep.discovery import CABundle
from scep_ra.scep.errors import MalformedMessage, ReplyError
from scep_ra.scep.http_binding import ScepCall
from scep_ra.scep.message import NONCE_BYTES, PKIMessage, build_message, parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.terms import FailInfo, MessageType, Operation, PKIStatus

# A CRL of some 40,000 entries; each has up to 7 elements.
REPLY_LIMITS: Final = Limits(max_bytes=4 << 20, max_elements=300_000)
# A request may wait for weeks until somebody approves it, and its signer has to poll with this certificate.
_STAND_IN_VALIDITY: Final = timedelta(days=90)
_CLOCK_TOLERANCE: Final = timedelta(hours=1)


# --- who asks ------------------------------------------------------------------------------------------------------


class RequesterKey(Signer, Decrypter, Protocol):
    """A private key that signs requests and, when RSA, opens replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who signs the requests and reads the replies: a stand-in certificate at first, an issued one later."""

    key: RequesterKey
    certificate: Certificate
    password: bytes | None = None  # the challenge; needed by a key that cannot decrypt (RFC 8894 3.1)
    chain: tuple[Certificate, ...] = ()  # sent along: CAs above the certificate that the server may not know

    def __post_init__(self) -> None:
        if not self.can_decrypt and not self.password:
            raise AlgorithmRefused("an EC key needs a challenge, under which the server encrypts its answers")

    @property
    def can_decrypt(self) -> bool:
        """Tell whether the key is RSA."""
        return isinstance(load_public_key(self.key.spki), RSAPublicKey)


def self_signed_certificate(subject: bytes, key: Signer, now: datetime, random: Random) -> Certificate:
    """Return the certificate that stands in for one yet to be issued (RFC 8894 2.4); `subject` is the CSR's DER Name.

    Raise AlgorithmRefused for a kind of key that cannot sign here.
    """
    is_rsa = isinstance(load_public_key(key.spki), RSAPublicKey)
    encipherment = (KeyUsage.KEY_ENCIPHERMENT,) if is_rsa else ()
    algorithm = signature_algorithm(key.spki)
    tbs = assemble_tbs(
        certificate_serial=1 + int.from_bytes(random(15), "big"),
        algorithm=algorithm,
        issuer=subject,
        not_before=now - _CLOCK_TOLERANCE,
        not_after=now + _STAND_IN_VALIDITY,
        subject=subject,
        spki=key.spki,
        extensions=key_usage((KeyUsage.DIGITAL_SIGNATURE, *encipherment)),
    )
    return parse_certificate(assemble_signed(tbs, algorithm, key.sign(tbs, signing_scheme(key.spki)[1])))


def transaction_id_for(spki: bytes) -> str:
    """Return the transactionID for a DER SubjectPublicKeyInfo: its SHA-256 in hex, the same after a restart."""
    return hashlib.sha256(spki).hexdigest()


# --- what comes back -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """The certificate that was asked for, and what else the server sent along (its CA, usually)."""

    certificate: Certificate
    others: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedCRL:
    """The CRL that was asked for, DER; its signature is not verified here."""

    crl: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StillPending:
    """Not decided yet: poll later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A signed no."""

    fail_info: FailInfo | None  # None: a number that RFC 8894 does not define (Dogtag sends some), or none
    text: str  # failInfoText, "" when absent; the server's words


Answer = IssuedCertificate | RetrievedCRL | StillPending | Failed


# --- states --------------------------------------------------------------------------------------------------------


class ClientState(Enum):
    """Where a transaction stands (RFC 8894 2.6, figure 1)."""

    NEW = auto()
    SENT = auto()
    PENDING = auto()
    SUCCEEDED = auto()
    FAILED = auto()


class ClientEvent(Enum):
    """What moves a transaction."""

    REQUEST = auto()
    POLL = auto()
    PENDING = auto()
    SUCCESS = auto()
    FAILURE = auto()


# A poll is possible after any request: the reply to it, or to the poll before, may have been lost on the way.
TRANSITIONS: Final = {
    (ClientState.NEW, ClientEvent.REQUEST): ClientState.SENT,
    (ClientState.SENT, ClientEvent.POLL): ClientState.SENT,
    (ClientState.PENDING, ClientEvent.POLL): ClientState.SENT,
    (ClientState.SENT, ClientEvent.PENDING): ClientState.PENDING,
    (ClientState.SENT, ClientEvent.SUCCESS): ClientState.SUCCEEDED,
    (ClientState.SENT, ClientEvent.FAILURE): ClientState.FAILED,
}


# --- the transaction -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _EnrollmentSought:
    subject: bytes  # DER Name
    spki: bytes  # DER SubjectPublicKeyInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class _CertificateSought:
    issuer: bytes  # DER Name
    certificate_serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _CRLSought:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRules:
    """How requests are made and what is accepted in replies, SHA-1 and 3DES by an AlgorithmPolicy that says so."""

    digest: Digest = Digest.SHA256
    cipher: Cipher = Cipher.AES128
    replies: AlgorithmPolicy = field(default_factory=AlgorithmPolicy)
    limits: Limits = REPLY_LIMITS


class ClientTransaction:
    """One request with its polls: `enroll`, `renew`, `get_certificate` or `get_crl` once, then `receive` and `poll`.

    Calling out of order is a ValueError; TRANSITIONS is the order. A reply that raises ReplyError changes nothing:
    whoever can inject one must not be able to end the transaction.
    """

    def __init__(
        self, *, bundle: CABundle, requester: Requester, transaction_id: str, rules: ClientRules, random: Random
    ) -> None:
        self._bundle = bundle
        self._requester = requester
        self._signer = MessageSigner(requester.key, requester.certificate, chain=requester.chain)
        self._transaction_id = transaction_id
        self._rules = rules
        self._random = random
        self._state = ClientState.NEW
        self._sought: _EnrollmentSought | _CertificateSought | _CRLSought | None = None
        self._sender_nonce = b""
        # Only the server's: micromdm returns our nonce in both attributes, and recipientNonce is what proves freshness.
        self._seen_nonces: set[bytes] = set()

    @property
    def state(self) -> ClientState:
        """Return where the transaction stands."""
        return self._state

    def _advance(self, event: ClientEvent) -> None:
        state = TRANSITIONS.get((self._state, event))
        if state is None:
            raise ValueError(f"{event.name} is impossible: the transaction is {self._state.name}")
        self._state = state

    # --- calls

    def enroll(self, csr: bytes) -> ScepCall:
        """Return the PKCSReq for a DER PKCS#10 request; raise MalformedData, or AlgorithmRefused for an EC-only CA.

        The requester's key is the CSR's with a stand-in certificate (RFC 8894 2.3), and an RA's own when it asks for
        somebody else.
        """
        return self._request_certificate(MessageType.PKCS_REQ, csr)

    def renew(self, csr: bytes, *, as_pkcs_req: bool = False) -> ScepCall:
        """Return the RenewalReq for a DER PKCS#10 request, signed with the certificate to be renewed.

        `as_pkcs_req` for servers that do not announce Renewal: they know a renewal by its signer (RFC 8894 2.3).
        """
        return self._request_certificate(MessageType.PKCS_REQ if as_pkcs_req else MessageType.RENEWAL_REQ, csr)

    def _request_certificate(self, message_type: MessageType, csr: bytes) -> ScepCall:
        request = parse_request(csr)
        sought = _EnrollmentSought(subject=request.subject, spki=request.spki)
        return self._request(message_type, csr, sought)

    def get_certificate(self, issuer: bytes, certificate_serial: int) -> ScepCall:
        """Return the GetCert for a DER issuer Name and a serial (RFC 8894 3.3.4)."""
        sought = _CertificateSought(issuer=issuer, certificate_serial=certificate_serial)
        body = der.sequence(issuer, der.integer(certificate_serial))
        return self._request(MessageType.GET_CERT, body, sought)

    def get_crl(self, certificate: Certificate) -> ScepCall:
        """Return the GetCRL for the CRL that would list this certificate (RFC 8894 3.3.4)."""
        return self._request(MessageType.GET_CRL, issuer_and_serial(certificate), _CRLSought())

    def _request(
        self, message_type: MessageType, body: bytes, sought: _EnrollmentSought | _CertificateSought | _CRLSought
    ) -> ScepCall:
        self._advance(ClientEvent.REQUEST)
        self._sought = sought
        return self._call(message_type, body)

    def poll(self) -> ScepCall:
        """Return a CertPoll with a fresh senderNonce; its body is IssuerAndSubject (RFC 8894 3.3.3)."""
        if not isinstance(self._sought, _EnrollmentSought):
            raise ValueError("only an enrollment can be polled for")  # noqa: TRY004 - a wrong moment, not a wrong type
        self._advance(ClientEvent.POLL)
        return self._call(MessageType.CERT_POLL, der.sequence(self._bundle.issuer.subject, self._sought.subject))

    def _call(self, message_type: MessageType, body: bytes) -> ScepCall:
        self._sender_nonce = self._random(NONCE_BYTES)
        message = build_message(
            signer=self._signer,
            digest=self._rules.digest,
            message_type=message_type,
            transaction_id=self._transaction_id,
            sender_nonce=self._sender_nonce,
            content=self._seal(body),
        )
        return ScepCall(operation=Operation.PKI_OPERATION, message=message)

    def _seal(self, body: bytes) -> bytes:
        cipher = self._rules.cipher
        if self._requester.can_decrypt:
            return seal_envelope(body, self._bundle.encryption, cipher, self._random)
        # Polls too: from the password that opens the request the server knows the one for its answer.
        return seal_password_envelope(body, self._requester.password or b"", cipher, self._random)

    # --- replies

    def receive(self, reply: bytes) -> Answer:
        """Verify a CertRep (BER or DER), open it and find what was asked for; raise ReplyError.

        A GetCert or GetCRL is never answered with StillPending, and only a GetCRL with RetrievedCRL.
        """
        if self._state is not ClientState.SENT:
            raise ValueError(f"no reply is due: the transaction is {self._state.name}")
        try:
            message = self._verify(parse_message(reply, self._rules.limits))
            answer = self._read(message)
        except (MalformedMessage, PKIError) as error:
            raise ReplyError(f"the answer is not a CertRep that can be trusted: {error}") from error
        self._seen_nonces.add(message.sender_nonce)
        self._advance(_event_of(answer))
        return answer

    def _verify(self, message: PKIMessage) -> PKIMessage:
        # The CA could certify any RA, so its own signature is worth as much as the RA's.
        if message.signer.spki not in (self._bundle.signing.spki, self._bundle.issuer.spki):
            raise ReplyError(
                "the answer is signed by a certificate that GetCACert did not name: somebody is in between, or the "
                "server has a new RA certificate; fetch GetCACert again"
            )
        message.verify(self._rules.replies)
        if message.message_type is not MessageType.CERT_REP:
            raise ReplyError("the answer is a signed message of another type than CertRep")
        if message.transaction_id != self._transaction_id:
            raise ReplyError("the answer belongs to another transaction: its transactionID is not ours")
        if message.octets(oids.RECIPIENT_NONCE) != self._sender_nonce:
            raise ReplyError("the answer belongs to another request: its recipientNonce is not the nonce we sent")
        if message.sender_nonce in self._seen_nonces:
            raise ReplyError("the answer was seen before: its senderNonce is not fresh")
        return message

    def _read(self, message: PKIMessage) -> Answer:
        status = message.pki_status
        match status:
            case PKIStatus.SUCCESS:
                return self._read_success(parse_signed_data(normalise(self._open(message.content), self._rules.limits)))
            case PKIStatus.PENDING:
                if not isinstance(self._sought, _EnrollmentSought):
                    raise ReplyError("PENDING can only answer an enrollment")
                return StillPending()
            case PKIStatus.FAILURE:
                return Failed(fail_info=message.fail_info, text=message.text(oids.FAIL_INFO_TEXT) or "")
            case None:
                raise ReplyError("the pkiStatus of the answer is not one that RFC 8894 defines")
            case _:
                assert_never(status)

    def _open(self, content: bytes) -> bytes:
        envelope = parse_enveloped_data(normalise(content, self._rules.limits))
        self._rules.replies.check_cipher(parse_cipher(envelope.cipher)[0])
        try:
            return self._decrypt(envelope)
        except DecryptionFailed:
            raise ReplyError("the envelope of the answer does not open with our key or challenge") from None

    def _decrypt(self, envelope: EnvelopedData) -> bytes:
        requester = self._requester
        if not requester.can_decrypt:
            if not envelope.password_recipients:
                raise ReplyError("the answer is not encrypted under the challenge, as an EC key needs it")
            password = requester.password or b""
            return open_password_envelope(envelope, envelope.password_recipients[0], [password])[0]
        recipient = envelope.recipient_for(requester.certificate)
        if recipient is None:
            raise ReplyError("the answer is encrypted to somebody else's certificate")
        return open_envelope(envelope, recipient, requester.key, self._random)

    def _read_success(self, content: SignedData) -> IssuedCertificate | RetrievedCRL:
        match self._sought:
            case _EnrollmentSought(spki=spki):
                wanted = [each for each in _certificates(content) if each.spki == spki]
                return _issued(wanted, content, "for the key of the request")
            case _CertificateSought(issuer=issuer, certificate_serial=serial):
                certificates = _certificates(content)
                wanted = [each for each in certificates if (each.issuer, each.certificate_serial) == (issuer, serial)]
                return _issued(wanted, content, "with the issuer and serial of the request")
            case _CRLSought():
                if not content.crls:
                    raise ReplyError("the answer says SUCCESS and holds no CRL")
                return RetrievedCRL(crl=content.crls[0])
            case None:  # pragma: no cover - `receive` has seen that a request was sent
                raise ValueError("nothing was asked for")
            case _:
                assert_never(self._sought)


def _event_of(answer: Answer) -> ClientEvent:
    match answer:
        case IssuedCertificate() | RetrievedCRL():
            return ClientEvent.SUCCESS
        case StillPending():
            return ClientEvent.PENDING
        case Failed():
            return ClientEvent.FAILURE
        case _:
            assert_never(answer)


def _certificates(content: SignedData) -> tuple[Certificate, ...]:
    return tuple(map(parse_certificate, content.certificates))


def _issued(wanted: list[Certificate], content: SignedData, which: str) -> IssuedCertificate:
    if not wanted:
        raise ReplyError(f"the answer says SUCCESS and holds no certificate {which}")
    others = tuple(each for each in _certificates(content) if each != wanted[0])
    return IssuedCertificate(certificate=wanted[0], others=others)
