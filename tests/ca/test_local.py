"""Claims about the local authority: it signs what was ordered, always the same, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from scep_ra.ca.base import CertificateAuthority, IssueRequest, SupportsCRL, SupportsOCSP
from scep_ra.ca.directory import CAMaterial
from scep_ra.ca.local import LocalCA
from scep_ra.errors import Misconfigured, Refused
from scep_ra.pki import der
from scep_ra.pki.algorithms import Digest, SignatureScheme
from scep_ra.pki.certificates import parse_certificate
from scep_ra.pki.issuance import assemble_tbs, ca_basic_constraints, signature_algorithm
from scep_ra.pki.keys import Signer
from scep_ra.pki.lint import check_contents, check_end_entity, check_signature
from scep_ra.pki.names import parse_name
from scep_ra.pki.profiles import CertificateProfile, KeyUsage
from scep_ra.revocation.crl import build_tbs_crl
from tests.support.pki import NOW, make_ca, make_key

REQUEST = IssueRequest(
    certificate_serial=0x0123456789ABCDEF,
    subject=parse_name("O=Test,CN=device-1"),
    spki=make_key("ec-p256").spki,
    subject_alt_name=None,
    not_before=NOW,
    not_after=NOW + timedelta(days=365),
    profile=CertificateProfile(),
)


def local_ca(material: CAMaterial | None = None, *, signer: Signer | None = None, now: datetime = NOW) -> LocalCA:
    material = material or make_ca("ec-p256")
    return LocalCA(
        name="test",
        signer=signer or material.signer,
        chain=material.chain,
        crl_validity=timedelta(hours=1),
        now=lambda: now,
    )


class FaultySigner:
    """A key whose signatures do not verify, as a failing token's."""

    def __init__(self, key: Signer) -> None:
        self.spki, self.scheme = key.spki, SignatureScheme.ECDSA
        self._key = key

    def sign(self, data: bytes, digest: Digest) -> bytes:
        return self._key.sign(data + b"x", digest)


@pytest.mark.parametrize("subject_key", ["rsa-2048", "ec-p256"])
@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p256", "ec-p384"])
async def test_what_is_issued_is_what_was_ordered(ca_key: str, subject_key: str) -> None:
    """Serial, subject and key come back octet by octet, and the certificate passes its own lint."""
    ca, request = local_ca(make_ca(ca_key)), replace(REQUEST, spki=make_key(subject_key).spki)
    order = ca.prepare(request)
    certificate = (await ca.issue(order)).certificate
    check_end_entity(
        certificate,
        issuer=(await ca.chain())[0],
        certificate_serial=request.certificate_serial,
        subject=request.subject,
        subject_alt_name=request.subject_alt_name,
        spki=request.spki,
    )
    assert certificate == parse_certificate(certificate.der)
    assert certificate.tbs == order


@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p256"])
async def test_an_order_always_ends_in_the_same_certificate(ca_key: str) -> None:
    """Also for EC, where signatures usually differ: a start after a crash issues stored orders again."""
    first, second = local_ca(make_ca(ca_key)), local_ca(make_ca(ca_key))
    order = first.prepare(REQUEST)
    assert first.prepare(REQUEST) == second.prepare(REQUEST) == order
    assert (await first.issue(order)).certificate.der == (await second.issue(order)).certificate.der


def test_the_local_authority_fits_its_ports() -> None:
    """Signing certificates and CRLs, certifying who answers OCSP; what can do neither is told apart."""
    ca: CertificateAuthority = local_ca()
    assert isinstance(ca, SupportsCRL)
    assert isinstance(ca, SupportsOCSP)
    assert not isinstance(object(), SupportsCRL | SupportsOCSP)


async def test_the_chain_begins_with_the_issuing_certificate() -> None:
    """And ends with the root."""
    assert tuple(await local_ca().chain()) == make_ca("ec-p256").chain


async def test_validity_is_cut_at_that_of_the_authority() -> None:
    """At both ends: a certificate outside its issuer's validity is useless there."""
    ca, issuer = local_ca(), make_ca("ec-p256").chain[0]
    request = replace(REQUEST, not_before=NOW - timedelta(days=9), not_after=NOW + timedelta(days=99999))
    certificate = (await ca.issue(ca.prepare(request))).certificate
    assert (certificate.not_before, certificate.not_after) == (issuer.not_before, issuer.not_after)


def test_an_authority_at_its_end_refuses() -> None:
    """Nothing is left of the validity, and the operator reads since when."""
    end = make_ca("ec-p256").chain[0].not_after
    with pytest.raises(Refused, match=f"'test' ends on {end:%Y-%m-%d}"):
        local_ca().prepare(replace(REQUEST, not_before=end, not_after=end + timedelta(days=1)))


def test_a_key_without_usage_is_refused_before_anything_is_stored() -> None:
    """The profile allows enciphering only, which an EC key cannot do."""
    profile = CertificateProfile(key_usage=(KeyUsage.KEY_ENCIPHERMENT,))
    with pytest.raises(Refused, match="cannot certify this key"):
        local_ca().prepare(replace(REQUEST, profile=profile))


def order_for_a_ca() -> bytes:
    issuer = make_ca("ec-p256").chain[0]
    return assemble_tbs(
        certificate_serial=1,
        algorithm=signature_algorithm(issuer.spki),
        issuer=issuer.subject,
        not_before=NOW,
        not_after=NOW + timedelta(days=1),
        subject=REQUEST.subject,
        spki=REQUEST.spki,
        extensions=ca_basic_constraints(None),
    )


@pytest.mark.parametrize(
    "make_order",
    [
        lambda: b"",
        der.sequence,
        lambda: local_ca(make_ca("rsa-2048")).prepare(REQUEST),
        lambda: local_ca(make_ca("ec-p256", name="other")).prepare(REQUEST),
        lambda: local_ca().prepare(REQUEST) + b"\x00",
        lambda: local_ca().prepare(REQUEST) + der.sequence() + der.bit_string(b""),
        lambda: local_ca().prepare(replace(REQUEST, certificate_serial=-1)),
        lambda: local_ca().prepare(replace(REQUEST, certificate_serial=1 << 160)),
        order_for_a_ca,
    ],
)
async def test_nothing_but_an_order_of_its_own_is_signed(make_order: Callable[[], bytes]) -> None:
    """Octets from elsewhere, another CA's order, a CA certificate, a bad serial: refused, and the key is not used."""
    ca = local_ca(signer=UnusedSigner(make_ca("ec-p256").signer))
    with pytest.raises(Refused, match="signs only orders of its own"):
        await ca.issue(make_order())


class UnusedSigner(FaultySigner):
    """A key that must not be touched."""

    def sign(self, data: bytes, digest: Digest) -> bytes:
        raise AssertionError(f"{len(data)} octets were to be signed with {digest}")


async def test_signing_is_left_to_the_runner() -> None:
    """The event loop is not held up by RSA; a bounded pool can be put in."""
    calls: list[str] = []

    async def run(function: Callable[[], Any]) -> Any:
        calls.append("run")
        return await asyncio.to_thread(function)

    material = make_ca("ec-p256")
    ca = LocalCA(
        name="test",
        signer=material.signer,
        chain=material.chain,
        crl_validity=timedelta(hours=1),
        now=lambda: NOW,
        run=run,
    )
    await ca.issue(ca.prepare(REQUEST))
    await ca.check()
    assert calls == ["run", "run"]


async def test_a_crl_is_signed_with_the_key_of_the_authority() -> None:
    """Another library verifies it."""
    ca, material = local_ca(), make_ca("ec-p256")
    tbs = build_tbs_crl(material.chain[0], [], crl_number=1, this_update=NOW, next_update=NOW + ca.crl_validity)
    crl = x509.load_der_x509_crl(await ca.sign_crl(tbs))
    issuer_key = x509.load_der_x509_certificate(material.chain[0].der).public_key()
    assert isinstance(issuer_key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(issuer_key)
    assert crl.tbs_certlist_bytes == tbs


async def test_only_its_own_crls_are_signed() -> None:
    """A TBSCertificate, another CA's list or plain octets would be signatures for somebody else's use."""
    ca, other = local_ca(), make_ca("ec-p256", name="other").chain[0]
    foreign = build_tbs_crl(other, [], crl_number=1, this_update=NOW, next_update=NOW)
    with pytest.raises(Refused, match="CRLs of its own"):
        await ca.sign_crl(foreign)
    for octets in (b"", ca.prepare(REQUEST)):
        with pytest.raises(Refused, match="no TBSCertList"):
            await ca.sign_crl(octets)


@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p256"])
async def test_a_key_that_answers_ocsp_is_certified_for_a_week_and_for_nothing_else(ca_key: str) -> None:
    """RFC 6960 4.2.2.2: issued by the CA itself, id-kp-OCSPSigning, and ocsp-nocheck because it ends soon."""
    ca, key = local_ca(make_ca(ca_key)), make_key("ec-p256", "OCSP")
    ours = await ca.certify_ocsp_key(key.spki)
    check_contents(ours, issuer=(await ca.chain())[0])
    check_signature(ours, issuer=(await ca.chain())[0])
    theirs = x509.load_der_x509_certificate(ours.der)
    assert theirs.subject.rfc4514_string() == "CN=test OCSP"
    assert list(theirs.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.OCSP_SIGNING
    ]
    assert theirs.extensions.get_extension_for_class(x509.OCSPNoCheck)
    usage = theirs.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.crl_sign) == (True, False, False)
    assert (ours.spki, ours.not_after) == (key.spki, NOW + timedelta(days=7))
    assert ours.not_before <= NOW


async def test_each_certificate_for_ocsp_is_another_one() -> None:
    """Its serial is random, as every other."""
    ca, key = local_ca(), make_key("ec-p256", "OCSP")
    assert len({(await ca.certify_ocsp_key(key.spki)).certificate_serial for _ in range(3)}) == 3


async def test_check_passes_for_a_working_key() -> None:
    """For RSA and EC, within the validity."""
    await local_ca(make_ca("rsa-2048")).check()
    await local_ca().check()


@pytest.mark.parametrize("days", [-1, 99999])
async def test_check_reports_a_certificate_that_is_not_valid_now(days: int) -> None:
    """Before and after, with both dates."""
    with pytest.raises(Misconfigured, match=r"valid from .* to .*: renew it"):
        await local_ca(now=NOW + timedelta(days=days)).check()


async def test_check_reports_a_key_that_is_not_the_certificates() -> None:
    """Of the same kind or of another."""
    for key_type in ("ec-p256", "rsa-2048"):
        with pytest.raises(Misconfigured, match="not that of its certificate"):
            await local_ca(signer=make_key(key_type, "somebody")).check()
