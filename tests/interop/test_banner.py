"""Claims about the lines that the server prints at its start: each client enrolls by them, as they stand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certmonger import Certmonger
from tests.support.programs import require_program
from tests.support.server import RunningServer, environment, make_data_directory, running_server

_LEGACY = "".join(
    f"profile.default.algorithms.{setting} = true\n" for setting in ("allow_sha1", "insecure_des_and_md5")
)
# One device tries out all the clients.
_UNLIMITED = "profile.default.max_active_certificates = 0\n"
_NO_RA = 'ca.default = {{ tiers = {tiers}, scep_key_usage = true }}\nprofile.default.ra = ""\n'
SET_UPS = {
    "as shipped": "",
    "one tier": "ca.default.tiers = 1\n",
    "no RA": _NO_RA.format(tiers=1),
    "no RA, two tiers": _NO_RA.format(tiers=2),
}
PACKAGES = {"pki": "strongswan-pki", "scepclient": "scep", "certmonger": "certmonger", "openssl": "openssl"}


class Banner:
    """The command lines of a banner, and a directory and environment to try them in."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        preparation, _, clients = server.banner.partition("Register a device")[2].partition("Then enroll with one of\n")
        self.add_device, self.new_challenge = (line.strip() for line in preparation.splitlines()[1:3])
        titles = re.split(r"^  (\S.*):$", clients, flags=re.MULTILINE)[1:]
        self.scripts = {
            re.split(r"[, ]", title)[0]: text for title, text in zip(titles[::2], titles[1::2], strict=True)
        }

    def try_out(self, *script: str) -> subprocess.CompletedProcess[str]:
        """Run lines of shell, up to the first that fails."""
        return subprocess.run(
            ["bash", "-euc", "\n".join(script)],
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )

    def set_challenge(self) -> str:
        """Return a line that does what `new_challenge` does, without another process."""
        return f"S={self.server.new_challenge('SN123')}"

    def issued(self) -> int:
        return len(self.server.certificates_of("SN123"))


@pytest.fixture(scope="module", params=list(SET_UPS.values()), ids=list(SET_UPS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    data = make_data_directory(tmp_path_factory.mktemp("banner"), request.param + _UNLIMITED + _LEGACY)
    with running_server(data) as server:
        line = Banner(server, data.path).add_device
        subprocess.run(["bash", "-euc", line], env=environment(), check=True, capture_output=True, timeout=60)
        yield server


@pytest.fixture
def banner(served: RunningServer, tmp_path: Path) -> Banner:
    return Banner(served, tmp_path)


def test_the_line_that_makes_a_challenge_leaves_it_alone_in_the_variable(banner: Banner) -> None:
    """For the device that the line before it registered."""
    assert re.fullmatch(r"[a-z2-7]{26}\n", banner.try_out(banner.new_challenge, 'echo "$S"').stdout)
    assert '"value": "SN123"' in banner.server.run("device", "list", "--json")


def test_the_trust_anchors_are_those_of_the_ca(banner: Banner) -> None:
    """Every certificate of the chain is named by its SHA-256 fingerprint."""
    printed = banner.server.banner.replace(":", "").lower()
    assert all(certificate.fingerprint() in printed for certificate in banner.server.ca.chain)


def test_the_lines_for_our_own_client_enroll(banner: Banner) -> None:
    """`scep-ra enroll` needs nothing but the line."""
    _enrolls(banner, banner.scripts["scep-ra"])


def test_the_lines_for_sscep_enroll(banner: Banner) -> None:
    """No Debian package has it, so this is tried where somebody built it."""
    require_program("sscep", package=None)
    require_program("openssl", package=PACKAGES["openssl"])
    _enrolls(banner, banner.scripts["sscep"])


def test_the_lines_for_sscep_make_a_request_with_the_challenge(server: RunningServer, tmp_path: Path) -> None:
    """The half of them that is openssl's."""
    require_program("openssl", package=PACKAGES["openssl"])
    banner = Banner(server, tmp_path)
    lines = [line for line in banner.scripts["sscep"].splitlines() if not line.strip().startswith("sscep")]
    made = banner.try_out("S=secret", *lines, "openssl req -in device.csr -noout -text -verify")
    assert made.returncode == 0, made.stderr
    assert re.search(r"challengePassword *:secret\n", made.stdout)
    assert "Subject: serialNumber = SN123, CN = SN123" in made.stdout


def test_the_lines_for_strongswan_enroll_and_the_client_trusts_what_it_gets(banner: Banner) -> None:
    """With every CA named it reaches the root."""
    require_program("pki", package=PACKAGES["pki"])
    assert "Issued certificate is trusted" in _enrolls(banner, banner.scripts["strongSwan"])
    assert b"BEGIN CERTIFICATE" in (banner.directory / "device.pem").read_bytes()


def test_the_lines_for_scepclient_enroll(banner: Banner) -> None:
    """Under a profile that speaks its algorithms."""
    require_program("scepclient", package=PACKAGES["scepclient"])
    assert "server returned a certificate" in _enrolls(banner, banner.scripts["scepclient"])


def test_the_lines_for_certmonger_enroll(banner: Banner) -> None:
    """The daemon runs as it would on a host, only that its directories are elsewhere."""
    require_program("certmonger", package=PACKAGES["certmonger"])
    daemon = Certmonger(banner.directory)
    script = banner.scripts["certmonger"]
    for directory in ("/etc/ssl/private", "/etc/ssl/certs"):
        assert directory in script
        script = script.replace(directory, str(banner.directory))
    before = banner.issued()
    # The daemon starts the script in another directory.
    said = daemon.run("\n".join([banner.set_challenge(), f"cd {banner.directory}", script]))
    assert banner.issued() == before + 1, said
    assert b"BEGIN CERTIFICATE" in (banner.directory / "device.pem").read_bytes()


def _enrolls(banner: Banner, script: str) -> str:
    """Insist that the script gets a certificate; return what the client said."""
    before = banner.issued()
    outcome = banner.try_out(banner.set_challenge(), script)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert banner.issued() == before + 1
    return outcome.stdout + outcome.stderr


def test_a_client_whose_algorithms_are_off_is_told_what_to_set(server: RunningServer) -> None:
    """The settings that the banner names are the ones under which the tests above enroll scepclient."""
    (title,) = (line for line in server.banner.splitlines() if line.startswith("  scepclient"))
    assert "allow_sha1 and insecure_des_and_md5 in [profile.default.algorithms]" in title
    assert set(re.findall(r"(\w+) = true", _LEGACY)) == {"allow_sha1", "insecure_des_and_md5"}
