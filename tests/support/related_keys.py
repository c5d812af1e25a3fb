"""Many RSA-2048 keys for little time: the products of a few primes, two by two.

Whoever has two of these keys can compute both, which harms nobody in a test of anything but keys. No two have the same
modulus, so for a server that certifies each key for one device they are as different as any.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from cryptography.hazmat.primitives.asymmetric import rsa

EXPONENT = 65537


def related_keys(count: int) -> Iterator[rsa.RSAPrivateKey]:
    """Yield this many RSA-2048 keys; n generated ones make n(2n-1) of them."""
    generated = 1
    while generated * (2 * generated - 1) < count:
        generated += 1
    parents = [rsa.generate_private_key(EXPONENT, 2048).private_numbers() for _ in range(generated)]
    pairs = combinations([prime for parent in parents for prime in (parent.p, parent.q)], 2)
    for _, (p, q) in zip(range(count), pairs, strict=False):
        yield _join(p, q)


def _join(p: int, q: int) -> rsa.RSAPrivateKey:
    d = pow(EXPONENT, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(e=EXPONENT, n=p * q),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)  # they come from a generator
