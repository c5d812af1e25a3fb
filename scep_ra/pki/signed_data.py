"""CMS SignedData (RFC 5652 5): parse, verify, build; and its signature-less form that carries certificates and CRLs.

Input is what `ber.normalise` returned. Signed attributes are mandatory here: a verifier that accepts messages with
and without them can be made to take one for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import (
    Digest,
    SignatureScheme,
    algorithm_identifier,
    parse_digest,
    parse_signature,
    signature_identifier,
)
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import encode_attribute
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, SignatureInvalid
from scep_ra.pki.keys import Signer, load_public_key, verify_signature

# A device chain is short, and SCEP defines ten attributes; what goes beyond wants our time, not a certificate.
MAX_CERTIFICATES: Final = 10
MAX_ATTRIBUTES: Final = 32
_CRLS: Final = der.context(1)
_CERTIFICATES: Final = der.context(0)
_SUBJECT_KEY_IDENTIFIER: Final = der.context(0, constructed=False)
_DATA_WITHOUT_CONTENT: Final = der.sequence(der.oid(oids.DATA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A CMS attribute: its type and its DER values."""

    oid: str
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateID:
    """Names a certificate: by issuer and serial, or by subject key identifier."""

    issuer: bytes | None = None  # DER Name
    certificate_serial: int | None = None
    subject_key_identifier: bytes | None = None

    def names(self, certificate: Certificate) -> bool:
        """Tell whether this is the identifier of that certificate."""
        if self.subject_key_identifier is not None:
            return certificate.subject_key_identifier == self.subject_key_identifier
        return certificate.certificate_serial == self.certificate_serial and certificate.issuer == self.issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerInfo:
    """One signature, not yet verified."""

    signer_id: CertificateID
    digest_algorithm: bytes  # DER AlgorithmIdentifier
    signed_attributes: bytes  # as received, retagged to SET: what the signature covers (RFC 5652 5.4)
    attributes: tuple[Attribute, ...]
    signature_algorithm: bytes  # DER AlgorithmIdentifier
    signature: bytes

    def values(self, oid: str) -> tuple[bytes, ...]:
        """Return the DER values of all signed attributes of this type."""
        return tuple(value for item in self.attributes if item.oid == oid for value in item.values)

    def single_value(self, oid: str) -> bytes:
        """Return the DER value of an attribute that stands exactly once with one value; raise MalformedData."""
        values = self.values(oid)
        if len(values) != 1:
            raise MalformedData(f"signed attribute {oid} has {len(values)} values")
        return values[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedData:
    """A parsed SignedData; `content` is None when eContent is absent, b"" when it is empty."""

    content_type: str
    content: bytes | None
    certificates: tuple[bytes, ...]  # DER, X.509 only
    crls: tuple[bytes, ...]  # DER
    signer_infos: tuple[SignerInfo, ...]

    def readable_certificates(self) -> Iterator[Certificate]:
        """Yield the enclosed certificates that can be parsed; unreadable neighbours do not matter."""
        for octets in self.certificates:
            with suppress(MalformedData):
                yield parse_certificate(octets)

    def find_certificate(self, signer_id: CertificateID) -> Certificate | None:
        """Return the enclosed certificate with this identifier."""
        return next((each for each in self.readable_certificates() if signer_id.names(each)), None)


# --- reading -------------------------------------------------------------------------------------------------------


def open_content_info(octets: bytes, content_type: str) -> der.Reader:
    """Return a reader at the content of a DER ContentInfo of this type; raise MalformedData."""
    outer = der.Reader(octets)
    info = outer.enter()
    outer.finish()
    found = info.oid()
    if found != content_type:
        raise MalformedData(f"CMS content type {found} where {content_type} is expected")
    content = info.enter(der.context(0))
    info.finish()
    return content


def parse_signed_data(octets: bytes) -> SignedData:
    """Parse a ContentInfo that holds SignedData, in DER shape; raise MalformedData."""
    fields = open_content_info(octets, oids.SIGNED_DATA).enter()
    fields.integer()  # the version follows from the rest; clients get it wrong, nothing depends on it
    fields.element(der.SET)  # digestAlgorithms: only a hint for one-pass verifiers
    content_type, content = _parse_content(fields.enter())
    certificates = _elements(fields.enter_optional(_CERTIFICATES), MAX_CERTIFICATES)
    crls = _elements(fields.enter_optional(_CRLS), MAX_CERTIFICATES)
    signers = fields.enter(der.SET)
    signer_infos: list[SignerInfo] = []
    while not signers.at_end():
        signer_infos.append(_parse_signer_info(signers.enter()))
    fields.finish()
    return SignedData(
        content_type=content_type,
        content=content,
        certificates=certificates,
        crls=crls,
        signer_infos=tuple(signer_infos),
    )


def _parse_content(reader: der.Reader) -> tuple[str, bytes | None]:
    content_type = reader.oid()
    explicit = reader.enter_optional(der.context(0))
    reader.finish()
    return content_type, None if explicit is None else explicit.contents(der.OCTET_STRING)


def _elements(reader: der.Reader | None, limit: int) -> tuple[bytes, ...]:
    """Return the SEQUENCE elements of a CertificateSet or CRL set; other choices are nothing to us."""
    elements: list[bytes] = []
    while reader is not None and not reader.at_end():
        is_sequence = reader.peek() == der.SEQUENCE
        octets = reader.element()
        if is_sequence:
            elements.append(octets)
        if len(elements) > limit:
            raise MalformedData(f"more than {limit} certificates or CRLs")
    return tuple(elements)


def _parse_signer_info(fields: der.Reader) -> SignerInfo:
    fields.integer()  # version 1 or 3 by the form of the identifier
    signer_id = parse_certificate_id(fields)
    digest_algorithm = fields.element(der.SEQUENCE)
    if fields.peek() != der.context(0):
        raise MalformedData("no signed attributes")
    signed_attributes = bytes([der.SET]) + fields.element()[1:]
    signature_algorithm = fields.element(der.SEQUENCE)
    signature = fields.contents(der.OCTET_STRING)
    return SignerInfo(  # unsigned attributes may follow and are ignored
        signer_id=signer_id,
        digest_algorithm=digest_algorithm,
        signed_attributes=signed_attributes,
        attributes=_parse_attributes(der.Reader(signed_attributes).enter(der.SET)),
        signature_algorithm=signature_algorithm,
        signature=signature,
    )


def parse_certificate_id(fields: der.Reader) -> CertificateID:
    """Read SignerIdentifier or RecipientIdentifier (RFC 5652 5.3, 6.2.1): issuer and serial, or [0] key identifier."""
    if fields.peek() == _SUBJECT_KEY_IDENTIFIER:
        return CertificateID(subject_key_identifier=fields.contents(_SUBJECT_KEY_IDENTIFIER))
    issuer_and_serial = fields.enter()
    issuer = issuer_and_serial.element(der.SEQUENCE)
    return CertificateID(issuer=issuer, certificate_serial=issuer_and_serial.integer())


def _parse_attributes(reader: der.Reader) -> tuple[Attribute, ...]:
    attributes: list[Attribute] = []
    while not reader.at_end():
        fields = reader.enter()
        oid = fields.oid()
        values: list[bytes] = []
        elements = fields.enter(der.SET)
        while not elements.at_end():
            values.append(elements.element())
        attributes.append(Attribute(oid=oid, values=tuple(values)))
        if len(attributes) > MAX_ATTRIBUTES:
            raise MalformedData(f"more than {MAX_ATTRIBUTES} signed attributes")
    return tuple(attributes)


# --- verifying -----------------------------------------------------------------------------------------------------


def verify_signer_info(signer: SignerInfo, certificate: Certificate, content: bytes | None, digest: Digest) -> None:
    """Verify one signature over the content; raise SignatureInvalid or AlgorithmRefused.

    `digest` is what parse_digest made of signer.digest_algorithm, after the caller's policy has seen it.
    """
    algorithm = parse_signature(signer.signature_algorithm)
    if algorithm.digest not in (None, digest):
        raise SignatureInvalid("signature algorithm and digest algorithm disagree")
    _check_content_attributes(signer, content or b"", digest)
    key = load_public_key(certificate.spki)
    try:
        verify_signature(key, algorithm, digest, signer.signature, signer.signed_attributes)
    except SignatureInvalid:
        # Some clients send the attributes in one order and sign the DER order (RFC 5652 5.4 demands the latter).
        resorted = _sorted_set(signer.signed_attributes)
        if resorted == signer.signed_attributes:
            raise
        verify_signature(key, algorithm, digest, signer.signature, resorted)


def _check_content_attributes(signer: SignerInfo, content: bytes, digest: Digest) -> None:
    """RFC 5652 11.1, 11.2: contentType is id-data, messageDigest is the digest of the content octets."""
    try:
        content_type = der.Reader(signer.single_value(oids.CONTENT_TYPE)).oid()
        message_digest = der.Reader(signer.single_value(oids.MESSAGE_DIGEST)).contents(der.OCTET_STRING)
    except MalformedData as error:
        raise SignatureInvalid(str(error)) from None
    if content_type != oids.DATA:
        raise SignatureInvalid("contentType attribute is not id-data")
    if message_digest != digest.of(content):
        raise SignatureInvalid("messageDigest is not the digest of the content")


def _sorted_set(octets: bytes) -> bytes:
    reader = der.Reader(octets).enter(der.SET)
    elements: list[bytes] = []
    while not reader.at_end():
        elements.append(reader.element())
    return der.set_of(elements)


def parse_signer_digest(signer: SignerInfo) -> Digest:
    """Return the digest that a signer names; raise AlgorithmRefused for one unknown or malformed."""
    try:
        return parse_digest(signer.digest_algorithm)
    except MalformedData as error:
        raise AlgorithmRefused(str(error)) from None


# --- building ------------------------------------------------------------------------------------------------------


class MessageSigner:
    """Signs CMS messages with one key and certificate; parts that never change are encoded once."""

    def __init__(self, key: Signer, certificate: Certificate, *, chain: Sequence[Certificate] = ()) -> None:
        self._key = key
        self.certificate = certificate
        self._signer_id = issuer_and_serial(certificate)
        self._certificates = der.element(_CERTIFICATES, b"".join(item.der for item in (certificate, *chain)))

    def sign(self, content: bytes | None, attributes: Iterable[bytes], digest: Digest) -> bytes:
        """Return a DER ContentInfo; content None leaves eContent absent, b"" makes it zero-length.

        `attributes` are DER Attributes; contentType and messageDigest are added here.
        """
        encapsulated = _DATA_WITHOUT_CONTENT
        if content is not None:
            encapsulated = der.sequence(der.oid(oids.DATA), der.explicit(0, der.octet_string(content)))
        message_digest = digest.of(content or b"")
        signed = b"".join(
            sorted(
                (
                    encode_attribute(oids.CONTENT_TYPE, der.oid(oids.DATA)),
                    encode_attribute(oids.MESSAGE_DIGEST, der.octet_string(message_digest)),
                    *attributes,
                )
            )
        )
        signature = self._key.sign(der.element(der.SET, signed), digest)
        signer_info = der.sequence(
            der.integer(1),
            self._signer_id,
            digest.identifier,
            der.explicit(0, signed),
            self._signature_algorithm(digest),
            der.octet_string(signature),
        )
        return content_info(
            oids.SIGNED_DATA,
            der.sequence(
                der.integer(1),
                der.element(der.SET, digest.identifier),
                encapsulated,
                self._certificates,
                der.element(der.SET, signer_info),
            ),
        )

    def _signature_algorithm(self, digest: Digest) -> bytes:
        # strongSwan 5.9.8 verifies only the plain rsaEncryption identifier (RFC 3370 3.2 allows both).
        if self._key.scheme is SignatureScheme.RSA_PKCS1:
            return algorithm_identifier(oids.RSA_ENCRYPTION)
        return signature_identifier(self._key.scheme, digest)


def issuer_and_serial(certificate: Certificate) -> bytes:
    """Encode IssuerAndSerialNumber with the issuer's octets as they stand in the certificate."""
    return der.sequence(certificate.issuer, der.integer(certificate.certificate_serial))


def content_info(content_type: str, content: bytes) -> bytes:
    """Encode a ContentInfo around encoded content."""
    return der.sequence(der.oid(content_type), der.explicit(0, content))


def build_certs_only(certificates: Iterable[bytes] = (), crls: Iterable[bytes] = ()) -> bytes:
    """Encode the signature-less SignedData of RFC 8894 3.4, certificates in the order given.

    DER would sort the SET; scepclient takes the first certificate for its own, so the leaf stays in front.
    """
    certificate_octets, crl_octets = b"".join(certificates), b"".join(crls)
    return content_info(
        oids.SIGNED_DATA,
        der.sequence(
            der.integer(1),
            der.element(der.SET, b""),
            _DATA_WITHOUT_CONTENT,
            der.element(_CERTIFICATES, certificate_octets) if certificate_octets else b"",
            der.element(_CRLS, crl_octets) if crl_octets else b"",
            der.element(der.SET, b""),
        ),
    )
