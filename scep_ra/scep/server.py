"""The server side of RFC 8894 without I/O: a call becomes an event, an outcome becomes a reply.

`receive` does all that needs no memory: structure, signature, algorithm policy, envelope, proof of possession.
Whether the request is authorized, known, or already answered is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest, parse_cipher, parse_key_transport
from scep_ra.pki.ber import DEFAULT_LIMITS, Limits, normalise
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.csr import CertificationRequest
from scep_ra.pki.enveloped_data import EnvelopedData, Random, open_envelope, parse_enveloped_data, seal_envelope
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData, SignatureInvalid
from scep_ra.pki.keys import ALL_KEY_KINDS, Decrypter, KeyKind, load_public_key
from scep_ra.pki.password import check_password_recipient, open_password_envelope, seal_password_envelope
from scep_ra.pki.signed_data import MessageSigner, build_certs_only
from scep_ra.scep import message as pki_message
from scep_ra.scep.bodies import CERTIFICATION_REQUESTS, read_csr, read_issuer_and_serial, spend_equal_time, unreadable
from scep_ra.scep.errors import (
    AlgorithmNotAllowed,
    IntegrityFailure,
    InvalidRequest,
    RefusedMessage,
    TimeOutOfWindow,
    UnsupportedOperation,
)
from scep_ra.scep.http_binding import ScepCall, ScepReply
from scep_ra.scep.message import NONCE_BYTES, PKIMessage, build_message, parse_message
from scep_ra.scep.policy import INSECURE, AlgorithmPolicy, capabilities
from scep_ra.scep.standing import NOBODY, SelfMade, SignerTrust, Standing, find_standing
from scep_ra.scep.terms import (
    CA_CAPS_TYPE,
    CA_CERT_TYPE,
    CA_RA_CERT_TYPE,
    PKI_MESSAGE_TYPE,
    EmptyContent,
    FailInfo,
    MessageType,
    Operation,
    PKIStatus,
)

# --- events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyContext:
    """What every CertRep must know of its request."""

    transaction_id: str
    sender_nonce: bytes
    signer: Certificate  # whoever signed the request reads the reply (RFC 8894 2.3)
    standing: Standing
    digest: Digest
    cipher: Cipher
    password: bytes | None = None  # for a signer whose key cannot decrypt (RFC 8894 3.1)
    insecure: tuple[str, ...] = ()  # broken algorithms that the request used under the legacy setting


@dataclass(frozen=True, slots=True, kw_only=True)
class CACapsRequested:
    """GetCACaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CACertRequested:
    """GetCACert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRequested:
    """PKCSReq or RenewalReq: signature, envelope and proof of possession hold."""

    reply_to: ReplyContext
    message_type: MessageType
    csr: CertificationRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequested:
    """CertPoll; its body names what everybody ignores in favour of the transactionID (RFC 8894 3.3.3)."""

    reply_to: ReplyContext


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequested:
    """GetCert: by issuer and serial."""

    reply_to: ReplyContext
    issuer: bytes  # DER Name
    certificate_serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CRLRequested:
    """GetCRL: the CRL that would list this issuer and serial."""

    reply_to: ReplyContext
    issuer: bytes  # DER Name
    certificate_serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRequired:
    """The envelope opens with a challenge: call `open_with_passwords` with those that may be meant."""

    message: PKIMessage
    message_type: MessageType
    reply_to: ReplyContext
    envelope: EnvelopedData


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A signed FAILURE is due."""

    reply_to: ReplyContext
    error: RefusedMessage


PKIEvent = EnrollmentRequested | PollRequested | CertificateRequested | CRLRequested | PasswordRequired | Refused
ScepEvent = CACapsRequested | CACertRequested | PKIEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientKey:
    """A certificate that clients may encrypt to, and its key."""

    certificate: Certificate
    key: Decrypter


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRules:
    """What a profile decides about the wire."""

    algorithms: AlgorithmPolicy = field(default_factory=AlgorithmPolicy)
    limits: Limits = DEFAULT_LIMITS
    key_kinds: frozenset[KeyKind] = ALL_KEY_KINDS  # that are certified
    renewal: bool = True
    max_clock_skew: timedelta | None = None  # None: signingTime is not looked at
    empty_content: EmptyContent = EmptyContent.ZERO_LENGTH


class ScepServer:
    """One profile's endpoint."""

    def __init__(
        self,
        *,
        signer: MessageSigner,
        recipients: Sequence[RecipientKey],
        ca_certificates: Sequence[Certificate],
        rules: ServerRules,
        trust: SignerTrust = NOBODY,
        random: Random,
    ) -> None:
        """`ca_certificates` go from the issuing CA to the root; a signer among them means: no RA, the CA speaks."""
        self._signer = signer
        self._recipients = tuple(recipients)
        self._ca_certificates = tuple(ca_certificates)
        self._rules = rules
        self._trust = trust
        self._random = random
        self._empty = b"" if rules.empty_content is EmptyContent.ZERO_LENGTH else None
        self._caps = ScepReply(content_type=CA_CAPS_TYPE, body=self._encode_capabilities())
        self._ca_cert = self._encode_ca_certificates()

    # --- answers that are always the same

    def _encode_capabilities(self) -> bytes:
        offered = capabilities(self._rules.algorithms, renewal=self._rules.renewal, next_ca=False)
        return "".join(f"{capability}\n" for capability in offered).encode("ascii")

    def _encode_ca_certificates(self) -> ScepReply:
        """RFC 8894 4.2.1: one DER certificate without an RA, otherwise RA certificates first and their chain."""
        if self._signer.certificate in self._ca_certificates:
            return ScepReply(content_type=CA_CERT_TYPE, body=self._signer.certificate.der)
        bundle = dict.fromkeys(
            [self._signer.certificate.der]
            + [recipient.certificate.der for recipient in self._recipients]
            + [certificate.der for certificate in self._ca_certificates]
        )
        return ScepReply(content_type=CA_RA_CERT_TYPE, body=build_certs_only(bundle))

    def ca_caps(self) -> ScepReply:
        """Answer GetCACaps."""
        return self._caps

    def ca_cert(self) -> ScepReply:
        """Answer GetCACert."""
        return self._ca_cert

    # --- from call to event

    def receive(self, call: ScepCall, now: datetime) -> ScepEvent:
        """Turn a call into an event; raise a TransportError when no CertRep can answer it."""
        match call.operation:
            case Operation.GET_CA_CAPS:
                return CACapsRequested()
            case Operation.GET_CA_CERT:
                return CACertRequested()
            case Operation.GET_NEXT_CA_CERT:
                raise UnsupportedOperation("no CA rollover is prepared")
            case Operation.PKI_OPERATION:
                return self._receive_message(parse_message(call.message, self._rules.limits), now)
            case _:
                assert_never(call.operation)

    def _receive_message(self, message: PKIMessage, now: datetime) -> PKIEvent:
        context = ReplyContext(
            transaction_id=message.transaction_id,
            sender_nonce=message.sender_nonce,
            signer=message.signer,
            standing=SelfMade(),
            digest=self._rules.algorithms.reply_digest(None),
            cipher=self._rules.algorithms.reply_cipher(None),
        )
        try:
            digest = _verify(message, self._rules.algorithms)
            context = replace(
                context,
                digest=self._rules.algorithms.reply_digest(digest),
                insecure=(str(digest),) if digest in INSECURE else (),
            )
            return self._receive_verified(message, context, now)
        except RefusedMessage as error:
            return Refused(reply_to=context, error=error)

    def _receive_verified(self, message: PKIMessage, context: ReplyContext, now: datetime) -> PKIEvent:
        message_type = _message_type(message)
        context = replace(context, standing=find_standing(message, self._ca_certificates, self._trust, now))
        self._check_time(message, now)
        self._check_signer(message, message_type, context)
        envelope = self._parse_envelope(message)
        cipher = self._allowed_cipher(envelope)
        insecure = context.insecure + ((str(cipher),) if cipher in INSECURE else ())
        context = replace(context, cipher=self._rules.algorithms.reply_cipher(cipher), insecure=insecure)
        is_for_us = any(envelope.recipient_for(recipient.certificate) for recipient in self._recipients)
        if envelope.password_recipients and not is_for_us:
            return self._require_password(message, message_type, context, envelope)
        if message_type not in CERTIFICATION_REQUESTS and not _is_rsa(context.signer):
            # Only a PKCS#10 brings the challenge under which an EC signer could be answered (RFC 8894 3.1).
            raise AlgorithmNotAllowed("an EC signer has to encrypt this message under its challenge")
        if message_type is MessageType.CERT_POLL:
            # RFC 8894 3.3.3: transactionID and signer decide, so nothing is spent on opening the envelope.
            return PollRequested(reply_to=context)
        return self._receive_body(message_type, context, envelope)

    def _check_time(self, message: PKIMessage, now: datetime) -> None:
        if self._rules.max_clock_skew is None or not message.signer_info.values(oids.SIGNING_TIME):
            return
        try:
            signed_at = der.Reader(message.signer_info.single_value(oids.SIGNING_TIME)).time()
        except MalformedData as error:
            raise InvalidRequest(str(error)) from None
        if abs(signed_at - now) > self._rules.max_clock_skew:
            raise TimeOutOfWindow(f"signingTime is {signed_at.isoformat()}")

    def _check_signer(self, message: PKIMessage, message_type: MessageType, context: ReplyContext) -> None:
        """RFC 8894 2.3: a RenewalReq is signed by an existing certificate, of our CA or another that we trust.

        3.1: replies need a key that decrypts.
        """
        if message_type is MessageType.RENEWAL_REQ and isinstance(context.standing, SelfMade):
            raise InvalidRequest("RenewalReq is not signed by a certificate of this CA, or of one that is trusted")
        if not _is_rsa(message.signer) and not self._rules.algorithms.password_envelope:
            raise AlgorithmNotAllowed("an EC signer cannot receive RSA key transport, password_envelope is off")

    def _parse_envelope(self, message: PKIMessage) -> EnvelopedData:
        if message.signed_data.content_type != oids.DATA or not message.content:
            raise InvalidRequest("no pkcsPKIEnvelope")
        try:
            return parse_enveloped_data(normalise(message.content, self._rules.limits))
        except MalformedData as error:
            raise InvalidRequest(f"pkcsPKIEnvelope: {error}") from None

    def _allowed_cipher(self, envelope: EnvelopedData) -> Cipher:
        try:
            cipher, _ = parse_cipher(envelope.cipher)
            self._rules.algorithms.check_cipher(cipher)
        except (AlgorithmRefused, MalformedData) as error:
            raise AlgorithmNotAllowed(str(error)) from None
        return cipher

    def _require_password(
        self, message: PKIMessage, message_type: MessageType, context: ReplyContext, envelope: EnvelopedData
    ) -> PasswordRequired:
        if not self._rules.algorithms.password_envelope:
            raise AlgorithmNotAllowed("password_envelope is off")
        try:
            check_password_recipient(envelope.password_recipients[0])
        except (AlgorithmRefused, MalformedData) as error:
            raise AlgorithmNotAllowed(str(error)) from None
        return PasswordRequired(message=message, message_type=message_type, reply_to=context, envelope=envelope)

    def open_with_passwords(self, event: PasswordRequired, passwords: Iterable[bytes]) -> PKIEvent:
        """Go on with an envelope that opens with one of these passwords; each try costs a key derivation."""
        try:
            try:
                recipient = event.envelope.password_recipients[0]
                body, password = open_password_envelope(event.envelope, recipient, passwords)
            except (DecryptionFailed, AlgorithmRefused, MalformedData):
                raise unreadable(event.message_type, "no password opens the envelope") from None
            context = replace(event.reply_to, password=password)
            if event.message_type is MessageType.CERT_POLL:
                return PollRequested(reply_to=context)
            return self._read_body(event.message_type, context, body)
        except RefusedMessage as error:
            return Refused(reply_to=event.reply_to, error=error)

    def _receive_body(self, message_type: MessageType, context: ReplyContext, envelope: EnvelopedData) -> PKIEvent:
        for candidate in self._recipients:
            recipient = envelope.recipient_for(candidate.certificate)
            if recipient is None:
                continue
            try:
                parse_key_transport(recipient.transport)
            except (AlgorithmRefused, MalformedData) as error:
                raise AlgorithmNotAllowed(str(error)) from None
            try:
                body = open_envelope(envelope, recipient, candidate.key, self._random)
            except DecryptionFailed:
                spend_equal_time(message_type)
                raise unreadable(message_type, "the envelope does not open") from None
            return self._read_body(message_type, context, body)
        raise unreadable(message_type, "the envelope is for somebody else")

    def _read_body(self, message_type: MessageType, context: ReplyContext, body: bytes) -> PKIEvent:
        match message_type:
            case MessageType.PKCS_REQ | MessageType.RENEWAL_REQ:
                csr = self._read_csr(context, body)
                context = replace(context, password=context.password or _reply_password(context, csr))
                return EnrollmentRequested(reply_to=context, message_type=message_type, csr=csr)
            case MessageType.GET_CERT:
                issuer, serial = read_issuer_and_serial(body, self._rules.limits)
                return CertificateRequested(reply_to=context, issuer=issuer, certificate_serial=serial)
            case MessageType.GET_CRL:
                issuer, serial = read_issuer_and_serial(body, self._rules.limits)
                return CRLRequested(reply_to=context, issuer=issuer, certificate_serial=serial)
            case MessageType.CERT_POLL | MessageType.CERT_REP:  # pragma: no cover - both are dealt with before
                raise InvalidRequest(f"{message_type.name} has no body to read")
            case _:
                assert_never(message_type)

    def _read_csr(self, context: ReplyContext, body: bytes) -> CertificationRequest:
        is_self_made = isinstance(context.standing, SelfMade)
        return read_csr(
            body,
            required_spki=context.signer.spki if is_self_made else None,
            limits=self._rules.limits,
            digests=self._rules.algorithms.digests,
            key_kinds=self._rules.key_kinds,
        )

    # --- from outcome to reply

    def success(self, to: ReplyContext, certificates: Iterable[Certificate]) -> ScepReply:
        """Answer with certificates, the requested one first."""
        return self._success(to, build_certs_only([certificate.der for certificate in certificates]))

    def success_crl(self, to: ReplyContext, crl: bytes) -> ScepReply:
        """Answer with one DER CRL and no certificates (RFC 8894 3.3.2.1)."""
        return self._success(to, build_certs_only(crls=[crl]))

    def _success(self, to: ReplyContext, content: bytes) -> ScepReply:
        if to.password is not None:
            envelope = seal_password_envelope(content, to.password, to.cipher, self._random)
        else:
            envelope = seal_envelope(content, to.signer, to.cipher, self._random)
        return self._reply(to, envelope, (pki_message.pki_status(PKIStatus.SUCCESS),))

    def pending(self, to: ReplyContext) -> ScepReply:
        """Answer: not decided yet, poll."""
        return self._reply(to, self._empty, (pki_message.pki_status(PKIStatus.PENDING),))

    def failure(self, to: ReplyContext, info: FailInfo, text: str) -> ScepReply:
        """Answer: no. `text` goes to the peer as it is (failInfoText)."""
        extra = (pki_message.pki_status(PKIStatus.FAILURE), *pki_message.fail_info(info, text))
        return self._reply(to, self._empty, extra)

    def _reply(self, to: ReplyContext, content: bytes | None, extra: tuple[bytes, ...]) -> ScepReply:
        body = build_message(
            signer=self._signer,
            digest=to.digest,
            message_type=MessageType.CERT_REP,
            transaction_id=to.transaction_id,
            # Fresh in every reply: jscep refuses a senderNonce that it has seen, certmonger one that is missing.
            sender_nonce=self._random(NONCE_BYTES),
            content=content,
            extra=(*extra, pki_message.recipient_nonce(to.sender_nonce)),
        )
        return ScepReply(content_type=PKI_MESSAGE_TYPE, body=body)


def _verify(message: PKIMessage, policy: AlgorithmPolicy) -> Digest:
    try:
        return message.verify(policy)
    except AlgorithmRefused as error:
        raise AlgorithmNotAllowed(str(error)) from None
    except (SignatureInvalid, MalformedData) as error:
        raise IntegrityFailure(str(error)) from None


def _message_type(message: PKIMessage) -> MessageType:
    """Deny by default: what is not one of the five requests of RFC 8894 goes no further (CVE-2026-30836)."""
    try:
        message_type = message.message_type
    except MalformedData as error:
        raise IntegrityFailure(str(error)) from None
    if message_type is None or message_type is MessageType.CERT_REP:
        raise InvalidRequest("messageType is not a request of RFC 8894")
    return message_type


def _is_rsa(certificate: Certificate) -> bool:
    return isinstance(load_public_key(certificate.spki), RSAPublicKey)


def _reply_password(context: ReplyContext, csr: CertificationRequest) -> bytes | None:
    """Return the challenge of an EC signer, under which it gets its answer (RFC 8894 3.1)."""
    if _is_rsa(context.signer):
        return None
    challenge = csr.challenge_password
    if challenge is None:
        raise AlgorithmNotAllowed("an EC signer without a challenge cannot be answered")
    return challenge.encode()
