"""Keys: the ports through which private keys are used, software keys behind them, and the policy for public keys.

A private key may live in a file, a token or a cloud: signing and decrypting go through `Signer` and `Decrypter`,
which a PKCS#11 module implements as well as `SoftwareKey`. File access is not done here.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from scep_ra.pki.algorithms import Digest, KeyTransport, SignatureAlgorithm, SignatureScheme
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData, SignatureInvalid

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# Verifying costs time that grows with the modulus; Boulder and the CA/Browser rules stop at 4096 for certificates,
# messages may come from older hardware and from larger keys.
MESSAGE_RSA_BITS: Final = range(1024, 8193)
_CURVES: Final = {"secp256r1": "ec-p256", "secp384r1": "ec-p384", "secp521r1": "ec-p521"}


class KeyKind(StrEnum):
    """Kinds of keys that can be certified; the rest is too weak, or nothing that clients agree on."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"


ALL_KEY_KINDS: Final = frozenset(KeyKind)
_PRODUCT_OF_SMALL_PRIMES: Final = math.prod(
    n for n in range(3, 752) if all(n % divisor for divisor in range(2, math.isqrt(n) + 1))
)
# Boulder's default is 110 rounds: primes that close are only made by broken generators.
_FERMAT_ROUNDS: Final = 110
_SQUARES_256: Final = frozenset(n * n % 256 for n in range(256))
_SQUARES_45045: Final = frozenset(n * n % 45045 for n in range(45045))
_ROCA_MARKS: Final = {
    prime: frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))
    for prime in (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
}
_PKCS1: Final = padding.PKCS1v15()


class Signer(Protocol):
    """A private key that signs."""

    @property
    def spki(self) -> bytes:
        """Return the DER SubjectPublicKeyInfo."""
        ...

    @property
    def scheme(self) -> SignatureScheme:
        """Return RSA_PKCS1 or ECDSA."""
        ...

    def sign(self, data: bytes, digest: Digest) -> bytes:
        """Hash and sign; deterministic for RSA PKCS#1 v1.5 and (RFC 6979) for ECDSA. Raise BackendError."""
        ...


class Decrypter(Protocol):
    """An RSA private key that unwraps content-encryption keys."""

    def decrypt(self, encrypted_key: bytes, transport: KeyTransport) -> bytes:
        """Return the plaintext; raise DecryptionFailed, or return random octets for wrong PKCS#1 v1.5 padding."""
        ...


class SoftwareKey:
    """A private key in memory: Signer and, when RSA, Decrypter."""

    def __init__(self, private_key: PrivateKey) -> None:
        self._key = private_key
        self.spki = _spki(private_key.public_key())

    @property
    def scheme(self) -> SignatureScheme:
        """Return the scheme of this key's signatures."""
        return SignatureScheme.RSA_PKCS1 if isinstance(self._key, rsa.RSAPrivateKey) else SignatureScheme.ECDSA

    def sign(self, data: bytes, digest: Digest) -> bytes:
        """Hash and sign."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(data, _PKCS1, digest.hash)
        # RFC 6979: the same bytes must give the same certificate when an intent is resolved after a crash.
        return self._key.sign(data, ec.ECDSA(digest.hash, deterministic_signing=True))

    def decrypt(self, encrypted_key: bytes, transport: KeyTransport) -> bytes:
        """Unwrap a content-encryption key."""
        if not isinstance(self._key, rsa.RSAPrivateKey):
            raise DecryptionFailed
        try:
            return self._key.decrypt(encrypted_key, encryption_padding(transport))
        except (ValueError, UnsupportedAlgorithm):
            raise DecryptionFailed from None

    def private_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key as PKCS#8 PEM, encrypted when a passphrase is given."""
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _spki(public_key: PublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def encryption_padding(transport: KeyTransport) -> padding.AsymmetricPadding:
    """Return the library's padding object for a key transport."""
    if transport.oaep_digest is None or transport.mgf_digest is None:
        return _PKCS1
    mgf = padding.MGF1(transport.mgf_digest.hash)
    return padding.OAEP(mgf=mgf, algorithm=transport.oaep_digest.hash, label=transport.label or None)


_GENERATORS: Final = {"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096}


def generate_key(key_type: str) -> SoftwareKey:
    """Generate a key: rsa-2048, rsa-3072, rsa-4096, ec-p256 or ec-p384."""
    if key_type in _GENERATORS:
        return SoftwareKey(rsa.generate_private_key(public_exponent=65537, key_size=_GENERATORS[key_type]))
    curves: dict[str, ec.EllipticCurve] = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
    if key_type not in curves:
        raise ValueError(f"unknown key type {key_type!r}")
    return SoftwareKey(ec.generate_private_key(curves[key_type]))


def load_private_key(pem: bytes, passphrase: bytes | None = None) -> SoftwareKey:
    """Load a PEM private key (PKCS#8, PKCS#1, SEC1); raise MalformedData, also when the passphrase is wrong."""
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedData(f"not a usable private key: {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise MalformedData("the private key is neither RSA nor EC")
    return SoftwareKey(key)


@lru_cache(maxsize=256)  # renewal signers and our own certificates come back; entries are a few KiB
def load_public_key(spki: bytes) -> PublicKey:
    """Load a DER SubjectPublicKeyInfo; raise AlgorithmRefused for other kinds of key or curves."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        raise AlgorithmRefused("public key cannot be loaded") from None
    if isinstance(key, rsa.RSAPublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise AlgorithmRefused("public key is neither RSA nor on a NIST curve")


def describe_key(spki: bytes) -> str:
    """Say in words which key a DER SubjectPublicKeyInfo holds; raise MalformedData or AlgorithmRefused."""
    return _describe(load_public_key(spki))


def _describe(key: PublicKey) -> str:
    return f"RSA, {key.key_size} bits" if isinstance(key, rsa.RSAPublicKey) else f"EC, {key.curve.name}"


def check_message_key(key: PublicKey) -> None:
    """Check that verifying with this key is safe and affordable; raise AlgorithmRefused."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        if key.key_size not in MESSAGE_RSA_BITS or numbers.e < 3 or numbers.e % 2 == 0 or numbers.e.bit_length() > 64:
            raise AlgorithmRefused(f"RSA key of {key.key_size} bits, exponent of {numbers.e.bit_length()} bits")


def check_certified_key(key: PublicKey, allowed: Collection[KeyKind] = ALL_KEY_KINDS) -> None:
    """Check that a key is fit for a certificate of ours (Boulder's GoodKey rules); raise AlgorithmRefused.

    Of an allowed kind; RSA with exponent 65537 or a larger odd one of at most 256 bits, no small factor, no close
    primes.
    """
    kind = f"rsa-{key.key_size}" if isinstance(key, rsa.RSAPublicKey) else _CURVES[key.curve.name]
    if kind not in allowed:
        raise AlgorithmRefused(f"a key of this kind ({_describe(key)}) is not certified here")
    if isinstance(key, rsa.RSAPublicKey):
        _check_certified_rsa(key.public_numbers())


def _check_certified_rsa(numbers: rsa.RSAPublicNumbers) -> None:
    if numbers.e < 65537 or numbers.e % 2 == 0 or numbers.e.bit_length() > 256:
        raise AlgorithmRefused("RSA exponent")
    if numbers.n % 2 == 0 or math.gcd(numbers.n, _PRODUCT_OF_SMALL_PRIMES) != 1:
        raise AlgorithmRefused("RSA modulus has a small factor")
    _check_roca(numbers.n)
    _check_fermat(numbers.n)


def _check_roca(modulus: int) -> None:
    """Refuse the moduli of CVE-2017-15361: modulo these primes they all lie in the subgroup that 65537 generates."""
    if all(modulus % prime in powers for prime, powers in _ROCA_MARKS.items()):
        raise AlgorithmRefused("RSA key made by a generator with CVE-2017-15361")


def _check_fermat(modulus: int) -> None:
    """Refuse a modulus whose primes Fermat's method finds in a few rounds."""
    a = math.isqrt(modulus) + 1
    remainder = a * a - modulus
    for _ in range(_FERMAT_ROUNDS):
        # Few numbers are squares modulo 256 and modulo 45045: the costly root is taken for one in hundreds.
        may_be_square = remainder & 0xFF in _SQUARES_256 and remainder % 45045 in _SQUARES_45045
        if may_be_square and math.isqrt(remainder) ** 2 == remainder:
            raise AlgorithmRefused("RSA primes are too close")
        remainder += 2 * a + 1
        a += 1


def verify_signature(
    key: PublicKey, algorithm: SignatureAlgorithm, digest: Digest, signature: bytes, data: bytes
) -> None:
    """Verify a signature over data; raise SignatureInvalid, or AlgorithmRefused when key and scheme do not fit.

    The digest is an argument because rsaEncryption does not name one; never `is_signature_valid`, which is silently
    False for SHA-1 and MD5 requests in cryptography 48 to 50.
    """
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm.scheme is not SignatureScheme.ECDSA:
            key.verify(signature, data, _signature_padding(algorithm, digest), digest.hash)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm.scheme is SignatureScheme.ECDSA:
            key.verify(signature, data, ec.ECDSA(digest.hash))
        else:
            raise AlgorithmRefused("signature scheme does not fit the key")
    except InvalidSignature:
        raise SignatureInvalid("signature does not verify") from None
    except (ValueError, UnsupportedAlgorithm):
        raise AlgorithmRefused("digest cannot be used with this key") from None


def _signature_padding(algorithm: SignatureAlgorithm, digest: Digest) -> padding.AsymmetricPadding:
    if algorithm.scheme is SignatureScheme.RSA_PSS:
        return padding.PSS(mgf=padding.MGF1(digest.hash), salt_length=algorithm.pss_salt_bytes)
    return _PKCS1
