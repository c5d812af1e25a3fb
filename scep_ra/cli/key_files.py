"""Files of keys and certificates named on the command line: read with an error that says what to do, never replaced.

The data directory's own files are `ca.directory`'s.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from scep_ra.errors import ConfigurationError
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.errors import PKIError
from scep_ra.pki.keys import SoftwareKey, load_private_key

KEY_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
_PEM: Final = b"-----BEGIN"


def read_file(path: Path) -> bytes:
    """Return the octets of a file; raise ConfigurationError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


def read_key(path: Path) -> SoftwareKey:
    """Read an unencrypted PEM private key; raise ConfigurationError."""
    try:
        return load_private_key(read_file(path))
    except PKIError:
        raise ConfigurationError(
            f"{path}: holds no RSA or EC private key in PEM without passphrase: "
            f"convert it with openssl pkey -in {path} -out NEW"
        ) from None


def read_certificate(path: Path) -> Certificate:
    """Read one certificate, DER or the first of a PEM file; raise ConfigurationError."""
    return read_chain(path)[0]


def read_chain(path: Path) -> tuple[Certificate, ...]:
    """Read one certificate in DER, or all those of a PEM file; raise ConfigurationError."""
    octets = read_file(path)
    try:
        if _PEM not in octets:
            return (parse_certificate(octets),)
        loaded = x509.load_pem_x509_certificates(octets)
        return tuple(parse_certificate(each.public_bytes(Encoding.DER)) for each in loaded)
    except (ValueError, PKIError):
        raise ConfigurationError(f"{path}: holds no certificate in PEM or DER") from None


def read_pair(key_path: Path, certificate_path: Path) -> tuple[SoftwareKey, Certificate]:
    """Read a private key and the certificate over it; raise ConfigurationError, also when they do not fit."""
    key, certificate = read_key(key_path), read_certificate(certificate_path)
    if key.spki != certificate.spki:
        raise ConfigurationError(f"{key_path}: is not the key of the certificate in {certificate_path}")
    return key, certificate


def check_absent(*paths: Path) -> None:
    """Check that none of these files exists, so that nothing is lost and nothing done in vain."""
    for path in paths:
        if path.exists():
            raise ConfigurationError(f"{path}: exists already: name another file, or give --force to replace it")


def write_new(path: Path, octets: bytes, *, mode: int) -> None:
    """Put a file there as a whole, with this mode from its first octet; raise ConfigurationError."""
    partial = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        partial.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
