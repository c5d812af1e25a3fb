"""Client messages, right and wrong: a test says any field, the builder encodes, encrypts and signs the rest anew.

Three frozen values, changed with `dataclasses.replace`: Request (PKCS#10), Envelope (EnvelopedData), Message
(SignedData). Nothing here uses the product's own way of building messages; only its DER primitives and OIDs.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.serialization import load_der_public_key

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate, parse_certificate
from tests.support.keys import PrivateKey, ec_key, rsa_key, spki

HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "md5": hashes.MD5(),
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
DIGEST_OIDS: Final = {
    "md5": "1.2.840.113549.2.5",
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
RSA_SIGNATURE_OIDS: Final = {
    "md5": "1.2.840.113549.1.1.4",
    "sha1": "1.2.840.113549.1.1.5",
    "sha224": "1.2.840.113549.1.1.14",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
}
ECDSA_SIGNATURE_OIDS: Final = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
CIPHER_OIDS: Final = {
    "des": "1.3.14.3.2.7",
    "3des": "1.2.840.113549.3.7",
    "aes128": "2.16.840.1.101.3.4.1.2",
    "aes192": "2.16.840.1.101.3.4.1.22",
    "aes256": "2.16.840.1.101.3.4.1.42",
}
KEY_BYTES: Final = {"des": 8, "3des": 24, "aes128": 16, "aes192": 24, "aes256": 32}
PKCS1: Final = padding.PKCS1v15()


# --- pieces --------------------------------------------------------------------------------------------------------


def printable(text: str) -> bytes:
    return der.element(der.PRINTABLE_STRING, text.encode("ascii"))


def utf8(text: str) -> bytes:
    return der.element(der.UTF8_STRING, text.encode())


def attribute(oid: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.element(der.SET, b"".join(values)))


def algorithm(oid: str, parameters: bytes = der.NULL) -> bytes:
    return der.sequence(der.oid(oid), parameters)


def name(common_name: str) -> bytes:
    return der.sequence(der.element(der.SET, der.sequence(der.oid(oids.COMMON_NAME), utf8(common_name))))


def challenge(text: str = "secret") -> bytes:
    return attribute(oids.CHALLENGE_PASSWORD, printable(text))


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(der.oid(oid), der.TRUE if critical else b"", der.octet_string(value))


def san_request(dns_name: str, oid: str = oids.EXTENSION_REQUEST) -> bytes:
    """Return the attribute that asks for a subjectAltName with one dNSName."""
    names = der.sequence(der.element(der.context(2, constructed=False), dns_name.encode()))
    return attribute(oid, der.sequence(extension(oids.SUBJECT_ALT_NAME, names)))


def pss_parameters(digest: str, salt: int, mgf_digest: str | None = None) -> bytes:
    return der.sequence(
        der.explicit(0, algorithm(DIGEST_OIDS[digest])),
        der.explicit(1, der.sequence(der.oid(oids.MGF1), algorithm(DIGEST_OIDS[mgf_digest or digest]))),
        der.explicit(2, der.integer(salt)),
    )


def oaep_parameters(digest: str, mgf_digest: str | None = None, label: bytes = b"") -> bytes:
    source = der.explicit(2, der.sequence(der.oid(oids.P_SPECIFIED), der.octet_string(label))) if label else b""
    return der.sequence(
        der.explicit(0, algorithm(DIGEST_OIDS[digest])),
        der.explicit(1, der.sequence(der.oid(oids.MGF1), algorithm(DIGEST_OIDS[mgf_digest or digest]))),
        source,
    )


def sign(key: PrivateKey, data: bytes, digest: str = "sha256", pss_salt: int | None = None) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(HASHES[digest]))
    if pss_salt is not None:
        return key.sign(data, padding.PSS(padding.MGF1(HASHES[digest]), pss_salt), HASHES[digest])
    return key.sign(data, PKCS1, HASHES[digest])


def signature_algorithm(key: PrivateKey, digest: str) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return algorithm(RSA_SIGNATURE_OIDS[digest])
    return algorithm(ECDSA_SIGNATURE_OIDS[digest], b"")


def certificate(
    key: PrivateKey,
    *,
    subject: bytes | None = None,
    issuer: bytes | None = None,
    issuer_key: PrivateKey | None = None,
    certificate_serial: int = 1,
    digest: str = "sha256",
    validity: tuple[datetime, datetime] = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)),
    extensions: Iterable[bytes] = (),
    version: int | None = 2,
) -> Certificate:
    """Return a certificate, self-signed unless told otherwise and, like many a stand-in, long expired (SIG-9)."""
    subject = name("device-1") if subject is None else subject
    signing_key, encoded_extensions = issuer_key or key, tuple(extensions)
    tbs = der.sequence(
        b"" if version is None else der.explicit(0, der.integer(version)),
        der.integer(certificate_serial),
        signature_algorithm(signing_key, digest),
        subject if issuer is None else issuer,
        der.sequence(*map(der.time, validity)),
        subject,
        spki(key),
        der.explicit(3, der.sequence(*encoded_extensions)) if encoded_extensions else b"",
    )
    signature = der.bit_string(sign(signing_key, tbs, digest))
    return parse_certificate(der.sequence(tbs, signature_algorithm(signing_key, digest), signature))


@cache
def stand_in(key: PrivateKey) -> Certificate:
    """Return the self-signed certificate of a device that has none yet; its serial is as long as sscep's."""
    serial = int.from_bytes(b"0123456789ABCDEF0123456789ABCDE\0", "big")
    return certificate(key, certificate_serial=serial)


def issuer_and_serial(signer: Certificate) -> bytes:
    return der.sequence(signer.issuer, der.integer(signer.certificate_serial))


# --- PKCS#10 -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A PKCS#10 request; the fields that are None follow from the key."""

    key: PrivateKey
    subject: bytes = field(default_factory=lambda: name("device-1"))
    version: int = 0
    spki: bytes | None = None
    attributes: tuple[bytes, ...] | None = field(default_factory=lambda: (challenge(),))  # None: no [0] at all
    digest: str = "sha256"
    algorithm: bytes | None = None
    signature: bytes | None = None

    def encode(self) -> bytes:
        info = der.sequence(
            der.integer(self.version),
            self.subject,
            spki(self.key) if self.spki is None else self.spki,
            b"" if self.attributes is None else der.explicit(0, b"".join(self.attributes)),
        )
        return der.sequence(
            info,
            signature_algorithm(self.key, self.digest) if self.algorithm is None else self.algorithm,
            der.bit_string(sign(self.key, info, self.digest) if self.signature is None else self.signature),
        )


# --- EnvelopedData -------------------------------------------------------------------------------------------------


def block_cipher(cipher: str, key: bytes) -> BlockCipherAlgorithm:
    """Return the library's cipher; DES is EDE with one key three times."""
    if cipher in ("des", "3des"):
        return TripleDES((key * 3)[:24])
    return AES(key)


def cbc_encrypt(cipher: str, key: bytes, iv: bytes, padded: bytes) -> bytes:
    encryptor = Cipher(block_cipher(cipher, key), CBC(iv)).encryptor()
    return encryptor.update(padded) + encryptor.finalize()


def cbc_decrypt(cipher: str, key: bytes, iv: bytes, encrypted: bytes) -> bytes:
    decryptor = Cipher(block_cipher(cipher, key), CBC(iv)).decryptor()
    return decryptor.update(encrypted) + decryptor.finalize()


def pad(content: bytes, block: int) -> bytes:
    count = block - len(content) % block
    return content + bytes([count]) * count


def key_trans(
    recipient: Certificate,
    content_key: bytes,
    *,
    transport: padding.AsymmetricPadding = PKCS1,
    identifier: bytes | None = None,
    recipient_id: bytes | None = None,
    encrypted_key: bytes | None = None,
) -> bytes:
    """Return a KeyTransRecipientInfo; `identifier` is the DER AlgorithmIdentifier, rsaEncryption by default."""
    if encrypted_key is None:
        public_key = _rsa_public_key(recipient)
        encrypted_key = public_key.encrypt(content_key, transport)
    return der.sequence(
        der.integer(0 if recipient_id is None else 2),
        issuer_and_serial(recipient) if recipient_id is None else recipient_id,
        algorithm(oids.RSA_ENCRYPTION) if identifier is None else identifier,
        der.octet_string(encrypted_key),
    )


def _rsa_public_key(recipient: Certificate) -> rsa.RSAPublicKey:
    public_key = load_der_public_key(recipient.spki)
    assert isinstance(public_key, rsa.RSAPublicKey)
    return public_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """An EnvelopedData; what is None follows from the rest."""

    content: bytes
    recipient: Certificate
    cipher: str = "aes128"
    content_key: bytes | None = None
    iv: bytes | None = None
    padded: bytes | None = None  # what is encrypted, padding included
    encrypted_content: bytes | None = None
    segments: int | None = None  # encryptedContent constructed, of so many OCTET STRINGs
    algorithm: bytes | None = None  # DER AlgorithmIdentifier of the cipher
    recipient_infos: tuple[bytes, ...] | None = None
    content_type: str = oids.DATA
    outer_type: str = oids.ENVELOPED_DATA
    version: int = 0
    originator_info: bytes = b""
    unprotected_attributes: bytes = b""

    def encode(self) -> bytes:
        block = 8 if self.cipher in ("des", "3des") else 16
        key = secrets.token_bytes(KEY_BYTES[self.cipher]) if self.content_key is None else self.content_key
        iv = secrets.token_bytes(block) if self.iv is None else self.iv
        encrypted = self.encrypted_content
        if encrypted is None:
            padded = pad(self.content, block) if self.padded is None else self.padded
            encrypted = cbc_encrypt(self.cipher, key, iv, padded)
        infos = (key_trans(self.recipient, key),) if self.recipient_infos is None else self.recipient_infos
        default_algorithm = algorithm(CIPHER_OIDS[self.cipher], der.octet_string(iv))
        content = der.sequence(
            der.oid(self.content_type),
            default_algorithm if self.algorithm is None else self.algorithm,
            self._encode_encrypted(encrypted),
        )
        body = der.sequence(
            der.integer(self.version),
            self.originator_info,
            der.element(der.SET, b"".join(infos)),
            content,
            self.unprotected_attributes,
        )
        return der.sequence(der.oid(self.outer_type), der.explicit(0, body))

    def _encode_encrypted(self, encrypted: bytes) -> bytes:
        if self.segments is None:
            return der.element(der.context(0, constructed=False), encrypted)
        size = -(-len(encrypted) // max(self.segments, 1))
        parts = [encrypted[size * index : size * (index + 1)] for index in range(self.segments)]
        return der.explicit(0, b"".join(map(der.octet_string, parts)))


# --- SignedData ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A PKIMessage; what is None follows from the rest, `attributes` replaces (or drops) the usual ones by OID."""

    key: PrivateKey
    signer: Certificate
    content: bytes | None
    message_type: str = "19"
    transaction_id: str = "5B5F7CA6C2E0B0D7A8FD1C2CE0CAB0F1"
    sender_nonce: bytes = bytes(range(16))
    digest: str = "sha256"
    attributes: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    extra: tuple[bytes, ...] = ()  # further encoded attributes
    sent_unsorted: bool = False
    signed_unsorted: bool = False
    has_signed_attributes: bool = True
    pss_salt: int | None = None
    digest_algorithm: bytes | None = None
    algorithm: bytes | None = None  # DER AlgorithmIdentifier of the signature
    signature: bytes | None = None
    signer_id: bytes | None = None
    unsigned_attributes: bytes = b""
    certificates: tuple[bytes, ...] | None = None
    crls: tuple[bytes, ...] = ()
    signer_infos: tuple[bytes, ...] | None = None
    content_type: str = oids.DATA
    encapsulated: bytes | None = None  # the whole encapContentInfo
    outer_type: str = oids.SIGNED_DATA

    def encode(self) -> bytes:
        certificates = (self.signer.der,) if self.certificates is None else self.certificates
        crls = der.element(der.context(1), b"".join(self.crls)) if self.crls else b""
        body = der.sequence(
            der.integer(1),
            der.element(der.SET, self._digest_algorithm()),
            self._encapsulate() if self.encapsulated is None else self.encapsulated,
            der.element(der.context(0), b"".join(certificates)),
            crls,
            der.element(der.SET, b"".join((self.signer_info(),) if self.signer_infos is None else self.signer_infos)),
        )
        return der.sequence(der.oid(self.outer_type), der.explicit(0, body))

    def _encapsulate(self) -> bytes:
        content = b"" if self.content is None else der.explicit(0, der.octet_string(self.content))
        return der.sequence(der.oid(self.content_type), content)

    def _digest_algorithm(self) -> bytes:
        return algorithm(DIGEST_OIDS[self.digest]) if self.digest_algorithm is None else self.digest_algorithm

    def signed_attributes(self) -> list[bytes]:
        """Return the encoded attributes, sorted as DER wants them."""
        hasher = hashes.Hash(HASHES[self.digest])
        hasher.update(self.content or b"")
        usual = {
            oids.CONTENT_TYPE: (attribute(oids.CONTENT_TYPE, der.oid(oids.DATA)),),
            oids.MESSAGE_DIGEST: (attribute(oids.MESSAGE_DIGEST, der.octet_string(hasher.finalize())),),
            oids.MESSAGE_TYPE: (attribute(oids.MESSAGE_TYPE, printable(self.message_type)),),
            oids.TRANSACTION_ID: (attribute(oids.TRANSACTION_ID, printable(self.transaction_id)),),
            oids.SENDER_NONCE: (attribute(oids.SENDER_NONCE, der.octet_string(self.sender_nonce)),),
        }
        return sorted(item for items in (usual | dict(self.attributes)).values() for item in items) + list(self.extra)

    def signer_info(self) -> bytes:
        """Return the encoded SignerInfo."""
        attributes = self.signed_attributes()
        sent, signed = attributes[:: -1 if self.sent_unsorted else 1], attributes[:: -1 if self.signed_unsorted else 1]
        covered = der.element(der.SET, b"".join(signed)) if self.has_signed_attributes else self.content or b""
        signature = sign(self.key, covered, self.digest, self.pss_salt) if self.signature is None else self.signature
        return der.sequence(
            der.integer(1 if self.signer_id is None else 3),
            issuer_and_serial(self.signer) if self.signer_id is None else self.signer_id,
            self._digest_algorithm(),
            der.explicit(0, b"".join(sent)) if self.has_signed_attributes else b"",
            self._signature_algorithm(),
            der.octet_string(signature),
            self.unsigned_attributes,
        )

    def _signature_algorithm(self) -> bytes:
        if self.algorithm is not None:
            return self.algorithm
        if self.pss_salt is not None:
            return algorithm(oids.RSASSA_PSS, pss_parameters(self.digest, self.pss_salt))
        if isinstance(self.key, rsa.RSAPrivateKey):
            return algorithm(oids.RSA_ENCRYPTION)
        return signature_algorithm(self.key, self.digest)


# --- whole messages ------------------------------------------------------------------------------------------------


def pkcs_req(recipient: Certificate, key: PrivateKey | None = None) -> Message:
    """Return BASE: a PKCSReq as a well-behaved client sends it, signed by its stand-in certificate."""
    key = key or rsa_key()
    request = Request(key=key).encode()
    return Message(key=key, signer=stand_in(key), content=Envelope(content=request, recipient=recipient).encode())


def ec_pkcs_req(recipient: Certificate, curve: str = "secp256r1") -> Message:
    """Return the same with an EC key, which could sign it but not read the answer."""
    return pkcs_req(recipient, ec_key(curve))
