"""The files `ca/NAME/` and `ra/NAME/` of the data directory: made once, whole or not at all, and checked when read.

A key is on disk before the certificate over it, so that a crash leaves a key without certificate, which the next start
certifies. No file is ever replaced. What the certificates say is decided in `ca.hierarchy`.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from scep_ra.ca.hierarchy import (
    CAParameters,
    Issuer,
    Random,
    RAParameters,
    make_issuing_ca,
    make_ra_certificate,
    make_root,
)
from scep_ra.errors import Misconfigured
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.errors import PKIError
from scep_ra.pki.keys import SoftwareKey, generate_key, load_private_key, load_public_key
from scep_ra.pki.validation import is_issued_by

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_NOT_OURS_ALONE: Final = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class CAMaterial:
    """A CA ready to sign: its key, and its certificate followed by the issuers up to the root."""

    signer: SoftwareKey
    chain: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RAMaterial:
    """An RA ready to sign and decrypt."""

    key: SoftwareKey
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class _KeyPair:
    """Where a key and its certificate are."""

    key: Path
    certificate: Path


def _pair(directory: Path, name: str) -> _KeyPair:
    return _KeyPair(key=directory / f"{name}.key", certificate=directory / f"{name}.pem")


# --- the CA --------------------------------------------------------------------------------------------------------


def ensure_ca(directory: Path, name: str, parameters: CAParameters, *, now: datetime, random: Random) -> CAMaterial:
    """Load the CA `ca/NAME` below the data directory; make it, or finish making it, when it is not there.

    Raise Misconfigured when files are missing that only a backup can bring back, and as `load_ca` does.
    """
    with _locked(directory, "ca", name) as folder:
        root, issuing = _pair(folder, "root"), _pair(folder, "issuing")
        if not issuing.certificate.exists():
            above = None
            if parameters.tiers == 2:
                above = _ensure_root(root, issuing, parameters, name, now=now, random=random)
            key = _ensure_key(issuing, parameters.key_type)
            certificate = make_issuing_ca(parameters, name, key, above, now=now, random=random)
            _write(issuing.certificate, _certificate_pem(certificate))
    return load_ca(directory, name, now=now)


def _ensure_root(
    root: _KeyPair, issuing: _KeyPair, parameters: CAParameters, name: str, *, now: datetime, random: Random
) -> Issuer:
    if root.certificate.exists():
        key = _read_key(root.key)
        certificate = _read_certificates(root.certificate)[0]
        _check_pair(root, key, certificate)
        _check_validity(root.certificate, certificate, now)
        return Issuer(certificate=certificate, key=key)
    if issuing.key.exists():
        raise _missing(root.certificate)
    key = _ensure_key(root, parameters.key_type)
    certificate = make_root(parameters, name, key, now=now, random=random)
    _write(root.certificate, _certificate_pem(certificate))
    return Issuer(certificate=certificate, key=key)


def load_ca(directory: Path, name: str, *, now: datetime) -> CAMaterial:
    """Load the CA `ca/NAME`: issuing.key, issuing.pem (intermediate certificates may follow in it) and root.pem.

    root.key is not read: it may be kept elsewhere. Raise Misconfigured, naming the file and the mend, when one is
    missing, readable by others, unreadable, not valid now, or does not fit the others.
    """
    folder = directory / "ca" / name
    root, issuing = _pair(folder, "root"), _pair(folder, "issuing")
    chain = _read_certificates(issuing.certificate)
    if not chain[-1].is_self_issued:
        chain += _read_certificates(root.certificate)
    signer = _read_key(issuing.key)
    _check_pair(issuing, signer, chain[0])
    for certificate in chain:
        _check_validity(folder, certificate, now)
    _check_links(folder, chain)
    return CAMaterial(signer=signer, chain=chain)


def _check_links(folder: Path, chain: Sequence[Certificate]) -> None:
    for certificate, issuer in zip(chain, (*chain[1:], chain[-1]), strict=True):
        if not is_issued_by(certificate, issuer):
            raise Misconfigured(f"the certificates in {folder} are not a chain up to a self-signed root: restore them")


def ensure_ocsp_key(directory: Path, name: str, key_type: str) -> SoftwareKey:
    """Load `ca/NAME/ocsp.key` below the data directory, which answers OCSP for this CA; make it when it is not there.

    Its certificates end soon and are in no file, so nothing is lost with it. Raise Misconfigured when it cannot be
    read, or can be by others.
    """
    with _locked(directory, "ca", name) as folder:
        return _ensure_key(_pair(folder, "ocsp"), key_type)


# --- the RA --------------------------------------------------------------------------------------------------------


def ensure_ra(
    directory: Path, name: str, parameters: RAParameters, ca: CAMaterial, *, now: datetime, random: Random
) -> RAMaterial:
    """Load the RA `ra/NAME` below the data directory; have the CA issue it when it is not there.

    Raise Misconfigured as `load_ca` does, and when the certificate there is of another CA.
    """
    with _locked(directory, "ra", name) as folder:
        pair = _pair(folder, "ra")
        if not pair.certificate.exists():
            key = _ensure_key(pair, parameters.key_type)
            issuer = Issuer(certificate=ca.chain[0], key=ca.signer)
            certificate = make_ra_certificate(parameters, name, key.spki, issuer, now=now, random=random)
            _write(pair.certificate, _certificate_pem(certificate))
    return _load_ra(pair, ca, now)


def _load_ra(pair: _KeyPair, ca: CAMaterial, now: datetime) -> RAMaterial:
    certificate = _read_certificates(pair.certificate)[0]
    key = _read_key(pair.key)
    _check_pair(pair, key, certificate)
    _check_validity(pair.certificate, certificate, now)
    if not is_issued_by(certificate, ca.chain[0]):
        raise Misconfigured(
            f"{pair.certificate} was not issued by its CA: move {pair.certificate.parent} away and start again"
        )
    return RAMaterial(key=key, certificate=certificate)


# --- checks --------------------------------------------------------------------------------------------------------


def _check_pair(pair: _KeyPair, key: SoftwareKey, certificate: Certificate) -> None:
    if load_public_key(key.spki) != load_public_key(certificate.spki):
        raise Misconfigured(f"{pair.key} is not the key of {pair.certificate}: restore the two that belong together")


def _check_validity(place: Path, certificate: Certificate, now: datetime) -> None:
    if now < certificate.not_before:
        raise Misconfigured(
            f"{place}: a certificate is valid only from {certificate.not_before:%Y-%m-%d %H:%M:%SZ}: "
            "check this machine's clock"
        )
    if now > certificate.not_after:
        raise Misconfigured(
            f"{place}: a certificate expired on {certificate.not_after:%Y-%m-%d %H:%M:%SZ}: "
            "move the directory away to have a new one made, or put a renewed certificate there"
        )


def _missing(path: Path) -> Misconfigured:
    return Misconfigured(f"{path} is missing: restore it from a backup, or move {path.parent} away to start anew")


# --- reading -------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error


def _read_key(path: Path) -> SoftwareKey:
    pem = _read(path)
    mode = path.stat().st_mode
    if mode & _NOT_OURS_ALONE:
        raise Misconfigured(f"{path} can be used by others (mode {mode & 0o777:04o}): run chmod 600 {path}")
    try:
        return load_private_key(pem)
    except PKIError as error:
        raise Misconfigured(f"{path} holds no usable private key: restore it from a backup") from error


def _read_certificates(path: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a PEM file, at least one."""
    try:
        loaded = x509.load_pem_x509_certificates(_read(path))
        return tuple(parse_certificate(certificate.public_bytes(Encoding.DER)) for certificate in loaded)
    except (ValueError, PKIError) as error:
        raise Misconfigured(f"{path} holds no PEM certificate that can be read: restore it from a backup") from error


# --- writing -------------------------------------------------------------------------------------------------------


def _ensure_key(pair: _KeyPair, key_type: str) -> SoftwareKey:
    """Read the key that an interrupted start left, or make it."""
    if pair.key.exists():
        return _read_key(pair.key)
    key = generate_key(key_type)
    _write(pair.key, key.private_pem())
    return key


def _certificate_pem(certificate: Certificate) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate.der).encode("ascii")


@contextmanager
def _locked(directory: Path, *names: str) -> Iterator[Path]:
    """Make a directory with its parents, for us alone, and hold it against other processes that would fill it."""
    folder = directory
    _make_directory(folder)
    for name in names:
        folder /= name
        _make_directory(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)  # and unlocks


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return
    except OSError as error:
        raise Misconfigured(f"{path} cannot be made: {error.strerror}") from error
    path.chmod(_DIRECTORY_MODE)  # mkdir's own mode is subject to the umask
    _sync_directory(path.parent)


def _write(path: Path, octets: bytes) -> None:
    """Put a new file there as a whole, on disk when this returns; a crash leaves what the next start overwrites."""
    partial = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _FILE_MODE)  # before the first octet, whatever umask or an earlier file says
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        partial.rename(path)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror}") from error
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make a new name in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
