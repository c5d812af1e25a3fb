"""Claims about `scep-ra decode`."""

from __future__ import annotations

import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from scep_ra.pki.csr import build_request
from scep_ra.pki.names import parse_name
from tests.support import vectors
from tests.support.command_line import CommandLine
from tests.support.pki import make_key
from tests.support.scep_pair import CHALLENGE, make_csr

CAPTURE = str(vectors.VECTORS / "sscep-0.10-post-aes128-sha256.http")
RA = ("--ra-key", str(vectors.VECTORS / "ra-TEST-ONLY.key"), "--ra-cert", str(vectors.VECTORS / "ra.pem"))


def find(section: dict[str, Any], title: str) -> dict[str, Any]:
    """Return the section with this title, the outermost or one inside."""
    found = [section] if section["title"] == title else [find(each, title) for each in section.get("sections", [])]
    return next((each for each in found if each), {})


def test_a_capture_is_printed_as_an_indented_text(scep_ra: CommandLine) -> None:
    """What people read: yes and no, lists in one line, the inner below the outer."""
    out = scep_ra.ok("decode", CAPTURE, *RA).out
    assert out.startswith("HTTP request\n    method:")
    assert "digest is allowed by default: yes\n" in out
    assert "            PKCS#10 request\n" in out
    assert "device ids:" in out
    assert "serial:FTX1234 (subject.serialNumber); serial:DEV1 (subject.commonName)" in out
    assert "challenge:" in out
    assert "opened:                       with the key of O=T,CN=RA" in out


def test_programs_get_json(scep_ra: CommandLine) -> None:
    """The same facts by name."""
    found = scep_ra.ok("decode", CAPTURE, "--json", *RA).json
    message = find(found, "PKIMessage")
    assert message["signature"] == "verifies"
    assert find(found, "PKCS#10 request")["proof_of_possession"] == "holds"


def test_the_keys_of_the_data_directory_are_found(scep_ra: CommandLine) -> None:
    """The RA of this installation opens what was sent to it, and nothing is made by looking."""
    assert find(scep_ra.ok("decode", CAPTURE, "--json").json, "pkcsPKIEnvelope")["opened"].startswith("no: the key")
    assert not scep_ra.data.exists()
    folder = scep_ra.data / "ra" / "field"
    folder.mkdir(parents=True)
    shutil.copy(vectors.VECTORS / "ra.pem", folder / "ra.pem")
    outcome = scep_ra.ok("decode", CAPTURE, "--json")
    assert "ra.key: cannot be read" in outcome.err
    shutil.copy(vectors.VECTORS / "ra-TEST-ONLY.key", folder / "ra.key")
    assert find(scep_ra.ok("decode", CAPTURE, "--json").json, "pkcsPKIEnvelope")["opened"].startswith("with the key")


@pytest.mark.parametrize(
    ("subject", "device_ids"),
    [
        ("O=x,serialNumber=a\x01", "none: "),
        ("O=x", "none"),
    ],
)
def test_a_request_without_a_device_id_says_so(
    scep_ra: CommandLine, tmp_path: Path, subject: str, device_ids: str
) -> None:
    """The reason is the server's own."""
    csr = build_request(subject=parse_name(subject), key=make_key())
    file = tmp_path / "request.der"
    file.write_bytes(csr)
    (found,) = scep_ra.ok("decode", str(file), "--json").json["device_ids"]
    assert found.startswith(device_ids)


def test_a_section_without_facts_is_a_title(scep_ra: CommandLine, tmp_path: Path) -> None:
    """A PEM file of two."""
    file = tmp_path / "two.pem"
    file.write_bytes(vectors.read("ra.pem") + vectors.read("ca.pem"))
    assert scep_ra.ok("decode", str(file)).out.startswith("PEM file\n    certificate\n        subject:")


def test_what_is_nothing_of_ours_ends_with_the_name_of_the_file(scep_ra: CommandLine, tmp_path: Path) -> None:
    """One line, exit status 1."""
    file = tmp_path / "page.html"
    file.write_bytes(b"<html>")
    outcome = scep_ra("decode", str(file))
    assert outcome.status == 1
    assert outcome.err.startswith(f"scep-ra: {file}: neither HTTP, PEM, base64 nor ASN.1")


def test_a_key_needs_its_certificate(scep_ra: CommandLine) -> None:
    """The certificate tells which recipient it is."""
    outcome = scep_ra("decode", CAPTURE, *RA[:2])
    assert outcome.status == 2
    assert "--ra-key and --ra-cert go together" in outcome.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--ra-key", RA[3], "--ra-cert", RA[3]), "holds no RSA or EC private key"),
        (("--ra-key", RA[1], "--ra-cert", RA[1]), "holds no certificate"),
        (("--ra-key", RA[1], "--ra-cert", CAPTURE), "holds no certificate"),
    ],
)
def test_swapped_files_are_named(scep_ra: CommandLine, options: tuple[str, ...], text: str) -> None:
    """Exit status 2: the command line is wrong."""
    outcome = scep_ra("decode", CAPTURE, *options)
    assert outcome.status == 2
    assert text in outcome.err


def test_a_certificate_may_be_der(scep_ra: CommandLine, tmp_path: Path) -> None:
    """As sscep and strongSwan write it."""
    certificate = tmp_path / "ra.der"
    certificate.write_bytes(ssl.PEM_cert_to_DER_cert(vectors.read("ra.pem").decode()))
    assert "with the key of O=T,CN=RA" in scep_ra.ok("decode", CAPTURE, RA[0], RA[1], RA[2], str(certificate)).out


def test_no_challenge_is_ever_printed(scep_ra: CommandLine, tmp_path: Path) -> None:
    """Neither as text nor as JSON."""
    file = tmp_path / "request.der"
    file.write_bytes(make_csr(make_key()))
    for options in ((), ("--json",)):
        out = scep_ra.ok("decode", str(file), *options).out
        assert CHALLENGE not in out
        assert f"present, {len(CHALLENGE)} characters" in out
