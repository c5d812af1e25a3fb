"""PKIMessage (RFC 8894 3): the signed attributes, parsing and verifying for both sides, building for both sides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeVar

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest
from scep_ra.pki.ber import DEFAULT_LIMITS, Limits, normalise
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.csr import encode_attribute
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.keys import check_message_key, load_public_key
from scep_ra.pki.signed_data import (
    MessageSigner,
    SignedData,
    SignerInfo,
    parse_signed_data,
    parse_signer_digest,
    verify_signer_info,
)
from scep_ra.scep.errors import MalformedMessage
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.terms import FailInfo, MessageType, PKIStatus

_Number = TypeVar("_Number", bound=IntEnum)

NONCE_BYTES: Final = 16
# RFC 8894 3.2.1.5 asks for 16; old IOS sends 8. Longer ones are only echoed, so the bound is ours.
_MAX_NONCE_BYTES: Final = 64
# Opaque to us (RFC 8894 3.2.1.1); long enough for every hash, URL or EUI that clients put here.
_MAX_TRANSACTION_ID: Final = 255
# Attributes are PrintableString by the RFC; Go encoders switch to UTF8String outside its alphabet.
_TEXT_TAGS: Final = {der.PRINTABLE_STRING: "ascii", der.UTF8_STRING: "utf-8", der.IA5_STRING: "ascii"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PKIMessage:
    """A parsed message; nothing in it is verified until `verify` has been called."""

    transaction_id: str
    sender_nonce: bytes
    signer: Certificate  # the enclosed certificate that SignerInfo names
    signer_info: SignerInfo
    signed_data: SignedData

    @property
    def content(self) -> bytes:
        """Return the eContent octets, b"" when absent or empty."""
        return self.signed_data.content or b""

    def text(self, oid: str) -> str | None:
        """Return a text attribute, None when absent; raise MalformedData when it is not one value of a string type."""
        return _text(self.signer_info.single_value(oid)) if self.signer_info.values(oid) else None

    def octets(self, oid: str) -> bytes | None:
        """Return an OCTET STRING attribute, None when absent; raise MalformedData."""
        if not self.signer_info.values(oid):
            return None
        return der.Reader(self.signer_info.single_value(oid)).contents(der.OCTET_STRING)

    @property
    def message_type(self) -> MessageType | None:
        """Return the message type, None for a number that RFC 8894 does not define; raise MalformedData if absent."""
        return _by_number(MessageType, _text(self.signer_info.single_value(oids.MESSAGE_TYPE)))

    @property
    def pki_status(self) -> PKIStatus | None:
        """Return the pkiStatus of a CertRep, None when undefined; raise MalformedData if absent."""
        return _by_number(PKIStatus, _text(self.signer_info.single_value(oids.PKI_STATUS)))

    @property
    def fail_info(self) -> FailInfo | None:
        """Return the failInfo of a FAILURE, None when undefined or absent."""
        value = self.text(oids.FAIL_INFO)
        return None if value is None else _by_number(FailInfo, value)

    def verify(self, policy: AlgorithmPolicy) -> Digest:
        """Verify the signature with the enclosed certificate; return the digest.

        Says nothing about who the signer is: a stand-in certificate verifies as well (RFC 8894 2.4).
        Raise AlgorithmRefused or SignatureInvalid.
        """
        digest = parse_signer_digest(self.signer_info)
        policy.check_digest(digest)
        check_message_key(load_public_key(self.signer.spki))
        verify_signer_info(self.signer_info, self.signer, self.signed_data.content, digest)
        return digest


def _by_number(kind: type[_Number], text: str) -> _Number | None:
    # The canonical decimal only: "019" and " 19" are not 19 for every reader on the way.
    return next((member for member in kind if str(member.value) == text), None)


def _text(element: bytes) -> str:
    encoding = _TEXT_TAGS.get(element[0])
    if encoding is None:
        raise MalformedData("attribute is not a text string")
    try:
        return der.Reader(element).contents(element[0]).decode(encoding)
    except UnicodeDecodeError:
        raise MalformedData("attribute text does not fit its type") from None


def parse_message(octets: bytes, limits: Limits = DEFAULT_LIMITS) -> PKIMessage:
    """Parse a PKIMessage in BER or DER; raise MalformedMessage when no CertRep could ever answer it.

    That is: not CMS SignedData, not exactly one signer, signer's certificate missing, no signed attributes, no
    transactionID or no senderNonce.
    """
    try:
        signed_data = parse_signed_data(normalise(octets, limits))
        if len(signed_data.signer_infos) != 1:
            raise MalformedMessage(f"{len(signed_data.signer_infos)} signers where SCEP has one")
        signer_info = signed_data.signer_infos[0]
        signer = signed_data.find_certificate(signer_info.signer_id)
        if signer is None:
            raise MalformedMessage("the signer's certificate is not enclosed")
        return PKIMessage(
            transaction_id=_transaction_id(signer_info),
            sender_nonce=_sender_nonce(signer_info),
            signer=signer,
            signer_info=signer_info,
            signed_data=signed_data,
        )
    except MalformedData as error:
        raise MalformedMessage(str(error)) from error


def _transaction_id(signer_info: SignerInfo) -> str:
    text = _text(signer_info.single_value(oids.TRANSACTION_ID))
    if not 1 <= len(text) <= _MAX_TRANSACTION_ID or not text.isprintable():
        raise MalformedData(f"transactionID is not 1 to {_MAX_TRANSACTION_ID} printable characters")
    return text


def _sender_nonce(signer_info: SignerInfo) -> bytes:
    nonce = der.Reader(signer_info.single_value(oids.SENDER_NONCE)).contents(der.OCTET_STRING)
    if not 1 <= len(nonce) <= _MAX_NONCE_BYTES:
        raise MalformedData(f"senderNonce is not 1 to {_MAX_NONCE_BYTES} octets")
    return nonce


def build_message(
    *,
    signer: MessageSigner,
    digest: Digest,
    message_type: MessageType,
    transaction_id: str,
    sender_nonce: bytes,
    content: bytes | None,
    extra: tuple[bytes, ...] = (),
) -> bytes:
    """Sign a PKIMessage; returns DER. `extra` are DER attributes (status, recipientNonce, ...)."""
    attributes = (
        _MESSAGE_TYPES[message_type],
        # Characters outside PrintableString were UTF8String in the request as well.
        encode_attribute(oids.TRANSACTION_ID, der.directory_string(transaction_id)),
        encode_attribute(oids.SENDER_NONCE, der.octet_string(sender_nonce)),
        *extra,
    )
    return signer.sign(content, attributes, digest)


def recipient_nonce(nonce: bytes) -> bytes:
    """Encode the recipientNonce attribute: the request's senderNonce, whatever its length."""
    return encode_attribute(oids.RECIPIENT_NONCE, der.octet_string(nonce))


def pki_status(status: PKIStatus) -> bytes:
    """Encode the pkiStatus attribute."""
    return _number(oids.PKI_STATUS, status)


def fail_info(info: FailInfo, text: str) -> tuple[bytes, ...]:
    """Encode failInfo and, unless empty, failInfoText (RFC 8894 3.2.1.4)."""
    encoded = _number(oids.FAIL_INFO, info)
    if not text:
        return (encoded,)
    return encoded, encode_attribute(oids.FAIL_INFO_TEXT, der.element(der.UTF8_STRING, text.encode()))


def _number(oid: str, number: int) -> bytes:
    return encode_attribute(oid, der.element(der.PRINTABLE_STRING, str(int(number)).encode()))


_MESSAGE_TYPES: Final = {kind: _number(oids.MESSAGE_TYPE, kind) for kind in MessageType}
