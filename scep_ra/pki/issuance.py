"""Write certificates: the extensions of RFC 5280 4.2, the TBSCertificate around them, and the signed whole.

Pure: serial, times and keys are arguments and nothing is signed here. Which extensions an end entity gets is decided
by the profile alone; policy about who may have a certificate does not belong here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest, SignatureScheme, signature_identifier
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import AlgorithmRefused
from scep_ra.pki.keys import load_public_key
from scep_ra.pki.profiles import CertificateProfile, KeyUsage

CERTIFICATE_SERIAL_MAX_OCTETS: Final = 20  # RFC 5280 4.1.2.2
_RANDOM_SERIAL_OCTETS: Final = 16

_VERSION_3: Final = der.explicit(0, der.integer(2))
_END_ENTITY: Final = der.sequence()  # cA is FALSE by DEFAULT, which DER leaves out
_RSA_ENCRYPTION: Final = der.oid(oids.RSA_ENCRYPTION)
# What a key cannot do must not be promised: RFC 8813 3 for id-ecPublicKey, RFC 3279 2.3.1 for rsaEncryption.
_NOT_FOR_EC: Final = frozenset({KeyUsage.KEY_ENCIPHERMENT, KeyUsage.DATA_ENCIPHERMENT})
_NOT_FOR_RSA: Final = frozenset({KeyUsage.KEY_AGREEMENT})


# --- signatures ----------------------------------------------------------------------------------------------------


def signing_scheme(spki: bytes) -> tuple[SignatureScheme, Digest]:
    """Return scheme and digest with which the key of this DER SubjectPublicKeyInfo signs certificates and CRLs."""
    key = load_public_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return SignatureScheme.RSA_PKCS1, Digest.SHA256
    # The digest is as strong as the curve (RFC 5480 4); P-521 takes the strongest that every client has.
    return SignatureScheme.ECDSA, Digest.SHA256 if key.key_size <= 256 else Digest.SHA384


def signature_algorithm(spki: bytes) -> bytes:
    """Return the DER AlgorithmIdentifier that the key of this DER SubjectPublicKeyInfo puts under certificates."""
    return signature_identifier(*signing_scheme(spki))


def assemble_signed(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """Return the DER Certificate or CertificateList: what was signed, the DER AlgorithmIdentifier, the signature."""
    return der.sequence(tbs, algorithm, der.bit_string(signature))


# --- extensions ----------------------------------------------------------------------------------------------------


def encode_extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    """Encode one DER Extension around the DER of its value."""
    return der.sequence(der.oid(oid), der.TRUE if critical else b"", der.octet_string(value))


def key_identifier(spki: bytes) -> bytes:
    """Return the 20 octets that name the key of a DER SubjectPublicKeyInfo (RFC 7093 2, method 1).

    Any unique octets serve (RFC 5280 4.2.1.2); this method has the length that clients know from SHA-1 and does not
    need SHA-1, which a FIPS build of OpenSSL may refuse.
    """
    fields = der.Reader(spki).enter()
    fields.element(der.SEQUENCE)
    return hashlib.sha256(fields.bit_string()).digest()[:20]


def issuer_key_identifier(issuer: Certificate) -> bytes:
    """Return the identifier by which an issuer's certificate names its key, whatever method made it."""
    return issuer.subject_key_identifier or key_identifier(issuer.spki)


def authority_key_identifier(octets: bytes) -> bytes:
    """Encode the AuthorityKeyIdentifier extension with a keyIdentifier only (RFC 5280 4.2.1.1)."""
    name = der.element(der.context(0, constructed=False), octets)
    return encode_extension(oids.AUTHORITY_KEY_IDENTIFIER, der.sequence(name))


def subject_key_identifier(octets: bytes) -> bytes:
    """Encode the SubjectKeyIdentifier extension."""
    return encode_extension(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(octets))


def key_usage(bits: tuple[KeyUsage, ...]) -> bytes:
    """Encode the KeyUsage extension, critical as RFC 5280 4.2.1.3 advises."""
    return encode_extension(oids.KEY_USAGE, der.named_bits(*bits), critical=True)


def ca_basic_constraints(path_length: int | None) -> bytes:
    """Encode BasicConstraints of a CA, critical (RFC 5280 4.2.1.9); None = no limit on the path."""
    limit = b"" if path_length is None else der.integer(path_length)
    return encode_extension(oids.BASIC_CONSTRAINTS, der.sequence(der.TRUE, limit), critical=True)


def _uniform_resource_identifier(url: str) -> bytes:
    return der.element(der.context(6, constructed=False), url.encode("ascii"))


def crl_distribution_point(url: str) -> bytes:
    """Encode CRLDistributionPoints with one URL (RFC 5280 4.2.1.13)."""
    full_name = der.explicit(0, der.explicit(0, _uniform_resource_identifier(url)))
    return encode_extension(oids.CRL_DISTRIBUTION_POINTS, der.sequence(der.sequence(full_name)))


def authority_info_access(*, ocsp_url: str, ca_issuers_url: str) -> bytes:
    """Encode AuthorityInfoAccess: where OCSP is answered and the issuer's certificate fetched (RFC 5280 4.2.2.1).

    An empty URL leaves its part out; two leave out the extension, of which nothing (b"") is returned.
    """
    places = ((oids.OCSP, ocsp_url), (oids.CA_ISSUERS, ca_issuers_url))
    descriptions = [der.sequence(der.oid(oid), _uniform_resource_identifier(url)) for oid, url in places if url]
    return encode_extension(oids.AUTHORITY_INFO_ACCESS, der.sequence(*descriptions)) if descriptions else b""


_NOCHECK: Final = encode_extension(oids.OCSP_NOCHECK, der.NULL)


# --- certificates --------------------------------------------------------------------------------------------------


def new_certificate_serial(random: Callable[[int], bytes]) -> int:
    """Return a certificate serial of 128 random bits under a leading 1: always positive, always 17 octets of DER."""
    return 1 << 8 * _RANDOM_SERIAL_OCTETS | int.from_bytes(random(_RANDOM_SERIAL_OCTETS), "big")


def assemble_tbs(
    *,
    certificate_serial: int,
    algorithm: bytes,
    issuer: bytes,
    not_before: datetime,
    not_after: datetime,
    subject: bytes,
    spki: bytes,
    extensions: bytes,
) -> bytes:
    """Return the DER TBSCertificate (v3); names, key and the concatenated DER Extensions are copied octet by octet."""
    return der.sequence(
        _VERSION_3,
        der.integer(certificate_serial),
        algorithm,
        issuer,
        der.sequence(der.time(not_before), der.time(not_after)),
        subject,
        spki,
        der.explicit(3, der.element(der.SEQUENCE, extensions)),
    )


class EndEntityTemplate:
    """All that the certificates of one issuer and one profile have in common, encoded once."""

    def __init__(self, issuer: Certificate, profile: CertificateProfile) -> None:
        self._issuer = issuer.subject
        self._algorithm = signature_algorithm(issuer.spki)
        self._profile = profile
        self._head = authority_key_identifier(issuer_key_identifier(issuer)) + encode_extension(
            oids.BASIC_CONSTRAINTS, _END_ENTITY, critical=True
        )
        self._rsa_key_usage = self._key_usage(_NOT_FOR_RSA)
        self._ec_key_usage = self._key_usage(_NOT_FOR_EC)
        self._tail = self._purposes() + self._addresses() + (_NOCHECK if profile.ocsp_nocheck else b"")

    def _key_usage(self, impossible: frozenset[KeyUsage]) -> bytes:
        bits = tuple(bit for bit in self._profile.key_usage if bit not in impossible)
        return key_usage(bits) if bits else b""

    def _purposes(self) -> bytes:
        purposes = self._profile.extended_key_usage
        if not purposes:
            return b""
        return encode_extension(oids.EXTENDED_KEY_USAGE, der.sequence(*(der.oid(purpose.oid) for purpose in purposes)))

    def _addresses(self) -> bytes:
        profile = self._profile
        access = authority_info_access(ocsp_url=profile.ocsp_url, ca_issuers_url=profile.ca_issuers_url)
        return (crl_distribution_point(profile.crl_url) if profile.crl_url else b"") + access

    def build(
        self,
        *,
        certificate_serial: int,
        not_before: datetime,
        not_after: datetime,
        subject: bytes,
        spki: bytes,
        subject_alt_name: bytes | None,
    ) -> bytes:
        """Return the DER TBSCertificate; raise AlgorithmRefused when the profile leaves this kind of key no usage."""
        extensions = self._head + self._key_usage_for(spki) + subject_key_identifier(key_identifier(spki)) + self._tail
        if subject_alt_name is not None:
            # RFC 5280 4.2.1.6: the names carry the identity when the subject is empty, so they must be understood.
            critical = subject == der.sequence()
            extensions += encode_extension(oids.SUBJECT_ALT_NAME, subject_alt_name, critical=critical)
        return assemble_tbs(
            certificate_serial=certificate_serial,
            algorithm=self._algorithm,
            issuer=self._issuer,
            not_before=not_before,
            not_after=not_after,
            subject=subject,
            spki=spki,
            extensions=extensions,
        )

    def _key_usage_for(self, spki: bytes) -> bytes:
        is_rsa = der.Reader(spki).enter().enter().element(der.OBJECT_IDENTIFIER) == _RSA_ENCRYPTION
        usage = self._rsa_key_usage if is_rsa else self._ec_key_usage
        # A certificate without KeyUsage may be used for everything (RFC 5280 4.2.1.3): never by accident.
        if not usage:
            raise AlgorithmRefused(f"the profile's key_usage holds nothing that an {'RSA' if is_rsa else 'EC'} key can")
        return usage
