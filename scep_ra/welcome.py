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
    profile: str  # the one that the examples use
    ca: str  # its CA
    ra: bool  # it has an RA; otherwise its CA speaks SCEP itself
    legacy: bool  # it speaks single DES and SHA-1
    one_time: bool = True  # its first enrollments need a challenge made for the device
    registry: bool = True  # its devices must be registered here
    radius: str = ""  # where headends are answered, with which ports; "" = nowhere
    api: str = ""  # URL at which they are answered by HTTP; "" = nowhere
    ocsp: Sequence[str] = ()  # URLs of the OCSP responders

    def text(self) -> str:
        """Return the whole page."""
        return "\n".join([*self._where(), *self._whom(), *self._first_certificate(), ""])

    @property
    def _url(self) -> str:
        """The URL that the examples use; `default` also answers without its name."""
        path = "/scep" if self.profile == "default" else f"/scep/{self.profile}"
        return shlex.quote(self.base_url + path)

    def _where(self) -> list[str]:
        urls = [f"  {self.base_url}/scep/{name}" for name in self.profiles]
        headends = ["Headends are answered by RADIUS (PKI-AAA) at", f"  {self.radius}"] if self.radius else []
        headends += ["Headends are answered by HTTP at", f"  {self.api}"] if self.api else []
        ocsp = ["OCSP (RFC 6960) is answered at", *(f"  {url}" for url in self.ocsp)] if self.ocsp else []
        ready = f"scep-ra {scep_ra.__version__} is ready. SCEP (RFC 8894) is served at"
        return [ready, *urls, *headends, *ocsp, ""]

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
        return [
            *self._preparation(),
            "",
            "Then enroll with one of",
            *self._own_client(),
            *self._sscep(),
            *self._strongswan(),
            *self._scepclient(),
            *self._certmonger(),
        ]

    def _preparation(self) -> list[str]:
        if not self.registry and not self.one_time:
            return ["Every device is authorized. Set the challenge that all of them share:", "  S=..."]
        with_profile = "" if self.profile == "default" else f" --profile {self.profile}"
        return [
            "Register a device and make its one-time challenge:" if self.one_time else "Register a device:",
            f"  {self.command} device add SN123",
            f"  S=$({self.command} challenge new --device SN123{with_profile})" if self.one_time else "  S=...",
        ]

    def _own_client(self) -> list[str]:
        return [
            "  scep-ra:",
            f'    {self.command} enroll {self._url} --subject serialNumber=SN123,CN=SN123 --challenge "$S"',
        ]

    def _sscep(self) -> list[str]:
        # It numbers the certificates of GetCACert, the RA's first, unless there is just one.
        signer = "ca.pem-0" if self.ra else "ca.pem"
        return [
            "  sscep:",
            *(f"    {line}" for line in _openssl_request()),
            f"    sscep getca -u {self._url} -c ca.pem",
            f"    sscep enroll -u {self._url} -c {signer} -k device.key -r device.csr -l device.pem",
        ]

    def _strongswan(self) -> list[str]:
        # It writes the root to ca.der and the CAs below to ca-1.der, ..., and trusts nothing without all of them.
        issuers = [f"ca-{number}.der" for number in range(1, len(self.chains[self.ca]))]
        authorities = ["ca.der", *issuers]
        signer = "ra.der" if self.ra else authorities[-1]
        # Without an RA the server shows only the CA that signs.
        root = (
            [f"    {self.command} ca export {self.ca} --root --format der -o ca.der"] if issuers and not self.ra else []
        )
        trusted = " ".join(f"--cacert {name}" for name in authorities)
        return [
            "  strongSwan:",
            f"    pki --scepca --url {self._url} --caout ca.der --raout ra.der --force",
            *root,
            "    pki --gen --type rsa --size 2048 --outform pem > device.key",
            f'    pki --scep --url {self._url} --in device.key --dn "serialNumber=SN123, CN=SN123" --password "$S" \\',
            f"      --cacert-enc {signer} --cacert-sig {signer} {trusted} --outform pem > device.pem",
        ]

    def _scepclient(self) -> list[str]:
        settings = f"set allow_sha1 and insecure_des_and_md5 in [profile.{self.profile}.algorithms] first"
        return [
            "  scepclient:" if self.legacy else f"  scepclient, which knows only SHA-1 and single DES ({settings}):",
            f'    scepclient -server-url {self._url} -private-key client.key -challenge "$S" -cn SN123 -ou ""',
        ]

    def _certmonger(self) -> list[str]:
        # It finds out by itself whom to trust only where there is an RA.
        root = [] if self.ra else [f"    {self.command} ca export {self.ca} --root -o root.pem"]
        trusted = "" if self.ra else ' -N "$PWD/root.pem"'
        return [
            "  certmonger:",
            *root,
            f"    getcert add-scep-ca -c scep-ra -u {self._url}{trusted}",
            "    getcert request -c scep-ra -k /etc/ssl/private/device.key -f /etc/ssl/certs/device.pem \\",
            '      -N serialNumber=SN123,CN=SN123 -L "$S" -w',
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
