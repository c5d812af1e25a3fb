"""Which algorithms a profile speaks, and what GetCACaps says about it (RFC 8894 2.9, 3.5.2).

GetCACaps is not authenticated, so what it announces protects nobody: every message is held against the policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.errors import AlgorithmRefused
from scep_ra.scep.terms import Capability

_STANDARD_DIGESTS: Final = frozenset({Digest.SHA256, Digest.SHA384, Digest.SHA512})
_STANDARD_CIPHERS: Final = frozenset({Cipher.AES128, Cipher.AES192, Cipher.AES256})
# Broken for good: accepted only by the named legacy setting, and never used in a reply, which need not be as weak as
# its request (OpenSSL 3 clients could not even read it).
INSECURE: Final = frozenset({Digest.MD5, Cipher.DES})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmPolicy:
    """The closed sets of what is accepted."""

    digests: frozenset[Digest] = _STANDARD_DIGESTS
    ciphers: frozenset[Cipher] = _STANDARD_CIPHERS
    password_envelope: bool = False

    @classmethod
    def of(
        cls, *, sha1: bool = False, triple_des: bool = False, des_and_md5: bool = False, password_envelope: bool = False
    ) -> AlgorithmPolicy:
        """Return the standard policy with the named additions; SHA-224, as rare, comes with SHA-1."""
        digests, ciphers = set(_STANDARD_DIGESTS), set(_STANDARD_CIPHERS)
        if sha1:
            digests |= {Digest.SHA1, Digest.SHA224}
        if triple_des:
            ciphers.add(Cipher.TRIPLE_DES)
        if des_and_md5:
            digests.add(Digest.MD5)
            ciphers.add(Cipher.DES)
        return cls(digests=frozenset(digests), ciphers=frozenset(ciphers), password_envelope=password_envelope)

    def check_digest(self, digest: Digest) -> None:
        """Raise AlgorithmRefused for a digest that is not spoken."""
        if digest not in self.digests:
            raise AlgorithmRefused(f"digest {digest} is not allowed")

    def check_cipher(self, cipher: Cipher) -> None:
        """Raise AlgorithmRefused for a cipher that is not spoken."""
        if cipher not in self.ciphers:
            raise AlgorithmRefused(f"content encryption {cipher} is not allowed")

    def reply_digest(self, requested: Digest | None) -> Digest:
        """Return the request's digest where a reply may use it, SHA-256 otherwise."""
        usable = requested in self.digests and requested not in INSECURE
        return requested if usable and requested is not None else Digest.SHA256

    def reply_cipher(self, requested: Cipher | None) -> Cipher:
        """Return the request's cipher where a reply may use it (IOS reads no other), AES-128 otherwise."""
        usable = requested in self.ciphers and requested not in INSECURE
        return requested if usable and requested is not None else Cipher.AES128


def capabilities(policy: AlgorithmPolicy, *, renewal: bool, next_ca: bool) -> tuple[Capability, ...]:
    """Return what may be announced: exactly what is served, strongest first (see Capability)."""
    offered = {
        Capability.AES: True,
        Capability.POST_PKI_OPERATION: True,
        Capability.RENEWAL: renewal,
        Capability.SHA_512: True,
        Capability.SHA_384: True,
        Capability.SHA_256: True,
        Capability.SCEP_STANDARD: True,
        Capability.GET_NEXT_CA_CERT: next_ca,
        Capability.SHA_1: Digest.SHA1 in policy.digests,
        Capability.DES3: Cipher.TRIPLE_DES in policy.ciphers,
    }
    return tuple(capability for capability in Capability if offered[capability])
