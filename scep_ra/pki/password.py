"""PasswordRecipientInfo (RFC 5652 6.2.4, RFC 3211): an envelope for those whose key cannot decrypt (RFC 8894 3.1).

Only PBKDF2 and the PWRI-KEK wrapping over AES-CBC are spoken. Opening costs one key derivation a candidate password,
so both the iteration count and the number of candidates are bounded by the caller's patience.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms as block_ciphers
from cryptography.hazmat.primitives.ciphers import modes

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest, cipher_identifier, parse_cipher
from scep_ra.pki.enveloped_data import (
    EnvelopedData,
    PasswordRecipient,
    Random,
    decrypt_content,
    encode_enveloped_data,
)
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData

# OWASP's floor for PBKDF2-HMAC-SHA256 is 600,000, too slow to try many candidates for whoever knocks; challenges here
# are 128 random bits, so iterations add nothing and the bound protects us.
MAX_ITERATIONS: Final = 20_000
_ITERATIONS: Final = 10_000
_MAX_SALT: Final = 64
_PRFS: Final = {
    oids.HMAC_WITH_SHA1: Digest.SHA1,
    oids.HMAC_WITH_SHA224: Digest.SHA224,
    oids.HMAC_WITH_SHA256: Digest.SHA256,
    oids.HMAC_WITH_SHA384: Digest.SHA384,
    oids.HMAC_WITH_SHA512: Digest.SHA512,
}
_AES: Final = frozenset({Cipher.AES128, Cipher.AES192, Cipher.AES256})
_AES_BLOCK: Final = 16
_PASSWORD_RECIPIENT: Final = der.context(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PasswordWrapping:
    salt: bytes
    iterations: int
    prf: Digest
    kek_cipher: Cipher
    kek_iv: bytes
    encrypted_key: bytes


def check_password_recipient(recipient: PasswordRecipient) -> None:
    """Check algorithms and costs before any password is tried; raise AlgorithmRefused or MalformedData."""
    _parse(recipient)


def open_password_envelope(
    envelope: EnvelopedData, recipient: PasswordRecipient, passwords: Iterable[bytes]
) -> tuple[bytes, bytes]:
    """Try candidate passwords; return (content, password that fits); raise DecryptionFailed when none does."""
    wrapping = _parse(recipient)
    cipher, iv = parse_cipher(envelope.cipher)
    for password in passwords:
        content_key = _unwrap(_derive(password, wrapping), wrapping.kek_iv, wrapping.encrypted_key)
        if content_key is not None and len(content_key) == cipher.key_bytes:
            return decrypt_content(cipher, content_key, iv, envelope.encrypted_content), password
    raise DecryptionFailed


def seal_password_envelope(content: bytes, password: bytes, cipher: Cipher, random: Random) -> bytes:
    """Encrypt content under a password (PBKDF2 with HMAC-SHA-256); returns a DER ContentInfo."""
    kek_cipher = cipher if cipher in _AES else Cipher.AES128
    content_key = random(cipher.key_bytes)
    wrapping = _PasswordWrapping(
        salt=random(16),
        iterations=_ITERATIONS,
        prf=Digest.SHA256,
        kek_cipher=kek_cipher,
        kek_iv=random(_AES_BLOCK),
        encrypted_key=b"",
    )
    encrypted_key = _wrap(_derive(password, wrapping), wrapping.kek_iv, content_key, random)
    key_derivation = der.sequence(
        der.octet_string(wrapping.salt),
        der.integer(wrapping.iterations),
        der.sequence(der.oid(oids.HMAC_WITH_SHA256), der.NULL),
    )
    recipient_info = der.element(
        _PASSWORD_RECIPIENT,
        der.integer(0)
        + der.explicit(0, der.oid(oids.PBKDF2) + key_derivation)
        + der.sequence(der.oid(oids.PWRI_KEK), cipher_identifier(kek_cipher, wrapping.kek_iv))
        + der.octet_string(encrypted_key),
    )
    return encode_enveloped_data(
        version=3, recipient_info=recipient_info, content=content, cipher=cipher, content_key=content_key, random=random
    )


def _parse(recipient: PasswordRecipient) -> _PasswordWrapping:
    fields = der.Reader(recipient.contents)
    fields.integer()
    derivation = fields.enter_optional(der.context(0))
    if derivation is None:
        raise AlgorithmRefused("password recipient without key derivation")
    if derivation.oid() != oids.PBKDF2:
        raise AlgorithmRefused("key derivation is not PBKDF2")
    salt, iterations, prf = _parse_pbkdf2(derivation.enter())
    key_encryption = fields.enter()
    if key_encryption.oid() != oids.PWRI_KEK:
        raise AlgorithmRefused("key encryption is not PWRI-KEK")
    kek_cipher, kek_iv = parse_cipher(key_encryption.element(der.SEQUENCE))
    if kek_cipher not in _AES:
        raise AlgorithmRefused(f"key encryption with {kek_cipher}")
    encrypted_key = fields.contents(der.OCTET_STRING)
    if len(encrypted_key) % _AES_BLOCK or not 2 * _AES_BLOCK <= len(encrypted_key) <= 4 * _AES_BLOCK:
        raise MalformedData("wrapped key is not two to four blocks")
    return _PasswordWrapping(
        salt=salt, iterations=iterations, prf=prf, kek_cipher=kek_cipher, kek_iv=kek_iv, encrypted_key=encrypted_key
    )


def _parse_pbkdf2(parameters: der.Reader) -> tuple[bytes, int, Digest]:
    """RFC 8018 A.2: salt, iterationCount, keyLength OPTIONAL, prf DEFAULT hmacWithSHA1."""
    salt = parameters.contents(der.OCTET_STRING)
    iterations = parameters.integer()
    if not 1 <= iterations <= MAX_ITERATIONS or len(salt) > _MAX_SALT:
        raise AlgorithmRefused(f"PBKDF2 beyond {MAX_ITERATIONS} iterations or {_MAX_SALT} octets of salt")
    if parameters.peek() == der.INTEGER:
        parameters.integer()
    if parameters.at_end():
        return salt, iterations, Digest.SHA1
    oid = parameters.enter().oid()
    if oid not in _PRFS:
        raise AlgorithmRefused(f"unknown PBKDF2 function {oid}")
    return salt, iterations, _PRFS[oid]


def _derive(password: bytes, wrapping: _PasswordWrapping) -> bytes:
    length = wrapping.kek_cipher.key_bytes
    return hashlib.pbkdf2_hmac(wrapping.prf.value, password, wrapping.salt, wrapping.iterations, length)


def _wrap(kek: bytes, iv: bytes, content_key: bytes, random: Random) -> bytes:
    """RFC 3211 2.3.1: length, three check octets, key, padding to at least two blocks; CBC twice over."""
    block = bytes([len(content_key)]) + bytes(octet ^ 0xFF for octet in content_key[:3]) + content_key
    length = max(2 * _AES_BLOCK, -(-len(block) // _AES_BLOCK) * _AES_BLOCK)
    block += random(length - len(block))
    once = _cbc(kek, iv, block)
    return _cbc(kek, once[-_AES_BLOCK:], once)


def _cbc(kek: bytes, iv: bytes, octets: bytes) -> bytes:
    encryptor = BlockCipher(block_ciphers.AES(kek), modes.CBC(iv)).encryptor()
    return encryptor.update(octets) + encryptor.finalize()


def _unwrap(kek: bytes, iv: bytes, wrapped: bytes) -> bytes | None:
    """RFC 3211 2.3.2; None when the check octets do not fit, which is how a wrong password shows."""
    # The last block, decrypted with the one before as IV, is the IV of the outer pass.
    outer_iv = _cbc_decrypt(kek, wrapped[-2 * _AES_BLOCK : -_AES_BLOCK], wrapped[-_AES_BLOCK:])
    block = _cbc_decrypt(kek, iv, _cbc_decrypt(kek, outer_iv, wrapped))
    length, check, content_key = block[0], block[1:4], block[4 : 4 + block[0]]
    fits = hmac.compare_digest(bytes(octet ^ 0xFF for octet in check), block[4:7])
    return content_key if fits and length == len(content_key) else None


def _cbc_decrypt(kek: bytes, iv: bytes, octets: bytes) -> bytes:
    decryptor = BlockCipher(block_ciphers.AES(kek), modes.CBC(iv)).decryptor()
    return decryptor.update(octets) + decryptor.finalize()
