"""Claims about what openssl makes of our certificates, CRLs and CertReps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scep_ra.pki.certificates import Certificate
from tests.support.enrolling import certificate_in, enroll, pkcs_req, status_of
from tests.support.keys import spki
from tests.support.openssl import verify_strictly, write_pem
from tests.support.programs import Program
from tests.support.server import RunningServer, make_data_directory, running_server


@pytest.mark.parametrize("key_type", ["rsa-2048", "ec-p256", "ec-p384"])
@pytest.mark.parametrize("tiers", [1, 2])
def test_certificates_of_every_kind_of_ca_verify(openssl: Program, tmp_path: Path, key_type: str, tiers: int) -> None:
    """Under -x509_strict, which holds the profile of RFC 5280 against every certificate of the chain."""
    toml = f'[ca.default]\nkey_type = "{key_type}"\ntiers = {tiers}\n'
    with running_server(make_data_directory(tmp_path, toml)) as server:
        certificate = enroll(server, server.register())
        verify_strictly(tmp_path, certificate, server.ca.chain)
        verify_strictly(tmp_path, server.ra_certificate, server.ca.chain)


def test_a_certificate_is_good_for_a_client_and_for_nothing_else(
    openssl: Program, server: RunningServer, tmp_path: Path
) -> None:
    """ExtendedKeyUsage is clientAuth alone."""
    certificate = enroll(server, server.register())
    verify_strictly(tmp_path, certificate, server.ca.chain, "-purpose", "sslclient")
    for purpose in ("sslserver", "smimesign", "crlsign"):
        refused = _verify(openssl, tmp_path, certificate, server, "-purpose", purpose)
        assert refused.returncode != 0
        assert "purpose" in refused.stderr


def test_the_issuer_is_fetched_from_where_the_certificate_says(
    openssl: Program, server: RunningServer, tmp_path: Path
) -> None:
    """AuthorityInformationAccess, caIssuers, DER."""
    certificate = enroll(server, server.register())
    assert server.fetch_certificate(_url(openssl, tmp_path, certificate, "CA Issuers - URI:")) == server.ca.chain[0]


def test_revocation_takes_effect_in_the_crl_that_the_certificate_names(
    openssl: Program, server: RunningServer, tmp_path: Path
) -> None:
    """Fetched over HTTP from the distribution point, before and after."""
    certificate = enroll(server, server.register())
    _fetch_crl(openssl, server, tmp_path, certificate)
    verify_strictly(tmp_path, certificate, server.ca.chain, "-crl_check", "-CRLfile", tmp_path / "crl.pem")
    server.run("certificate", "revoke", f"{certificate.certificate_serial:x}", "--reason", "key_compromise")
    _fetch_crl(openssl, server, tmp_path, certificate)
    refused = _verify(openssl, tmp_path, certificate, server, "-crl_check", "-CRLfile", "crl.pem")
    assert refused.returncode != 0
    assert "certificate revoked" in refused.stderr
    listed = openssl("crl", "-in", "crl.pem", "-noout", "-text", cwd=tmp_path).stdout
    assert re.search(rf"Serial Number: 0?{certificate.certificate_serial:X}\n(?:.*\n){{2,4}}.*Key Compromise", listed)


def test_a_failure_verifies_as_cms(openssl: Program, server: RunningServer, tmp_path: Path) -> None:
    """With its zero-length content and the RA's certificate."""
    reply = server.post(pkcs_req(server, replace(server.register(), challenge="wrong")))
    assert status_of(server, reply) == "2"
    _check_cms(openssl, tmp_path, reply, server.ca.chain)


def test_a_success_verifies_as_cms(openssl: Program, server: RunningServer, tmp_path: Path) -> None:
    """The envelope is what is signed."""
    device = server.register()
    reply = server.post(pkcs_req(server, device))
    assert certificate_in(server, reply, device).spki == spki(device.key)
    _check_cms(openssl, tmp_path, reply, server.ca.chain)


def test_a_pending_verifies_as_cms(openssl: Program, server: RunningServer, tmp_path: Path) -> None:
    """As a failure does."""
    device = server.register(profile="approved")
    reply = server.post(pkcs_req(server, device), profile="approved")
    assert status_of(server, reply) == "3"
    _check_cms(openssl, tmp_path, reply, server.ca.chain)


def _verify(
    openssl: Program, directory: Path, certificate: Certificate, server: RunningServer, *options: str
) -> CompletedProcess[str]:
    issuing, root = server.ca.chain
    write_pem(directory / "root.pem", [root])
    write_pem(directory / "issuing.pem", [issuing])
    write_pem(directory / "certificate.pem", [certificate])
    files = ("-CAfile", "root.pem", "-untrusted", "issuing.pem", "certificate.pem")
    return openssl("verify", "-x509_strict", *options, *files, cwd=directory)


def _url(openssl: Program, directory: Path, certificate: Certificate, label: str) -> str:
    """Return the URL that stands behind a label in openssl's description of a certificate."""
    write_pem(directory / "certificate.pem", [certificate])
    text = openssl("x509", "-in", "certificate.pem", "-noout", "-text", cwd=directory).stdout
    (url,) = re.findall(rf"{label}(\S+)", text)
    return str(url)


def _fetch_crl(openssl: Program, server: RunningServer, directory: Path, certificate: Certificate) -> None:
    url = _url(openssl, directory, certificate, r"Full Name:\s+URI:")
    media_type, crl = server.get(url.removeprefix(server.base_url))
    assert media_type == "application/pkix-crl"
    (directory / "crl.der").write_bytes(crl)
    converted = openssl("crl", "-inform", "DER", "-in", "crl.der", "-out", "crl.pem", cwd=directory)
    assert converted.returncode == 0, converted.stderr


def _check_cms(openssl: Program, directory: Path, reply: bytes, chain: tuple[Certificate, ...]) -> None:
    """Insist that `openssl cms -verify` accepts a CertRep under the root."""
    (directory / "reply.der").write_bytes(reply)
    write_pem(directory / "chain.pem", chain)
    # Without -purpose openssl asks for one that may sign S/MIME, as certmonger does.
    verified = openssl(
        *("cms", "-verify", "-inform", "DER", "-in", "reply.der", "-binary", "-CAfile", "chain.pem"),
        *("-out", "content.der"),
        cwd=directory,
    )
    assert verified.returncode == 0, verified.stderr
