"""`openssl ocsp` as somebody who was shown a certificate and asks whether it is still good."""

from __future__ import annotations

import re
from pathlib import Path
from subprocess import CompletedProcess

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from scep_ra.pki.certificates import Certificate
from tests.support.openssl import write_pem
from tests.support.programs import Program
from tests.support.server import RunningServer


class Asker:
    """A client that trusts a server's CA."""

    def __init__(self, openssl: Program, server: RunningServer, directory: Path) -> None:
        self.openssl, self.server, self.directory = openssl, server, directory
        write_pem(directory / "chain.pem", server.ca.chain)
        write_pem(directory / "issuer.pem", server.ca.chain[:1])

    def ask(self, certificate: Certificate, *options: str, issuer: str = "issuer.pem") -> CompletedProcess[str]:
        """Ask about one certificate; openssl verifies who signed the answer, and what it is about."""
        write_pem(self.directory / "certificate.pem", [certificate])
        files = ("-issuer", issuer, "-cert", "certificate.pem", "-CAfile", "chain.pem")
        return self.openssl("ocsp", *files, "-url", ocsp_url(certificate), *options, cwd=self.directory)

    def status(self, certificate: Certificate, *options: str) -> str:
        """Return good, revoked or unknown; fail unless the answer verifies."""
        answer = self.ask(certificate, *options)
        assert "Response verify OK" in answer.stderr, answer.stdout + answer.stderr
        (found,) = re.findall(r"^certificate\.pem: (\w+)$", answer.stdout, re.MULTILINE)
        return str(found)

    def revoke(self, certificate: Certificate) -> None:
        self.server.run("certificate", "revoke", f"{certificate.certificate_serial:x}", "--reason", "key_compromise")


def ocsp_url(certificate: Certificate) -> str:
    """Return where a certificate says that OCSP is answered."""
    extensions = x509.load_der_x509_certificate(certificate.der).extensions
    (url,) = [
        access.access_location.value
        for access in extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        if access.access_method == AuthorityInformationAccessOID.OCSP
    ]
    return str(url)
