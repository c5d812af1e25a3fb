"""PKCS#10 certification requests (RFC 2986): read with raw parts kept, verify possession, build.

`cryptography` refuses requests that real clients send (strongSwan's attribute SET is not sorted, `attributes` may be
missing), so the octets are walked here and only the signature check is the library's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest, SignatureAlgorithm, parse_signature, signature_identifier
from scep_ra.pki.certificates import Extension, parse_extensions
from scep_ra.pki.errors import AlgorithmRefused, MalformedData
from scep_ra.pki.keys import Signer, load_public_key, verify_signature
from scep_ra.pki.names import decode_string

# PKCS#9's, Microsoft's and VeriSign's spelling of the same payload.
_EXTENSION_REQUESTS: Final = frozenset({oids.EXTENSION_REQUEST, oids.MS_CERT_EXTENSIONS, oids.SCEP_EXTENSION_REQUEST})
# Intune's challenges are signed blobs of more than 1 KB; RFC 2985's bound of 255 is not kept in the field.
MAX_CHALLENGE_BYTES: Final = 8192


@dataclass(frozen=True, kw_only=True)  # no slots: what is parsed late is kept
class CertificationRequest:
    """A request as received; everything behind `trailing` is parsed only when asked for."""

    der: bytes
    info: bytes  # DER CertificationRequestInfo, what the signature covers
    version: int
    subject: bytes  # DER Name
    spki: bytes  # DER SubjectPublicKeyInfo
    attributes: bytes  # contents octets of [0], b"" when absent
    signature_algorithm: bytes  # DER AlgorithmIdentifier
    signature: bytes
    trailing: bytes  # octets behind the request: b"" in an honest one

    def check_form(self) -> None:
        """Check version, attributes and that nothing follows; raise MalformedData (RFC 2986 4.1)."""
        if self.version != 0:
            raise MalformedData(f"PKCS#10 version {self.version + 1}")
        if self.trailing:
            raise MalformedData("octets behind the PKCS#10 request")
        # Read once so that a second challenge or an unreadable extension is found here and not half-way.
        _ = self.challenge_password, self.requested_extensions, self.unstructured_names

    def verify_possession(self, allowed: frozenset[Digest]) -> None:
        """Verify the request's own signature; raise SignatureInvalid or AlgorithmRefused."""
        algorithm = parse_signature(self.signature_algorithm)
        digest = _named_digest(algorithm)
        if digest not in allowed:
            raise AlgorithmRefused(f"PKCS#10 signed with {digest}")
        verify_signature(load_public_key(self.spki), algorithm, digest, self.signature, self.info)

    @cached_property
    def spki_digest(self) -> bytes:
        """Return SHA-256 of the DER SubjectPublicKeyInfo, by which a key is told from others."""
        return hashlib.sha256(self.spki).digest()

    @cached_property
    def _values_by_type(self) -> dict[str, tuple[bytes, ...]]:
        values: dict[str, tuple[bytes, ...]] = {}
        reader = der.Reader(self.attributes)
        while not reader.at_end():
            attribute = reader.enter()
            oid = attribute.oid()
            elements = attribute.enter(der.SET)
            while not elements.at_end():
                values[oid] = (*values.get(oid, ()), elements.element())
        return values

    def attribute_values(self, oid: str) -> tuple[bytes, ...]:
        """Return the DER values of all attributes of this type, in order; raise MalformedData."""
        return self._values_by_type.get(oid, ())

    @property
    def challenge_password(self) -> str | None:
        """Return the challengePassword, None when absent or empty; raise MalformedData when there are two."""
        values = self.attribute_values(oids.CHALLENGE_PASSWORD)
        if not values:
            return None
        if len(values) > 1:
            raise MalformedData("more than one challengePassword")
        if len(values[0]) > MAX_CHALLENGE_BYTES:
            raise MalformedData("challengePassword is too long")
        return decode_string(values[0]) or None

    def without_challenge(self) -> bytes:
        """Return the DER request without its challengePassword, for keeping: a secret in it would outlive its use.

        Without one these are the octets received; otherwise the signature no longer fits. Raise MalformedData.
        """
        if not self.attribute_values(oids.CHALLENGE_PASSWORD):
            return self.der
        reader, kept = der.Reader(self.attributes), b""
        while not reader.at_end():
            attribute = reader.element()
            if der.Reader(attribute).enter().oid() != oids.CHALLENGE_PASSWORD:
                kept += attribute
        info = der.sequence(der.integer(self.version), self.subject, self.spki, der.element(der.context(0), kept))
        return der.sequence(info, self.signature_algorithm, der.bit_string(self.signature))

    @property
    def requested_extensions(self) -> tuple[Extension, ...]:
        """Return the extensions asked for, under any of the three attribute types; raise MalformedData."""
        values = [value for oid in sorted(_EXTENSION_REQUESTS) for value in self.attribute_values(oid)]
        if len(values) > 1:
            raise MalformedData("more than one extension request")
        return parse_extensions(values[0]) if values else ()

    @property
    def subject_alt_name(self) -> bytes | None:
        """Return the DER GeneralNames of the requested subjectAltName, None when absent."""
        extensions = self.requested_extensions
        return next((extension.value for extension in extensions if extension.oid == oids.SUBJECT_ALT_NAME), None)

    @property
    def unstructured_names(self) -> tuple[str, ...]:
        """Return unstructuredName attributes of the request itself (some stacks put them here, not in the subject)."""
        return tuple(map(decode_string, self.attribute_values(oids.UNSTRUCTURED_NAME)))


def _named_digest(algorithm: SignatureAlgorithm) -> Digest:
    if algorithm.digest is None:
        raise AlgorithmRefused("PKCS#10 signature algorithm names no digest")
    return algorithm.digest


def parse_request(octets: bytes) -> CertificationRequest:
    """Parse a DER request; raise MalformedData. Form and possession are checked by the methods of the result."""
    outer = der.Reader(octets)
    whole = outer.element(der.SEQUENCE)
    parts = der.Reader(whole).enter()
    info = parts.element(der.SEQUENCE)
    signature_algorithm = parts.element(der.SEQUENCE)
    signature = parts.bit_string()
    parts.finish()
    fields = der.Reader(info).enter()
    version = fields.integer()
    subject = fields.element(der.SEQUENCE)
    spki = fields.element(der.SEQUENCE)
    attributes = fields.contents(der.context(0)) if not fields.at_end() else b""
    fields.finish()
    return CertificationRequest(
        der=whole,
        info=info,
        version=version,
        subject=subject,
        spki=spki,
        attributes=attributes,
        signature_algorithm=signature_algorithm,
        signature=signature,
        trailing=outer.remaining(),
    )


def build_request(
    *,
    subject: bytes,
    key: Signer,
    challenge_password: str | None = None,
    extensions: Sequence[Extension] = (),
    digest: Digest = Digest.SHA256,
) -> bytes:
    """Build and sign a request; returns DER."""
    attributes: list[bytes] = []
    if challenge_password is not None:
        # PrintableString where possible: some servers read nothing else (RFC 2985 5.4.1 prefers it).
        attributes.append(encode_attribute(oids.CHALLENGE_PASSWORD, der.directory_string(challenge_password)))
    if extensions:
        attributes.append(encode_attribute(oids.EXTENSION_REQUEST, encode_extensions(extensions)))
    encoded_attributes = der.element(der.context(0), b"".join(sorted(attributes)))  # [0] IMPLICIT SET OF
    info = der.sequence(der.integer(0), subject, key.spki, encoded_attributes)
    signature = key.sign(info, digest)
    return der.sequence(info, signature_identifier(key.scheme, digest), der.bit_string(signature))


def encode_attribute(oid: str, value: bytes) -> bytes:
    """Encode an Attribute (X.501, as in PKCS#10 and CMS) with one DER value."""
    return der.sequence(der.oid(oid), der.element(der.SET, value))


def encode_extensions(extensions: Sequence[Extension]) -> bytes:
    """Encode a DER Extensions SEQUENCE."""
    return der.sequence(
        *(
            der.sequence(der.oid(item.oid), der.TRUE if item.critical else b"", der.octet_string(item.value))
            for item in extensions
        )
    )
