"""What every store must do of live sessions, the outbox and the instant disconnect, whatever database is under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.storage.audit_chain import AuditRecord, Verification
from scep_ra.storage.base import Store, StoredCertificate
from scep_ra.storage.sessions import Disconnection, EntryChange, MessageKind, OutboxMessage
from scep_ra.storage.sql import SqlStore
from tests.support.databases import KINDS, database_opener
from tests.support.records import (
    CESSATION,
    HOUR,
    NOW,
    SERIAL,
    device_id,
    disconnect_device,
    make_certificate,
    make_challenge,
    make_device,
    make_enrollment,
    make_key,
    make_pending,
    make_session,
)

LEASE = NOW + timedelta(seconds=30)
SECOND = timedelta(seconds=1)


@pytest.fixture(params=KINDS)
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, Store]]:
    """Two nodes on one database."""
    opener = database_opener(request.param, request)
    async with AsyncExitStack() as stack:
        nodes = []
        for name in ("ra1", "ra2"):
            nodes.append(SqlStore(await opener(), chain=name, actor="cli:alice"))
            stack.push_async_callback(nodes[-1].close)
        yield nodes[0], nodes[1]


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


async def enqueue(store: Store, *session_ids: str) -> Sequence[OutboxMessage]:
    for session_id in session_ids:
        await store.record_session(make_session(session_id))
    return (await disconnect_device(store)).messages


async def issue(store: Store, number: int = 1, **fields: Any) -> None:
    enrollment = make_enrollment(number, key=make_key(f"TX{number}"), **fields)
    await store.insert_enrollment(enrollment, spend=None)
    certificate = make_certificate(number, device_id=enrollment.device_id)
    assert await store.complete(enrollment.enrollment_id, certificate, NOW)


async def records(store: Store) -> list[AuditRecord]:
    """Return the whole log, of which every chain holds."""
    verification = Verification(await store.audit_heads())
    found = []
    async for record in store.audit_records():
        verification.follow(record)
        found.append(record)
    verification.finish()
    return found


async def certificate_of(store: Store, number: int) -> StoredCertificate:
    found = await store.certificate("default", SERIAL + number)
    assert found is not None
    return found


class TestSessions:
    async def test_a_session_is_read_back_as_it_was_written(self, store: Store) -> None:
        """Also one whose name means no device."""
        known, stranger = make_session(), make_session("FF", device_id=None, started_at=NOW + HOUR)
        await store.record_session(known)
        await store.record_session(stranger)
        assert await store.list_sessions() == [stranger, known]
        assert await store.list_sessions(device_id()) == [known]
        assert await store.list_sessions(device_id("SN9")) == []

    async def test_an_update_refreshes_a_session_and_keeps_its_start(self, store: Store) -> None:
        """An interim update may bring an address that the start did not have."""
        await store.record_session(make_session(framed_address=""))
        later = NOW + HOUR
        await store.record_session(make_session(started_at=later, updated_at=later))
        assert await store.list_sessions() == [make_session(updated_at=later)]

    async def test_the_newest_sessions_come_first_and_no_more_than_asked_for(self, store: Store) -> None:
        """Of all devices, and of one."""
        for number in range(3):
            await store.record_session(make_session(str(number), started_at=NOW + number * HOUR))
        for device in (None, device_id()):
            assert [each.session_id for each in await store.list_sessions(device, 2)] == ["2", "1"]

    async def test_a_session_ends_once(self, store: Store) -> None:
        """The same ID at another headend is another session."""
        await store.record_session(make_session())
        await store.record_session(make_session(headend="wifi"))
        assert await store.end_session("vpn", "0A1B")
        assert not await store.end_session("vpn", "0A1B")
        assert [each.headend for each in await store.list_sessions()] == ["wifi"]

    async def test_a_headend_that_starts_anew_has_no_sessions(self, store: Store) -> None:
        """Those of others stay."""
        for session in (make_session("1"), make_session("2"), make_session(headend="wifi")):
            await store.record_session(session)
        assert await store.end_sessions("vpn") == 2
        assert [each.headend for each in await store.list_sessions()] == ["wifi"]

    async def test_sessions_nobody_speaks_of_are_forgotten(self, store: Store) -> None:
        """The last update counts, not the start."""
        await store.record_session(make_session("silent"))
        await store.record_session(make_session("alive", updated_at=NOW + HOUR))
        assert await store.expire_sessions(NOW + SECOND) == 1
        assert [each.session_id for each in await store.list_sessions()] == ["alive"]


class TestOutbox:
    async def test_a_message_is_claimed_by_one_node_until_its_lease_ends(self, stores: tuple[Store, Store]) -> None:
        """Then the next one tries, and the attempts are counted."""
        first, second = stores
        (message,) = await enqueue(first, "0A1B")
        assert await first.claim_messages(NOW, LEASE, 10) == [replace(message, attempts=1, due_at=LEASE)]
        assert await second.claim_messages(LEASE - SECOND, LEASE, 10) == []
        again = await second.claim_messages(LEASE, LEASE + HOUR, 10)
        assert again == [replace(message, attempts=2, due_at=LEASE + HOUR)]

    async def test_what_is_due_longest_comes_first_and_no_more_than_asked_for(self, store: Store) -> None:
        """The rest is left for the next."""
        for number in range(3):
            await store.record_session(make_session(device_id=device_id(f"SN{number}")))
            await disconnect_device(store, f"SN{number}", now=NOW + number * SECOND)
        claimed = await store.claim_messages(NOW + HOUR, LEASE + HOUR, 2)
        assert [each.device_id.value for each in claimed] == ["SN0", "SN1"]
        assert [each.device_id.value for each in await store.claim_messages(NOW + HOUR, LEASE, 2)] == ["SN2"]

    async def test_the_messages_of_one_device_can_be_claimed_before_all_others(self, store: Store) -> None:
        """Somebody waits for them."""
        for value in ("SN1", "SN2"):
            await store.record_session(make_session(value, device_id=device_id(value)))
            await disconnect_device(store, value)
        assert [each.message_id for each in await store.claim_messages(NOW, LEASE, 9, device_id("SN2"))] == [
            "serial:SN2 1"
        ]

    async def test_a_message_put_off_is_due_again_and_says_why(self, store: Store) -> None:
        """Not before."""
        (message,) = await enqueue(store, "0A1B")
        await store.claim_messages(NOW, LEASE, 10)
        await store.put_off_message(message.message_id, NOW + HOUR, "timeout")
        assert await store.claim_messages(LEASE, LEASE, 10) == []
        (again,) = await store.claim_messages(NOW + HOUR, NOW + 2 * HOUR, 10)
        assert (again.result, again.attempts) == ("timeout", 2)

    async def test_a_settled_message_is_settled_for_good(self, store: Store) -> None:
        """Whoever is late changes nothing; the audit log has it once."""
        (message,) = await enqueue(store, "0A1B")
        await store.claim_messages(NOW, LEASE, 10)
        await store.settle_message(message.message_id, NOW, "ack")
        await store.settle_message(message.message_id, NOW + HOUR, "nak 503")
        await store.put_off_message(message.message_id, NOW, "timeout")
        assert await store.claim_messages(NOW + HOUR, LEASE, 10) == []
        (settled,) = await store.messages_of([message.message_id])
        assert (settled.settled_at, settled.result) == (NOW, "ack")
        told = [record for record in await records(store) if record.event == "message_settled"]
        assert [dict(record.facts) for record in told] == [
            {
                "attempts": "1",
                "device": "serial:SN123",
                "kind": "disconnect",
                "message_id": message.message_id,
                "result": "ack",
                "target": "vpn",
            }
        ]

    async def test_messages_are_found_by_their_ids(self, store: Store) -> None:
        """One that is not there is left out."""
        messages = await enqueue(store, "1", "2")
        wanted = [message.message_id for message in messages]
        assert await store.messages_of([*wanted, "none"]) == sorted(messages, key=lambda each: each.message_id)

    async def test_settled_messages_are_pruned_and_open_ones_are_not(self, store: Store) -> None:
        """However old they are."""
        done, _ = await enqueue(store, "1", "2")
        await store.settle_message(done.message_id, NOW, "ack")
        assert await store.prune_messages(NOW) == 0
        assert await store.prune_messages(NOW + SECOND) == 1
        assert [each.message_id for each in await store.claim_messages(NOW, LEASE, 9)] == ["serial:SN123 2"]

    async def test_twenty_that_claim_at_once_get_each_message_once(self, stores: tuple[Store, Store]) -> None:
        """And nobody goes away while there is more."""
        await enqueue(stores[0], *(str(number) for number in range(40)))
        claims = await asyncio.gather(*(stores[number % 2].claim_messages(NOW, LEASE, 2) for number in range(20)))
        claimed = [message.message_id for claim in claims for message in claim]
        assert (len(claimed), len(set(claimed))) == (40, 40)


class TestDisconnect:
    async def test_everything_that_lets_a_device_in_ends_in_one_step(self, store: Store) -> None:
        """Entry, challenges, waiting requests, certificates and live sessions."""
        await store.add_device(make_device())
        await store.add_challenge(make_challenge("open"))
        await store.add_challenge(make_challenge("late", expires_at=NOW))
        await issue(store, 1)
        await issue(store, 2)
        await store.insert_enrollment(make_pending(3, key=make_key("TX3")), spend=None)
        await store.insert_enrollment(make_pending(4, key=make_key("TX4")), spend=None)
        await store.advance(f"{4:032x}", EnrollmentState.PENDING, EnrollmentEvent.APPROVE, NOW, by="bob")
        await store.record_session(make_session())
        done = await disconnect_device(store, webhooks=["siem"])

        assert (done.entry_changed, done.challenges_voided, done.requests_rejected) == (True, 1, 2)
        assert done.revoked == (("default", SERIAL + 1), ("default", SERIAL + 2))
        assert await store.device(device_id()) == make_device(enabled=False)
        assert (await store.dossier(make_key(), b"", make_challenge("open").digest)).challenge is None
        rejected = await store.list_enrollments([EnrollmentState.REJECTED])
        assert {(each.decided_by, each.note) for each in rejected} == {("alice", "the device was disconnected")}
        for number in (1, 2):
            certificate = await certificate_of(store, number)
            assert (certificate.revoked_at, certificate.revocation_reason) == (NOW, CESSATION)
        assert (await store.current_crl("default")).revocation_sequence == 2
        assert [(each.kind, each.target) for each in done.messages] == [("disconnect", "vpn"), ("webhook", "siem")]
        assert await store.claim_messages(NOW, LEASE, 9) == [
            replace(each, attempts=1, due_at=LEASE) for each in done.messages
        ]

    async def test_a_message_says_what_its_receiver_needs(self, store: Store) -> None:
        """The headend its session, the webhook the whole story."""
        await store.add_device(make_device())
        await issue(store)
        await store.record_session(make_session())
        to_headend, to_webhook = (await disconnect_device(store, webhooks=["siem"])).messages
        assert to_headend.payload == {
            "user_name": "CN=laptop,serialNumber=SN123",
            "session_id": "0A1B",
            "nas_address": "192.0.2.7",
            "nas_identifier": "vpn-1",
            "calling_station": "203.0.113.5",
        }
        assert to_webhook.payload == {
            "by": "alice",
            "certificates_revoked": f"default/{SERIAL + 1:x}",
            "challenges_voided": "0",
            "disconnected_at": NOW.isoformat(),
            "entry": "disable",
            "entry_changed": "true",
            "headends": "vpn",
            "requests_condemned": "0",
            "requests_rejected": "0",
            "revocation_reason": "5",
            "sessions": "1",
        }

    async def test_what_belongs_to_others_or_is_over_stays(self, store: Store) -> None:
        """Another device, an expired certificate, one that was revoked before."""
        await issue(store, 1)
        await issue(store, 2)
        await issue(store, 3, device_id=device_id("SN9"))
        await store.record_session(make_session(device_id=device_id("SN9")))
        await store.revoke_certificate("default", SERIAL + 1, NOW - HOUR, 1)
        done = await disconnect_device(store, now=make_certificate().not_after)
        assert (done.revoked, done.messages) == ((), ())
        done = await disconnect_device(store)
        assert done.revoked == (("default", SERIAL + 2),)
        assert (await certificate_of(store, 1)).revocation_reason == 1
        assert (await certificate_of(store, 3)).revoked_at is None

    @pytest.mark.parametrize(
        ("entry", "changed", "left"),
        [
            (EntryChange.DISABLE, True, make_device(enabled=False)),
            (EntryChange.REMOVE, True, None),
            (EntryChange.KEEP, False, make_device()),
        ],
    )
    async def test_the_entry_is_disabled_removed_or_kept(
        self, store: Store, entry: EntryChange, changed: bool, left: object
    ) -> None:
        """As whoever disconnects says; the log says so, too."""
        await store.add_device(make_device())
        await store.record_session(make_session())
        assert (await disconnect_device(store, entry=entry)).entry_changed is changed
        assert await store.device(device_id()) == left
        told = [record.event for record in await records(store)][1:]
        assert told == [f"device_{entry}d", "device_disconnected"] if changed else ["device_disconnected"]

    async def test_a_device_that_is_nowhere_leaves_no_trace(self, store: Store) -> None:
        """No webhook, no record."""
        done = await disconnect_device(store, webhooks=["siem"])
        assert done == Disconnection(
            device_id=device_id(),
            entry_changed=False,
            challenges_voided=0,
            requests_rejected=0,
            revoked=(),
            messages=(),
        )
        assert await records(store) == []

    async def test_a_second_disconnect_repeats_nothing_and_names_what_is_still_to_be_sent(self, store: Store) -> None:
        """Until the headend has answered; then a session that is still there gets another request."""
        await store.add_device(make_device())
        await issue(store)
        await store.record_session(make_session())
        first = await disconnect_device(store)
        again = await disconnect_device(store)
        assert (again.entry_changed, again.revoked) == (False, ())
        assert again.messages == first.messages
        await store.settle_message(first.messages[0].message_id, NOW, "nak 506")
        (third,) = (await disconnect_device(store, new_id=lambda: "third")).messages
        assert (third.message_id, third.payload["session_id"]) == ("third", "0A1B")

    async def test_a_session_that_is_heard_of_later_is_ended_too(self, stores: tuple[Store, Store]) -> None:
        """Of this device alone, once until the headend has answered, and not when the device is back."""
        store = stores[0]
        late, other, stranger = make_session(), make_session("1", device_id=device_id("SN9")), make_session("2")
        stranger = replace(stranger, device_id=None)
        await disconnect_device(store, now=NOW - HOUR)
        assert [await store.end_if_cut_off(each, NOW, "late") for each in (late, other, stranger)] == [
            True,
            False,
            False,
        ]
        assert await stores[1].end_if_cut_off(late, NOW, "again")
        assert [each.message_id for each in await store.claim_messages(NOW, LEASE, 9)] == ["late"]
        await store.settle_message("late", NOW, "ack")
        assert await store.end_if_cut_off(late, NOW, "again")
        await issue(store)
        assert not await store.end_if_cut_off(late, NOW, "back")
        assert await store.end_if_cut_off(late, make_certificate().not_after, "expired")

    async def test_a_disconnect_and_the_news_of_a_session_do_not_miss_one_another(
        self, stores: tuple[Store, Store]
    ) -> None:
        """Whichever is first, one message leaves."""

        async def begin(number: int) -> None:
            session = make_session(device_id=device_id(f"SN{number}"), session_id=str(number))
            await stores[1].record_session(session)
            await stores[1].end_if_cut_off(session, NOW, f"late {number}")

        cuts = (disconnect_device(stores[0], f"SN{number}") for number in range(20))
        await asyncio.gather(*cuts, *map(begin, range(20)))
        claimed = await stores[0].claim_messages(NOW, LEASE, 99)
        assert sorted(int(each.payload["session_id"]) for each in claimed) == list(range(20))

    async def test_the_audit_log_tells_all_of_it(self, store: Store) -> None:
        """In the chain of the node, under the actor's name."""
        await store.add_device(make_device())
        await issue(store)
        await store.insert_enrollment(make_pending(2, key=make_key("TX2")), spend=None)
        before = len(await records(store))
        await disconnect_device(store)
        told = (await records(store))[before:]
        assert [record.event for record in told] == [
            "device_disabled",
            "enrollment_rejected",
            "certificate_revoked",
            "device_disconnected",
        ]
        assert {(record.chain, record.actor, record.at) for record in told} == {("ra1", "cli:alice", NOW)}
        assert told[1].facts["by"] == "alice"
        assert told[2].facts["reason"] == "5"
        assert dict(told[3].facts) == {
            "by": "alice",
            "certificates_revoked": f"default/{SERIAL + 1:x}",
            "challenges_voided": "0",
            "device": "serial:SN123",
            "entry": "disable",
            "entry_changed": "true",
            "headends": "",
            "requests_condemned": "0",
            "requests_rejected": "1",
            "revocation_reason": "5",
            "sessions": "0",
        }


class TestIntents:
    """A certificate that comes after the disconnect is revoked in the moment when it is stored."""

    async def test_an_intent_that_the_ca_is_at_work_on_ends_revoked(self, store: Store) -> None:
        """With a CRL that knows it, and both events on record."""
        await store.insert_enrollment(make_enrollment(1), spend=None)
        assert (await disconnect_device(store)).revoked == ()
        assert await store.complete(make_enrollment(1).enrollment_id, make_certificate(1), NOW + HOUR)
        certificate = await certificate_of(store, 1)
        assert (certificate.revoked_at, certificate.revocation_reason) == (NOW + HOUR, CESSATION)
        assert (await store.current_crl("default")).revocation_sequence == 1
        assert [record.event for record in await records(store)][-2:] == ["certificate_issued", "certificate_revoked"]

    async def test_an_intent_for_which_aaa_was_asked_before_ends_revoked(self, store: Store) -> None:
        """Though it is recorded after; clocks of nodes may differ a little."""
        await disconnect_device(store)
        asked = make_enrollment(1, created_at=NOW + 4 * SECOND)
        await store.insert_enrollment(asked, spend=None)
        await store.complete(asked.enrollment_id, make_certificate(1), NOW + HOUR)
        assert (await certificate_of(store, 1)).revoked_at == NOW + HOUR

    async def test_what_aaa_allows_later_is_not_touched(self, store: Store) -> None:
        """The device may have been let in again, by a backend of which we know nothing."""
        await disconnect_device(store)
        asked = make_enrollment(1, created_at=NOW + 6 * SECOND)
        await store.insert_enrollment(asked, spend=None)
        await store.complete(asked.enrollment_id, make_certificate(1), NOW + HOUR)
        assert (await certificate_of(store, 1)).revoked_at is None

    @pytest.mark.parametrize("way", ["enabled", "added", "imported"])
    async def test_a_device_let_in_again_enrolls_at_once(self, store: Store, way: str) -> None:
        """In the same moment."""
        await store.add_device(make_device())
        await disconnect_device(store, entry=EntryChange.DISABLE if way == "enabled" else EntryChange.REMOVE)
        match way:
            case "enabled":
                await store.set_device_enabled(device_id(), True, NOW)
            case "added":
                await store.add_device(make_device())
            case _:
                await store.import_devices([make_device()])
        await issue(store)
        assert (await certificate_of(store, 1)).revoked_at is None

    async def test_disabling_without_disconnecting_does_not_let_in(self, store: Store) -> None:
        """The disconnect before still counts."""
        await store.add_device(make_device())
        await disconnect_device(store)
        await store.set_device_enabled(device_id(), False, NOW)
        await issue(store)
        assert (await certificate_of(store, 1)).revoked_at == NOW

    async def test_an_edit_that_read_the_entry_before_does_not_let_in(self, store: Store) -> None:
        """It says enabled because it was; the note is changed, the device stays out."""
        await store.add_device(make_device())
        await disconnect_device(store)
        assert await store.update_device(make_device(note="stolen"), NOW)
        assert await store.device(device_id()) == make_device(note="stolen", enabled=False)
        assert (await records(store))[-1].facts["enabled"] == "false"

    async def test_no_certificate_survives_a_disconnect_whatever_comes_first(self, stores: tuple[Store, Store]) -> None:
        """Thirty devices, on two nodes: new intents, waiting ones and their completion against the disconnect."""

        async def enroll(number: int) -> None:
            store, device = stores[number % 2], device_id(f"SN{number}")
            for each in (number, 100 + number):
                fields = {"key": make_key(f"TX{each}"), "device_id": device}
                if each == number:
                    await store.insert_enrollment(make_enrollment(each, **fields), spend=None)
                else:
                    await store.insert_enrollment(make_pending(each, **fields), spend=None)
                    intent = make_enrollment(each, **fields)
                    is_recorded = await store.advance(
                        intent.enrollment_id,
                        EnrollmentState.PENDING,
                        EnrollmentEvent.AUTHORIZE,
                        NOW,
                        certificate_serial=intent.certificate_serial,
                        order=intent.order,
                    )
                    if not is_recorded:
                        return
                certificate = make_certificate(each, device_id=device)
                assert await store.complete(f"{each:032x}", certificate, NOW)

        async def cut_off(number: int) -> None:
            for _ in range(number % 7):
                await stores[number % 2].device(device_id())
            await disconnect_device(stores[(number + 1) % 2], f"SN{number}")

        await asyncio.gather(*(work(number) for number in range(30) for work in (enroll, cut_off)))
        certificates = await stores[0].list_certificates()
        assert len(certificates) >= 30
        assert [each.device_id for each in certificates if each.revoked_at is None] == []
        assert (await stores[0].current_crl("default")).revocation_sequence == len(certificates)
        await records(stores[0])

    async def test_twenty_disconnects_at_once_do_everything_once(self, stores: tuple[Store, Store]) -> None:
        """One changes, the others see what it has changed."""
        await stores[0].add_device(make_device())
        await issue(stores[0])
        await stores[0].record_session(make_session())
        done = await asyncio.gather(
            *(
                disconnect_device(stores[number % 2], new_id=lambda number=number: f"{number:032x}")
                for number in range(20)
            )
        )
        assert sum(each.entry_changed for each in done) == 1
        assert sum(len(each.revoked) for each in done) == 1
        assert len({message.message_id for each in done for message in each.messages}) == 1


async def test_other_nodes_learn_who_was_cut_off(stores: tuple[Store, Store]) -> None:
    """Until the device is let in again."""
    for number in range(3):
        await stores[0].add_device(make_device(f"SN{number}"))
        await disconnect_device(stores[0], f"SN{number}", now=NOW + number * SECOND)
    assert await stores[1].disconnected_since(NOW + SECOND) == [device_id("SN1"), device_id("SN2")]
    await stores[0].set_device_enabled(device_id("SN1"), True, NOW)
    assert await stores[1].disconnected_since(NOW + SECOND) == [device_id("SN2")]


class TestHolders:
    async def test_those_who_hold_a_live_certificate_are_listed_once_for_each_profile(self, store: Store) -> None:
        """Neither who lost it, nor whose has expired."""
        for number, (value, profile) in enumerate(
            [("SN2", "b"), ("SN1", "b"), ("SN1", "a"), ("SN1", "a"), ("SN3", "a")]
        ):
            enrollment = make_enrollment(number, key=make_key(f"TX{number}"), device_id=device_id(value))
            await store.insert_enrollment(enrollment, spend=None)
            certificate = make_certificate(number, device_id=device_id(value), profile=profile)
            await store.complete(enrollment.enrollment_id, certificate, NOW)
        await disconnect_device(store, "SN3")
        holders = await store.certificate_holders(NOW, None, 9)
        assert [(each.device_id.value, each.profile) for each in holders] == [("SN1", "a"), ("SN1", "b"), ("SN2", "b")]
        assert await store.certificate_holders(make_certificate().not_after, None, 9) == []

    async def test_a_page_goes_on_behind_the_last(self, store: Store) -> None:
        """To the end, which is empty."""
        for number in range(3):
            await issue(store, number, device_id=device_id(f"SN{number}"))
        first = await store.certificate_holders(NOW, None, 2)
        rest = await store.certificate_holders(NOW, first[-1], 2)
        assert [each.device_id.value for each in (*first, *rest)] == ["SN0", "SN1", "SN2"]
        assert await store.certificate_holders(NOW, rest[-1], 2) == []


async def test_a_webhook_is_no_disconnect(store: Store) -> None:
    """An unsettled one keeps no session from getting its request."""
    await store.add_device(make_device())
    (webhook,) = (await disconnect_device(store, webhooks=["siem"])).messages
    assert webhook.kind is MessageKind.WEBHOOK
    await store.record_session(make_session())
    fresh = (await disconnect_device(store, new_id=lambda: "new")).messages
    assert [message.message_id for message in fresh] == [webhook.message_id, "new"]
