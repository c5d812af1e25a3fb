"""Whose certificate is it? Issuer and signature, by key and not by name alone (RFC 5280 6.1.3 a, steps 1 and 4)."""

from __future__ import annotations

from scep_ra.pki.algorithms import Digest, parse_signature
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import PKIError
from scep_ra.pki.keys import load_public_key, verify_signature


def is_issued_by(certificate: Certificate, issuer: Certificate, *, weak_digests: bool = False) -> bool:
    """Tell whether `issuer`'s key signed this certificate and its name stands in it.

    MD5 and SHA-1 signatures count only with `weak_digests`. Validity, usages and revocation are other questions.
    """
    if certificate.issuer != issuer.subject:
        return False
    try:
        algorithm = parse_signature(certificate.signature_algorithm)
        if algorithm.digest is None or (algorithm.digest in (Digest.MD5, Digest.SHA1) and not weak_digests):
            return False
        key = load_public_key(issuer.spki)
        verify_signature(key, algorithm, algorithm.digest, certificate.signature, certificate.tbs)
    except PKIError:
        return False
    return True
