"""Claims about CRLs (RFC 5280 5), with `cryptography` and openssl as the judges."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.ca.directory import CAMaterial
from scep_ra.pki.issuance import assemble_signed, issuer_key_identifier, signature_algorithm, signing_scheme
from scep_ra.pki.keys import load_public_key
from scep_ra.pki.profiles import CertificateProfile
from scep_ra.revocation.crl import RevocationReason, build_tbs_crl
from scep_ra.storage.base import Revocation
from tests.support.openssl import needs_openssl, run_openssl, verify_strictly, write_pem
from tests.support.pki import NOW, make_ca, make_certificate, make_key

KEY_TYPES = ["rsa-2048", "ec-p256", "ec-p384"]


def revocation(certificate_serial: int, reason: int = 0) -> Revocation:
    return Revocation(certificate_serial=certificate_serial, revoked_at=NOW, reason=reason)


def make_crl(ca: CAMaterial, *revocations: Revocation, crl_number: int = 1) -> bytes:
    tbs = build_tbs_crl(
        ca.chain[0], revocations, crl_number=crl_number, this_update=NOW, next_update=NOW + timedelta(days=7)
    )
    signature = ca.signer.sign(tbs, signing_scheme(ca.signer.spki)[1])
    return assemble_signed(tbs, signature_algorithm(ca.signer.spki), signature)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_another_library_reads_what_was_written(key_type: str) -> None:
    """Version 2, issuer, times, number, authority key identifier and signature."""
    ca = make_ca(key_type)
    crl = x509.load_der_x509_crl(make_crl(ca, revocation(7), crl_number=41))
    issuer = x509.load_der_x509_certificate(ca.chain[0].der)
    assert crl.is_signature_valid(load_public_key(ca.signer.spki))
    assert crl.issuer == issuer.subject
    assert crl.last_update_utc == NOW
    assert crl.next_update_utc == NOW + timedelta(days=7)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 41
    authority = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == issuer_key_identifier(ca.chain[0])
    assert not any(extension.critical for extension in crl.extensions)


def test_an_empty_list_is_absent() -> None:
    """RFC 5280 5.1.2.6: an empty SEQUENCE would be malformed."""
    ca = make_ca("ec-p256")
    crl = x509.load_der_x509_crl(make_crl(ca))
    assert len(crl) == 0
    assert b"\x30\x00" not in crl.tbs_certlist_bytes


@pytest.mark.parametrize("reason", RevocationReason)
def test_every_reason_is_the_one_that_the_rfc_numbers(reason: RevocationReason) -> None:
    """By its word; unspecified leaves the extension out (RFC 5280 5.3.1)."""
    (entry,) = x509.load_der_x509_crl(make_crl(make_ca("ec-p256"), revocation(7, reason)))
    if reason is RevocationReason.UNSPECIFIED:
        assert len(entry.extensions) == 0
    else:
        read = entry.extensions.get_extension_for_class(x509.CRLReason)
        assert (read.value.reason.value, read.critical) == (reason.word, False)


@pytest.mark.parametrize("number", [7, 8, 11])
def test_reasons_that_make_no_sense_here_do_not_exist(number: int) -> None:
    """7 is unused, 8 takes back in delta CRLs what we never put on hold with an end."""
    with pytest.raises(ValueError, match=f"{number} is not a valid"):
        RevocationReason(number)


@given(
    st.lists(
        st.tuples(
            st.integers(1, (1 << 159) - 1),
            st.datetimes(datetime(2020, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds must be naive
            st.sampled_from(RevocationReason),
        ),
        max_size=20,
        unique_by=lambda row: row[0],
    )
)
def test_any_list_survives(rows: list[tuple[int, datetime, RevocationReason]]) -> None:
    """Serials and dates to the second, in order, also beyond 2049."""
    revocations = [Revocation(certificate_serial=serial, revoked_at=at, reason=reason) for serial, at, reason in rows]
    crl = x509.load_der_x509_crl(make_crl(make_ca("ec-p256"), *revocations))
    read = [(entry.serial_number, entry.revocation_date_utc) for entry in crl]
    assert read == [(serial, at.replace(microsecond=0)) for serial, at, _ in rows]


def test_the_time_for_a_list_grows_with_its_length_and_no_faster() -> None:
    """Ten times the entries take about ten times as long; quadratic work would take a hundred times."""

    def seconds_for(count: int) -> float:
        rows = [revocation(1 << 128 | number, 1) for number in range(count)]
        started = time.process_time()
        build_tbs_crl(make_ca("ec-p256").chain[0], rows, crl_number=1, this_update=NOW, next_update=NOW)
        return time.process_time() - started

    assert seconds_for(20_000) < 40 * max(seconds_for(2_000), 0.002)


@needs_openssl
@pytest.mark.parametrize("tiers", [1, 2])
@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_openssl_believes_the_crl(key_type: str, tiers: int, tmp_path: Path) -> None:
    """`openssl crl -verify`, and `verify -crl_check` lets one certificate pass and stops the other."""
    ca = make_ca(key_type, tiers=1 if tiers == 1 else 2)
    profile = CertificateProfile(crl_url="http://ra.example/crl/test.crl")
    good, bad = (make_certificate(ca, make_key("ec-p256").spki, profile=profile) for _ in range(2))
    crl = tmp_path / "ca.crl"
    crl.write_bytes(make_crl(ca, revocation(bad.certificate_serial, RevocationReason.KEY_COMPROMISE)))
    issuer = write_pem(tmp_path / "issuer.pem", ca.chain[:1])
    verified = run_openssl(
        "crl", "-in", crl, "-inform", "DER", "-verify", "-CAfile", issuer, "-out", tmp_path / "crl.pem"
    )
    assert (verified.returncode, verified.stderr.strip()) == (0, "verify OK")
    options = ("-crl_check", "-CRLfile", tmp_path / "crl.pem")
    verify_strictly(tmp_path, good, ca.chain, *options)
    with pytest.raises(AssertionError, match="certificate revoked"):
        verify_strictly(tmp_path, bad, ca.chain, *options)
