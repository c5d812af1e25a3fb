"""What a SCEP client learns before its first message: GetCACaps (RFC 8894 3.5), GetCACert (4.2), and whom to trust.

Both answers come unauthenticated. A fingerprint obtained by other means (2.2) makes the certificates trustworthy;
nothing makes the capabilities so, hence there is a floor below which no choice goes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.ber import normalise
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, PKIError
from scep_ra.pki.keys import load_public_key
from scep_ra.pki.names import format_name
from scep_ra.pki.profiles import KeyUsage
from scep_ra.pki.signed_data import parse_signed_data
from scep_ra.pki.validation import is_issued_by
from scep_ra.scep.errors import ReplyError
from scep_ra.scep.terms import Capability

_CAPABILITIES: Final = {capability.lower(): capability for capability in Capability}
_DIGESTS: Final = {
    Capability.SHA_512: Digest.SHA512,
    Capability.SHA_384: Digest.SHA384,
    Capability.SHA_256: Digest.SHA256,
}
# RFC 8894 3.5.2: SCEPStandard stands for these three.
_STANDARD: Final = frozenset({Capability.AES, Capability.POST_PKI_OPERATION, Capability.SHA_256})
_DIGEST_BY_HEX_LENGTH: Final = {64: "sha256", 40: "sha1"}


# --- GetCACaps -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAlgorithms:
    """How to speak to a server."""

    digest: Digest
    cipher: Cipher
    post: bool
    renewal: bool


def parse_capabilities(body: bytes) -> frozenset[Capability | str]:
    """Read the answer to GetCACaps: one word a line; words that RFC 8894 does not define are kept as they are.

    Line ends of any kind, blank lines and other letter case are tolerated (RFC 8894 3.5.2).
    """
    words = (line.strip() for line in body.decode("ascii", "replace").splitlines())
    return frozenset(_CAPABILITIES.get(word.lower(), word) for word in words if word)


def choose_algorithms(capabilities: frozenset[Capability | str], *, allow_weak: bool = False) -> ChosenAlgorithms:
    """Choose the strongest digest, AES, and POST where announced.

    Raise AlgorithmRefused when that would mean less than SHA-256 or AES; with `allow_weak` SHA-1 and 3DES are used.
    """
    if Capability.SCEP_STANDARD in capabilities:
        capabilities |= _STANDARD
    digest = next((digest for word, digest in _DIGESTS.items() if word in capabilities), None)
    # RFC 8894 3.5.2: the keyword AES means AES128-CBC.
    cipher = Cipher.AES128 if Capability.AES in capabilities else None
    if not allow_weak and (digest is None or cipher is None):
        missing = " and ".join(name for name, found in (("SHA-256", digest), ("AES", cipher)) if found is None)
        raise AlgorithmRefused(
            f"the server does not announce {missing}: choose digest and cipher yourself if you know it speaks them, "
            "or allow SHA-1 and 3DES"
        )
    return ChosenAlgorithms(
        digest=digest or Digest.SHA1,
        cipher=cipher or Cipher.TRIPLE_DES,
        post=Capability.POST_PKI_OPERATION in capabilities,
        renewal=Capability.RENEWAL in capabilities,
    )


# --- GetCACert -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CABundle:
    """The certificates of a service by their roles; without an RA one certificate has all three."""

    signing: Certificate  # signs CertReps
    encryption: Certificate  # requests are encrypted to it
    issuer: Certificate  # the CA: issuer of the RA certificates
    certificates: tuple[Certificate, ...]  # all of the answer, in its order
    weak_digests: bool = False  # believe MD5 and SHA-1 signatures between them

    def path(self, certificate: Certificate) -> tuple[Certificate, ...]:
        """Return the certificate and those above it, each link verified by its signature."""
        path = [certificate]
        while (issuer := _issuer_of(path[-1], self.certificates, self.weak_digests)) and issuer not in path:
            path.append(issuer)
        return tuple(path)


def parse_ca_certificates(content_type: str, body: bytes, *, weak_digests: bool = False) -> CABundle:
    """Read the answer to GetCACert, one DER certificate or certs-only SignedData, and find who has which role.

    The shape decides, as servers mislabel both forms; `content_type` only explains what is neither. Raise ReplyError.
    """
    try:
        certificates = _read_certificates(body)
    except MalformedData as error:
        raise ReplyError(
            f"the answer to GetCACert ({content_type or 'without content type'}, {len(body)} octets) holds no "
            f"certificate: check that the URL is that of a SCEP service ({error})"
        ) from None
    authorities = [certificate for certificate in certificates if is_ca(certificate)]
    registration = [certificate for certificate in certificates if certificate not in authorities]
    signing = _find(registration or authorities, KeyUsage.DIGITAL_SIGNATURE, certificates)
    encryption = _find(registration or authorities, KeyUsage.KEY_ENCIPHERMENT, certificates)
    issuer = _issuer_of(signing, certificates, weak_digests) if registration else signing
    if issuer is None or (registration and _issuer_of(encryption, certificates, weak_digests) != issuer):
        raise ReplyError("GetCACert: the RA certificates are not signed by one CA certificate of the same answer")
    return CABundle(
        signing=signing, encryption=encryption, issuer=issuer, certificates=certificates, weak_digests=weak_digests
    )


def _read_certificates(body: bytes) -> tuple[Certificate, ...]:
    octets = normalise(body)
    if der.Reader(octets).enter().peek() != der.OBJECT_IDENTIFIER:
        return (parse_certificate(octets),)
    found = parse_signed_data(octets).certificates
    if not found:
        raise MalformedData("the certs-only message is empty")
    return tuple(map(parse_certificate, found))


def is_ca(certificate: Certificate) -> bool:
    """Tell whether basicConstraints says CA; old self-signed roots without the extension count as CAs."""
    value = certificate.extension(oids.BASIC_CONSTRAINTS)
    if value is None:
        return certificate.is_self_issued
    try:
        fields = der.Reader(value).enter()
        return fields.peek() == der.BOOLEAN and fields.boolean()
    except MalformedData:
        return False


def _issuer_of(certificate: Certificate, candidates: tuple[Certificate, ...], weak_digests: bool) -> Certificate | None:
    """Only a CA counts: any holder of an end-entity certificate could sign an RA of his own otherwise."""
    issuers = (each for each in candidates if is_ca(each))
    return next((each for each in issuers if is_issued_by(certificate, each, weak_digests=weak_digests)), None)


def _find(candidates: list[Certificate], usage: KeyUsage, certificates: tuple[Certificate, ...]) -> Certificate:
    """Return the newest certificate with this usage (RFC 8894 2.1.2); an issuing CA before the CAs above it.

    The only candidate is taken as it is: sscep and strongSwan do not look at its usages either.
    """
    if len(candidates) == 1:
        return candidates[0]
    fitting = [each for each in candidates if _may(each, usage)]
    above = {each.issuer for each in certificates if not each.is_self_issued}
    lowest = [each for each in fitting if each.subject not in above] or fitting
    if not lowest:
        raise ReplyError(
            f"GetCACert: no {'CA' if is_ca(candidates[0]) else 'RA'} certificate has the key usage "
            f"{usage.name.lower()}: the service cannot be used for SCEP"
        )
    return max(lowest, key=lambda certificate: certificate.not_before)


def _may(certificate: Certificate, usage: KeyUsage) -> bool:
    try:
        is_rsa = isinstance(load_public_key(certificate.spki), RSAPublicKey)
        value = certificate.extension(oids.KEY_USAGE)
        # Without the extension a key may be used for everything (RFC 5280 4.2.1.3).
        bits = b"\xff" if value is None else der.Reader(value).contents(der.BIT_STRING)[1:]
    except PKIError:
        return False
    is_set = bool(bits) and bool(bits[0] & 0x80 >> usage)
    return is_set and (is_rsa or usage is not KeyUsage.KEY_ENCIPHERMENT)


# --- trust ---------------------------------------------------------------------------------------------------------


def normalise_fingerprint(text: str) -> str:
    """Return a fingerprint as lower-case hex; raise MalformedData for what is neither SHA-256 nor SHA-1."""
    digits = re.sub(r"[\s:]", "", text).lower()
    if len(digits) not in _DIGEST_BY_HEX_LENGTH or not re.fullmatch("[0-9a-f]*", digits):
        raise MalformedData("a fingerprint has 64 (SHA-256) or 40 (SHA-1) hexadecimal digits")
    return digits


def check_fingerprint(bundle: CABundle, expected: str) -> None:
    """Check that everything the client relies on hangs below the certificate with this SHA-256 or SHA-1 fingerprint.

    A pinned CA still lets every holder of one of its certificates pose as its RA, as SCEP has no mark for RAs;
    whoever fears that pins the RA certificate. Raise ReplyError, or MalformedData for a bad fingerprint.
    """
    wanted = normalise_fingerprint(expected)
    digest = _DIGEST_BY_HEX_LENGTH[len(wanted)]
    for leaf in (bundle.signing, bundle.encryption):
        if wanted not in [certificate.fingerprint(digest) for certificate in bundle.path(leaf)]:
            raise ReplyError(
                f"no certificate above {format_name(leaf.subject)} has the fingerprint {wanted}: do not trust this "
                f"server unless the fingerprint was mistyped (its CA has {bundle.issuer.fingerprint(digest)})"
            )
