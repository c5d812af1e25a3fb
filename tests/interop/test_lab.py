"""Claims about config/lab.toml: clients of every age enroll with one secret, and the server says how open it is."""

from __future__ import annotations

from pathlib import Path

from cryptography.x509 import load_der_x509_certificate

from tests.support.programs import require_program
from tests.support.server import make_data_directory, running_server

LAB = Path(__file__).parents[2] / "config" / "lab.toml"
ALOUD = 'aaa.everybody is "accept-all": EVERY DEVICE IS AUTHORIZED; this is for a lab'
CA_FILES = ("--cacert-enc", "ra.der", "--cacert-sig", "ra.der", "--cacert", "ca.der", "--cacert", "ca-1.der")
OLD = ("--cipher", "des3", "--digest", "sha1")


def test_an_old_client_enrolls_in_the_lab_with_the_shared_secret_as_often_as_it_likes(tmp_path: Path) -> None:
    """SHA-1 and 3DES from a device that nobody registered, under any name; another secret gets nothing."""
    pki = require_program("pki", package="strongswan-pki")
    with running_server(make_data_directory(tmp_path), "--config", str(LAB)) as server:
        assert "Every device is authorized." in server.banner
        server.log.wait_for("weak_setting", setting=ALOUD)
        pki("--scepca", "--url", server.url(), "--caout", "ca.der", "--raout", "ra.der", cwd=tmp_path)
        old = ("--scep", "--url", server.url(), "--dn", "serialNumber=NEVER-SEEN, CN=x", *CA_FILES, *OLD)
        # One more than other profiles allow at a time.
        for key in ("1.key", "2.key", "3.key"):
            pki.to_file(tmp_path / key, "--gen", "--type", "rsa", "--size", "2048", cwd=tmp_path)
            issued = pki.to_file(tmp_path / "x.der", *old, "--in", key, "--password", "lab-secret", cwd=tmp_path)
            assert issued.returncode == 0, issued.stderr
            assert load_der_x509_certificate((tmp_path / "x.der").read_bytes())
        refused = pki.to_file(tmp_path / "x.der", *old, "--in", "1.key", "--password", "guess", cwd=tmp_path)
    assert refused.returncode == 1
