"""Claims about GetCert and GetCRL: who may ask, and what there is to know. Numbers are the protocol checklist's."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import pytest

from scep_ra.enrollment.errors import NotAuthorized, UnknownCertificate
from scep_ra.enrollment.queries import CRLSource, QueryService
from scep_ra.errors import Unavailable
from scep_ra.pki.certificates import Certificate
from scep_ra.revocation.crl import RevocationReason
from scep_ra.revocation.service import RevocationService
from scep_ra.scep.client import self_signed_certificate
from tests.support.enrollment import DAY, Clock, Office, key_of, local_ca, run_here, subject_of
from tests.support.keys import ec_key
from tests.support.pki import NOW, make_ca, make_ra
from tests.support.scep_messages import certificate as odd_certificate

CA = make_ca("ec-p256")
ISSUER = CA.chain[0].subject


@pytest.fixture
def revocations(office: Office, clock: Clock) -> RevocationService:
    return RevocationService(store=office.store, cas={"default": local_ca(now=clock)}, now=clock, run=run_here)


def make_queries(office: Office, crls: CRLSource | None, *, enabled: bool = True) -> QueryService:
    return QueryService(
        profile="default",
        ca="default",
        ca_certificates=CA.chain,
        ra_certificate=make_ra(CA).certificate,
        store=office.store,
        crls=crls,
        enabled=enabled,
        now=office.clock,
    )


@pytest.fixture
def queries(office: Office, revocations: RevocationService) -> QueryService:
    return make_queries(office, revocations)


# --- GetCert -------------------------------------------------------------------------------------------------------


async def test_a_holder_finds_its_own_certificate_and_others(office: Office, queries: QueryService) -> None:
    """Q-01: certificates are public among those who have one."""
    mine, other = await office.enroll(), await office.enroll(owner="other device")

    assert await queries.certificate(mine, ISSUER, mine.certificate_serial) == mine
    assert await queries.certificate(mine, ISSUER, other.certificate_serial) == other


async def test_a_revoked_certificate_can_still_be_fetched(office: Office, queries: QueryService, clock: Clock) -> None:
    """It exists; that it is revoked stands in the CRL."""
    mine, other = await office.enroll(), await office.enroll(owner="other device")
    await office.store.revoke_certificate("default", other.certificate_serial, clock(), 1)

    assert await queries.certificate(mine, ISSUER, other.certificate_serial) == other


@pytest.mark.parametrize("certificate_serial", [1, 0, -1, -(1 << 400), 1 << 159, 1 << 160, 1 << 320])
async def test_a_serial_that_nobody_has_is_unknown(
    office: Office, queries: QueryService, certificate_serial: int
) -> None:
    """Q-02, Q-08: negative ones and those of 40 octets, too."""
    mine = await office.enroll()

    with pytest.raises(UnknownCertificate):
        await queries.certificate(mine, ISSUER, certificate_serial)


async def test_a_certificate_of_another_issuer_is_unknown(office: Office, queries: QueryService) -> None:
    """Q-02: the serial alone says nothing; nor are CA and RA certificates found here."""
    mine = await office.enroll()

    for issuer in (make_ca("ec-p256", name="other").chain[0].subject, CA.chain[1].subject, mine.subject):
        with pytest.raises(UnknownCertificate):
            await queries.certificate(mine, issuer, mine.certificate_serial)
    with pytest.raises(UnknownCertificate):
        await queries.certificate(mine, ISSUER, make_ra(CA).certificate.certificate_serial)


async def test_a_certificate_of_another_profile_is_unknown(office: Office, queries: QueryService) -> None:
    """Though the same CA has issued it: it may be another tenant's."""
    mine, theirs = await office.enroll(), await office.with_rules(profile="lab").enroll(owner="other device")

    with pytest.raises(UnknownCertificate):
        await queries.certificate(mine, ISSUER, theirs.certificate_serial)


# --- GetCRL --------------------------------------------------------------------------------------------------------


async def test_the_crl_is_the_newest(office: Office, queries: QueryService, revocations: RevocationService) -> None:
    """Q-03: a revocation a moment ago is in it."""
    mine, other = await office.enroll(), await office.enroll(owner="other device")
    before = await queries.crl(mine, ISSUER)
    await revocations.revoke("default", other.certificate_serial, RevocationReason.KEY_COMPROMISE)

    after = await queries.crl(mine, ISSUER)

    assert after == (await revocations.current_crl("default")).der
    serial = other.certificate_serial.to_bytes(17, "big")
    assert serial in after
    assert serial not in before


async def test_the_crl_may_be_asked_for_under_the_name_of_the_ra(office: Office, queries: QueryService) -> None:
    """Sscep does, because the RA's certificate is the one that it was told to trust."""
    mine = await office.enroll()
    ra = make_ra(CA).certificate

    assert await queries.crl(mine, ra.subject) == await queries.crl(mine, ra.issuer) == await queries.crl(mine, ISSUER)


async def test_a_crl_of_somebody_else_is_unknown(office: Office, queries: QueryService) -> None:
    """Q-04."""
    mine = await office.enroll()

    for issuer in (make_ca("ec-p256", name="other").chain[0].subject, CA.chain[1].subject):
        with pytest.raises(UnknownCertificate):
            await queries.crl(mine, issuer)


async def test_where_the_ca_keeps_its_lists_elsewhere_there_is_no_crl(office: Office) -> None:
    """GetCert goes on."""
    queries = make_queries(office, None)
    mine = await office.enroll()

    with pytest.raises(UnknownCertificate):
        await queries.crl(mine, ISSUER)
    assert await queries.certificate(mine, ISSUER, mine.certificate_serial) == mine


async def test_a_crl_that_cannot_be_made_is_an_outage(office: Office) -> None:
    """Not a certificate that does not exist."""

    class Away:
        async def current_crl(self, ca: str) -> None:
            raise Unavailable(f"CA {ca} is away")

    mine = await office.enroll()
    with pytest.raises(Unavailable):
        await make_queries(office, Away()).crl(mine, ISSUER)  # type: ignore[arg-type]  # it never returns


# --- who may ask ---------------------------------------------------------------------------------------------------


async def revoked(office: Office) -> Certificate:
    certificate = await office.enroll(owner="revoked device")
    await office.store.revoke_certificate("default", certificate.certificate_serial, office.clock(), 1)
    return certificate


async def constant(certificate: Certificate) -> Certificate:
    return certificate


STRANGERS: Final[dict[str, Callable[[Office], Awaitable[Certificate]]]] = {
    "self-signed": lambda _: constant(self_signed_certificate(subject_of(), key_of(), NOW, secrets.token_bytes)),
    # As long as sscep's, which the store could not even write down.
    "serial of 32 octets": lambda _: constant(odd_certificate(ec_key(), certificate_serial=1 << 255)),
    "negative serial": lambda _: constant(odd_certificate(ec_key(), certificate_serial=-5)),
    "RA": lambda _: constant(make_ra(CA).certificate),
    "CA": lambda _: constant(CA.chain[0]),
    "another profile": lambda office: office.with_rules(profile="lab").enroll(),
    "revoked": revoked,
}


@pytest.mark.parametrize("who", STRANGERS)
async def test_strangers_learn_nothing(office: Office, queries: QueryService, who: str) -> None:
    """Q-06: neither that a serial exists nor that it does not."""
    mine = await office.enroll()
    signer = await STRANGERS[who](office)

    for serial in (mine.certificate_serial, 1):
        with pytest.raises(NotAuthorized):
            await queries.certificate(signer, ISSUER, serial)
    with pytest.raises(NotAuthorized):
        await queries.crl(signer, ISSUER)


async def test_an_expired_certificate_does_not_ask(office: Office, queries: QueryService, clock: Clock) -> None:
    """The grace of renewals does not count here."""
    mine = await office.enroll()
    clock.advance(office.rules.contents.validity + timedelta(seconds=1))

    with pytest.raises(NotAuthorized, match="is valid from"):
        await queries.crl(mine, ISSUER)


async def test_a_profile_can_turn_queries_off(office: Office, revocations: RevocationService) -> None:
    """For everybody."""
    queries = make_queries(office, revocations, enabled=False)
    mine = await office.enroll()

    with pytest.raises(NotAuthorized, match="queries are off"):
        await queries.certificate(mine, ISSUER, mine.certificate_serial)
    with pytest.raises(NotAuthorized, match="queries are off"):
        await queries.crl(mine, ISSUER)


async def test_a_crl_is_renewed_at_half_of_its_validity(office: Office, queries: QueryService, clock: Clock) -> None:
    """What is handed out lasts for a while."""
    mine = await office.enroll()
    first = await queries.crl(mine, ISSUER)
    clock.advance(4 * DAY)

    assert await queries.crl(mine, ISSUER) != first
