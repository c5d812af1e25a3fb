"""The openssl program as a second opinion on certificates and CRLs."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from scep_ra.pki.certificates import Certificate, parse_certificate

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the openssl program is not installed")


def run_openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run openssl and return what it said; its exit status is the caller's to judge."""
    return subprocess.run([str(OPENSSL), *map(str, arguments)], check=False, capture_output=True, text=True, timeout=30)


def write_pem(path: Path, certificates: Iterable[Certificate]) -> Path:
    """Write certificates as one PEM file."""
    path.write_text("".join(ssl.DER_cert_to_PEM_cert(certificate.der) for certificate in certificates))
    return path


def read_pem(path: Path) -> tuple[Certificate, ...]:
    """Return the certificates of a PEM file."""
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    return tuple(parse_certificate(each.public_bytes(Encoding.DER)) for each in certificates)


def verify_strictly(
    directory: Path, certificate: Certificate, chain: tuple[Certificate, ...], *options: str | Path
) -> None:
    """Fail unless `openssl verify -x509_strict` accepts the certificate under the last of the chain."""
    result = run_openssl(
        *("verify", "-x509_strict", "-check_ss_sig", "-show_chain", *options),
        *("-CAfile", write_pem(directory / "root.pem", chain[-1:])),
        *("-untrusted", write_pem(directory / "untrusted.pem", chain)),
        write_pem(directory / "certificate.pem", [certificate]),
    )
    assert result.returncode == 0, result.stdout + result.stderr
