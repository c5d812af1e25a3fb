"""What the server prints when it is ready: where it is, whom to trust, and how to get a first certificate.

The command lines are tried as they stand by `tests/interop`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import scep_ra
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import format_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The facts to print."""

    base_url: str
    profiles: Sequence[str]
    chains: Mapping[str, Sequence[Certificate]]  # by CA name, from the issuing CA to the root
    command: str  # how this program is called, e.g. `.venv/bin/scep-ra --data var`
    legacy: bool  # the default profile speaks single DES and SHA-1

    def text(self) -> str:
        """Return the whole page."""
        return "\n".join([*self._where(), *self._whom(), *self._first_certificate(), ""])

    @property
    def _url(self) -> str:
        """The URL of the first profile, which the examples use; `default` also answers without its name."""
        name = self._profile
        return f"{self.base_url}/scep" if name == "default" else f"{self.base_url}/scep/{name}"

    @property
    def _profile(self) -> str:
        return "default" if "default" in self.profiles else self.profiles[0]

    def _where(self) -> list[str]:
        urls = [f"  {self.base_url}/scep/{name}" for name in self.profiles]
        return [f"scep-ra {scep_ra.__version__} is ready. SCEP (RFC 8894) is served at", *urls, ""]

    def _whom(self) -> list[str]:
        lines = ["Whom to trust (compare on the device before the first enrollment):"]
        for name, chain in self.chains.items():
            for certificate in chain:
                lines += [
                    f"  CA {name}: {format_name(certificate.subject)}",
                    f"    SHA-256 {_grouped(certificate.fingerprint('sha256'))}",
                    f"    SHA-1   {_grouped(certificate.fingerprint('sha1'))}",
                ]
        return [*lines, ""]

    def _first_certificate(self) -> list[str]:
        url, profile = shlex.quote(self._url), self._profile
        with_profile = "" if profile == "default" else f" --profile {profile}"
        legacy = (
            "" if self.legacy else " - it speaks single DES and SHA-1 only: start with config/legacy-clients.toml first"
        )
        return [
            "Register a device and make its one-time challenge:",
            f"  {self.command} device add SN123",
            f"  S=$({self.command} challenge new --device SN123{with_profile})",
            "",
            "Then enroll with one of",
            "  scep-ra:",
            f'    {self.command} enroll {url} --subject serialNumber=SN123,CN=SN123 --challenge "$S"',
            "  sscep:",
            *(f"    {line}" for line in _openssl_request()),
            f"    sscep getca -u {url} -c ca.pem",
            f"    sscep enroll -u {url} -c ca.pem-0 -k device.key -r device.csr -l device.pem",
            "  strongSwan:",
            f"    pki --scepca --url {url} --caout ca.der --raout ra.der --force",
            "    pki --gen --type rsa --size 2048 > device.key",
            f'    pki --scep --url {url} --in device.key --dn "serialNumber=SN123, CN=SN123" --password "$S" \\',
            "      --cacert-enc ra.der --cacert-sig ra.der --cacert ca.der > device.der",
            f"  scepclient{legacy}:",
            f'    scepclient -server-url {url} -private-key device.key -challenge "$S" -cn SN123',
            "  certmonger:",
            f"    getcert add-scep-ca -c scep-ra -u {url}",
            "    getcert request -c scep-ra -k /etc/ssl/private/device.key -f /etc/ssl/certs/device.pem \\",
            '      -N serialNumber=SN123,CN=SN123 -L "$S"',
        ]


def _openssl_request() -> list[str]:
    """Return the shell lines that make a CSR with a challenge; openssl takes one from a configuration only."""
    configuration = (
        r"[req]\nprompt=no\ndistinguished_name=dn\nattributes=at\n"
        r"[dn]\nserialNumber=SN123\nCN=SN123\n[at]\nchallengePassword=%s\n"
    )
    return [
        f"printf '{configuration}' \"$S\" > device.cnf",
        "openssl req -new -newkey rsa:2048 -nodes -config device.cnf -keyout device.key -out device.csr",
    ]


def _grouped(digits: str) -> str:
    """Return hex as people compare it: pairs, upper case, colons."""
    return ":".join(digits[index : index + 2] for index in range(0, len(digits), 2)).upper()
