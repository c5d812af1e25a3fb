"""X.509 certificates as values (RFC 5280), kept byte for byte as received; nothing here validates a path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from scep_ra.pki import der, oids
from scep_ra.pki.errors import MalformedData


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One extension: `value` is the DER inside extnValue."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate, its DER and the fields that SCEP needs; names and keys stay raw so that copies are exact."""

    der: bytes
    tbs: bytes  # DER TBSCertificate
    certificate_serial: int
    issuer: bytes  # DER Name
    subject: bytes  # DER Name
    not_before: datetime
    not_after: datetime
    spki: bytes  # DER SubjectPublicKeyInfo
    extensions: tuple[Extension, ...]
    signature_algorithm: bytes  # DER AlgorithmIdentifier
    signature: bytes

    @property
    def is_self_issued(self) -> bool:
        """Tell whether issuer and subject are the same octets (says nothing about the signature)."""
        return self.issuer == self.subject

    def extension(self, oid: str) -> bytes | None:
        """Return the DER value of an extension, None when absent."""
        return next((extension.value for extension in self.extensions if extension.oid == oid), None)

    @property
    def subject_key_identifier(self) -> bytes | None:
        """Return the keyIdentifier octets of the extension, None when absent or malformed."""
        value = self.extension(oids.SUBJECT_KEY_IDENTIFIER)
        try:
            return None if value is None else der.Reader(value).contents(der.OCTET_STRING)
        except MalformedData:
            return None

    def fingerprint(self, digest: str = "sha256") -> str:
        """Return the digest over the whole DER as lower-case hex (RFC 8894 2.2)."""
        return hashlib.new(digest, self.der, usedforsecurity=False).hexdigest()


def parse_certificate(octets: bytes) -> Certificate:
    """Parse one DER certificate of any version, v1 included (certmonger's stand-in is one); raise MalformedData."""
    outer = der.Reader(octets)
    whole = outer.enter()
    outer.finish()
    tbs = whole.element(der.SEQUENCE)
    signature_algorithm = whole.element(der.SEQUENCE)
    signature = whole.bit_string()
    whole.finish()
    fields = der.Reader(tbs).enter()
    fields.enter_optional(der.context(0))  # version: extensions decide what we believe, not the number
    serial = fields.integer()
    fields.element(der.SEQUENCE)  # inner signature algorithm: equality is the verifier's business
    issuer = fields.element(der.SEQUENCE)
    validity = fields.enter()
    not_before, not_after = validity.time(), validity.time()
    subject = fields.element(der.SEQUENCE)
    spki = fields.element(der.SEQUENCE)
    for unique_identifier in (der.context(1, constructed=False), der.context(2, constructed=False)):
        if fields.peek() == unique_identifier:
            fields.element()
    extensions = fields.enter_optional(der.context(3))
    fields.finish()
    return Certificate(
        der=octets,
        tbs=tbs,
        certificate_serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        spki=spki,
        extensions=() if extensions is None else parse_extensions(extensions.element(der.SEQUENCE)),
        signature_algorithm=signature_algorithm,
        signature=signature,
    )


def parse_extensions(octets: bytes) -> tuple[Extension, ...]:
    """Parse a DER Extensions SEQUENCE; raise MalformedData, also for an OID that stands twice (RFC 5280 4.2)."""
    extensions: list[Extension] = []
    reader = der.Reader(octets)
    entries = reader.enter()
    reader.finish()
    while not entries.at_end():
        entry = entries.enter()
        oid = entry.oid()
        critical = entry.boolean() if entry.peek() == der.BOOLEAN else False
        extensions.append(Extension(oid=oid, critical=critical, value=entry.contents(der.OCTET_STRING)))
        entry.finish()
    if len({extension.oid for extension in extensions}) != len(extensions):
        raise MalformedData("an extension stands twice")
    return tuple(extensions)
