"""Look a certificate over before anybody gets it: is it what was ordered, is it an end entity's, does it verify.

Fast enough for every certificate, and meant for those of any authority, the local one included. Deep linting
(every rule of every profile) is a matter of tests with outside tools, not of this module.
"""

from __future__ import annotations

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import MalformedData, PKIError
from scep_ra.pki.issuance import CERTIFICATE_SERIAL_MAX_OCTETS
from scep_ra.pki.profiles import KeyUsage
from scep_ra.pki.validation import is_issued_by


class CertificateFault(PKIError):
    """A certificate is not what was ordered, or says more than an end entity's may; the text names the field."""


def check_end_entity(
    certificate: Certificate,
    *,
    issuer: Certificate,
    certificate_serial: int | None,
    subject: bytes,
    subject_alt_name: bytes | None,
    spki: bytes,
) -> None:
    """Check an issued certificate against what was approved; raise CertificateFault.

    Subject (DER Name), alternative names (DER GeneralNames, None = no such extension) and key (DER
    SubjectPublicKeyInfo) must be the very octets. The serial is None where the authority chooses it.
    """
    if certificate_serial is not None and certificate.certificate_serial != certificate_serial:
        raise CertificateFault("the certificate serial is not the one that was ordered")
    if certificate.subject != subject:
        raise CertificateFault("the subject is not the one that was ordered")
    if certificate.extension(oids.SUBJECT_ALT_NAME) != subject_alt_name:
        raise CertificateFault("the subjectAltName is not the one that was ordered")
    if certificate.spki != spki:
        raise CertificateFault("the public key is not the one that was ordered")
    check_contents(certificate, issuer=issuer)
    check_signature(certificate, issuer=issuer)


def check_signature(certificate: Certificate, *, issuer: Certificate) -> None:
    """Check that the issuer's key signed the certificate with SHA-2; raise CertificateFault."""
    if not is_issued_by(certificate, issuer):
        raise CertificateFault("the signature is not the issuer's, or its digest is weaker than SHA-2")


def check_contents(certificate: Certificate, *, issuer: Certificate) -> None:
    """Check issuer, serial, validity, algorithm, and that this is no CA (RFC 5280 4.1); raise CertificateFault."""
    if certificate.issuer != issuer.subject:
        raise CertificateFault("the issuer is another authority")
    # A sign bit makes bit_length // 8 + 1 octets, as der.integer writes them.
    octets = certificate.certificate_serial.bit_length() // 8 + 1
    if certificate.certificate_serial <= 0 or octets > CERTIFICATE_SERIAL_MAX_OCTETS:
        raise CertificateFault("the certificate serial is not a positive number of at most 20 octets")
    if not issuer.not_before <= certificate.not_before < certificate.not_after <= issuer.not_after:
        raise CertificateFault("the validity is empty or reaches beyond the issuer's")
    if _inner_algorithm(certificate) != certificate.signature_algorithm:
        raise CertificateFault("the two signature algorithms differ (RFC 5280 4.1.1.2)")
    try:
        _check_not_ca(certificate)
    except MalformedData:
        raise CertificateFault("basicConstraints or keyUsage cannot be read") from None


def _inner_algorithm(certificate: Certificate) -> bytes:
    fields = der.Reader(certificate.tbs).enter()
    fields.enter_optional(der.context(0))
    fields.integer()
    return fields.element(der.SEQUENCE)


def _check_not_ca(certificate: Certificate) -> None:
    constraints = certificate.extension(oids.BASIC_CONSTRAINTS)
    if constraints is not None:
        fields = der.Reader(constraints).enter()
        if fields.peek() == der.BOOLEAN and fields.boolean():
            raise CertificateFault("basicConstraints makes it a CA")
    usage = certificate.extension(oids.KEY_USAGE)
    if usage is not None:
        bits = der.Reader(usage).contents(der.BIT_STRING)[1:]
        # Both bits that a CA needs stand in the first octet, bit 0 highest.
        if bits and bits[0] & (0x80 >> KeyUsage.KEY_CERT_SIGN | 0x80 >> KeyUsage.CRL_SIGN):
            raise CertificateFault("keyUsage lets it sign certificates or CRLs")
