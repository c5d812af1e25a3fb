"""Private keys for tests, made once a session, and public keys that no honest generator makes.

Keys are shared between tests: treat them as constants. What the product would never generate is put together here.
"""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "secp256r1": ec.SECP256R1(),
    "secp384r1": ec.SECP384R1(),
    "secp521r1": ec.SECP521R1(),
}
# The primes modulo which the keys of CVE-2017-15361 are powers of 65537.
ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_SMALL_PRIMES: Final = math.prod(n for n in range(2, 752) if all(n % divisor for divisor in range(2, n)))


def rsa_key(owner: str = "device", bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """Return the RSA key of this owner, the same one throughout the session."""
    return _rsa_key(owner, bits, exponent)


def ec_key(curve: str = "secp256r1", owner: str = "device") -> ec.EllipticCurvePrivateKey:
    """Return the EC key of this owner on this curve, the same one throughout the session."""
    return _ec_key(curve, owner)


# One spelling of the arguments: the cache holds f() and f(default) for two.
@cache
def _rsa_key(owner: str, bits: int, exponent: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=exponent, key_size=bits)


@cache
def _ec_key(curve: str, owner: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve])


def spki(key: PrivateKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def rsa_public(modulus: int, exponent: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e=exponent, n=modulus).public_key()


@cache
def rsa_512() -> rsa.RSAPrivateKey:
    """Return a key too short for the library's generator, from two primes of 256 bits."""
    p, q = 2**255 + 95, 2**256 - 189
    d = pow(65537, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(e=65537, n=p * q),
    )
    return numbers.private_key()


def _without_small_factors(start: int, step: int) -> int:
    while math.gcd(start, _SMALL_PRIMES) != 1:
        start += step
    return start


def modulus_with_factor(factor: int, bits: int = 2048) -> int:
    """Return the least odd modulus of this length with this factor."""
    return factor * (-(-(1 << (bits - 1)) // factor) | 1)


def modulus_of_roca(bits: int = 2048) -> int:
    """Return a modulus that is a power of 65537 modulo every marked prime, put together by the Chinese remainders."""
    chosen, modulus = 0, math.prod(ROCA_PRIMES)
    for index, prime in enumerate(ROCA_PRIMES):
        rest = modulus // prime
        chosen += pow(65537, index + 1, prime) * rest * pow(rest, -1, prime)
    multiple = (3 << (bits - 2)) // modulus
    return _without_small_factors(chosen % modulus + multiple * modulus, modulus)


def modulus_of_close_factors(distance: int, bits: int = 2048) -> int:
    """Return the product of two numbers about `distance` apart (Fermat's method does not ask for primes)."""
    half = random.Random(distance).getrandbits(bits // 2) | 3 << (bits // 2 - 2)
    p = _without_small_factors(half | 1, 2)
    return p * _without_small_factors(p + distance, 2)
