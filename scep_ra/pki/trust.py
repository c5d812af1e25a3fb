"""Does a certificate lead to a trust anchor? Path building and validation (RFC 5280 6) over configured certificates.

As much of RFC 5280 as manufacturers' chains need: no policies, no name constraints, no revocation but a list of denied
certificates; a path that would need more is refused. Who is named by a trusted certificate is a question of `identity`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scep_ra.pki import der, names, oids
from scep_ra.pki.algorithms import Digest, parse_signature
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, PKIError, SignatureInvalid
from scep_ra.pki.keys import check_message_key, load_public_key, verify_signature
from scep_ra.pki.profiles import KeyUsage

# Leaf and anchor included; the longest that manufacturers are known to use has four.
MAX_PATH: Final = 6
# An honest search verifies one signature a step. Strangers who enclose many certificates of one name, all signed with
# one key, could else make us walk every order of them.
MAX_SIGNATURES: Final = 16
_MIN_RSA_BITS: Final = 2048
# RFC 5280 4.2: what is critical and not understood ends the path. Without a set of acceptable policies all of them are
# acceptable (6.1.1 c), so certificatePolicies asks nothing of us; nameConstraints and policyConstraints would.
_UNDERSTOOD: Final = frozenset(
    {
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.SUBJECT_ALT_NAME,
        oids.EXTENDED_KEY_USAGE,
        oids.CERTIFICATE_POLICIES,
    }
)
_PRODUCT: Final = re.compile(r"\bPID: *(\S+)")
_EXTENSION_NAMES: Final = {oids.NAME_CONSTRAINTS: "nameConstraints", oids.POLICY_CONSTRAINTS: "policyConstraints"}


class Untrusted(PKIError):
    """A certificate does not lead to a trust anchor, or may not be used so; the text says for the log which and why."""


class ValidityCheck(StrEnum):
    """Which end of a validity period counts."""

    STRICT = "strict"
    IGNORE_NOT_AFTER = "ignore_not_after"  # hardware outlives the certificate burnt into it: Cisco's ACT2 ends in 2029


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustOptions:
    """What is asked of a path besides its signatures; empty means anything."""

    check_validity: ValidityCheck = ValidityCheck.STRICT
    allow_sha1: bool = False
    organization: str = ""  # an O of the leaf's subject
    products: tuple[str, ...] = ()  # patterns with * and ? for x in the leaf's `PID:x SN:y`
    denied: frozenset[str] = frozenset()  # SHA-256 fingerprints, lower-case hex; manufacturers rarely publish CRLs
    extended_key_usage: str = ""  # dotted OID of a purpose that the leaf must have


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustStore:
    """CA certificates that are believed by configuration, and those known between them and the leaves."""

    name: str
    anchors: tuple[Certificate, ...]
    intermediates: tuple[Certificate, ...] = ()
    options: TrustOptions = field(default_factory=TrustOptions)

    def is_claimed_by(self, certificate: Certificate, enclosed: Sequence[Certificate] = ()) -> bool:
        """Tell whether issuer names lead from a certificate into this store; proves nothing, costs no signature."""
        known = {each.subject for each in (*self.anchors, *self.intermediates)}
        claimed = {certificate.issuer}
        for _ in range(MAX_PATH):
            claimed |= {each.issuer for each in enclosed if each.subject in claimed}
        return not known.isdisjoint(claimed)


def find_path(
    certificate: Certificate, enclosed: Sequence[Certificate], store: TrustStore, now: datetime
) -> tuple[Certificate, ...]:
    """Return a valid path from an end-entity certificate to an anchor, both included (RFC 5280 6.1); raise Untrusted.

    `enclosed` is what came along, in any order and of any quality; it is used after the store's own intermediates.
    """
    check_end_entity(certificate, now, store.options.check_validity)
    _check_certificate(certificate, store.options)
    _check_purpose(certificate, store.options)
    _check_subject(certificate, store.options)
    search = _Search(store, enclosed, now)
    path = search.extend((certificate,))
    if path is None:
        raise Untrusted("; ".join(search.faults))
    return path


def check_end_entity(certificate: Certificate, now: datetime, validity: ValidityCheck = ValidityCheck.STRICT) -> None:
    """Check that a certificate is valid now, is no CA's, and may sign messages; raise Untrusted."""
    _check_validity(certificate, validity, now)
    try:
        is_ca, _ = _basic_constraints(certificate)
        may_sign = _has_key_usage(certificate, KeyUsage.DIGITAL_SIGNATURE)
    except MalformedData as error:
        raise Untrusted(f"{_label(certificate)} cannot be read: {error}") from None
    if is_ca:
        raise Untrusted(f"{_label(certificate)} is a CA certificate, which signs no messages")
    if not may_sign:
        raise Untrusted(f"{_label(certificate)} is not for digital signatures (keyUsage)")


def check_authority(certificate: Certificate) -> None:
    """Check that a certificate may sign others (RFC 5280 6.1.4 k, n); raise Untrusted."""
    try:
        is_ca, _ = _basic_constraints(certificate)
        may_certify = _has_key_usage(certificate, KeyUsage.KEY_CERT_SIGN)
    except MalformedData as error:
        raise Untrusted(f"{_label(certificate)} cannot be read: {error}") from None
    if not is_ca or not may_certify:
        raise Untrusted(f"{_label(certificate)} is not a CA certificate (basicConstraints, keyUsage)")


# --- building ------------------------------------------------------------------------------------------------------


class _Search:
    """Depth first from the leaf; every step costs a signature, of which there are a bounded number."""

    def __init__(self, store: TrustStore, enclosed: Sequence[Certificate], now: datetime) -> None:
        self._store = store
        self._issuers = tuple(dict.fromkeys((*store.anchors, *store.intermediates, *enclosed)))
        self._now = now
        self._signatures = MAX_SIGNATURES
        self._faults: dict[str, None] = {}

    @property
    def faults(self) -> Sequence[str]:
        """Return why no path was found, each reason once."""
        return tuple(self._faults)

    def extend(self, path: tuple[Certificate, ...]) -> tuple[Certificate, ...] | None:
        """Return the path continued to an anchor, None when there is no way."""
        issuers = [each for each in self._issuers if each.subject == path[-1].issuer and each not in path]
        if not issuers:
            self._faults[f"no certificate is known for the issuer of {_label(path[-1])}"] = None
        for issuer in issuers:
            try:
                self._check_step(path, issuer)
            except Untrusted as fault:
                self._faults[str(fault)] = None
                continue
            longer = (*path, issuer)
            found = longer if issuer in self._store.anchors else self.extend(longer)
            if found is not None:
                return found
        return None

    def _check_step(self, path: tuple[Certificate, ...], issuer: Certificate) -> None:
        """Check one more certificate at the end of a path, the cheap rules first (RFC 5280 6.1.3, 6.1.4)."""
        options = self._store.options
        if len(path) == MAX_PATH:
            raise Untrusted(f"the path is longer than {MAX_PATH} certificates")
        check_authority(issuer)
        _check_validity(issuer, options.check_validity, self._now)
        _check_certificate(issuer, options)
        _check_path_length(issuer, path)
        if self._signatures == 0:
            raise Untrusted(f"no path was found within {MAX_SIGNATURES} signatures")
        self._signatures -= 1
        _check_signature(path[-1], issuer, options)


# --- one certificate -----------------------------------------------------------------------------------------------


def _check_certificate(certificate: Certificate, options: TrustOptions) -> None:
    """Check what holds for every certificate of a path: deny list, critical extensions (RFC 5280 4.2), key."""
    if certificate.fingerprint() in options.denied:
        raise Untrusted(f"{_label(certificate)} is on the deny list")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            name = _EXTENSION_NAMES.get(extension.oid, extension.oid)
            raise Untrusted(f"{_label(certificate)} has the critical extension {name}, which is not supported")
    try:
        key = load_public_key(certificate.spki)
        check_message_key(key)
    except PKIError as error:
        raise Untrusted(f"the key of {_label(certificate)} cannot be used: {error}") from None
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise Untrusted(f"{_label(certificate)} has an RSA key of {key.key_size} bits, less than {_MIN_RSA_BITS}")


def _check_validity(certificate: Certificate, check: ValidityCheck, now: datetime) -> None:
    # Nothing is ever added to a time here: notAfter may be the last second of the year 9999 (802.1AR 8.7).
    if now < certificate.not_before:
        raise Untrusted(f"{_label(certificate)} is not valid before {certificate.not_before:%Y-%m-%d %H:%M:%SZ}")
    if now > certificate.not_after and check is ValidityCheck.STRICT:
        raise Untrusted(f"{_label(certificate)} has expired at {certificate.not_after:%Y-%m-%d %H:%M:%SZ}")


def _check_signature(certificate: Certificate, issuer: Certificate, options: TrustOptions) -> None:
    try:
        algorithm = parse_signature(certificate.signature_algorithm)
        digest = algorithm.digest
        if digest is None or digest is Digest.MD5:
            raise Untrusted(f"{_label(certificate)} is signed with MD5, or does not say with what")
        if digest is Digest.SHA1 and not options.allow_sha1:
            raise Untrusted(f"{_label(certificate)} is signed with SHA-1, and allow_sha1 is off")
        verify_signature(load_public_key(issuer.spki), algorithm, digest, certificate.signature, certificate.tbs)
    except (AlgorithmRefused, MalformedData, SignatureInvalid) as error:
        raise Untrusted(f"{_label(certificate)} is not signed by the key of {_label(issuer)}: {error}") from None


def _check_path_length(issuer: Certificate, path: Sequence[Certificate]) -> None:
    """RFC 5280 6.1.4 l, m: pathLen counts the CAs below, those that only change a key under the same name apart."""
    _, limit = _basic_constraints(issuer)
    below = sum(1 for each in path[1:] if not each.is_self_issued)
    if limit is not None and below > limit:
        raise Untrusted(f"{_label(issuer)} allows {limit} CAs below itself, there are {below} (pathLenConstraint)")


def _check_purpose(certificate: Certificate, options: TrustOptions) -> None:
    """Check extendedKeyUsage where the configuration wants one; IDevIDs hardly ever have the extension."""
    if not options.extended_key_usage:
        return
    value = certificate.extension(oids.EXTENDED_KEY_USAGE)
    try:
        purposes = () if value is None else _purposes(value)
    except MalformedData as error:
        raise Untrusted(f"{_label(certificate)} cannot be read: {error}") from None
    if options.extended_key_usage not in purposes:
        raise Untrusted(f"{_label(certificate)} lacks the extendedKeyUsage {options.extended_key_usage}")


def _purposes(value: bytes) -> tuple[str, ...]:
    reader = der.Reader(value).enter()
    purposes: list[str] = []
    while not reader.at_end():
        purposes.append(reader.oid())
    return tuple(purposes)


def _check_subject(certificate: Certificate, options: TrustOptions) -> None:
    try:
        attributes = names.attributes(certificate.subject)
    except MalformedData as error:
        raise Untrusted(f"{_label(certificate)} cannot be read: {error}") from None
    organizations = [each.text for each in attributes if each.oid == oids.ORGANIZATION]
    if options.organization and options.organization not in organizations:
        raise Untrusted(f"{_label(certificate)} is not of organization {options.organization!r}")
    serials = [each.text for each in attributes if each.oid == oids.SUBJECT_SERIAL_NUMBER]
    products = [match[1] for match in map(_PRODUCT.search, serials) if match]
    if options.products and not any(fnmatchcase(each, pattern) for each in products for pattern in options.products):
        raise Untrusted(f"{_label(certificate)} is of no product (PID) that is allowed")


def _basic_constraints(certificate: Certificate) -> tuple[bool, int | None]:
    """Return cA and pathLenConstraint (RFC 5280 4.2.1.9); raise MalformedData."""
    value = certificate.extension(oids.BASIC_CONSTRAINTS)
    if value is None:
        return False, None
    fields = der.Reader(value).enter()
    is_ca = fields.boolean() if fields.peek() == der.BOOLEAN else False
    limit = None if fields.at_end() else fields.integer()
    fields.finish()
    return is_ca, limit


def _has_key_usage(certificate: Certificate, usage: KeyUsage) -> bool:
    """Tell whether keyUsage allows this, as it does when the extension is absent (RFC 5280 4.2.1.3)."""
    value = certificate.extension(oids.KEY_USAGE)
    if value is None:
        return True
    bits = der.Reader(value).contents(der.BIT_STRING)[1:]
    return bool(bits) and bool(bits[0] & 0x80 >> usage)


def _label(certificate: Certificate) -> str:
    """Name a certificate in a log, whatever its subject is."""
    serial = f"certificate {certificate.certificate_serial:x}"
    try:
        return f"{serial} ({names.format_name(certificate.subject)})"
    except MalformedData:
        return serial
