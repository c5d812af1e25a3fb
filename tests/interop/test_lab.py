"""Claims about config/lab.toml: clients of every age enroll with one secret, and the server says how open it is."""

from __future__ import annotations

from pathlib import Path

from cryptography.x509 import load_der_x509_certificate

from tests.support.programs import require_program
from tests.support.server import make_data_directory, running_server

LAB = Path(__file__).parents[2] / "config" / "lab.toml"
ALOUD = 'aaa.everybody is "accept-all": EVERY DEVICE IS AUTHORIZED; this is for a lab'
CA_FILES = ("--cacert-enc", "ra.der", "--cacert-sig", "ra.der", "--cacert", "ca.der", "--cacert", "ca-1.der")


def test_an_old_client_enrolls_in_the_lab_with_the_shared_secret(tmp_path: Path) -> None:
    """SHA-1 and 3DES from a device that nobody registered; another secret gets nothing."""
    pki = require_program("pki", package="strongswan-pki")
    with running_server(make_data_directory(tmp_path), "--config", str(LAB)) as server:
        assert "Every device is authorized." in server.banner
        server.log.wait_for("weak_setting", setting=ALOUD)
        pki("--scepca", "--url", server.url(), "--caout", "ca.der", "--raout", "ra.der", cwd=tmp_path)
        pki.to_file(tmp_path / "device.key", "--gen", "--type", "rsa", "--size", "2048", cwd=tmp_path)
        enroll = ("--scep", "--url", server.url(), "--in", "device.key", "--dn", "serialNumber=NEVER-SEEN, CN=x")
        old = (*enroll, *CA_FILES, "--cipher", "des3", "--digest", "sha1")
        refused = pki.to_file(tmp_path / "refused.der", *old, "--password", "guess", cwd=tmp_path)
        issued = pki.to_file(tmp_path / "device.der", *old, "--password", "lab-secret", cwd=tmp_path)
    assert (refused.returncode, issued.returncode) == (1, 0), issued.stderr
    assert load_der_x509_certificate((tmp_path / "device.der").read_bytes())
