"""Read OCSP requests and write responses (RFC 6960 4, nonces of RFC 9654), in DER.

Pure: what the status of a certificate is, who signs and what is kept is `revocation.responder`'s work, HTTP `web`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, assert_never

from scep_ra.pki import ber, der, oids
from scep_ra.pki.algorithms import Digest, parse_digest
from scep_ra.pki.certificates import Certificate, Extension, parse_extensions
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.issuance import encode_extension

MAX_REQUEST_BYTES: Final = 8192  # a request has 100 octets a certificate, and may have a signature with a chain
MAX_CERTIFICATES: Final = 32  # of one request; the longest chains have six
# RFC 9654 2.1 refuses none and more than 128 octets; RFC 8954 before it stopped at 32.
_NONCE_OCTETS: Final = range(1, 129)
_LIMITS: Final = ber.Limits(max_bytes=MAX_REQUEST_BYTES, max_elements=1024)
_VERSION_1: Final = 0


class ResponseStatus(IntEnum):
    """OCSPResponseStatus of responses that hold no answer (RFC 6960 4.2.1); `sigRequired` we never say."""

    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


_SUCCESSFUL: Final = 0


# --- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CertID:
    """The certificate that is asked about, and its issuer as digests of name and key (RFC 6960 4.1.1)."""

    der: bytes  # as the client wrote it, for the answer to repeat
    digest: Digest
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    certificate_serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OCSPRequest:
    """What a client wants to know, and the nonce that the answer has to repeat."""

    cert_ids: tuple[CertID, ...]
    nonce: bytes | None


def parse_request(octets: bytes) -> OCSPRequest:
    """Parse an OCSPRequest, BER or DER; raise MalformedData, or AlgorithmRefused for an unknown digest.

    A signature is not looked at: everybody may ask (RFC 6960 4.1.2).
    """
    outer = der.Reader(ber.normalise(octets, _LIMITS))
    whole = outer.enter()
    outer.finish()
    fields = whole.enter()
    whole.enter_optional(der.context(0))
    whole.finish()
    version = fields.enter_optional(der.context(0))
    if version is not None and version.integer() != _VERSION_1:
        raise MalformedData("the OCSPRequest is not of version 1")
    fields.enter_optional(der.context(1))  # requestorName, which nothing proves
    cert_ids = _parse_list(fields.enter())
    nonce = _nonce(_parse_extensions(fields, der.context(2)))
    fields.finish()
    return OCSPRequest(cert_ids=cert_ids, nonce=nonce)


def _parse_list(entries: der.Reader) -> tuple[CertID, ...]:
    cert_ids: list[CertID] = []
    while not entries.at_end():
        entry = entries.enter()
        cert_ids.append(_parse_cert_id(entry.element(der.SEQUENCE)))
        _parse_extensions(entry, der.context(0))
        entry.finish()
    if not 1 <= len(cert_ids) <= MAX_CERTIFICATES:
        raise MalformedData(f"the OCSPRequest names {len(cert_ids)} certificates, not 1 to {MAX_CERTIFICATES}")
    return tuple(cert_ids)


def _parse_cert_id(octets: bytes) -> CertID:
    fields = der.Reader(octets).enter()
    cert_id = CertID(
        der=octets,
        digest=parse_digest(fields.element(der.SEQUENCE)),
        issuer_name_hash=fields.contents(der.OCTET_STRING),
        issuer_key_hash=fields.contents(der.OCTET_STRING),
        certificate_serial=fields.integer(),
    )
    fields.finish()
    return cert_id


def _parse_extensions(fields: der.Reader, tag: int) -> Sequence[Extension]:
    """Return the extensions under this tag; raise MalformedData for a critical one other than the nonce."""
    wrapped = fields.enter_optional(tag)
    if wrapped is None:
        return ()
    extensions = parse_extensions(wrapped.element(der.SEQUENCE))
    wrapped.finish()
    for extension in extensions:
        if extension.critical and extension.oid != oids.OCSP_NONCE:
            raise MalformedData(f"the OCSPRequest has the critical extension {extension.oid}, which means nothing here")
    return extensions


def _nonce(extensions: Sequence[Extension]) -> bytes | None:
    value = next((extension.value for extension in extensions if extension.oid == oids.OCSP_NONCE), None)
    if value is None:
        return None
    wrapped = der.Reader(value)
    nonce = wrapped.contents(der.OCTET_STRING)
    wrapped.finish()
    if len(nonce) not in _NONCE_OCTETS:
        raise MalformedData(f"the nonce has {len(nonce)} octets, not 1 to {_NONCE_OCTETS[-1]}")
    return nonce


# --- answers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Good:
    """We issued the certificate and did not revoke it; whether it has expired is the client's to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """The certificate is revoked since then, with a CRLReason (RFC 5280 5.3.1)."""

    revoked_at: datetime
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """We have issued no such certificate."""


CertStatus = Good | Revoked | Unknown


def _encode_status(status: CertStatus) -> bytes:
    match status:
        case Good():
            return der.element(der.context(0, constructed=False), b"")
        case Revoked(revoked_at=revoked_at, reason=reason):
            # As in a CRL, better absent than unspecified.
            code = der.explicit(0, der.element(der.ENUMERATED, bytes((reason,)))) if reason else b""
            return der.explicit(1, der.generalized_time(revoked_at) + code)
        case Unknown():
            return der.element(der.context(2, constructed=False), b"")
        case _:
            assert_never(status)


def responder_id(spki: bytes) -> bytes:
    """Encode the ResponderID byKey of a DER SubjectPublicKeyInfo: SHA-1 of its key bits (RFC 6960 4.2.1)."""
    return der.explicit(2, der.octet_string(Digest.SHA1.of(key_bits(spki))))


def key_bits(spki: bytes) -> bytes:
    """Return the octets of a DER SubjectPublicKeyInfo that OCSP hashes: the key without its algorithm."""
    fields = der.Reader(spki).enter()
    fields.element(der.SEQUENCE)
    return fields.bit_string()


def build_tbs_response(
    responder: bytes,
    answers: Iterable[tuple[CertID, CertStatus]],
    *,
    this_update: datetime,
    next_update: datetime,
    nonce: bytes | None,
) -> bytes:
    """Return the DER ResponseData that the key of this DER ResponderID is to sign."""
    until = der.explicit(0, der.generalized_time(next_update))
    since = der.generalized_time(this_update)
    singles = [der.sequence(cert_id.der, _encode_status(status), since, until) for cert_id, status in answers]
    extension = encode_extension(oids.OCSP_NONCE, der.octet_string(nonce)) if nonce is not None else b""
    return der.sequence(
        responder,
        since,  # producedAt: a status is looked up and signed in one go
        der.sequence(*singles),
        der.explicit(1, der.sequence(extension)) if extension else b"",
    )


def assemble_response(tbs: bytes, algorithm: bytes, signature: bytes, certificate: Certificate) -> bytes:
    """Return the DER OCSPResponse around a signed ResponseData, with the certificate of the key that signed it."""
    certificates = der.explicit(0, der.sequence(certificate.der))
    basic = der.sequence(tbs, algorithm, der.bit_string(signature), certificates)
    answer = der.sequence(der.oid(oids.OCSP_BASIC), der.octet_string(basic))
    return der.sequence(der.element(der.ENUMERATED, bytes((_SUCCESSFUL,))), der.explicit(0, answer))


def error_response(status: ResponseStatus) -> bytes:
    """Return the DER OCSPResponse that says why there is no answer; nobody signs it (RFC 6960 2.3)."""
    return der.sequence(der.element(der.ENUMERATED, bytes((status,))))
