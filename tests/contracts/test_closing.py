"""What every store must do when a request comes again, when many wait, and when what is renewed is withdrawn."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from scep_ra.enrollment.states import TRANSITIONS, EnrollmentEvent, EnrollmentState
from scep_ra.storage.base import (
    DuplicateEnrollment,
    Enrollment,
    IssuanceLimits,
    QuotaReached,
    Retirement,
    StoredCertificate,
)
from scep_ra.storage.sql import SqlStore
from tests.support.records import (
    HOUR,
    NOW,
    SERIAL,
    device_id,
    disconnect_device,
    make_certificate,
    make_challenge,
    make_enrollment,
    make_key,
    make_pending,
)

SUPERSEDED, STOLEN = 4, 1  # CRLReason (RFC 5280 5.3.1)
TWO_MAY_WAIT = IssuanceLimits(max_waiting=2)


async def end(store: SqlStore, state: EnrollmentState, number: int = 1) -> Enrollment:
    """Take an enrollment to one of the ends that a request can have."""
    match state:
        case EnrollmentState.ISSUED:
            await store.insert_enrollment(make_enrollment(number), spend=None)
            assert await store.complete(make_enrollment(number).enrollment_id, make_certificate(number), NOW)
        case EnrollmentState.FAILED:
            await store.insert_enrollment(make_enrollment(number), spend=None)
            await advance(store, number, EnrollmentState.ISSUING, EnrollmentEvent.FAIL)
        case _:
            event = {after: event for (_, event), after in TRANSITIONS.items()}[state]
            await store.insert_enrollment(make_pending(number), spend=None)
            await advance(store, number, EnrollmentState.PENDING, event)
    (ended,) = await store.find_enrollments(f"{number:032x}")
    assert ended.state is state
    return ended


async def advance(store: SqlStore, number: int, expected: EnrollmentState, event: EnrollmentEvent) -> None:
    assert await store.advance(f"{number:032x}", expected, event, NOW)


def again(number: int, old: Enrollment) -> Enrollment:
    """Return another request with the key and CSR of an old one."""
    return make_enrollment(number, key=old.key, csr=old.csr, csr_digest=old.csr_digest)


async def last_facts(store: SqlStore) -> tuple[str, dict[str, str]]:
    (record,) = await store.latest_audit_records(1)
    return record.event, dict(record.facts)


ENDS = (EnrollmentState.ISSUED, EnrollmentState.REJECTED, EnrollmentState.EXPIRED, EnrollmentState.FAILED)


class TestClosing:
    @pytest.mark.parametrize("state", ENDS)
    async def test_what_has_ended_can_make_room_for_the_same_request(
        self, store: SqlStore, state: EnrollmentState
    ) -> None:
        """The old one stays as it was and says since when it does not count; only the new one is found by its CSR."""
        old = await end(store, state)
        new = again(2, old)
        with pytest.raises(DuplicateEnrollment):
            await store.insert_enrollment(new, spend=None)
        await store.insert_enrollment(new, spend=None, closes=old.enrollment_id)
        dossier = await store.dossier(old.key, old.csr_digest, None)
        assert (dossier.same, dossier.latest, dossier.certificate) == (new, new, None)
        assert await store.latest_enrollment(old.key) == (new, None)
        assert await store.find_enrollments(old.enrollment_id) == [replace(old, closed_at=NOW)]
        event, facts = await last_facts(store)
        assert (event, facts["enrollment_id"], facts["closes"]) == (
            "enrollment_authorized",
            new.enrollment_id,
            old.enrollment_id,
        )

    @pytest.mark.parametrize("enrollment", [make_pending(), make_enrollment()], ids=["waiting", "issuing"])
    async def test_what_is_under_way_is_not_closed(self, store: SqlStore, enrollment: Enrollment) -> None:
        """Neither for the same request nor for an operator."""
        await store.insert_enrollment(enrollment, spend=None)
        with pytest.raises(DuplicateEnrollment):
            await store.insert_enrollment(again(2, enrollment), spend=None, closes=enrollment.enrollment_id)
        assert not await store.close_enrollment(enrollment.enrollment_id, NOW, by="alice")
        assert (await store.dossier(enrollment.key, enrollment.csr_digest, None)).same == enrollment

    async def test_a_refusal_leaves_the_old_request_open(self, store: SqlStore) -> None:
        """All or nothing: two wait, and the third one that would close an old one is refused."""
        old = await end(store, EnrollmentState.REJECTED)
        for number in (2, 3):
            await store.insert_enrollment(make_pending(number), spend=None)
        late = make_pending(4, csr=old.csr, csr_digest=old.csr_digest)
        with pytest.raises(QuotaReached):
            await store.insert_enrollment(late, spend=None, closes=old.enrollment_id, limits=TWO_MAY_WAIT)
        assert (await store.dossier(old.key, old.csr_digest, None)).same == old

    async def test_an_operator_closes_once_and_leaves_a_record(self, store: SqlStore) -> None:
        """Who and why; unknown requests cannot be closed."""
        old = await end(store, EnrollmentState.REJECTED)
        assert await store.close_enrollment(old.enrollment_id, NOW + HOUR, by="alice", note="was a mistake")
        assert not await store.close_enrollment(old.enrollment_id, NOW + 2 * HOUR, by="bob")
        assert not await store.close_enrollment("f" * 32, NOW, by="bob")
        assert await store.find_enrollments(old.enrollment_id) == [replace(old, closed_at=NOW + HOUR)]
        event, facts = await last_facts(store)
        assert (event, facts["by"], facts["note"]) == ("enrollment_closed", "alice", "was a mistake")

    async def test_after_an_operator_the_same_request_is_new(self, store: SqlStore) -> None:
        """Whoever closed it, to name it once more does no harm."""
        old = await end(store, EnrollmentState.FAILED)
        await store.close_enrollment(old.enrollment_id, NOW, by="alice")
        assert (await store.dossier(old.key, old.csr_digest, None)).same is None
        assert await store.latest_enrollment(old.key) is None
        await store.insert_enrollment(again(2, old), spend=None, closes=old.enrollment_id)
        assert "closes" not in (await last_facts(store))[1]

    async def test_a_closed_request_gives_away_no_sealed_challenge(self, store: SqlStore) -> None:
        """Its polls are over; the one that took its place has a challenge of its own."""
        for secret in ("first", "second"):
            await store.add_challenge(make_challenge(secret, sealed=secret.encode()))
        old = make_pending()
        await store.insert_enrollment(old, spend=make_challenge("first").digest)
        assert await store.sealed_challenge_of(old.key) == b"first"
        await advance(store, 1, EnrollmentState.PENDING, EnrollmentEvent.REJECT)
        await store.close_enrollment(old.enrollment_id, NOW, by="alice")
        assert await store.sealed_challenge_of(old.key) is None
        await store.insert_enrollment(again(2, old), spend=make_challenge("second").digest)
        assert await store.sealed_challenge_of(old.key) == b"second"

    async def test_of_twenty_that_close_the_same_request_one_takes_its_place(
        self, stores: tuple[SqlStore, SqlStore]
    ) -> None:
        """On two nodes; the others hear that it is there already."""
        old = await end(stores[0], EnrollmentState.REJECTED)
        results = await asyncio.gather(
            *(
                stores[number % 2].insert_enrollment(again(number, old), spend=None, closes=old.enrollment_id)
                for number in range(2, 22)
            ),
            return_exceptions=True,
        )
        assert [type(result) for result in results].count(DuplicateEnrollment) == 19
        assert results.count(None) == 1


class TestWaiting:
    async def test_so_many_wait_and_no_more(self, store: SqlStore) -> None:
        """Approved ones wait as well; the text says how many there are."""
        for number in (1, 2):
            await store.insert_enrollment(make_pending(number), spend=None, limits=TWO_MAY_WAIT)
        await advance(store, 1, EnrollmentState.PENDING, EnrollmentEvent.APPROVE)
        with pytest.raises(QuotaReached, match=r"2 requests of .*SN123 wait in profile default and 2 may"):
            await store.insert_enrollment(make_pending(3), spend=None, limits=TWO_MAY_WAIT)
        assert await store.find_enrollments(f"{3:032x}") == []
        await advance(store, 2, EnrollmentState.PENDING, EnrollmentEvent.REJECT)
        await store.insert_enrollment(make_pending(3), spend=None, limits=TWO_MAY_WAIT)

    async def test_others_do_not_count(self, store: SqlStore) -> None:
        """Other devices, other profiles, open intents; and an intent is not kept out by what waits."""
        await store.insert_enrollment(make_pending(1, device_id=device_id("SN9")), spend=None)
        await store.insert_enrollment(make_pending(2, key=make_key(profile="vpn")), spend=None)
        await store.insert_enrollment(make_enrollment(3), spend=None)
        limits = IssuanceLimits(max_waiting=1)
        await store.insert_enrollment(make_pending(4), spend=None, limits=limits)
        await store.insert_enrollment(make_enrollment(5), spend=None, limits=limits)
        assert len(await store.open_intents()) == 2

    async def test_twenty_at_once_stay_within_the_limit(self, stores: tuple[SqlStore, SqlStore]) -> None:
        """On two nodes."""
        results = await asyncio.gather(
            *(
                stores[number % 2].insert_enrollment(make_pending(number), spend=None, limits=TWO_MAY_WAIT)
                for number in range(20)
            ),
            return_exceptions=True,
        )
        assert [type(result) for result in results].count(QuotaReached) == 18
        assert len(await stores[0].list_enrollments({EnrollmentState.PENDING})) == 2


class TestWithdrawn:
    """A renewal whose certificate comes after its predecessor lost its right to one."""

    async def begin(self, store: SqlStore) -> Enrollment:
        """Record the intent to renew the first certificate."""
        await end(store, EnrollmentState.ISSUED)
        renewal = make_enrollment(2, renewal_of=SERIAL + 1)
        await store.insert_enrollment(renewal, spend=None)
        return renewal

    async def complete(self, store: SqlStore, retirement: Retirement) -> StoredCertificate | None:
        return await store.complete(f"{2:032x}", make_certificate(2), NOW + HOUR, retirement=retirement)

    @pytest.mark.parametrize("renewed_at", [None, NOW + 9 * HOUR], ids=["keep", "revoke later"])
    async def test_the_successor_of_one_that_was_replaced_is_revoked_at_once(
        self, store: SqlStore, renewed_at: None
    ) -> None:
        """A first certificate under another key came first; the date of the old one stays."""
        await self.begin(store)
        await store.insert_enrollment(make_enrollment(3), spend=None)
        await store.complete(f"{3:032x}", make_certificate(3), NOW, retirement=Retirement(others_at=NOW))
        revoked = make_certificate(2, revoked_at=NOW + HOUR, revocation_reason=SUPERSEDED)
        assert await self.complete(store, Retirement(renewed_at=renewed_at)) == revoked
        assert await store.certificate("default", SERIAL + 2) == revoked
        old = await store.certificate("default", SERIAL + 1)
        assert old == make_certificate(1, successor=SERIAL + 2, revoke_at=NOW)
        assert (await store.current_crl("default")).revocation_sequence == 1
        event, facts = await last_facts(store)
        assert (event, facts["certificate_serial"], facts["reason"]) == (
            "certificate_revoked",
            f"{SERIAL + 2:x}",
            str(SUPERSEDED),
        )

    async def test_the_successor_of_one_that_was_revoked_shares_its_reason(self, store: SqlStore) -> None:
        """An operator took it back while the CA was at work."""
        await self.begin(store)
        await store.revoke_certificate("default", SERIAL + 1, NOW, STOLEN)
        revoked = await self.complete(store, Retirement())
        assert revoked == make_certificate(2, revoked_at=NOW + HOUR, revocation_reason=STOLEN)

    async def test_a_disconnect_speaks_louder(self, store: SqlStore) -> None:
        """It names the reason for everything that the device has."""
        await self.begin(store)
        await store.revoke_certificate("default", SERIAL + 1, NOW, STOLEN)
        await disconnect_device(store, revocation_reason=SUPERSEDED)
        revoked = await self.complete(store, Retirement())
        assert revoked is not None
        assert revoked.revocation_reason == SUPERSEDED

    async def test_an_undisturbed_renewal_is_good(self, store: SqlStore) -> None:
        """What is returned is what was stored."""
        await self.begin(store)
        assert await self.complete(store, Retirement(renewed_at=NOW)) == make_certificate(2)

    async def test_of_a_renewal_and_a_replacement_at_once_one_stays(self, stores: tuple[SqlStore, SqlStore]) -> None:
        """Twenty devices on two nodes: whichever comes first, the old key ends without a live certificate."""
        replaces = Retirement(others_at=NOW)

        async def prepare(number: int) -> None:
            fields = {"device_id": device_id(f"SN{number}")}
            old, renewal, new = number, 100 + number, 200 + number
            await stores[0].insert_enrollment(make_enrollment(old, key=make_key(f"A{number}"), **fields), spend=None)
            assert await stores[0].complete(f"{old:032x}", make_certificate(old, **fields), NOW)
            for each, renewal_of in ((renewal, SERIAL + old), (new, None)):
                enrollment = make_enrollment(each, key=make_key(f"B{each}"), renewal_of=renewal_of, **fields)
                await stores[0].insert_enrollment(enrollment, spend=None)

        async def complete(number: int) -> None:
            fields = {"device_id": device_id(f"SN{number % 100}")}
            retirement = replaces if number >= 200 else Retirement()
            certificate = make_certificate(number, **fields)
            assert await stores[number % 3 % 2].complete(f"{number:032x}", certificate, NOW, retirement=retirement)

        for number in range(1, 21):
            await prepare(number)
        await asyncio.gather(*(complete(base + number) for number in range(1, 21) for base in (100, 200)))
        live = [
            each.certificate_serial - SERIAL
            for each in await stores[0].list_certificates()
            if each.revoked_at is None and each.revoke_at is None and each.successor is None
        ]
        assert sorted(live) == [200 + number for number in range(1, 21)]
