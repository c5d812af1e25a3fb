"""OCSP requests, made by `cryptography` where it can and octet by octet where it cannot, and its view of answers."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest, SignatureAlgorithm, parse_signature
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.issuance import encode_extension
from scep_ra.pki.keys import load_public_key, verify_signature
from scep_ra.revocation.ocsp import key_bits


def ask(
    issuer: Certificate,
    certificate_serial: int,
    *,
    algorithm: hashes.HashAlgorithm | None = None,
    nonce: bytes | None = None,
) -> bytes:
    """Return the DER request about one certificate; SHA-1 as most clients, unless told otherwise."""
    digest = algorithm or hashes.SHA1()
    name, key = (hashes.Hash(digest), hashes.Hash(digest))
    name.update(issuer.subject)
    key.update(key_bits(issuer.spki))
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        name.finalize(), key.finalize(), certificate_serial, digest
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


def cert_id(issuer: Certificate, certificate_serial: int, digest: Digest = Digest.SHA1) -> bytes:
    """Return a DER CertID."""
    name, key = digest.of(issuer.subject), digest.of(key_bits(issuer.spki))
    hashed = der.octet_string(name) + der.octet_string(key)
    return der.sequence(digest.identifier, hashed, der.integer(certificate_serial))


def ask_raw(*entries: bytes, before: bytes = b"", extensions: bytes = b"", signature: bytes = b"") -> bytes:
    """Return the DER request with these entries (each the contents of a DER Request), and whatever stands around."""
    after = der.explicit(2, der.sequence(extensions)) if extensions else b""
    return der.sequence(der.sequence(before, der.sequence(*map(der.sequence, entries)), after), signature)


def nonce_extension(nonce: bytes, *, critical: bool = False) -> bytes:
    """Return the DER nonce extension of RFC 9654."""
    return encode_extension(oids.OCSP_NONCE, der.octet_string(nonce), critical=critical)


def read_answer(octets: bytes, issuer: Certificate) -> ocsp.OCSPResponse:
    """Read an answer with `cryptography`, and fail unless a delegate of the issuer signed it."""
    answer = ocsp.load_der_ocsp_response(octets)
    assert answer.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    (delegate,) = answer.certificates
    delegate.verify_directly_issued_by(x509.load_der_x509_certificate(issuer.der))
    certificate = parse_certificate(delegate.public_bytes(Encoding.DER))
    algorithm = signature_algorithm_of(octets)
    assert algorithm.digest is not None
    key = load_public_key(certificate.spki)
    verify_signature(key, algorithm, algorithm.digest, answer.signature, answer.tbs_response_bytes)
    assert answer.responder_key_hash == Digest.SHA1.of(key_bits(certificate.spki))
    return answer


def signature_algorithm_of(octets: bytes) -> SignatureAlgorithm:
    """Return the algorithm under an answer."""
    whole = der.Reader(octets).enter()
    whole.element(der.ENUMERATED)
    wrapped = whole.enter(der.context(0)).enter()
    wrapped.oid()
    basic = der.Reader(wrapped.contents(der.OCTET_STRING)).enter()
    basic.element(der.SEQUENCE)
    return parse_signature(basic.element(der.SEQUENCE))


def statuses(octets: bytes) -> list[tuple[int, str]]:
    """Return serial and status ("good", "revoked", "unknown") of each part of an answer."""
    answer = ocsp.load_der_ocsp_response(octets)
    return [(single.serial_number, single.certificate_status.name.lower()) for single in answer.responses]
