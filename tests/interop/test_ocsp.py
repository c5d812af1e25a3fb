"""Claims about what `openssl ocsp` makes of our OCSP responder, asked under the URL that certificates name."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.support.enrolling import enroll
from tests.support.openssl import write_pem
from tests.support.openssl_ocsp import Asker, ocsp_url
from tests.support.pki import make_ca, make_certificate, make_key
from tests.support.programs import Program
from tests.support.server import RunningServer, make_data_directory, running_server


@pytest.fixture
def asker(openssl: Program, server: RunningServer, tmp_path: Path) -> Asker:
    return Asker(openssl, server, tmp_path)


@pytest.mark.parametrize("options", [(), ("-no_nonce",)], ids=["nonce", "no nonce"])
def test_a_revocation_is_in_the_very_next_answer(asker: Asker, options: tuple[str, ...]) -> None:
    """With its reason; openssl complains when a nonce does not come back."""
    certificate = enroll(asker.server, asker.server.register())
    assert asker.status(certificate, *options) == "good"
    asker.revoke(certificate)
    answer = asker.ask(certificate, *options)
    assert "certificate.pem: revoked" in answer.stdout
    assert "Reason: keyCompromise" in answer.stdout
    assert "nonce" not in answer.stderr.lower()


@pytest.mark.parametrize("key_type", ["rsa-2048", "ec-p256", "ec-p384"])
@pytest.mark.parametrize("tiers", [1, 2])
def test_answers_of_every_kind_of_ca_verify(openssl: Program, tmp_path: Path, key_type: str, tiers: int) -> None:
    """Under a delegate's certificate that the CA itself issued."""
    toml = f'[ca.default]\nkey_type = "{key_type}"\ntiers = {tiers}\n'
    with running_server(make_data_directory(tmp_path, toml)) as server:
        asker, certificate = Asker(openssl, server, tmp_path), enroll(server, server.register())
        assert asker.status(certificate) == "good"
        asker.revoke(certificate)
        assert asker.status(certificate) == "revoked"


@pytest.mark.parametrize("digest", ["-sha1", "-sha256", "-sha384", "-sha512"])
def test_the_issuer_may_be_named_by_any_digest(asker: Asker, digest: str) -> None:
    """Which is SHA-1 for openssl, unless told otherwise."""
    certificate = enroll(asker.server, asker.server.register())
    write_pem(asker.directory / "certificate.pem", [certificate])
    answer = asker.openssl(
        *("ocsp", "-issuer", "issuer.pem", digest, "-cert", "certificate.pem", "-CAfile", "chain.pem"),
        *("-url", ocsp_url(certificate)),
        cwd=asker.directory,
    )
    assert ("Response verify OK" in answer.stderr, "certificate.pem: good" in answer.stdout) == (True, True)


def test_several_certificates_are_answered_in_one_response(asker: Asker) -> None:
    """A good one, a revoked one, and a serial that was never issued."""
    good, bad = (enroll(asker.server, asker.server.register()) for _ in range(2))
    asker.revoke(bad)
    write_pem(asker.directory / "good.pem", [good])
    write_pem(asker.directory / "bad.pem", [bad])
    answer = asker.openssl(
        *("ocsp", "-issuer", "issuer.pem", "-cert", "good.pem", "-cert", "bad.pem", "-serial", "0x1234"),
        *("-CAfile", "chain.pem", "-url", ocsp_url(good)),
        cwd=asker.directory,
    )
    assert "Response verify OK" in answer.stderr
    assert re.findall(r"^(\S+): (\w+)$", answer.stdout, re.MULTILINE) == [
        ("good.pem", "good"),
        ("bad.pem", "revoked"),
        ("0x1234", "unknown"),
    ]


def test_a_certificate_of_somebody_else_is_refused(asker: Asker) -> None:
    """Its issuer is none of ours."""
    certificate = enroll(asker.server, asker.server.register())
    stranger = make_ca("ec-p256", name="stranger")
    write_pem(asker.directory / "stranger.pem", stranger.chain[:1])
    write_pem(asker.directory / "theirs.pem", [make_certificate(stranger, make_key("ec-p256").spki)])
    answer = asker.openssl(
        *("ocsp", "-issuer", "stranger.pem", "-cert", "theirs.pem", "-CAfile", "chain.pem"),
        *("-url", ocsp_url(certificate)),
        cwd=asker.directory,
    )
    assert "Responder Error: unauthorized (6)" in answer.stdout + answer.stderr


def test_the_same_is_answered_to_get(asker: Asker) -> None:
    """Another program makes the request and judges the answer, but cannot send a GET itself."""
    certificate = enroll(asker.server, asker.server.register())
    asker.ask(certificate, "-no_nonce", "-reqout", "request.der")
    request = base64.b64encode((asker.directory / "request.der").read_bytes()).decode()
    path = ocsp_url(certificate).removeprefix(asker.server.base_url)
    media_type, answer = asker.server.get(f"{path}/{quote(request, safe='')}")
    assert media_type == "application/ocsp-response"
    (asker.directory / "answer.der").write_bytes(answer)
    judged = asker.openssl(
        *("ocsp", "-issuer", "issuer.pem", "-cert", "certificate.pem", "-CAfile", "chain.pem"),
        *("-respin", "answer.der"),
        cwd=asker.directory,
    )
    assert ("Response verify OK" in judged.stderr, "certificate.pem: good" in judged.stdout) == (True, True)


def test_the_delegate_is_an_end_entity_that_verifies_strictly(asker: Asker) -> None:
    """For the purpose that openssl calls ocsphelper, and within RFC 5280."""
    certificate = enroll(asker.server, asker.server.register())
    asker.ask(certificate, "-respout", "answer.der")
    (delegate,) = ocsp.load_der_ocsp_response((asker.directory / "answer.der").read_bytes()).certificates
    (asker.directory / "delegate.pem").write_bytes(delegate.public_bytes(Encoding.PEM))
    verified = asker.openssl(
        *("verify", "-x509_strict", "-purpose", "ocsphelper", "-CAfile", "chain.pem", "delegate.pem"),
        cwd=asker.directory,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_number_of_the_crl_rises_at_once(asker: Asker) -> None:
    """Both ways to learn of a revocation know it in the same second."""
    certificate = enroll(asker.server, asker.server.register())
    before = _crl(asker.server)
    asker.revoke(certificate)
    after = _crl(asker.server)
    assert _number(after) == _number(before) + 1
    assert after.get_revoked_certificate_by_serial_number(certificate.certificate_serial) is not None


def _crl(server: RunningServer) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(server.get("/crl/default.crl")[1])


def _number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
