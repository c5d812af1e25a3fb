"""Claims about `scep-ra certificate`."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scep_ra.cli.session import Session
from scep_ra.pki.certificates import Certificate
from scep_ra.storage.base import StoredCertificate
from tests.support import records
from tests.support.command_line import CommandLine
from tests.support.pki import make_ca, make_certificate, make_key

LATER = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """Make a certificate with a real subject."""
    return make_certificate(make_ca(), make_key().spki)


def store(scep_ra: CommandLine, *certificates: StoredCertificate) -> None:
    """Put certificates into the store by the way that every certificate takes."""

    async def work(session: Session) -> None:
        for number, each in enumerate(certificates, start=1):
            enrollment = records.make_enrollment(
                number, ca=each.ca, device_id=each.device_id, certificate_serial=each.certificate_serial,
                key=records.make_key(f"TX{number}"),
            )  # fmt: skip
            await session.store.insert_enrollment(enrollment, spend=None)
            assert await session.store.complete(enrollment.enrollment_id, each, records.NOW)

    scep_ra.in_store(work)


def stored(certificate: Certificate, **fields: object) -> StoredCertificate:
    """Return the row of a certificate that is valid for a month."""
    row = records.make_certificate(der=certificate.der, certificate_serial=0x4A007F, not_after=LATER)
    return replace(row, **fields)  # type: ignore[arg-type] # fields of any type


def test_certificates_are_listed_with_their_status(scep_ra: CommandLine, certificate: Certificate) -> None:
    """Newest first."""
    other = records.device_id("SN2")
    old = stored(certificate, certificate_serial=1, not_after=records.NOW, device_id=other)
    store(scep_ra, old, stored(certificate, issued_at=records.NOW + records.HOUR))
    listed = scep_ra.ok("certificate", "list", "--json").json
    assert [(each["serial"], each["status"], each["device"]) for each in listed] == [
        ("4a007f", "valid", "serial:SN123"),
        ("1", "expired", "serial:SN2"),
    ]
    assert scep_ra.ok("certificate", "list").out.splitlines()[1].split()[:2] == ["4a007f", "valid"]


def test_certificates_of_a_device_are_listed_though_it_was_removed(
    scep_ra: CommandLine, certificate: Certificate
) -> None:
    """The registry is not asked."""
    store(scep_ra, stored(certificate))
    assert len(scep_ra.ok("certificate", "list", "--device", "SN123", "--json").json) == 1
    assert scep_ra.ok("certificate", "list", "--device", "SN124", "--json").json == []


@pytest.mark.parametrize("serial", ["4a007f", "4A:00:7F", "dec:4849791"])
def test_a_certificate_is_shown_by_any_spelling_of_its_serial(
    scep_ra: CommandLine, certificate: Certificate, serial: str
) -> None:
    """Names, times and fingerprints are there."""
    store(scep_ra, stored(certificate))
    record = scep_ra.ok("certificate", "show", serial, "--json").json
    assert (record["serial"], record["status"], record["revoked_at"]) == ("4a007f", "valid", None)
    assert "CN=device-1" in record["subject"]
    assert record["sha256"] == certificate.fingerprint()
    assert "subject:" in scep_ra.ok("certificate", "show", serial).out


def test_a_certificate_that_does_not_exist_is_not_found(scep_ra: CommandLine) -> None:
    """Status 1, and which CAs were asked."""
    scep_ra.data.mkdir(mode=0o700)
    outcome = scep_ra("certificate", "show", "7f")
    assert outcome.status == 1
    assert outcome.err == "scep-ra: no certificate with serial 7f was issued by CA default\n"


def test_one_serial_of_two_cas_needs_the_ca(scep_ra: CommandLine, certificate: Certificate) -> None:
    """The message lists the CAs, and --ca decides."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text("[ca.default]\n[ca.vpn]\n")
    store(scep_ra, stored(certificate), stored(certificate, ca="vpn", successor=5))
    outcome = scep_ra("certificate", "show", "4a007f")
    assert (outcome.status, "give --ca, one of default, vpn" in outcome.err) == (2, True)
    assert scep_ra.ok("certificate", "show", "4a007f", "--ca", "vpn", "--json").json["ca"] == "vpn"


def test_a_certificate_is_exported(scep_ra: CommandLine, certificate: Certificate, tmp_path: Path) -> None:
    """PEM goes to standard output, DER into a file."""
    store(scep_ra, stored(certificate))
    assert ssl.PEM_cert_to_DER_cert(scep_ra.ok("certificate", "export", "4a007f").out) == certificate.der
    file = tmp_path / "device.der"
    scep_ra.ok("certificate", "export", "4a007f", "--format", "der", "-o", str(file))
    assert file.read_bytes() == certificate.der


def test_a_chain_ends_with_the_root(scep_ra: CommandLine, certificate: Certificate) -> None:
    """The certificate, its CA, the root."""
    store(scep_ra, stored(certificate))
    ca_chain = scep_ra.ok("ca", "export", "--chain").out
    assert ca_chain.count("BEGIN CERTIFICATE") == 2
    chain = scep_ra.ok("certificate", "export", "4a007f", "--format", "chain").out
    assert chain == ssl.DER_cert_to_PEM_cert(certificate.der) + ca_chain


def test_a_certificate_is_revoked_once(scep_ra: CommandLine, certificate: Certificate) -> None:
    """The reason is kept; a second revocation changes nothing and says so."""
    store(scep_ra, stored(certificate))
    outcome = scep_ra.ok("certificate", "revoke", "4a007f", "--reason", "key_compromise")
    assert outcome.out == "revoked 4a007f of serial:SN123\n"
    record = scep_ra.ok("certificate", "show", "4a007f", "--json").json
    assert (record["status"], record["revocation_reason"]) == ("revoked", "key_compromise")
    assert record["revoked_at"].endswith("Z")
    assert scep_ra("certificate", "revoke", "4a007f").status == 1


def test_a_successor_is_shown(scep_ra: CommandLine, certificate: Certificate) -> None:
    """Who looks at an old certificate wants to know the new one."""

    async def renew(session: Session) -> None:
        enrollment = records.make_enrollment(
            2, renewal_of=0x4A007F, certificate_serial=0x5B, key=records.make_key("TX2")
        )
        await session.store.insert_enrollment(enrollment, spend=None)
        renewed = stored(certificate, certificate_serial=0x5B)
        assert await session.store.complete(enrollment.enrollment_id, renewed, records.NOW)

    store(scep_ra, stored(certificate))
    scep_ra.in_store(renew)
    assert scep_ra.ok("certificate", "show", "4a007f", "--json").json["successor"] == "5b"
