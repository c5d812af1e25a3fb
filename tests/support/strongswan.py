"""strongSwan's `pki` as a device: it fetches whom to trust, asks for certificates, and renews them."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

from cryptography.hazmat.primitives.asymmetric import rsa

from scep_ra.pki.certificates import Certificate, parse_certificate
from tests.support.key_files import write_key
from tests.support.openssl import verify_strictly
from tests.support.programs import Program, require_program
from tests.support.server import Registered, RunningServer


def require_strongswan() -> Program:
    """Return the program; without it skip the test, or fail it where CI=true."""
    return require_program("pki", package="strongswan-pki")


class Client:
    """`pki --scep`, in a directory with the server's certificates."""

    def __init__(self, pki: Program, server: RunningServer, directory: Path) -> None:
        self._pki = pki
        self.server = server
        self.directory = directory
        self.fetched = pki("--scepca", "--url", server.url(), "--caout", "ca.der", "--raout", "ra.der", cwd=directory)
        assert self.fetched.returncode == 0, self.fetched.stderr

    def request(
        self,
        device: Registered,
        *options: str,
        key: rsa.RSAPrivateKey | None = None,
        name: str = "",
        profile: str = "default",
        output: str = "device.der",
    ) -> CompletedProcess[str]:
        """Ask for a certificate; it is in the file `output` afterwards."""
        write_key(self.directory / "requested.key", key or device.key)
        subject = f"O=Test, serialNumber={device.device_serial}, CN={name or device.device_serial}"
        command = (
            *("--scep", "--url", self.server.url(profile), "--in", "requested.key", "--dn", subject),
            *("--cacert-enc", "ra.der", "--cacert-sig", "ra.der", "--cacert", "ca.der", "--cacert", "ca-1.der"),
            *("--interval", "1", "--maxpolltime", "3", *options),
        )
        # It can write its result to standard output only.
        return self._pki.to_file(self.directory / output, *command, cwd=self.directory)

    def enroll(self, device: Registered, *options: str, profile: str = "default") -> Certificate:
        """Enroll with the challenge and the first key, and insist on a certificate that openssl accepts."""
        write_key(self.directory / "device.key", device.key)
        outcome = self.request(device, "--password", device.challenge, *options, profile=profile)
        assert outcome.returncode == 0, outcome.stderr
        assert "Issued certificate is trusted" in outcome.stderr
        return self.check_issued()

    def check_issued(self, output: str = "device.der") -> Certificate:
        certificate = parse_certificate((self.directory / output).read_bytes())
        verify_strictly(self.directory, certificate, self.server.ca.chain)
        return certificate
