"""Algorithms by name: digests, signatures, content ciphers and key transport, and their AlgorithmIdentifiers.

Everything the project can do is listed here; what a profile allows is decided elsewhere. An identifier that is
not listed raises AlgorithmRefused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import hashes

from scep_ra.pki import der, oids
from scep_ra.pki.errors import AlgorithmRefused, MalformedData


class Digest(StrEnum):
    """Digest algorithms, weakest first."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA224 = "sha224"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def hash(self) -> hashes.HashAlgorithm:
        """Return the library's object for this digest."""
        return _HASHES[self]

    def of(self, octets: bytes) -> bytes:
        """Return the digest of octets; weak ones serve compatibility by a setting, hence `usedforsecurity=False`."""
        return _CONSTRUCTORS[self](octets, usedforsecurity=False).digest()

    @property
    def identifier(self) -> bytes:
        """Return the DER AlgorithmIdentifier with NULL parameters (old clients expect them)."""
        return algorithm_identifier(_DIGEST_OIDS[self])


class Cipher(StrEnum):
    """Content encryption algorithms, all in CBC mode with PKCS#7 padding."""

    DES = "des-cbc"
    TRIPLE_DES = "des-ede3-cbc"
    AES128 = "aes128-cbc"
    AES192 = "aes192-cbc"
    AES256 = "aes256-cbc"

    @property
    def key_bytes(self) -> int:
        """Return the length of the content-encryption key."""
        return {"des-cbc": 8, "des-ede3-cbc": 24, "aes128-cbc": 16, "aes192-cbc": 24, "aes256-cbc": 32}[self]

    @property
    def block_bytes(self) -> int:
        """Return the length of a block, and of the IV."""
        return 16 if self.name.startswith("AES") else 8


class SignatureScheme(StrEnum):
    """How a signature is made, the digest apart."""

    RSA_PKCS1 = "rsa-pkcs1-v1.5"
    RSA_PSS = "rsassa-pss"
    ECDSA = "ecdsa"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureAlgorithm:
    """A scheme with its digest; None = the identifier names only the scheme (rsaEncryption, id-ecPublicKey)."""

    scheme: SignatureScheme
    digest: Digest | None
    pss_salt_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTransport:
    """RSA key transport: PKCS#1 v1.5 when `oaep_digest` is None, OAEP otherwise (RFC 4055 4.1)."""

    oaep_digest: Digest | None = None
    mgf_digest: Digest | None = None
    label: bytes = b""


_HASHES: Final[dict[Digest, hashes.HashAlgorithm]] = {
    Digest.MD5: hashes.MD5(),  # noqa: S303 - only reached under the named legacy setting
    Digest.SHA1: hashes.SHA1(),  # noqa: S303 - only reached under a setting
    Digest.SHA224: hashes.SHA224(),
    Digest.SHA256: hashes.SHA256(),
    Digest.SHA384: hashes.SHA384(),
    Digest.SHA512: hashes.SHA512(),
}
# hashlib.new by name takes several times as long.
_CONSTRUCTORS: Final = {
    Digest.MD5: hashlib.md5,
    Digest.SHA1: hashlib.sha1,
    Digest.SHA224: hashlib.sha224,
    Digest.SHA256: hashlib.sha256,
    Digest.SHA384: hashlib.sha384,
    Digest.SHA512: hashlib.sha512,
}
_DIGEST_OIDS: Final = {
    Digest.MD5: oids.MD5,
    Digest.SHA1: oids.SHA1,
    Digest.SHA224: oids.SHA224,
    Digest.SHA256: oids.SHA256,
    Digest.SHA384: oids.SHA384,
    Digest.SHA512: oids.SHA512,
}
_DIGESTS: Final = {oid: digest for digest, oid in _DIGEST_OIDS.items()}
_CIPHER_OIDS: Final = {
    Cipher.DES: oids.DES_CBC,
    Cipher.TRIPLE_DES: oids.DES_EDE3_CBC,
    Cipher.AES128: oids.AES128_CBC,
    Cipher.AES192: oids.AES192_CBC,
    Cipher.AES256: oids.AES256_CBC,
}
_CIPHERS: Final = {oid: cipher for cipher, oid in _CIPHER_OIDS.items()}
_SIGNATURES: Final[dict[str, tuple[SignatureScheme, Digest | None]]] = {
    oids.RSA_ENCRYPTION: (SignatureScheme.RSA_PKCS1, None),
    oids.MD5_WITH_RSA: (SignatureScheme.RSA_PKCS1, Digest.MD5),
    oids.SHA1_WITH_RSA: (SignatureScheme.RSA_PKCS1, Digest.SHA1),
    oids.SHA1_WITH_RSA_OIW: (SignatureScheme.RSA_PKCS1, Digest.SHA1),
    oids.SHA224_WITH_RSA: (SignatureScheme.RSA_PKCS1, Digest.SHA224),
    oids.SHA256_WITH_RSA: (SignatureScheme.RSA_PKCS1, Digest.SHA256),
    oids.SHA384_WITH_RSA: (SignatureScheme.RSA_PKCS1, Digest.SHA384),
    oids.SHA512_WITH_RSA: (SignatureScheme.RSA_PKCS1, Digest.SHA512),
    oids.EC_PUBLIC_KEY: (SignatureScheme.ECDSA, None),
    oids.ECDSA_WITH_SHA1: (SignatureScheme.ECDSA, Digest.SHA1),
    oids.ECDSA_WITH_SHA224: (SignatureScheme.ECDSA, Digest.SHA224),
    oids.ECDSA_WITH_SHA256: (SignatureScheme.ECDSA, Digest.SHA256),
    oids.ECDSA_WITH_SHA384: (SignatureScheme.ECDSA, Digest.SHA384),
    oids.ECDSA_WITH_SHA512: (SignatureScheme.ECDSA, Digest.SHA512),
}
# What we write: one OID a (scheme, digest). RSA carries NULL parameters (RFC 4055 5), ECDSA none (RFC 5758 3.2).
_SIGNATURE_OIDS: Final = {
    (scheme, digest): oid
    for oid, (scheme, digest) in reversed(_SIGNATURES.items())
    if digest is not None and oid != oids.SHA1_WITH_RSA_OIW
}
_MAX_PSS_SALT: Final = 64  # the longest digest we know; strongSwan uses the digest's length


@lru_cache(maxsize=64)  # called with our own constants only
def algorithm_identifier(oid: str) -> bytes:
    """Encode an AlgorithmIdentifier with NULL parameters."""
    return der.sequence(der.oid(oid), der.NULL)


@lru_cache(maxsize=16)
def signature_identifier(scheme: SignatureScheme, digest: Digest) -> bytes:
    """Encode the AlgorithmIdentifier of a certificate or CRL signature."""
    oid = _SIGNATURE_OIDS[scheme, digest]
    return algorithm_identifier(oid) if scheme is SignatureScheme.RSA_PKCS1 else der.sequence(der.oid(oid))


def cipher_identifier(cipher: Cipher, iv: bytes) -> bytes:
    """Encode a content encryption AlgorithmIdentifier; its parameter is the IV."""
    return der.sequence(der.oid(_CIPHER_OIDS[cipher]), der.octet_string(iv))


def parse_digest(identifier: bytes) -> Digest:
    """Read a digest AlgorithmIdentifier; parameters may be NULL or absent (scepclient leaves them out)."""
    return _digest(_read_without_parameters(der.Reader(identifier).enter()))


def _digest(oid: str) -> Digest:
    try:
        return _DIGESTS[oid]
    except KeyError:
        raise AlgorithmRefused(f"unknown digest {oid}") from None


def _read_without_parameters(reader: der.Reader) -> str:
    oid = reader.oid()
    if not reader.at_end() and reader.element() != der.NULL:
        raise MalformedData("unexpected algorithm parameters")
    reader.finish()
    return oid


def parse_signature(identifier: bytes) -> SignatureAlgorithm:
    """Read a signature AlgorithmIdentifier, RSASSA-PSS with its parameters included."""
    reader = der.Reader(identifier).enter()
    oid = reader.oid()
    if oid == oids.RSASSA_PSS:
        return _parse_pss(reader)
    if oid not in _SIGNATURES:
        raise AlgorithmRefused(f"unknown signature algorithm {oid}")
    scheme, digest = _SIGNATURES[oid]
    return SignatureAlgorithm(scheme=scheme, digest=digest)


def _parse_pss(reader: der.Reader) -> SignatureAlgorithm:
    """RFC 4055 3.1: hash, MGF and salt length all default to SHA-1's."""
    digest, mgf_digest, salt = Digest.SHA1, Digest.SHA1, 20
    parameters = reader.enter() if not reader.at_end() else None
    if parameters is not None:
        digest, mgf_digest = _hash_and_mgf(parameters)
        if (field := parameters.enter_optional(der.context(2))) is not None:
            salt = field.integer()
    if digest is not mgf_digest:
        raise AlgorithmRefused("PSS with two digests")
    if not 0 <= salt <= _MAX_PSS_SALT:
        raise AlgorithmRefused("PSS salt length")
    return SignatureAlgorithm(scheme=SignatureScheme.RSA_PSS, digest=digest, pss_salt_bytes=salt)


def _hash_and_mgf(parameters: der.Reader) -> tuple[Digest, Digest]:
    """Read [0] hash and [1] MGF1, which RSASSA-PSS and RSAES-OAEP share; the default of both is SHA-1."""
    digest = mgf_digest = Digest.SHA1
    if (field := parameters.enter_optional(der.context(0))) is not None:
        digest = parse_digest(field.element(der.SEQUENCE))
    if (field := parameters.enter_optional(der.context(1))) is not None:
        generator = field.enter()
        if generator.oid() != oids.MGF1:
            raise AlgorithmRefused("unknown mask generation function")
        mgf_digest = parse_digest(generator.element(der.SEQUENCE))
    return digest, mgf_digest


def parse_cipher(identifier: bytes) -> tuple[Cipher, bytes]:
    """Read a content encryption AlgorithmIdentifier; return cipher and IV."""
    reader = der.Reader(identifier).enter()
    oid = reader.oid()
    if oid not in _CIPHERS:
        raise AlgorithmRefused(f"unknown content encryption algorithm {oid}")
    cipher = _CIPHERS[oid]
    iv = reader.contents(der.OCTET_STRING)
    if len(iv) != cipher.block_bytes:
        raise AlgorithmRefused(f"IV of {len(iv)} octets for {cipher}")
    return cipher, iv


def parse_key_transport(identifier: bytes) -> KeyTransport:
    """Read a key encryption AlgorithmIdentifier: rsaEncryption or RSAES-OAEP with its parameters."""
    reader = der.Reader(identifier).enter()
    oid = reader.oid()
    if oid == oids.RSA_ENCRYPTION:
        return KeyTransport()
    if oid != oids.RSAES_OAEP:
        raise AlgorithmRefused(f"unknown key transport {oid}")
    parameters = reader.enter() if not reader.at_end() else der.Reader(b"")
    digest, mgf_digest = _hash_and_mgf(parameters)
    label = b""
    if (field := parameters.enter_optional(der.context(2))) is not None:
        source = field.enter()
        if source.oid() != oids.P_SPECIFIED:
            raise AlgorithmRefused("unknown OAEP label source")
        label = source.contents(der.OCTET_STRING)
    return KeyTransport(oaep_digest=digest, mgf_digest=mgf_digest, label=label)
