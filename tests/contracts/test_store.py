"""What every store must do, whatever database is under it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState, IllegalTransition
from scep_ra.identity.types import DeviceIDKind
from scep_ra.storage.base import (
    NO_LIMITS,
    AlreadyExists,
    AlreadyRenewed,
    ChallengeSpent,
    CRLState,
    DecisionOutcome,
    Dossier,
    DuplicateEnrollment,
    Enrollment,
    IssuanceLimits,
    KeyInUse,
    QuotaReached,
    Retirement,
    SecondKeyFound,
    Store,
    StoredCertificate,
    StoredCRL,
)
from scep_ra.storage.sql_certificates import REVOCATION_PAGE
from tests.support.records import (
    HOUR,
    NOW,
    SERIAL,
    device_id,
    make_certificate,
    make_challenge,
    make_decision,
    make_device,
    make_enrollment,
    make_key,
    make_pending,
)


async def issue(store: Store, number: int = 1, **fields: object) -> Enrollment:
    """Take an enrollment all the way to its certificate."""
    enrollment = make_enrollment(number, **{"key": make_key(f"TX{number}"), **fields})
    await store.insert_enrollment(enrollment, spend=None)
    assert await store.complete(enrollment.enrollment_id, make_certificate(number), NOW)
    return enrollment


async def state_of(store: Store, enrollment: Enrollment) -> EnrollmentState:
    dossier = await store.dossier(enrollment.key, enrollment.csr_digest, None)
    assert dossier.same is not None
    return dossier.same.state


def outcomes(results: list[BaseException | None]) -> list[str]:
    return sorted("done" if result is None else type(result).__name__ for result in results)


class TestDevices:
    async def test_a_device_is_read_back_as_it_was_written(self, store: Store) -> None:
        """Every field survives, times to the microsecond."""
        device = make_device(
            user="alice",
            profile="vpn",
            services=("wifi", "vpn"),
            note="Zürich, 3rd floor",
            enabled=False,
            approval=True,
            valid_until=NOW + HOUR,
            attributes={"owner": "Zoë", "cost centre": "12"},
        )
        await store.add_device(device)
        assert await store.device(device.device_id) == device
        assert await store.device(device_id("SN999")) is None

    async def test_adding_a_device_twice_is_refused_by_name(self, store: Store) -> None:
        """The first entry stays."""
        await store.add_device(make_device(user="alice"))
        with pytest.raises(AlreadyExists, match="SN123"):
            await store.add_device(make_device(user="mallory"))
        assert await store.list_devices() == [make_device(user="alice")]

    async def test_an_import_inserts_what_is_new_and_counts_it(self, store: Store) -> None:
        """Entries that are there already are left as they are."""
        await store.add_device(make_device("SN2", user="alice"))
        assert await store.import_devices(make_device(f"SN{number}") for number in range(1, 4)) == 2
        assert [(device.device_id.value, device.user) for device in await store.list_devices()] == [
            ("SN1", ""),
            ("SN2", "alice"),
            ("SN3", ""),
        ]

    async def test_an_import_that_fails_inserts_nothing(self, store: Store) -> None:
        """A naive time in the second entry undoes the first."""
        naive = make_device("SN2", created_at=NOW.replace(tzinfo=None))
        with pytest.raises(TypeError):
            await store.import_devices([make_device("SN1"), naive])
        assert await store.list_devices() == []

    async def test_devices_are_found_by_value_whatever_the_kind(self, store: Store) -> None:
        """Kinds come in order."""
        digits = "490154203237518"
        imei = make_device(device_id=device_id(digits, DeviceIDKind.IMEI))
        await store.import_devices([make_device(digits), imei, make_device("SN9")])
        assert await store.devices_by_value(digits) == [imei, make_device(digits)]
        assert await store.devices_by_value(digits[:-1]) == []

    async def test_a_device_is_disabled_and_enabled(self, store: Store) -> None:
        """An unknown device is told."""
        await store.add_device(make_device())
        assert await store.set_device_enabled(device_id(), False, NOW)
        assert await store.device(device_id()) == make_device(enabled=False)
        assert await store.set_device_enabled(device_id(), True, NOW)
        assert await store.device(device_id()) == make_device()
        assert not await store.set_device_enabled(device_id("SN999"), False, NOW)

    async def test_an_update_replaces_all_but_the_id_and_the_date_of_entry(self, store: Store) -> None:
        """An unknown device is told, and not added."""
        await store.add_device(make_device(user="alice", services=("wifi",), attributes={"owner": "Zoë"}))
        changed = make_device(user="bob", profile="vpn", services=("vpn",), valid_until=NOW, approval=True)
        assert await store.update_device(replace(changed, created_at=NOW + HOUR), NOW)
        assert not await store.update_device(replace(changed, device_id=device_id("SN999")), NOW)
        assert await store.list_devices() == [changed]

    async def test_removing_a_device_voids_its_unused_challenges_for_good(self, store: Store) -> None:
        """Registering the device again does not bring them back; another device keeps its own."""
        other = make_challenge("other", device_id=device_id("SN9"))
        await store.add_device(make_device())
        await store.add_challenge(make_challenge())
        await store.add_challenge(other)
        assert await store.remove_device(device_id(), NOW)
        await store.add_device(make_device())
        with pytest.raises(ChallengeSpent):
            await store.insert_enrollment(make_enrollment(), spend=make_challenge().digest)
        await store.insert_enrollment(make_enrollment(), spend=other.digest)

    async def test_a_used_challenge_outlives_its_device(self, store: Store) -> None:
        """A retransmission still finds what it spent."""
        await store.add_device(make_device())
        await store.add_challenge(make_challenge())
        await store.insert_enrollment(make_enrollment(), spend=make_challenge().digest)
        assert await store.remove_device(device_id(), NOW)
        dossier = await store.dossier(make_key(), b"", make_challenge().digest)
        assert dossier.challenge == make_challenge(used_by=make_enrollment().enrollment_id)

    async def test_removing_an_unknown_device_says_so(self, store: Store) -> None:
        """Challenges of a device that only another AAA backend knows stay."""
        await store.add_challenge(make_challenge())
        assert not await store.remove_device(device_id(), NOW)
        assert (await store.dossier(make_key(), b"", make_challenge().digest)).challenge is not None


class TestChallenges:
    async def test_a_digest_is_taken_once(self, store: Store) -> None:
        """The first challenge stays as it is."""
        await store.add_challenge(make_challenge())
        with pytest.raises(AlreadyExists):
            await store.add_challenge(make_challenge(profile="vpn"))
        assert (await store.dossier(make_key(), b"", make_challenge().digest)).challenge == make_challenge()

    async def test_sealed_challenges_come_unused_first_then_newest_first(self, store: Store) -> None:
        """Expired, unsealed and other profiles' challenges are left out; the limit cuts the end."""
        challenges: dict[str, dict[str, object]] = {
            "used": {"created_at": NOW + 3 * HOUR},
            "old": {"created_at": NOW},
            "new": {"created_at": NOW + HOUR},
            "expired": {"expires_at": NOW + 2 * HOUR},
            "foreign": {"profile": "vpn"},
            "plain": {"sealed": None},
        }
        for name, fields in challenges.items():
            given = {"sealed": name.encode(), "expires_at": NOW + 9 * HOUR, **fields}
            await store.add_challenge(make_challenge(name, **given))
        await store.insert_enrollment(make_enrollment(), spend=make_challenge("used").digest)
        later = NOW + 2 * HOUR
        assert await store.sealed_challenges("default", later, 10) == [b"new", b"old", b"used"]
        assert await store.sealed_challenges("default", later, 1) == [b"new"]
        assert await store.sealed_challenge_of(make_enrollment().key) == b"used"
        assert await store.sealed_challenge_of(make_key("another transaction")) is None

    @pytest.mark.parametrize("after", [HOUR, 2 * HOUR], ids=["at its end", "later"])
    async def test_an_expired_challenge_is_not_spent(self, store: Store, after: timedelta) -> None:
        """Nothing is recorded, so a new challenge serves the same request."""
        await store.add_challenge(make_challenge())
        with pytest.raises(ChallengeSpent):
            await store.insert_enrollment(make_enrollment(created_at=NOW + after), spend=make_challenge().digest)
        assert await store.open_intents() == []

    async def test_a_challenge_is_spent_once(self, store: Store) -> None:
        """Another request with it changes nothing."""
        await store.add_challenge(make_challenge())
        await store.insert_enrollment(make_enrollment(1), spend=make_challenge().digest)
        with pytest.raises(ChallengeSpent):
            await store.insert_enrollment(make_enrollment(2), spend=make_challenge().digest)
        assert await store.open_intents() == [make_enrollment(1)]


class TestEnrollments:
    async def test_an_unknown_request_has_an_empty_dossier(self, store: Store) -> None:
        """Nothing was seen, and nothing polls."""
        empty = Dossier(same=None, latest=None, challenge=None, certificate=None)
        assert await store.dossier(make_key(), b"digest", b"challenge") == empty
        assert await store.latest_enrollment(make_key()) is None

    async def test_an_enrollment_is_read_back_as_it_was_written(self, store: Store) -> None:
        """Every field survives, serials beyond 64 bits too; before it is issued there is no certificate."""
        enrollment = make_enrollment(renewal_of=2**160 - 1)
        await store.insert_enrollment(enrollment, spend=None)
        expected = Dossier(same=enrollment, latest=enrollment, challenge=None, certificate=None)
        assert await store.dossier(enrollment.key, enrollment.csr_digest, None) == expected
        assert await store.latest_enrollment(enrollment.key) == (enrollment, None)

    async def test_latest_is_the_newest_of_the_transaction_and_same_the_one_with_this_csr(self, store: Store) -> None:
        """The order of insertion does not matter, only created_at."""
        newest = make_enrollment(1, created_at=NOW + HOUR)
        oldest = make_enrollment(2)
        await store.insert_enrollment(newest, spend=None)
        await store.insert_enrollment(oldest, spend=None)
        dossier = await store.dossier(make_key(), oldest.csr_digest, None)
        assert (dossier.same, dossier.latest) == (oldest, newest)
        unseen = await store.dossier(make_key(), b"unseen", None)
        assert (unseen.same, unseen.latest) == (None, newest)

    @pytest.mark.parametrize(
        "key",
        [make_key("TX2"), make_key(profile="vpn"), make_key(requester=b"\x02" * 32)],
        ids=["transaction", "profile", "requester"],
    )
    async def test_profile_transaction_and_requester_all_tell_transactions_apart(
        self, store: Store, key: object
    ) -> None:
        """The same CSR under another key is another enrollment."""
        await store.insert_enrollment(make_enrollment(1), spend=None)
        other = make_enrollment(1, enrollment_id="f" * 32, key=key)
        assert (await store.dossier(other.key, other.csr_digest, None)).latest is None
        await store.insert_enrollment(other, spend=None)
        assert (await store.dossier(other.key, other.csr_digest, None)).same == other

    async def test_the_same_request_is_recorded_once_even_after_it_was_answered(self, store: Store) -> None:
        """A duplicate is told as such, not as a spent challenge, and its dossier holds the certificate."""
        await store.add_challenge(make_challenge())
        enrollment = make_enrollment()
        await store.insert_enrollment(enrollment, spend=make_challenge().digest)
        await store.complete(enrollment.enrollment_id, make_certificate(), NOW + HOUR)
        again = replace(enrollment, enrollment_id="f" * 32, created_at=NOW + HOUR)
        with pytest.raises(DuplicateEnrollment):
            await store.insert_enrollment(again, spend=make_challenge().digest)
        issued = replace(enrollment, state=EnrollmentState.ISSUED, updated_at=NOW + HOUR)
        assert await store.dossier(enrollment.key, enrollment.csr_digest, make_challenge().digest) == Dossier(
            same=issued,
            latest=issued,
            challenge=make_challenge(used_by=enrollment.enrollment_id),
            certificate=make_certificate(),
        )
        assert await store.latest_enrollment(enrollment.key) == (issued, make_certificate())

    @pytest.mark.parametrize(
        "enrollment",
        [
            make_enrollment(state=EnrollmentState.ISSUED),
            make_enrollment(order=None),
            make_enrollment(certificate_serial=None),
            make_enrollment(certificate_serial=2**160),
            make_enrollment(certificate_serial=-1),
        ],
        ids=["issued", "no order", "no serial", "21 octets", "negative"],
    )
    async def test_an_intent_that_could_not_be_carried_out_is_not_recorded(
        self, store: Store, enrollment: Enrollment
    ) -> None:
        """What a start after a crash could not resolve is a bug of the caller."""
        with pytest.raises(ValueError, match=r"enrollment|20 octets"):
            await store.insert_enrollment(enrollment, spend=None)
        assert await store.open_intents() == []

    async def test_authorization_records_the_intent(self, store: Store) -> None:
        """Serial, order and names come with it, and the enrollment is among the open intents."""
        pending = make_pending()
        await store.insert_enrollment(pending, spend=None)
        assert await store.open_intents() == []
        assert await store.advance(
            pending.enrollment_id,
            EnrollmentState.PENDING,
            EnrollmentEvent.AUTHORIZE,
            NOW + HOUR,
            certificate_serial=SERIAL,
            order=b"order",
            subject=b"subject",
            subject_alt_name=b"names",
        )
        authorized = replace(
            pending,
            state=EnrollmentState.ISSUING,
            certificate_serial=SERIAL,
            order=b"order",
            subject=b"subject",
            subject_alt_name=b"names",
            updated_at=NOW + HOUR,
        )
        assert await store.open_intents() == [authorized]

    async def test_an_authorization_without_an_order_is_a_bug(self, store: Store) -> None:
        """The enrollment stays as it was."""
        await store.insert_enrollment(make_pending(), spend=None)
        with pytest.raises(ValueError, match="order"):
            await store.advance(make_pending().enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.AUTHORIZE, NOW)
        assert await state_of(store, make_pending()) is EnrollmentState.PENDING

    async def test_a_failed_enrollment_keeps_what_was_to_be_signed(self, store: Store) -> None:
        """Serial and order stay for whoever asks why."""
        await store.insert_enrollment(make_enrollment(), spend=None)
        assert await store.advance(
            make_enrollment().enrollment_id, EnrollmentState.ISSUING, EnrollmentEvent.FAIL, NOW + HOUR
        )
        failed = make_enrollment(state=EnrollmentState.FAILED, updated_at=NOW + HOUR)
        assert await store.latest_enrollment(make_key()) == (failed, None)

    async def test_a_step_from_a_state_that_is_past_changes_nothing(self, store: Store) -> None:
        """Compare-and-set answers False, for an unknown enrollment too."""
        await store.insert_enrollment(make_pending(), spend=None)
        step = (EnrollmentState.PENDING, EnrollmentEvent.REJECT, NOW)
        assert await store.advance(make_pending().enrollment_id, *step)
        assert not await store.advance(make_pending().enrollment_id, *step)
        assert not await store.advance("0" * 32, *step)

    async def test_a_step_outside_the_table_is_a_bug(self, store: Store) -> None:
        """IllegalTransition, before the database is asked."""
        with pytest.raises(IllegalTransition):
            await store.advance("0" * 32, EnrollmentState.ISSUED, EnrollmentEvent.FAIL, NOW)

    async def test_no_enrollment_is_issued_without_its_certificate(self, store: Store) -> None:
        """COMPLETE is not for advance."""
        await store.insert_enrollment(make_enrollment(), spend=None)
        with pytest.raises(ValueError, match="complete"):
            await store.advance(make_enrollment().enrollment_id, EnrollmentState.ISSUING, EnrollmentEvent.COMPLETE, NOW)

    async def test_completing_twice_stores_one_certificate(self, store: Store) -> None:
        """The second worker is told False; a pending enrollment cannot be completed."""
        enrollment = await issue(store)
        assert not await store.complete(enrollment.enrollment_id, make_certificate(), NOW)
        await store.insert_enrollment(make_pending(2), spend=None)
        assert not await store.complete(make_pending(2).enrollment_id, make_certificate(2), NOW)
        assert await store.list_certificates() == [make_certificate()]

    async def test_a_serial_given_twice_completes_once(self, store: Store) -> None:
        """The second enrollment stays an open intent."""
        await issue(store, 1)
        await store.insert_enrollment(make_enrollment(2), spend=None)
        with pytest.raises(AlreadyExists, match=f"{SERIAL + 1:x}"):
            await store.complete(make_enrollment(2).enrollment_id, make_certificate(1), NOW)
        assert await store.open_intents() == [make_enrollment(2)]

    async def test_open_intents_come_oldest_first(self, store: Store) -> None:
        """Only those in ISSUING."""
        late, early = make_enrollment(1, created_at=NOW + HOUR), make_enrollment(2)
        for enrollment in (late, early, make_pending(3)):
            await store.insert_enrollment(enrollment, spend=None)
        await issue(store, 4)
        assert await store.open_intents() == [early, late]

    async def test_waiting_enrollments_expire_by_profile_and_age(self, store: Store) -> None:
        """Younger ones, other profiles and other states stay; an approval does not make a request live longer."""
        old, young = make_pending(1), make_pending(2, created_at=NOW + HOUR)
        foreign, issuing = make_pending(3, key=make_key(profile="vpn")), make_enrollment(4)
        approved = make_pending(5)
        for enrollment in (old, young, foreign, issuing, approved):
            await store.insert_enrollment(enrollment, spend=None)
        await store.advance(approved.enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.APPROVE, NOW)
        assert await store.expire_waiting("default", NOW + HOUR, NOW + 2 * HOUR) == 2
        assert [await state_of(store, enrollment) for enrollment in (old, young, foreign, issuing, approved)] == [
            EnrollmentState.EXPIRED,
            EnrollmentState.PENDING,
            EnrollmentState.PENDING,
            EnrollmentState.ISSUING,
            EnrollmentState.EXPIRED,
        ]


class TestRenewals:
    async def test_completing_a_renewal_names_the_successor(self, store: Store) -> None:
        """The old certificate knows the new one from the same transaction on."""
        await issue(store, 1)
        await issue(store, 2, renewal_of=SERIAL + 1)
        assert await store.certificate("default", SERIAL + 1) == make_certificate(1, successor=SERIAL + 2)
        assert await store.certificate("default", SERIAL + 2) == make_certificate(2)

    @pytest.mark.parametrize("make", [make_enrollment, make_pending])
    async def test_a_certificate_is_renewed_once(self, store: Store, make: Callable[..., Enrollment]) -> None:
        """While a renewal is being issued and after it was; a challenge given along is not spent."""
        await issue(store, 1)
        await store.add_challenge(make_challenge())
        renewal = make_enrollment(2, renewal_of=SERIAL + 1)
        await store.insert_enrollment(renewal, spend=None)
        second = make(3, renewal_of=SERIAL + 1)
        with pytest.raises(AlreadyRenewed, match=f"{SERIAL + 1:x}"):
            await store.insert_enrollment(second, spend=make_challenge().digest)
        await store.complete(renewal.enrollment_id, make_certificate(2), NOW)
        with pytest.raises(AlreadyRenewed):
            await store.insert_enrollment(second, spend=make_challenge().digest)
        assert (await store.dossier(second.key, second.csr_digest, make_challenge().digest)) == Dossier(
            same=None,
            latest=replace(renewal, state=EnrollmentState.ISSUED),
            challenge=make_challenge(),
            certificate=None,
        )

    async def test_a_repeated_renewal_is_a_duplicate_not_a_second_one(self, store: Store) -> None:
        """The same request gets the same answer, by its own error."""
        await issue(store, 1)
        await issue(store, 2, renewal_of=SERIAL + 1)
        again = make_enrollment(2, key=make_key("TX2"), enrollment_id="f" * 32, renewal_of=SERIAL + 1)
        with pytest.raises(DuplicateEnrollment):
            await store.insert_enrollment(again, spend=None)

    async def test_a_failed_renewal_leaves_room_for_another(self, store: Store) -> None:
        """So does a rejected one."""
        await issue(store, 1)
        failed, rejected = make_enrollment(2, renewal_of=SERIAL + 1), make_pending(3, renewal_of=SERIAL + 1)
        await store.insert_enrollment(failed, spend=None)
        await store.advance(failed.enrollment_id, EnrollmentState.ISSUING, EnrollmentEvent.FAIL, NOW)
        await store.insert_enrollment(rejected, spend=None)
        await store.advance(rejected.enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.REJECT, NOW)
        await issue(store, 4, renewal_of=SERIAL + 1)
        assert await store.certificate("default", SERIAL + 1) == make_certificate(1, successor=SERIAL + 4)

    async def test_of_two_pending_renewals_one_is_authorized(self, store: Store) -> None:
        """The other stays pending and can only be rejected."""
        await issue(store, 1)
        for number in (2, 3):
            await store.insert_enrollment(make_pending(number, renewal_of=SERIAL + 1), spend=None)

        async def authorize(number: int) -> bool:
            return await store.advance(
                make_pending(number).enrollment_id,
                EnrollmentState.PENDING,
                EnrollmentEvent.AUTHORIZE,
                NOW,
                certificate_serial=SERIAL + number,
                order=b"order",
            )

        assert await authorize(2)
        with pytest.raises(AlreadyRenewed):
            await authorize(3)
        assert await state_of(store, make_pending(3)) is EnrollmentState.PENDING

    async def test_the_same_serial_of_another_ca_is_another_certificate(self, store: Store) -> None:
        """Serials are unique within a CA only."""
        await issue(store, 1)
        await store.insert_enrollment(make_enrollment(2, renewal_of=SERIAL + 1), spend=None)
        await store.insert_enrollment(make_enrollment(3, renewal_of=SERIAL + 1, ca="other"), spend=None)


@pytest.fixture(params=[False, True], ids=["at once", "after waiting"])
def is_deferred(request: pytest.FixtureRequest) -> bool:
    """Tell which way an intent is recorded: with the enrollment, or when one that waited is authorized."""
    return bool(request.param)


async def propose(store: Store, enrollment: Enrollment, *, is_deferred: bool) -> None:
    """Put an enrollment into the queue if it is to be recorded as an intent from there."""
    if is_deferred:
        waiting = replace(enrollment, state=EnrollmentState.PENDING, certificate_serial=None, order=None)
        await store.insert_enrollment(waiting, spend=None)


async def record(
    store: Store, enrollment: Enrollment, *, is_deferred: bool, limits: IssuanceLimits = NO_LIMITS
) -> None:
    """Record the intent, either way."""
    if not is_deferred:
        await store.insert_enrollment(enrollment, spend=None, limits=limits)
        return
    assert await store.advance(
        enrollment.enrollment_id,
        EnrollmentState.PENDING,
        EnrollmentEvent.AUTHORIZE,
        enrollment.created_at,
        certificate_serial=enrollment.certificate_serial,
        order=enrollment.order,
        limits=limits,
    )


async def certify(store: Store, number: int, owner: str = "SN123", **fields: Any) -> StoredCertificate:
    """Give a device a certificate under the key of this number."""
    enrollment = make_enrollment(number, key=make_key(f"TX{number}"), device_id=device_id(owner))
    await store.insert_enrollment(enrollment, spend=None)
    certificate = make_certificate(number, **{"device_id": device_id(owner), **fields})
    assert await store.complete(enrollment.enrollment_id, certificate, NOW)
    return certificate


def key_of(number: int) -> bytes:
    return make_certificate(number).spki_digest


class TestKeys:
    async def test_a_key_certified_for_another_device_is_refused(self, store: Store, is_deferred: bool) -> None:
        """Though that certificate was revoked; nothing is recorded."""
        thief = make_enrollment(2, device_id=device_id("SN9"), spki_digest=key_of(1))
        await propose(store, thief, is_deferred=is_deferred)
        await certify(store, 1)
        await store.revoke_certificate("default", SERIAL + 1, NOW, 4)
        with pytest.raises(KeyInUse, match=r"SN9 is in use by .*SN123: make a new key"):
            await record(store, thief, is_deferred=is_deferred)
        assert await store.open_intents() == []

    async def test_a_key_about_to_be_certified_for_another_device_is_refused(
        self, store: Store, is_deferred: bool
    ) -> None:
        """Until that intent fails."""
        first, second = make_enrollment(1), make_enrollment(2, device_id=device_id("SN9"), spki_digest=key_of(1))
        await propose(store, second, is_deferred=is_deferred)
        await store.insert_enrollment(first, spend=None)
        with pytest.raises(KeyInUse, match="SN123"):
            await record(store, second, is_deferred=is_deferred)
        await store.advance(first.enrollment_id, EnrollmentState.ISSUING, EnrollmentEvent.FAIL, NOW)
        await record(store, second, is_deferred=is_deferred)
        assert [intent.enrollment_id for intent in await store.open_intents()] == [second.enrollment_id]

    async def test_a_request_with_the_key_of_another_device_does_not_even_wait(self, store: Store) -> None:
        """An operator is not asked about it, and its challenge stays open; a request that waits blocks nobody."""
        await store.add_challenge(make_challenge())
        await store.insert_enrollment(make_pending(3, spki_digest=key_of(1)), spend=None)
        await certify(store, 1, "SN9")
        with pytest.raises(KeyInUse):
            await store.insert_enrollment(make_pending(2, spki_digest=key_of(1)), spend=make_challenge().digest)
        assert (await store.dossier(make_key(), b"", make_challenge().digest)).challenge == make_challenge()

    @pytest.mark.parametrize("renewal_of", [None, SERIAL + 1], ids=["enrollment", "renewal"])
    async def test_a_stolen_key_is_blocked_for_its_own_device_too(
        self, store: Store, is_deferred: bool, renewal_of: int | None
    ) -> None:
        """Reason 1 is keyCompromise (RFC 5280 5.3.1)."""
        again = make_enrollment(2, spki_digest=key_of(1), renewal_of=renewal_of)
        await propose(store, again, is_deferred=is_deferred)
        await certify(store, 1)
        await store.revoke_certificate("default", SERIAL + 1, NOW, 1)
        with pytest.raises(KeyInUse, match="stolen: make a new key"):
            await record(store, again, is_deferred=is_deferred)

    async def test_a_device_may_use_its_own_key_again(self, store: Store, is_deferred: bool) -> None:
        """For a renewal, and after a revocation for a reason that says nothing about the key."""
        await certify(store, 1)
        renewal = make_enrollment(2, spki_digest=key_of(1), renewal_of=SERIAL + 1)
        await propose(store, renewal, is_deferred=is_deferred)
        await record(store, renewal, is_deferred=is_deferred)
        await store.revoke_certificate("default", SERIAL + 1, NOW, 4)
        await store.insert_enrollment(make_enrollment(3, spki_digest=key_of(1)), spend=None)
        assert len(await store.open_intents()) == 2


NEW_KEY_ONLY = IssuanceLimits(second_key=False)


class TestLimits:
    async def test_a_quota_counts_active_certificates_and_open_intents(self, store: Store, is_deferred: bool) -> None:
        """The text says how many there are and how many there may be; one more allowed, and it is recorded."""
        late = make_enrollment(3)
        await propose(store, late, is_deferred=is_deferred)
        await certify(store, 1)
        await store.insert_enrollment(make_enrollment(2), spend=None)
        with pytest.raises(QuotaReached, match="SN123 has 2 active certificates in profile default and may have 2"):
            await record(store, late, is_deferred=is_deferred, limits=IssuanceLimits(max_active=2))
        await record(store, late, is_deferred=is_deferred, limits=IssuanceLimits(max_active=3))
        assert len(await store.open_intents()) == 2

    @pytest.mark.parametrize(
        "fields",
        [{"not_after": NOW}, {"device_id": device_id("SN9")}, {"profile": "vpn"}],
        ids=["expired", "other device", "other profile"],
    )
    async def test_what_is_not_active_is_not_counted(self, store: Store, fields: dict[str, Any]) -> None:
        """A certificate at its notAfter counts as expired."""
        await certify(store, 1, **fields)
        limits = IssuanceLimits(max_active=1, second_key=False)
        await store.insert_enrollment(make_enrollment(2), spend=None, limits=limits)
        assert len(await store.open_intents()) == 1

    async def test_what_was_revoked_or_replaced_is_not_counted(self, store: Store) -> None:
        """Nor what is to be revoked, nor an intent of another profile or device; the rest names itself."""
        for number in (1, 2, 3):
            await certify(store, number)
        await store.revoke_certificate("default", SERIAL + 1, NOW, 0)
        renewal = make_enrollment(4, renewal_of=SERIAL + 2)
        await store.insert_enrollment(renewal, spend=None)
        retirement = Retirement(others_at=NOW + HOUR)
        await store.complete(renewal.enrollment_id, make_certificate(4), NOW, retirement=retirement)
        await store.insert_enrollment(make_enrollment(5, key=make_key(profile="vpn")), spend=None)
        await store.insert_enrollment(make_enrollment(6, device_id=device_id("SN9")), spend=None)
        with pytest.raises(SecondKeyFound, match=f"under other keys in profile default: {SERIAL + 4:x}$"):
            await store.insert_enrollment(make_enrollment(7), spend=None, limits=NEW_KEY_ONLY)

    async def test_a_second_key_is_refused_with_the_serials_of_the_first(self, store: Store, is_deferred: bool) -> None:
        """Before the quota is looked at; those under the same key are not among them."""
        clone = make_enrollment(4)
        await propose(store, clone, is_deferred=is_deferred)
        for number in (2, 1):
            await certify(store, number)
        await certify(store, 3, spki_digest=clone.spki_digest)
        limits = IssuanceLimits(max_active=1, second_key=False)
        with pytest.raises(SecondKeyFound, match=f": {SERIAL + 1:x}, {SERIAL + 2:x}$"):
            await record(store, clone, is_deferred=is_deferred, limits=limits)
        assert await store.open_intents() == []

    async def test_the_same_key_again_is_no_second_key(self, store: Store, is_deferred: bool) -> None:
        """A device that lost its certificate but not its key."""
        again = make_enrollment(2, spki_digest=key_of(1))
        await propose(store, again, is_deferred=is_deferred)
        await certify(store, 1)
        await record(store, again, is_deferred=is_deferred, limits=NEW_KEY_ONLY)
        assert len(await store.open_intents()) == 1

    async def test_the_certificate_to_be_renewed_does_not_stand_in_the_way(
        self, store: Store, is_deferred: bool
    ) -> None:
        """Whoever holds an active one may renew it, whatever else there is; the same serial of another CA counts."""
        await certify(store, 1)
        await certify(store, 2, ca="other", certificate_serial=SERIAL + 1)
        renewal = make_enrollment(3, renewal_of=SERIAL + 1)
        await propose(store, renewal, is_deferred=is_deferred)
        with pytest.raises(QuotaReached, match="has 1 active"):
            await record(store, renewal, is_deferred=is_deferred, limits=IssuanceLimits(max_active=1))
        limits = IssuanceLimits(max_active=2, second_key=False)
        await record(store, renewal, is_deferred=is_deferred, limits=limits)
        assert len(await store.open_intents()) == 1

    async def test_renewing_an_expired_certificate_is_a_second_key_beside_an_active_one(self, store: Store) -> None:
        """It renews none of those that are active."""
        await certify(store, 1, not_after=NOW)
        await certify(store, 2)
        with pytest.raises(SecondKeyFound, match=f"{SERIAL + 2:x}"):
            await store.insert_enrollment(make_enrollment(3, renewal_of=SERIAL + 1), spend=None, limits=NEW_KEY_ONLY)

    async def test_a_request_that_waits_is_not_limited_yet(self, store: Store) -> None:
        """The limits are looked at when it becomes an intent."""
        await certify(store, 1)
        limits = IssuanceLimits(max_active=0, second_key=False)
        await store.insert_enrollment(make_pending(2), spend=None, limits=limits)
        assert await state_of(store, make_pending(2)) is EnrollmentState.PENDING

    async def test_one_request_can_break_every_rule_and_hears_of_the_first(self, store: Store) -> None:
        """In the order that the port names; nothing of it remains."""
        await certify(store, 1)
        await certify(store, 2, "SN9")
        await store.add_challenge(make_challenge())
        limits = IssuanceLimits(max_active=0, second_key=False)
        wrong = make_enrollment(3, key=make_key("TX3"), spki_digest=key_of(2), created_at=NOW + HOUR)
        right = replace(wrong, spki_digest=key_of(3), created_at=NOW)
        for enrollment, error in (
            (wrong, ChallengeSpent),
            (replace(wrong, created_at=NOW), KeyInUse),
            (right, SecondKeyFound),
            (replace(right, spki_digest=key_of(1)), QuotaReached),
        ):
            with pytest.raises(error):
                await store.insert_enrollment(enrollment, spend=make_challenge().digest, limits=limits)
        dossier = await store.dossier(wrong.key, wrong.csr_digest, make_challenge().digest)
        assert dossier == Dossier(same=None, latest=None, challenge=make_challenge(), certificate=None)


class TestApproval:
    async def test_who_approved_and_why_stays_with_the_enrollment(self, store: Store) -> None:
        """Through authorization to the end."""
        pending = make_pending(hold="first enrollment", proof="manufacturer", source="2001:db8::1")
        await store.insert_enrollment(pending, spend=None)
        step = (pending.enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.APPROVE, NOW)
        assert await store.advance(*step, by="alice", note="seen on site")
        assert not await store.advance(*step, by="mallory", note="me too")
        await store.advance(
            pending.enrollment_id,
            EnrollmentState.APPROVED,
            EnrollmentEvent.AUTHORIZE,
            NOW,
            certificate_serial=SERIAL,
            order=b"order",
            by="nobody",
            note="nothing",
        )
        (intent,) = await store.open_intents()
        assert intent == replace(
            pending,
            state=EnrollmentState.ISSUING,
            certificate_serial=SERIAL,
            order=b"order",
            decided_by="alice",
            note="seen on site",
        )

    @pytest.mark.parametrize(
        ("words", "kept"),
        [
            ({}, ("alice", "seen on site", "")),
            ({"by": "bob"}, ("bob", "", "")),
            ({"refusal": "device is disabled"}, ("alice", "seen on site", "device is disabled")),
        ],
        ids=["nobody", "operator", "AAA"],
    )
    async def test_a_rejection_replaces_the_words_of_the_approval_by_its_own(
        self, store: Store, words: dict[str, Any], kept: tuple[str, str, str]
    ) -> None:
        """Name and note belong together; one without either leaves both, and AAA's reason stands beside."""
        pending = make_pending()
        await store.insert_enrollment(pending, spend=None)
        approval = (pending.enrollment_id, EnrollmentState.PENDING, EnrollmentEvent.APPROVE, NOW)
        await store.advance(*approval, by="alice", note="seen on site")
        rejection = (pending.enrollment_id, EnrollmentState.APPROVED, EnrollmentEvent.REJECT, NOW)
        assert await store.advance(*rejection, **words)
        (rejected,) = await store.find_enrollments(pending.enrollment_id)
        assert (rejected.decided_by, rejected.note, rejected.refusal) == kept

    async def test_authorizing_what_is_past_or_unknown_changes_nothing(self, store: Store) -> None:
        """Compare-and-set answers False."""
        await store.insert_enrollment(make_pending(), spend=None)
        for enrollment_id in (make_pending().enrollment_id, "f" * 32):
            assert not await store.advance(
                enrollment_id,
                EnrollmentState.APPROVED,
                EnrollmentEvent.AUTHORIZE,
                NOW,
                certificate_serial=SERIAL,
                order=b"order",
            )
        assert await state_of(store, make_pending()) is EnrollmentState.PENDING


class TestLists:
    async def test_an_enrollment_is_found_by_the_beginning_of_its_id(self, store: Store) -> None:
        """Two answers mean: say more."""
        first, second, third = (
            make_enrollment(number, enrollment_id=enrollment_id)
            for number, enrollment_id in enumerate(("ab" + "0" * 30, "ab" + "f" * 30, "ac" + "0" * 30), 1)
        )
        for enrollment in (third, second, first):
            await store.insert_enrollment(enrollment, spend=None)
        assert await store.find_enrollments("a") == [first, second]
        assert await store.find_enrollments("abf") == [second]
        assert await store.find_enrollments(third.enrollment_id) == [third]
        assert await store.find_enrollments("b") == []

    @pytest.mark.parametrize("prefix", ["", "%", "g", "A", "0" * 33, "0\n", "٣"])
    async def test_what_no_id_begins_with_finds_nothing(self, store: Store, prefix: str) -> None:
        """IDs are 32 lower-case hexadecimal digits."""
        await store.insert_enrollment(make_enrollment(), spend=None, decision=make_decision())
        assert await store.find_enrollments(prefix) == []
        assert await store.find_decisions(prefix) == []

    async def test_enrollments_are_listed_newest_first_by_state_and_device(self, store: Store) -> None:
        """The limit cuts the oldest, whatever their state."""
        enrollments = [
            make_pending(1),
            make_enrollment(2, created_at=NOW + HOUR),
            make_pending(3, created_at=NOW + 2 * HOUR, device_id=device_id("SN9")),
            make_pending(4, created_at=NOW + 2 * HOUR),
        ]
        for enrollment in enrollments:
            await store.insert_enrollment(enrollment, spend=None)
        both = {EnrollmentState.PENDING, EnrollmentState.ISSUING}

        async def listed(states: set[EnrollmentState], **only: Any) -> list[int]:
            found = await store.list_enrollments(states, **only)
            return [enrollments.index(enrollment) + 1 for enrollment in found]

        assert await listed(both) == [4, 3, 2, 1]
        assert await listed(both, limit=3) == [4, 3, 2]
        assert await listed({EnrollmentState.PENDING}) == [4, 3, 1]
        assert await listed(both, device_id=device_id()) == [4, 2, 1]
        assert await listed(both, device_id=device_id("SN9"), limit=1) == [3]
        assert await listed({EnrollmentState.ISSUED}) == await listed(set()) == []


class TestDecisions:
    async def test_the_record_of_an_enrollment_comes_in_with_it(self, store: Store) -> None:
        """Or not at all."""
        enrollment = make_enrollment()
        decision = make_decision(outcome=DecisionOutcome.AUTHORIZED, code="")
        await store.insert_enrollment(enrollment, spend=None, decision=decision)
        with pytest.raises(QuotaReached):
            await store.insert_enrollment(
                make_enrollment(2), spend=None, decision=make_decision(2), limits=IssuanceLimits(max_active=1)
            )
        assert await store.list_decisions() == [decision]
        assert await store.find_decisions(enrollment.enrollment_id) == [decision]

    async def test_a_record_under_another_id_than_its_enrollment_is_a_bug(self, store: Store) -> None:
        """Nobody would find it."""
        with pytest.raises(ValueError, match="enrollment's ID"):
            await store.insert_enrollment(make_enrollment(1), spend=None, decision=make_decision(2))
        assert await store.open_intents() == []

    async def test_records_come_in_batches_that_can_be_sent_again(self, store: Store) -> None:
        """What is there already stays as it is; a request without a device is recorded, too."""
        nameless = make_decision(2, device_id=None, decided_at=NOW - HOUR)
        await store.add_decisions([make_decision(1)])
        await store.add_decisions([make_decision(1, code="another"), nameless])
        await store.add_decisions([])
        assert await store.list_decisions() == [make_decision(1), nameless]

    async def test_a_record_is_found_by_the_beginning_of_its_id(self, store: Store) -> None:
        """Two answers mean: say more."""
        records = [make_decision(decision_id=digits * 32) for digits in "abc"]
        twin = make_decision(decision_id="a" * 31 + "b")
        await store.add_decisions([*records, twin])
        assert await store.find_decisions("a") == [records[0], twin]
        assert await store.find_decisions("b") == [records[1]]
        assert await store.find_decisions("d") == []

    async def test_records_are_listed_newest_first_by_outcome_and_device(self, store: Store) -> None:
        """The limit cuts the oldest, whatever their outcome."""
        records = [
            make_decision(1),
            make_decision(2, decided_at=NOW + HOUR, outcome=DecisionOutcome.DEFERRED),
            make_decision(3, decided_at=NOW + 2 * HOUR, device_id=device_id("SN9")),
            make_decision(4, decided_at=NOW + 2 * HOUR),
        ]
        await store.add_decisions(records)

        async def listed(**only: Any) -> list[int]:
            return [records.index(record) + 1 for record in await store.list_decisions(**only)]

        assert await listed() == [4, 3, 2, 1]
        assert await listed(limit=3) == [4, 3, 2]
        assert await listed(outcomes={DecisionOutcome.REFUSED}) == [4, 3, 1]
        assert await listed(device_id=device_id()) == [4, 2, 1]
        assert await listed(device_id=device_id("SN9")) == [3]
        assert await listed(outcomes={DecisionOutcome.AUTHORIZED}) == []

    @pytest.mark.parametrize(
        ("age", "keep", "left"),
        [(timedelta(0), 9, [5, 3, 2, 1]), (HOUR, 9, [5, 3, 2]), (timedelta(0), 2, [5, 3, 2]), (HOUR, 0, [5])],
        ids=["young and few", "too old", "too many", "both"],
    )
    async def test_only_records_of_refusals_are_pruned(
        self, store: Store, age: timedelta, keep: int, left: list[int]
    ) -> None:
        """By age and by number; those of enrollments stay, however old."""
        kept = make_decision(5, decided_at=NOW + 9 * HOUR, outcome=DecisionOutcome.DEFERRED)
        old = make_decision(4, decided_at=NOW - 9 * HOUR, outcome=DecisionOutcome.AUTHORIZED)
        refused = [make_decision(number, decided_at=NOW + number * HOUR) for number in (1, 2, 3)]
        await store.add_decisions([kept, old, *refused])
        before = NOW + HOUR + age
        assert await store.prune_decisions(before, keep) == 4 - len(left)
        remaining = [int(record.decision_id, 16) for record in await store.list_decisions()]
        assert remaining == [*left, 4]


class TestRetirement:
    async def test_a_renewed_certificate_gets_its_date(self, store: Store) -> None:
        """And its successor; without a date it stays until it expires."""
        await certify(store, 1)
        renewal = make_enrollment(2, renewal_of=SERIAL + 1)
        await store.insert_enrollment(renewal, spend=None)
        retirement = Retirement(renewed_at=NOW + HOUR)
        await store.complete(renewal.enrollment_id, make_certificate(2), NOW, retirement=retirement)
        retired = make_certificate(1, successor=SERIAL + 2, revoke_at=NOW + HOUR)
        assert await store.certificate("default", SERIAL + 1) == retired
        assert await store.due_revocations(NOW) == []
        assert await store.due_revocations(NOW + HOUR) == [retired]

    async def test_the_others_that_are_active_get_their_date_and_nothing_else_does(self, store: Store) -> None:
        """Neither the new one, nor those of other devices and profiles, revoked or scheduled; an expired one does."""
        await certify(store, 1)
        await certify(store, 2, "SN9")
        await certify(store, 3, profile="vpn")
        await certify(store, 4, not_after=NOW)
        await certify(store, 5)
        await certify(store, 6, ca="other", certificate_serial=SERIAL + 8)
        await store.revoke_certificate("default", SERIAL + 5, NOW, 0)
        for number, hours in ((7, 1), (8, 2)):
            enrollment = make_enrollment(number)
            await store.insert_enrollment(enrollment, spend=None)
            retirement = Retirement(others_at=NOW + hours * HOUR)
            await store.complete(enrollment.enrollment_id, make_certificate(number), NOW, retirement=retirement)
        due = await store.due_revocations(NOW + 2 * HOUR)
        assert [(found.certificate_serial - SERIAL, found.ca, found.revoke_at) for found in due] == [
            (1, "default", NOW + HOUR),
            (4, "default", NOW + HOUR),
            (8, "other", NOW + HOUR),
            (7, "default", NOW + 2 * HOUR),
        ]
        assert await store.due_revocations(NOW + 2 * HOUR, limit=2) == due[:2]

    async def test_a_certificate_revoked_meanwhile_is_not_due(self, store: Store) -> None:
        """Whoever did it."""
        await certify(store, 1)
        await store.insert_enrollment(make_enrollment(2), spend=None)
        retirement = Retirement(others_at=NOW)
        await store.complete(make_enrollment(2).enrollment_id, make_certificate(2), NOW, retirement=retirement)
        assert len(await store.due_revocations(NOW)) == 1
        await store.revoke_certificate("default", SERIAL + 1, NOW, 4)
        assert await store.due_revocations(NOW) == []

    async def test_a_completion_that_fails_retires_nothing(self, store: Store) -> None:
        """The CA gave one serial twice."""
        await certify(store, 1)
        await store.insert_enrollment(make_enrollment(2), spend=None)
        retirement = Retirement(renewed_at=NOW, others_at=NOW)
        with pytest.raises(AlreadyExists):
            await store.complete(make_enrollment(2).enrollment_id, make_certificate(1), NOW, retirement=retirement)
        assert await store.due_revocations(NOW) == []


class TestCertificates:
    async def test_an_unknown_certificate_is_none(self, store: Store) -> None:
        """Also when only the CA differs."""
        await issue(store)
        assert await store.certificate("default", SERIAL) is None
        assert await store.certificate("other", SERIAL + 1) is None

    @pytest.mark.parametrize("certificate_serial", [-1, 1 << 160, 1 << 400])
    async def test_a_serial_that_no_certificate_can_have_is_none(self, store: Store, certificate_serial: int) -> None:
        """Peers may ask for any number."""
        assert await store.certificate("default", certificate_serial) is None

    @pytest.mark.parametrize("certificate_serial", [2**160, 2**255, -1])
    async def test_a_serial_that_no_ca_of_ours_can_have_given_is_unknown(
        self, store: Store, certificate_serial: int
    ) -> None:
        """Peers ask for any number (GetCert), and that is no mistake of ours."""
        assert await store.certificate("default", certificate_serial) is None
        assert not await store.revoke_certificate("default", certificate_serial, NOW, 0)

    async def test_certificates_are_listed_newest_first_for_all_or_one_device(self, store: Store) -> None:
        """Issued last, listed first."""
        certificates = [
            make_certificate(1, issued_at=NOW),
            make_certificate(2, issued_at=NOW + HOUR),
            make_certificate(3, issued_at=NOW + 2 * HOUR, device_id=device_id("SN9")),
        ]
        for number, certificate in enumerate(certificates, 1):
            await store.insert_enrollment(make_enrollment(number), spend=None)
            assert await store.complete(make_enrollment(number).enrollment_id, certificate, NOW)
        assert await store.list_certificates() == certificates[::-1]
        assert await store.list_certificates(device_id()) == [certificates[1], certificates[0]]
        assert await store.list_certificates(device_id("SN999")) == []

    async def test_the_first_revocation_counts(self, store: Store) -> None:
        """Date and reason of a second one are dropped; an unknown serial is told."""
        await issue(store)
        assert await store.revoke_certificate("default", SERIAL + 1, NOW, 1)
        assert not await store.revoke_certificate("default", SERIAL + 1, NOW + HOUR, 4)
        assert not await store.revoke_certificate("other", SERIAL + 1, NOW, 4)
        assert await store.certificate("default", SERIAL + 1) == make_certificate(
            1, revoked_at=NOW, revocation_reason=1
        )

    async def test_revocations_hold_what_is_revoked_and_not_expired_by_serial(self, store: Store) -> None:
        """A certificate at its notAfter counts as expired; another CA's list is its own."""
        for number in (3, 1, 2):
            await issue(store, number)
        for number in (3, 1):
            await store.revoke_certificate("default", SERIAL + number, NOW, 0)
        listed = [entry async for entry in store.revocations("default", NOW)]
        assert [(entry.certificate_serial, entry.revoked_at, entry.reason) for entry in listed] == [
            (SERIAL + 1, NOW, 0),
            (SERIAL + 3, NOW, 0),
        ]
        assert [entry async for entry in store.revocations("default", make_certificate().not_after)] == []
        assert [entry async for entry in store.revocations("other", NOW)] == []

    @pytest.mark.parametrize("extra", [0, 1], ids=["full pages", "one more"])
    async def test_a_long_list_comes_whole_and_writers_do_not_wait_for_it(self, store: Store, extra: int) -> None:
        """Between two entries other work goes on; each entry comes once."""
        count = REVOCATION_PAGE + extra
        await asyncio.gather(*(issue(store, number) for number in range(count)))
        await asyncio.gather(*(store.revoke_certificate("default", SERIAL + number, NOW, 0) for number in range(count)))
        serials: list[int] = []
        async for entry in store.revocations("default", NOW):
            if not serials:
                await store.add_device(make_device())
            serials.append(entry.certificate_serial)
        assert serials == [SERIAL + number for number in range(count)]


class TestCRLs:
    CRL = StoredCRL(
        ca="default",
        crl_number=1,
        der=b"crl",
        this_update=NOW,
        next_update=NOW + HOUR,
        revocation_sequence=0,
    )

    async def test_a_ca_without_crl_needs_one(self, store: Store) -> None:
        """Outdated from the start."""
        state = await store.current_crl("default")
        assert state == CRLState(crl=None, revocation_sequence=0)
        assert state.outdated

    async def test_a_crl_is_read_back_as_it_was_written(self, store: Store) -> None:
        """And is up to date as long as nothing was revoked since; other CAs have their own."""
        assert await store.save_crl(self.CRL)
        state = await store.current_crl("default")
        assert state.crl == self.CRL
        assert not state.outdated
        assert (await store.current_crl("other")).crl is None

    async def test_a_revocation_in_the_same_microsecond_outdates_the_crl(self, store: Store) -> None:
        """A counter decides, not the clock; a refused revocation does not count."""
        await issue(store)
        await store.save_crl(self.CRL)
        assert not await store.revoke_certificate("default", SERIAL, self.CRL.this_update, 0)
        assert not (await store.current_crl("default")).outdated
        await store.revoke_certificate("default", SERIAL + 1, self.CRL.this_update, 0)
        assert (await store.current_crl("default")).outdated

    async def test_a_revocation_while_the_crl_is_made_outdates_it(self, store: Store) -> None:
        """The sequence was read before the revocations were, so the next look sees the difference."""
        await issue(store, 1)
        await issue(store, 2)
        await store.revoke_certificate("default", SERIAL + 1, NOW, 0)
        before = await store.current_crl("default")
        listed = [entry async for entry in store.revocations("default", NOW)]
        await store.revoke_certificate("default", SERIAL + 2, NOW, 0)
        await store.save_crl(replace(self.CRL, revocation_sequence=before.revocation_sequence))
        assert len(listed) == 1
        assert (await store.current_crl("default")).outdated

    async def test_crl_numbers_only_rise(self, store: Store) -> None:
        """A node that was slower learns it, and the newer CRL stays."""
        newer = replace(self.CRL, crl_number=3, der=b"newer")
        assert await store.save_crl(self.CRL)
        assert await store.save_crl(newer)
        for number in (1, 2, 3):
            assert not await store.save_crl(replace(self.CRL, crl_number=number, der=b"late"))
        assert (await store.current_crl("default")).crl == newer


class TestRaces:
    async def test_a_hundred_requests_for_one_challenge_make_one_enrollment(self, stores: tuple[Store, Store]) -> None:
        """Whichever node they reach."""
        await stores[0].add_challenge(make_challenge())
        results = await asyncio.gather(
            *(
                stores[number % 2].insert_enrollment(make_enrollment(number), spend=make_challenge().digest)
                for number in range(100)
            ),
            return_exceptions=True,
        )
        assert outcomes(results) == ["ChallengeSpent"] * 99 + ["done"]
        assert len(await stores[0].open_intents()) == 1

    async def test_fifty_equal_requests_make_one_enrollment(self, stores: tuple[Store, Store]) -> None:
        """The others are duplicates, although the challenge they bring is spent by then."""
        await stores[0].add_challenge(make_challenge())
        results = await asyncio.gather(
            *(
                stores[number % 2].insert_enrollment(
                    make_enrollment(1, enrollment_id=f"{number:032x}"), spend=make_challenge().digest
                )
                for number in range(50)
            ),
            return_exceptions=True,
        )
        assert outcomes(results) == ["DuplicateEnrollment"] * 49 + ["done"]

    async def test_fifty_renewals_of_one_certificate_make_one_successor(self, stores: tuple[Store, Store]) -> None:
        """Each with its own key and transaction."""
        await issue(stores[0], 1)
        results = await asyncio.gather(
            *(
                stores[number % 2].insert_enrollment(make_enrollment(number, renewal_of=SERIAL + 1), spend=None)
                for number in range(2, 52)
            ),
            return_exceptions=True,
        )
        assert outcomes(results) == ["AlreadyRenewed"] * 49 + ["done"]

    async def test_a_key_that_ten_devices_bring_at_once_is_certified_for_one(self, stores: tuple[Store, Store]) -> None:
        """None of them had it before, so only the intents can tell; ten keys, so that they meet in many ways."""
        results = await asyncio.gather(
            *(
                stores[number % 2].insert_enrollment(
                    make_enrollment(number, device_id=device_id(f"SN{number}"), spki_digest=key_of(number // 10)),
                    spend=None,
                )
                for number in range(100)
            ),
            return_exceptions=True,
        )
        assert outcomes(results) == ["KeyInUse"] * 90 + ["done"] * 10
        assert {intent.spki_digest for intent in await stores[0].open_intents()} == {key_of(n) for n in range(10)}

    @pytest.mark.parametrize(
        ("limits", "allowed", "error"),
        [(IssuanceLimits(max_active=3), 3, "QuotaReached"), (NEW_KEY_ONLY, 1, "SecondKeyFound")],
        ids=["quota", "second key"],
    )
    async def test_fifty_requests_of_one_device_stay_within_its_limits(
        self, stores: tuple[Store, Store], limits: IssuanceLimits, allowed: int, error: str
    ) -> None:
        """Some of them new, some waiting since before, and each completed at once."""

        async def enroll(number: int) -> None:
            store, enrollment, is_deferred = stores[number % 2], make_enrollment(number), number % 3 == 0
            await propose(store, enrollment, is_deferred=is_deferred)
            await record(store, enrollment, is_deferred=is_deferred, limits=limits)
            assert await store.complete(enrollment.enrollment_id, make_certificate(number), NOW)

        results = await asyncio.gather(*(enroll(number) for number in range(50)), return_exceptions=True)
        assert outcomes(results) == sorted([error] * (50 - allowed) + ["done"] * allowed)
        assert len(await stores[0].list_certificates()) == allowed

    async def test_of_twenty_that_replace_one_another_one_stays(self, stores: tuple[Store, Store]) -> None:
        """Each retires those before it, none retires itself."""
        for number in range(20):
            await stores[0].insert_enrollment(make_enrollment(number), spend=None)
        retirement = Retirement(others_at=NOW)
        await asyncio.gather(
            *(
                stores[number % 2].complete(
                    make_enrollment(number).enrollment_id, make_certificate(number), NOW, retirement=retirement
                )
                for number in range(20)
            )
        )
        assert len(await stores[0].due_revocations(NOW)) == 19

    async def test_two_nodes_complete_one_intent_once(self, stores: tuple[Store, Store]) -> None:
        """Both were told to resolve it after a crash."""
        await stores[0].insert_enrollment(make_enrollment(), spend=None)
        results = await asyncio.gather(
            *(
                stores[number % 2].complete(make_enrollment().enrollment_id, make_certificate(), NOW)
                for number in range(20)
            )
        )
        assert [result for result in results if result is not None] == [make_certificate()]

    async def test_two_nodes_save_each_crl_number_once(self, stores: tuple[Store, Store]) -> None:
        """One sequence of numbers."""
        results = await asyncio.gather(*(stores[number % 2].save_crl(TestCRLs.CRL) for number in range(20)))
        assert sorted(results) == [False] * 19 + [True]

    async def test_every_revocation_counts_once(self, stores: tuple[Store, Store]) -> None:
        """Two nodes revoke different certificates of one CA."""
        await asyncio.gather(*(issue(stores[0], number) for number in range(20)))
        await asyncio.gather(
            *(stores[number % 2].revoke_certificate("default", SERIAL + number, NOW, 0) for number in range(20))
        )
        assert (await stores[1].current_crl("default")).revocation_sequence == 20


async def test_what_one_node_wrote_the_other_reads_at_once(stores: tuple[Store, Store]) -> None:
    """No cache stands between them."""
    first, second = stores
    assert await second.device(device_id()) is None
    await first.add_device(make_device())
    assert await second.device(device_id()) == make_device()


async def test_a_store_that_works_passes_its_check(store: Store) -> None:
    """And is left as it was."""
    await store.check()
    assert await store.list_devices() == []


async def test_times_before_1970_and_far_ahead_survive(store: Store) -> None:
    """Certificates without a well-defined end say 9999 (RFC 5280 4.1.2.5)."""
    ends = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    certificate = make_certificate(not_before=datetime(1950, 1, 1, tzinfo=UTC), not_after=ends)
    await store.insert_enrollment(make_enrollment(), spend=None)
    await store.complete(make_enrollment().enrollment_id, certificate, NOW)
    assert await store.certificate("default", SERIAL + 1) == certificate
