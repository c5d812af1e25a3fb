"""Claims about OCSP answers: they say what the store says now, under a certificate that is renewed in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from structlog.testing import capture_logs

from scep_ra.ca.directory import CAMaterial
from scep_ra.ca.local import LocalCA
from scep_ra.errors import Misconfigured, Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.errors import MalformedData
from scep_ra.revocation import responder
from scep_ra.revocation.crl import RevocationReason
from scep_ra.revocation.responder import ForeignIssuer, OCSPResponder
from scep_ra.storage.base import StoredCertificate
from tests.support.enrollment import run_here
from tests.support.ocsp import ask, ask_raw, cert_id, read_answer, statuses
from tests.support.pki import NOW, make_ca, make_certificate, make_key
from tests.support.revocation_store import MemoryRevocationStore

CA = make_ca("ec-p256")
ISSUER = CA.chain[0]
STRANGER = make_ca("ec-p256", name="stranger").chain[0]
VALIDITY = timedelta(hours=1)
HALF_A_WEEK = timedelta(days=3.5)
SECOND = timedelta(seconds=1)


def stored(certificate_serial: int) -> StoredCertificate:
    return StoredCertificate(
        certificate_serial=certificate_serial,
        ca="test",
        profile="default",
        device_id=DeviceID(kind=DeviceIDKind.SERIAL, value="DEVICE1"),
        der=b"",
        spki_digest=b"",
        not_before=NOW,
        not_after=NOW + timedelta(days=30),
        issued_at=NOW,
    )


class DelegatingCA:
    """SupportsOCSP over a local authority: counts, and fails or waits when it is told to."""

    def __init__(self, material: CAMaterial, now: Clock) -> None:
        self.name = "test"
        self.certificates: list[Certificate] = []
        self.failure: Exception | None = None
        self.instead: Certificate | None = None
        self.may_sign = asyncio.Event()
        self.may_sign.set()
        self._ca = LocalCA(
            name="test", signer=material.signer, chain=material.chain, crl_validity=VALIDITY, now=now, run=run_here
        )

    async def chain(self) -> Sequence[Certificate]:
        return await self._ca.chain()

    async def certify_ocsp_key(self, spki: bytes) -> Certificate:
        await self.may_sign.wait()
        if self.failure is not None:
            raise self.failure
        self.certificates.append(self.instead or await self._ca.certify_ocsp_key(spki))
        return self.certificates[-1]


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


class Scene:
    """A responder for three certificates, its store, its authority and its clock."""

    def __init__(self, ca: CAMaterial = CA, key_type: str = "ec-p256") -> None:
        self.clock = Clock()
        self.store = MemoryRevocationStore(stored(serial) for serial in (0x101, 0x102, 0x103))
        self.ca = DelegatingCA(ca, self.clock)
        self.responder = OCSPResponder(
            authority=self.ca,
            issuer=ca.chain[0],
            key=make_key(key_type, "OCSP"),
            store=self.store,
            validity=VALIDITY,
            now=self.clock,
            run=run_here,
        )

    async def answer(self, certificate_serial: int, nonce: bytes | None = None) -> bytes:
        return (await self.responder.answer(ask(ISSUER, certificate_serial, nonce=nonce))).der

    async def revoke(self, certificate_serial: int, reason: RevocationReason = RevocationReason.UNSPECIFIED) -> None:
        assert await self.store.revoke_certificate("test", certificate_serial, self.clock(), reason)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


# --- what it says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_type", ["rsa-2048", "ec-p256"])
@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p256", "ec-p384"])
async def test_an_answer_is_signed_by_a_delegate_of_the_authority(ca_key: str, key_type: str) -> None:
    """Whatever their keys; it holds for as long as configured."""
    scene, issuer = Scene(make_ca(ca_key), key_type), make_ca(ca_key).chain[0]
    answer = await scene.responder.answer(ask(issuer, 0x101))
    read = read_answer(answer.der, issuer)
    assert (read.certificate_status, read.serial_number) == (ocsp.OCSPCertStatus.GOOD, 0x101)
    assert (read.produced_at_utc, read.this_update_utc, read.next_update_utc) == (NOW, NOW, NOW + VALIDITY)
    assert (answer.this_update, answer.has_nonce) == (NOW, False)


@pytest.mark.parametrize("nonce", [None, b"n" * 32])
async def test_a_revocation_is_in_the_very_next_answer(scene: Scene, nonce: bytes | None) -> None:
    """Within the same second, and though the answer before it was kept."""
    assert statuses(await scene.answer(0x101, nonce)) == [(0x101, "good")]
    await scene.revoke(0x101, RevocationReason.KEY_COMPROMISE)
    answer = read_answer(await scene.answer(0x101, nonce), ISSUER)
    assert (answer.certificate_status, answer.revocation_time_utc) == (ocsp.OCSPCertStatus.REVOKED, NOW)
    assert answer.revocation_reason is x509.ReasonFlags.key_compromise
    assert statuses(await scene.answer(0x102, nonce)) == [(0x102, "good")]


async def test_a_row_without_a_reason_is_revoked_all_the_same(scene: Scene) -> None:
    """Old rows may have none."""
    scene.store.certificates["test", 0x101] = replace(stored(0x101), revoked_at=NOW)
    answer = read_answer(await scene.answer(0x101), ISSUER)
    assert (answer.certificate_status.name, answer.revocation_reason) == ("REVOKED", None)


@pytest.mark.parametrize("nonce", [None, b"n" * 32])
async def test_a_serial_that_was_never_issued_is_unknown_until_it_is(scene: Scene, nonce: bytes | None) -> None:
    """RFC 6960 2.2; the next answer after the issuance says good."""
    assert statuses(await scene.answer(0x999, nonce)) == [(0x999, "unknown")]
    scene.store.certificates["test", 0x999] = stored(0x999)
    assert statuses(await scene.answer(0x999, nonce)) == [(0x999, "good")]


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=str)
async def test_the_issuer_is_recognized_by_every_digest(scene: Scene, algorithm: hashes.HashAlgorithm) -> None:
    """Old clients ask by SHA-1 only, new ones may ask by SHA-2 only."""
    answer = await scene.responder.answer(ask(ISSUER, 0x101, algorithm=algorithm))
    read = read_answer(answer.der, ISSUER)
    assert (read.hash_algorithm.name, read.certificate_status.name) == (algorithm.name, "GOOD")


async def test_several_certificates_are_answered_at_once(scene: Scene) -> None:
    """One of another issuer among them is unknown, though it has a serial of ours."""
    await scene.revoke(0x102)
    octets = ask_raw(*(cert_id(ISSUER, serial) for serial in (0x101, 0x102, 0x999)), cert_id(STRANGER, 0x103))
    answer = (await scene.responder.answer(octets)).der
    assert statuses(answer) == [(0x101, "good"), (0x102, "revoked"), (0x999, "unknown"), (0x103, "unknown")]
    read_answer(answer, ISSUER)


async def test_a_request_about_others_only_is_refused(scene: Scene) -> None:
    """RFC 6960 2.3: we cannot answer authoritatively."""
    with pytest.raises(ForeignIssuer, match="no certificate of CA 'test'") as caught:
        await scene.responder.answer(ask(STRANGER, 0x101))
    assert caught.value.code == "foreign-issuer"


async def test_an_issuer_of_the_same_name_and_another_key_is_another_one(scene: Scene) -> None:
    """After a change of the CA's key, for example."""
    with pytest.raises(ForeignIssuer):
        await scene.responder.answer(ask(replace(ISSUER, spki=STRANGER.spki), 0x101))


async def test_a_malformed_request_costs_no_certificate(scene: Scene) -> None:
    """It is parsed before anything else is done."""
    with pytest.raises(MalformedData):
        await scene.responder.answer(b"\x30\x00")
    assert scene.ca.certificates == []


async def test_the_nonce_is_the_clients(scene: Scene) -> None:
    """So such an answer is for one client and never for another."""
    answers = [await scene.responder.answer(ask(ISSUER, 0x101, nonce=nonce)) for nonce in (b"a" * 16, b"b" * 16)]
    read = [read_answer(answer.der, ISSUER).extensions.get_extension_for_class(x509.OCSPNonce) for answer in answers]
    assert [extension.value.nonce for extension in read] == [b"a" * 16, b"b" * 16]
    assert [answer.has_nonce for answer in answers] == [True, True]


# --- what is kept --------------------------------------------------------------------------------------------------


async def test_an_answer_is_kept_for_half_of_its_time(scene: Scene) -> None:
    """A client gets one that is good for at least the other half."""
    first = await scene.answer(0x101)
    scene.clock.time += VALIDITY / 2 - SECOND
    assert await scene.answer(0x101) == first
    scene.clock.time += SECOND
    assert ocsp.load_der_ocsp_response(await scene.answer(0x101)).this_update_utc == scene.clock.time


async def test_what_is_kept_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for all serials there are does not fill our memory; what is asked for often stays."""
    monkeypatch.setattr(responder, "_KEPT_ANSWERS", 2)
    often = await scene.answer(0x101)
    seldom = await scene.answer(0x102)
    scene.clock.time += SECOND
    assert await scene.answer(0x101) == often
    await scene.answer(0x103)
    assert await scene.answer(0x101) == often
    assert await scene.answer(0x102) != seldom


async def test_an_endless_serial_is_answered_and_not_kept(scene: Scene) -> None:
    """Thousands of them would be tens of megabytes of our memory."""
    answers = []
    for _ in range(2):
        answers.append(await scene.answer(1 << 8 * 1000))
        scene.clock.time += SECOND
    assert answers[0] != answers[1]
    assert scene.responder._kept == {}


# --- by what right -------------------------------------------------------------------------------------------------


async def test_the_certificate_is_issued_by_the_first_check_and_renewed_at_half_of_its_time(scene: Scene) -> None:
    """Answers change with it, those that were kept too."""
    await scene.responder.check()
    first = await scene.answer(0x101)
    scene.clock.time += HALF_A_WEEK - SECOND
    await scene.responder.check()
    assert len(scene.ca.certificates) == 1
    scene.clock.time += SECOND
    with capture_logs() as logs:
        second = await scene.answer(0x101)
    read = [ocsp.load_der_ocsp_response(answer).certificates[0].serial_number for answer in (first, second)]
    assert read == [certificate.certificate_serial for certificate in scene.ca.certificates]
    assert [(line["event"], line["certificate_serial"]) for line in logs] == [("ocsp_key_certified", f"{read[1]:x}")]


async def test_many_who_ask_first_cost_one_certificate(scene: Scene) -> None:
    """They wait for it together."""
    scene.ca.may_sign.clear()
    asked = [asyncio.create_task(scene.answer(0x101)) for _ in range(20)]
    await asyncio.sleep(0)
    scene.ca.may_sign.set()
    await asyncio.gather(*asked)
    assert len(scene.ca.certificates) == 1


async def test_an_authority_that_is_away_is_reported_while_there_is_no_certificate(scene: Scene) -> None:
    """The next check tries again."""
    scene.ca.failure = Unavailable("the token is not there")
    with pytest.raises(Unavailable, match="token"):
        await scene.answer(0x101)
    scene.ca.failure = None
    await scene.responder.check()
    assert statuses(await scene.answer(0x101)) == [(0x101, "good")]


async def test_an_authority_that_is_away_does_not_matter_while_the_certificate_will_do(scene: Scene) -> None:
    """It is asked again in a minute, and no answer promises more than the certificate can hold."""
    await scene.responder.check()
    scene.ca.failure = Unavailable("the token is not there")
    scene.clock.time += HALF_A_WEEK
    with capture_logs() as logs:
        assert statuses(await scene.answer(0x101)) == [(0x101, "good")]
        assert statuses(await scene.answer(0x102)) == [(0x102, "good")]
    assert [(line["event"], line["log_level"]) for line in logs] == [("ocsp_renewal_failed", "warning")]
    scene.clock.time += timedelta(minutes=1)
    scene.ca.failure = None
    await scene.answer(0x101)
    assert len(scene.ca.certificates) == 2


async def test_an_authority_that_stays_away_ends_the_answers(scene: Scene) -> None:
    """When less is left of the certificate than an answer has to hold."""
    await scene.responder.check()
    scene.ca.failure = Unavailable("the token is not there")
    scene.clock.time += 2 * HALF_A_WEEK - VALIDITY
    with pytest.raises(Unavailable, match="token"):
        await scene.answer(0x101)


async def test_an_answer_ends_with_the_certificate_at_the_latest(scene: Scene) -> None:
    """Near the end of the CA the certificate is shorter than an answer would be."""
    scene.clock.time = ISSUER.not_after - VALIDITY / 4
    answer = ocsp.load_der_ocsp_response(await scene.answer(0x101))
    assert answer.next_update_utc == ISSUER.not_after


async def test_a_certificate_of_somebody_else_is_not_used(scene: Scene) -> None:
    """An authority behind a network may answer anything; no client would believe us."""
    other = make_ca("ec-p256", name="stranger")
    scene.ca.instead = make_certificate(other, make_key("ec-p256", "OCSP").spki)
    with pytest.raises(Misconfigured, match="certifies the OCSP key wrongly: the issuer is another authority"):
        await scene.answer(0x101)
