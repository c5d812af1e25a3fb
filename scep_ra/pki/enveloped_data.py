"""CMS EnvelopedData (RFC 5652 6): parse, open, seal; content encryption is CBC, key transport RSA.

Opening never tells why it failed. PKCS#1 v1.5 unwrapping and CBC padding are both oracles for whoever can tell two
failures apart (RFC 3218), so a wrong content-encryption key is replaced by a random one and work goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms as block_ciphers
from cryptography.hazmat.primitives.ciphers import modes

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import (
    Cipher,
    KeyTransport,
    algorithm_identifier,
    cipher_identifier,
    parse_cipher,
    parse_key_transport,
)
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData
from scep_ra.pki.keys import Decrypter, encryption_padding, load_public_key
from scep_ra.pki.signed_data import (
    CertificateID,
    content_info,
    issuer_and_serial,
    open_content_info,
    parse_certificate_id,
)

Random = Callable[[int], bytes]

# scepclient encrypts to every certificate of the GetCACert answer: two or three recipients are normal.
MAX_RECIPIENTS: Final = 10
_ORIGINATOR_INFO: Final = der.context(0)
_ENCRYPTED_CONTENT: Final = der.context(0, constructed=False)
_ENCRYPTED_CONTENT_IN_SEGMENTS: Final = der.context(0)
_PASSWORD_RECIPIENT: Final = der.context(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTransRecipient:
    """KeyTransRecipientInfo: a content-encryption key under somebody's RSA key."""

    recipient_id: CertificateID
    transport: bytes  # DER AlgorithmIdentifier
    encrypted_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRecipient:
    """PasswordRecipientInfo, its contents octets; `password` knows the inside."""

    contents: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopedData:
    """A parsed envelope, still closed."""

    recipients: tuple[KeyTransRecipient | PasswordRecipient, ...]
    cipher: bytes  # DER AlgorithmIdentifier
    encrypted_content: bytes

    def recipient_for(self, certificate: Certificate) -> KeyTransRecipient | None:
        """Return the recipient that names this certificate.

        A client that re-encodes the issuer's Name in its own way is understood by the serial, which is random.
        """
        recipients = [item for item in self.recipients if isinstance(item, KeyTransRecipient)]
        exact = (item for item in recipients if item.recipient_id.names(certificate))
        serial = certificate.certificate_serial
        by_serial = (item for item in recipients if item.recipient_id.certificate_serial == serial)
        return next(exact, None) or next(by_serial, None)

    @property
    def password_recipients(self) -> tuple[PasswordRecipient, ...]:
        """Return the recipients that open with a password."""
        return tuple(item for item in self.recipients if isinstance(item, PasswordRecipient))


def parse_enveloped_data(octets: bytes) -> EnvelopedData:
    """Parse a ContentInfo that holds EnvelopedData, in DER shape; raise MalformedData."""
    fields = open_content_info(octets, oids.ENVELOPED_DATA).enter()
    fields.integer()  # version: follows from the recipients
    fields.enter_optional(_ORIGINATOR_INFO)
    recipients = _parse_recipients(fields.enter(der.SET))
    content = fields.enter()  # unprotected attributes may follow and mean nothing here
    content_type = content.oid()
    if content_type != oids.DATA:
        raise MalformedData(f"encrypted content type {content_type} is not id-data")
    cipher = content.element(der.SEQUENCE)
    return EnvelopedData(recipients=recipients, cipher=cipher, encrypted_content=_parse_encrypted_content(content))


def _parse_recipients(reader: der.Reader) -> tuple[KeyTransRecipient | PasswordRecipient, ...]:
    recipients: list[KeyTransRecipient | PasswordRecipient] = []
    seen = 0
    while not reader.at_end():
        seen += 1
        if seen > MAX_RECIPIENTS:
            raise MalformedData(f"more than {MAX_RECIPIENTS} recipients")
        match reader.peek():
            case der.SEQUENCE:
                recipients.append(_parse_key_trans(reader.enter()))
            case tag if tag == _PASSWORD_RECIPIENT:
                recipients.append(PasswordRecipient(contents=reader.contents(tag)))
            case _:  # key agreement and others: somebody else's business
                reader.element()
    return tuple(recipients)


def _parse_key_trans(fields: der.Reader) -> KeyTransRecipient:
    fields.integer()
    recipient_id = parse_certificate_id(fields)
    transport = fields.element(der.SEQUENCE)
    encrypted_key = fields.contents(der.OCTET_STRING)
    return KeyTransRecipient(recipient_id=recipient_id, transport=transport, encrypted_key=encrypted_key)


def _parse_encrypted_content(reader: der.Reader) -> bytes:
    """Read [0] IMPLICIT OCTET STRING; Go's pkcs7 sends it constructed with definite length (scepclient 2.1)."""
    if reader.peek() == _ENCRYPTED_CONTENT_IN_SEGMENTS:
        segments = reader.enter(_ENCRYPTED_CONTENT_IN_SEGMENTS)
        octets = bytearray()
        while not segments.at_end():
            octets += segments.contents(der.OCTET_STRING)
        return bytes(octets)
    return reader.contents(_ENCRYPTED_CONTENT)


# --- opening -------------------------------------------------------------------------------------------------------


def open_envelope(envelope: EnvelopedData, recipient: KeyTransRecipient, key: Decrypter, random: Random) -> bytes:
    """Decrypt with a private key; raise DecryptionFailed, whatever is wrong.

    The algorithms must have passed policy before (parse_cipher, parse_key_transport raise AlgorithmRefused).
    """
    cipher, iv = parse_cipher(envelope.cipher)
    try:
        content_key = key.decrypt(recipient.encrypted_key, parse_key_transport(recipient.transport))
    except DecryptionFailed:
        content_key = b""
    substitute = random(cipher.key_bytes)
    if len(content_key) != cipher.key_bytes:
        content_key = substitute
    return decrypt_content(cipher, content_key, iv, envelope.encrypted_content)


def decrypt_content(cipher: Cipher, key: bytes, iv: bytes, encrypted: bytes) -> bytes:
    """Decrypt CBC and take the padding off (RFC 5652 6.3); raise DecryptionFailed."""
    if not encrypted or len(encrypted) % cipher.block_bytes:
        raise DecryptionFailed
    decryptor = _block_cipher(cipher, key, iv).decryptor()
    padded = decryptor.update(encrypted) + decryptor.finalize()
    length = padded[-1]
    if not 1 <= length <= cipher.block_bytes or padded[-length:] != bytes([length]) * length:
        raise DecryptionFailed
    return padded[:-length]


def encrypt_content(cipher: Cipher, key: bytes, iv: bytes, content: bytes) -> bytes:
    """Pad and encrypt CBC."""
    length = cipher.block_bytes - len(content) % cipher.block_bytes
    encryptor = _block_cipher(cipher, key, iv).encryptor()
    return encryptor.update(content + bytes([length]) * length) + encryptor.finalize()


def _block_cipher(cipher: Cipher, key: bytes, iv: bytes) -> BlockCipher[modes.CBC]:
    match cipher:
        case Cipher.DES:  # EDE with one key three times is single DES
            return BlockCipher(TripleDES(key * 3), modes.CBC(iv))
        case Cipher.TRIPLE_DES:
            return BlockCipher(TripleDES(key), modes.CBC(iv))
        case Cipher.AES128 | Cipher.AES192 | Cipher.AES256:
            return BlockCipher(block_ciphers.AES(key), modes.CBC(iv))
        case _:
            assert_never(cipher)


# --- sealing -------------------------------------------------------------------------------------------------------


def seal_envelope(
    content: bytes,
    recipient: Certificate,
    cipher: Cipher,
    random: Random,
    transport: KeyTransport | None = None,
) -> bytes:
    """Encrypt content to an RSA certificate, PKCS#1 v1.5 unless told otherwise; returns a DER ContentInfo.

    Raise AlgorithmRefused when the certificate's key cannot encrypt.
    """
    transport = transport or KeyTransport()
    key = load_public_key(recipient.spki)
    if not isinstance(key, rsa.RSAPublicKey):
        raise AlgorithmRefused("only an RSA key can receive an envelope")
    content_key = random(cipher.key_bytes)
    key_trans = der.sequence(
        der.integer(0),
        issuer_and_serial(recipient),
        encode_key_transport(transport),
        der.octet_string(key.encrypt(content_key, encryption_padding(transport))),
    )
    return encode_enveloped_data(
        version=0, recipient_info=key_trans, content=content, cipher=cipher, content_key=content_key, random=random
    )


def encode_enveloped_data(
    *, version: int, recipient_info: bytes, content: bytes, cipher: Cipher, content_key: bytes, random: Random
) -> bytes:
    """Encrypt content under a key that `recipient_info` (DER) carries; returns a DER ContentInfo."""
    iv = random(cipher.block_bytes)
    encrypted = encrypt_content(cipher, content_key, iv, content)
    return content_info(
        oids.ENVELOPED_DATA,
        der.sequence(
            der.integer(version),
            der.element(der.SET, recipient_info),
            der.sequence(der.oid(oids.DATA), cipher_identifier(cipher, iv), der.element(_ENCRYPTED_CONTENT, encrypted)),
        ),
    )


def encode_key_transport(transport: KeyTransport) -> bytes:
    """Encode a key encryption AlgorithmIdentifier (RFC 3370 4.2.1, RFC 4055 4.1)."""
    if transport.oaep_digest is None or transport.mgf_digest is None:
        return algorithm_identifier(oids.RSA_ENCRYPTION)
    mask = der.sequence(der.oid(oids.MGF1), transport.mgf_digest.identifier)
    parameters = [der.explicit(0, transport.oaep_digest.identifier), der.explicit(1, mask)]
    if transport.label:
        parameters.append(der.explicit(2, der.sequence(der.oid(oids.P_SPECIFIED), der.octet_string(transport.label))))
    return der.sequence(der.oid(oids.RSAES_OAEP), der.sequence(*parameters))
