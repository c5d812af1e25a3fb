"""Claims about revoking and about which CRL is handed out when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509

from scep_ra.ca.base import SupportsCRL
from scep_ra.ca.local import LocalCA
from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.pki.certificates import Certificate
from scep_ra.revocation.crl import RevocationReason
from scep_ra.revocation.service import AlreadyRevoked, NoCRL, RevocationService, UnknownCertificate
from scep_ra.storage.base import StoredCertificate, StoredCRL
from tests.support.pki import NOW, make_ca
from tests.support.revocation_store import MemoryRevocationStore

VALIDITY = timedelta(hours=8)
SERIALS = (0x101, 0x102, 0x103)


def stored(certificate_serial: int, *, not_after: datetime = NOW + timedelta(days=30)) -> StoredCertificate:
    return StoredCertificate(
        certificate_serial=certificate_serial,
        ca="test",
        profile="default",
        device_id=DeviceID(kind=DeviceIDKind.SERIAL, value="DEVICE1"),
        der=b"",
        spki_digest=b"",
        not_before=NOW,
        not_after=not_after,
        issued_at=NOW,
    )


class CountingCA:
    """SupportsCRL over a local authority; counts signatures, and can wait before it signs."""

    def __init__(self) -> None:
        material = make_ca("ec-p256")
        self.name, self.crl_validity = "test", VALIDITY
        self.signatures = 0
        self.may_sign = asyncio.Event()
        self.may_sign.set()
        self.asked = asyncio.Event()
        self._ca = LocalCA(
            name="test", signer=material.signer, chain=material.chain, crl_validity=VALIDITY, now=lambda: NOW
        )

    async def chain(self) -> Sequence[Certificate]:
        return await self._ca.chain()

    async def sign_crl(self, tbs_cert_list: bytes) -> bytes:
        self.asked.set()
        await self.may_sign.wait()
        self.signatures += 1
        return await self._ca.sign_crl(tbs_cert_list)


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


class Scene:
    """A service with three certificates, its store, its authority and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryRevocationStore(stored(serial) for serial in SERIALS)
        self.ca = CountingCA()
        cas: dict[str, SupportsCRL] = {"test": self.ca}
        self.service = RevocationService(store=self.store, cas=cas, now=self.clock)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


def serials_of(crl: StoredCRL) -> list[int]:
    return [entry.serial_number for entry in x509.load_der_x509_crl(crl.der)]


# --- revoking ------------------------------------------------------------------------------------------------------


async def test_a_revoked_certificate_is_marked_with_date_and_reason(scene: Scene) -> None:
    """And comes back so."""
    certificate = await scene.service.revoke("test", 0x101, RevocationReason.KEY_COMPROMISE)
    assert (certificate.revoked_at, certificate.revocation_reason) == (NOW, 1)
    assert await scene.store.certificate("test", 0x101) == certificate


@pytest.mark.parametrize(("ca", "certificate_serial"), [("test", 0xDEAD), ("other", 0x101)])
async def test_an_unknown_certificate_is_reported(ca: str, certificate_serial: int, scene: Scene) -> None:
    """A serial is only unique within its CA."""
    with pytest.raises(UnknownCertificate, match=f"serial {certificate_serial:x}") as caught:
        await scene.service.revoke(ca, certificate_serial, RevocationReason.UNSPECIFIED)
    assert caught.value.code == "unknown-certificate"


async def test_what_is_due_is_revoked_as_superseded_and_nothing_else(scene: Scene) -> None:
    """Whatever the number of pages; those whose time has not come stay."""
    due = [replace(stored(serial), revoke_at=NOW - timedelta(seconds=serial % 2)) for serial in range(0x1000, 0x10FA)]
    later = replace(stored(0x2000), revoke_at=NOW + timedelta(seconds=1))
    scene.store.certificates |= {("test", row.certificate_serial): row for row in (*due, later)}

    assert await scene.service.revoke_due() == 250
    assert await scene.service.revoke_due() == 0
    revoked = [row for row in scene.store.certificates.values() if row.revoked_at is not None]
    assert {(row.revoked_at, row.revocation_reason) for row in revoked} == {(NOW, RevocationReason.SUPERSEDED)}
    assert len(revoked) == 250


async def test_what_another_node_revokes_meanwhile_is_not_counted(scene: Scene) -> None:
    """Its date and reason stay."""
    scene.store.certificates["test", 0x101] = replace(stored(0x101), revoke_at=NOW)

    class Slow(MemoryRevocationStore):
        async def due_revocations(self, now: datetime, limit: int = 100) -> Sequence[StoredCertificate]:
            found = await super().due_revocations(now, limit)
            await self.revoke_certificate("test", 0x101, now, RevocationReason.KEY_COMPROMISE)
            return found

    store = Slow(scene.store.certificates.values())

    assert await RevocationService(store=store, cas={}, now=scene.clock).revoke_due() == 0
    assert store.certificates["test", 0x101].revocation_reason == RevocationReason.KEY_COMPROMISE


async def test_a_second_revocation_says_so_and_changes_nothing(scene: Scene) -> None:
    """The first date and reason stay, and are told."""
    first = await scene.service.revoke("test", 0x101, RevocationReason.SUPERSEDED)
    scene.clock.time += timedelta(hours=1)
    with pytest.raises(
        AlreadyRevoked, match=rf"101 is revoked since {NOW:%Y-%m-%d %H:%M:%S}Z \(superseded\)"
    ) as caught:
        await scene.service.revoke("test", 0x101, RevocationReason.KEY_COMPROMISE)
    assert caught.value.code == "already-revoked"
    assert await scene.store.certificate("test", 0x101) == first


# --- the current CRL -----------------------------------------------------------------------------------------------


async def test_the_first_crl_is_number_one_and_lists_what_is_revoked(scene: Scene) -> None:
    """It is stored, and names only this CA's certificates."""
    await scene.service.revoke("test", 0x102, RevocationReason.KEY_COMPROMISE)
    crl = await scene.service.current_crl("test")
    assert (crl.crl_number, crl.this_update, crl.next_update) == (1, NOW, NOW + VALIDITY)
    assert serials_of(crl) == [0x102]
    assert scene.store.crls["test"] == crl


async def test_a_crl_is_handed_out_again_while_nothing_changes(scene: Scene) -> None:
    """Until just before half of its validity has passed."""
    first = await scene.service.current_crl("test")
    scene.clock.time += VALIDITY / 2 - timedelta(seconds=1)
    assert await scene.service.current_crl("test") == first
    assert scene.ca.signatures == 1


async def test_at_half_of_its_validity_a_new_crl_is_made(scene: Scene) -> None:
    """So that a device that was off line for a while finds one that is still good."""
    await scene.service.current_crl("test")
    scene.clock.time += VALIDITY / 2
    crl = await scene.service.current_crl("test")
    assert (crl.crl_number, crl.this_update) == (2, scene.clock.time)


async def test_a_revocation_makes_the_next_crl_due_at_once(scene: Scene) -> None:
    """Even within the same second."""
    assert serials_of(await scene.service.current_crl("test")) == []
    await scene.service.revoke("test", 0x103, RevocationReason.UNSPECIFIED)
    crl = await scene.service.current_crl("test")
    assert (crl.crl_number, serials_of(crl)) == (2, [0x103])


async def test_a_revocation_while_a_crl_is_signed_is_in_the_next_one(scene: Scene) -> None:
    """The CRL under way cannot know it any more, and must not count as current."""
    scene.ca.may_sign.clear()
    under_way = asyncio.create_task(scene.service.current_crl("test"))
    await scene.ca.asked.wait()
    await scene.service.revoke("test", 0x101, RevocationReason.UNSPECIFIED)
    scene.ca.may_sign.set()
    assert serials_of(await under_way) == []
    assert serials_of(await scene.service.current_crl("test")) == [0x101]


async def test_an_expired_certificate_leaves_the_list(scene: Scene) -> None:
    """RFC 5280 3.3 lets it go; the list does not grow for ever."""
    await scene.service.revoke("test", 0x101, RevocationReason.UNSPECIFIED)
    scene.clock.time += timedelta(days=31)
    assert serials_of(await scene.service.current_crl("test")) == []


async def test_many_who_ask_at_once_cost_one_signature(scene: Scene) -> None:
    """All devices may come after a revocation."""
    scene.ca.may_sign.clear()
    asked = [asyncio.create_task(scene.service.current_crl("test")) for _ in range(50)]
    await scene.ca.asked.wait()
    scene.ca.may_sign.set()
    assert len({crl.der for crl in await asyncio.gather(*asked)}) == 1
    assert scene.ca.signatures == 1


async def test_one_who_goes_away_does_not_hold_up_the_others(scene: Scene) -> None:
    """A peer that closes its connection cancels its own request only."""
    scene.ca.may_sign.clear()
    impatient = asyncio.create_task(scene.service.current_crl("test"))
    await scene.ca.asked.wait()
    patient = asyncio.create_task(scene.service.current_crl("test"))
    impatient.cancel()
    scene.ca.may_sign.set()
    assert (await patient).crl_number == 1
    assert impatient.cancelled()


async def test_after_a_lost_race_the_winners_crl_or_a_newer_one_is_handed_out(scene: Scene) -> None:
    """The number that this node wanted is taken: read again, try again."""
    scene.store.lost_races = 1
    assert (await scene.service.current_crl("test")).crl_number == 1
    assert scene.ca.signatures == 2


async def test_nodes_that_never_stop_racing_end_in_a_temporary_error(scene: Scene) -> None:
    """Instead of an endless loop."""
    scene.store.lost_races = 99
    with pytest.raises(Unavailable, match="ask again"):
        await scene.service.current_crl("test")


async def test_an_authority_without_crl_here_is_reported(scene: Scene) -> None:
    """With the names that would work."""
    with pytest.raises(NoCRL, match="use one of test") as caught:
        await scene.service.current_crl("other")
    assert caught.value.code == "no-crl"
    with pytest.raises(NoCRL, match="use one of none"):
        await RevocationService(store=scene.store, cas={}, now=scene.clock).current_crl("test")
