"""What an opened pkcsPKIEnvelope holds: a PKCS#10, or an issuer and a serial (RFC 8894 3.3).

Everything from decryption to proof of possession fails in one way for each kind of message, and takes one time; whoever
adds a failure here must not add a second answer. Opening the envelope is the server's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest, algorithm_identifier
from scep_ra.pki.ber import Limits, normalise, scan
from scep_ra.pki.csr import CertificationRequest, parse_request
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, SignatureInvalid
from scep_ra.pki.keys import KeyKind, check_certified_key, load_public_key
from scep_ra.scep.errors import AlgorithmNotAllowed, IntegrityFailure, InvalidRequest, RefusedMessage
from scep_ra.scep.terms import MessageType

CERTIFICATION_REQUESTS: Final = frozenset({MessageType.PKCS_REQ, MessageType.RENEWAL_REQ})
# A request of ordinary size that nobody made: reading it costs what reading a decrypted one costs.
_DECOY: Final = der.sequence(
    der.sequence(
        der.integer(0),
        der.sequence(der.set_of([der.sequence(der.oid(oids.COMMON_NAME), der.directory_string("decoy"))])),
        der.sequence(algorithm_identifier(oids.RSA_ENCRYPTION), der.bit_string(bytes(270))),
        der.explicit(0, b""),
    ),
    algorithm_identifier(oids.SHA256_WITH_RSA),
    der.bit_string(bytes(256)),
)


def read_csr(
    body: bytes,
    *,
    required_spki: bytes | None,
    limits: Limits,
    digests: frozenset[Digest],
    key_kinds: Collection[KeyKind],
) -> CertificationRequest:
    """Read a DER PKCS#10 and prove possession; raise RefusedMessage.

    `required_spki` is the signer's own key, where a request for another one must not be signed by it. Up to the
    comparison of keys every failure is the same IntegrityFailure: otherwise whoever re-signs a recorded envelope under
    a key of his own learns whether his change to it decrypted to something.
    """
    try:
        scan(body, limits)
        csr = parse_request(body)
    except MalformedData as error:
        raise IntegrityFailure(f"PKCS#10: {error}") from None
    if required_spki is not None and csr.spki != required_spki:
        raise IntegrityFailure("the PKCS#10 key is not the signer's, whose certificate leads to nobody trusted")
    try:
        csr.verify_possession(digests)
        check_certified_key(load_public_key(csr.spki), key_kinds)
    except AlgorithmRefused as error:
        raise AlgorithmNotAllowed(f"PKCS#10: {error}") from None
    except (SignatureInvalid, MalformedData) as error:
        raise IntegrityFailure(f"PKCS#10: {error}") from None
    try:
        csr.check_form()
    except MalformedData as error:
        raise InvalidRequest(f"PKCS#10: {error}") from None
    return csr


def read_issuer_and_serial(body: bytes, limits: Limits) -> tuple[bytes, int]:
    """Read IssuerAndSerialNumber; a body that is none looks like an envelope that did not open (`unreadable`)."""
    try:
        fields = der.Reader(normalise(body, limits)).enter()
        issuer, serial = fields.element(der.SEQUENCE), fields.integer()
        fields.finish()
    except MalformedData as error:
        raise unreadable(MessageType.GET_CERT, f"IssuerAndSerialNumber: {error}") from None
    return issuer, serial


def unreadable(message_type: MessageType, reason: str) -> RefusedMessage:
    """Return the one failure of a message type for everything from decryption to a body that makes no sense.

    Two would be an oracle: a recorded PKCSReq, changed and signed anew as a GetCert, would tell good padding from bad.
    """
    if message_type in (MessageType.GET_CERT, MessageType.GET_CRL):
        return InvalidRequest(reason)
    return IntegrityFailure(reason)


def spend_equal_time(message_type: MessageType) -> None:
    """Do the work that a decrypted body would have cost, so that the clock does not tell one failure from another."""
    if message_type in CERTIFICATION_REQUESTS:
        scan(_DECOY)
        parse_request(_DECOY)
