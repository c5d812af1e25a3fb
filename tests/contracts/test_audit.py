"""What every store must write into its audit log, whatever database is under it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

import pytest

from scep_ra.enrollment.states import EnrollmentEvent, EnrollmentState
from scep_ra.storage.audit_chain import AuditEvent, AuditRecord, BrokenAuditLog, Verification
from scep_ra.storage.base import AlreadyExists, ChallengeSpent, KeyInUse, StoredCRL
from scep_ra.storage.database import Database, Session
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sql_audit import AUDIT_PAGE
from tests.support.databases import KINDS, database_opener
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

CRL = StoredCRL(ca="default", crl_number=7, der=b"crl", this_update=NOW, next_update=NOW + HOUR, revocation_sequence=1)


@pytest.fixture(params=KINDS)
async def databases(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Database, Database]]:
    """Two nodes on one database."""
    opener = database_opener(request.param, request)
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            opened.append(await opener())
            stack.push_async_callback(opened[-1].close)
        yield opened[0], opened[1]


@pytest.fixture
def database(databases: tuple[Database, Database]) -> Database:
    return databases[0]


@pytest.fixture
def store(database: Database) -> SqlStore:
    return SqlStore(database, chain="ra1", actor="cli:alice")


async def records(store: SqlStore) -> list[AuditRecord]:
    """Return the whole log, of which every chain holds."""
    verification = Verification(await store.audit_heads())
    found = []
    async for record in store.audit_records():
        verification.follow(record)
        found.append(record)
    verification.finish()
    return found


async def events(store: SqlStore) -> list[str]:
    return [record.event for record in await records(store)]


async def last(store: SqlStore) -> AuditRecord:
    return (await records(store))[-1]


async def change(database: Database, sql: str, *parameters: object) -> None:
    """Do what somebody with the password of the database can do."""

    async def work(session: Session) -> int:
        return await session.execute(sql, *parameters)

    await database.write(work)


class TestRecords:
    async def test_a_log_begins_empty(self, store: SqlStore) -> None:
        """No chain, no head."""
        assert (await records(store), await store.audit_heads()) == ([], [])

    async def test_an_enrollment_leaves_its_authorization_and_its_certificate(self, store: SqlStore) -> None:
        """With all that an auditor asks for, and the name of the challenge, which is not the challenge."""
        await store.add_challenge(make_challenge())
        enrollment = make_enrollment(1)
        await store.insert_enrollment(enrollment, spend=make_challenge().digest)
        certificate = make_certificate(1)
        await store.complete(enrollment.enrollment_id, certificate, NOW + HOUR)
        created, authorized, issued = await records(store)

        assert [record.event for record in (created, authorized, issued)] == [
            "challenge_created",
            "enrollment_authorized",
            "certificate_issued",
        ]
        assert {(record.chain, record.actor) for record in (created, authorized, issued)} == {("ra1", "cli:alice")}
        assert (created.at, authorized.at, issued.at) == (NOW, NOW, NOW + HOUR)
        assert dict(created.facts) == {
            "challenge": make_challenge().digest[:8].hex(),
            "device": "serial:SN123",
            "profile": "default",
            "expires_at": "2026-03-01T13:00:00+00:00",
        }
        assert dict(authorized.facts) == {
            "ca": "default",
            "certificate_serial": f"{SERIAL + 1:x}",
            "challenge": make_challenge().digest[:8].hex(),
            "csr_sha256": enrollment.csr_digest.hex(),
            "device": "serial:SN123",
            "enrollment_id": enrollment.enrollment_id,
            "key_sha256": enrollment.spki_digest.hex(),
            "profile": "default",
            "proof": enrollment.proof,
            "requester_sha256": enrollment.key.requester.hex(),
            "source": enrollment.source,
            "transaction_id": "TX1",
        }
        assert dict(issued.facts) == {
            "ca": "default",
            "certificate_serial": f"{SERIAL + 1:x}",
            "certificate_sha256": hashlib.sha256(certificate.der).hexdigest(),
            "device": "serial:SN123",
            "enrollment_id": enrollment.enrollment_id,
            "profile": "default",
            "transaction_id": "TX1",
        }

    async def test_a_renewal_names_what_it_renews(self, store: SqlStore) -> None:
        """In the authorization and in the certificate."""
        await store.insert_enrollment(make_enrollment(1), spend=None)
        await store.complete(make_enrollment(1).enrollment_id, make_certificate(1), NOW)
        renewal = make_enrollment(2, key=make_key("TX2"), renewal_of=SERIAL + 1)
        await store.insert_enrollment(renewal, spend=None)
        await store.complete(renewal.enrollment_id, make_certificate(2), NOW)
        assert [record.facts.get("renewal_of") for record in await records(store)] == [
            None,
            None,
            f"{SERIAL + 1:x}",
            f"{SERIAL + 1:x}",
        ]

    @pytest.mark.parametrize(
        ("event", "recorded"),
        [
            (EnrollmentEvent.APPROVE, AuditEvent.ENROLLMENT_APPROVED),
            (EnrollmentEvent.REJECT, AuditEvent.ENROLLMENT_REJECTED),
            (EnrollmentEvent.EXPIRE, AuditEvent.ENROLLMENT_EXPIRED),
        ],
    )
    async def test_what_becomes_of_a_request_that_waits_is_recorded(
        self, store: SqlStore, event: EnrollmentEvent, recorded: AuditEvent
    ) -> None:
        """Once, whoever is faster; and not what was too late."""
        waiting = make_pending(1, hold="the profile demands approval")
        await store.insert_enrollment(waiting, spend=None)
        assert await store.advance(waiting.enrollment_id, EnrollmentState.PENDING, event, NOW + HOUR)
        assert not await store.advance(waiting.enrollment_id, EnrollmentState.PENDING, event, NOW + HOUR)
        deferred, decided = await records(store)

        assert (deferred.event, decided.event, decided.at) == ("enrollment_deferred", recorded, NOW + HOUR)
        assert deferred.facts == decided.facts
        assert deferred.facts["hold"] == "the profile demands approval"

    async def test_an_operators_word_is_recorded_with_the_decision(self, store: SqlStore) -> None:
        """Who, and why."""
        await store.insert_enrollment(make_pending(1), spend=None)
        await store.advance(
            make_pending(1).enrollment_id,
            EnrollmentState.PENDING,
            EnrollmentEvent.REJECT,
            NOW,
            by="bob",
            note="never heard of it",
        )
        facts = (await last(store)).facts
        assert (facts["by"], facts["note"]) == ("bob", "never heard of it")

    async def test_a_late_authorization_and_a_failure_are_recorded(self, store: SqlStore) -> None:
        """With the serial that was reserved."""
        await store.insert_enrollment(make_pending(1), spend=None)
        authorized = make_enrollment(1)
        for state, event in (
            (EnrollmentState.PENDING, EnrollmentEvent.AUTHORIZE),
            (EnrollmentState.PENDING, EnrollmentEvent.AUTHORIZE),
            (EnrollmentState.ISSUING, EnrollmentEvent.FAIL),
        ):
            await store.advance(
                authorized.enrollment_id,
                state,
                event,
                NOW,
                certificate_serial=authorized.certificate_serial,
                order=authorized.order,
            )
        assert await events(store) == ["enrollment_deferred", "enrollment_authorized", "enrollment_failed"]
        assert (await last(store)).facts["certificate_serial"] == f"{SERIAL + 1:x}"

    async def test_every_request_that_expires_is_recorded(self, store: SqlStore) -> None:
        """Those of other profiles and younger ones are not."""
        for number in (1, 2):
            await store.insert_enrollment(make_pending(number, key=make_key(f"TX{number}")), spend=None)
        await store.expire_waiting("default", NOW + HOUR, NOW + HOUR)
        assert (await events(store))[2:] == ["enrollment_expired"] * 2

    async def test_devices_and_what_is_done_to_them_are_recorded(self, store: SqlStore) -> None:
        """What changed nothing is not."""
        device = make_device(user="alice", profile="vpn", services=("wifi", "vpn"), attributes={"a": "1"})
        await store.add_device(device)
        with pytest.raises(AlreadyExists):
            await store.add_device(device)
        for known in (device_id(), device_id("SN999")):
            await store.set_device_enabled(known, False, NOW)
            await store.set_device_enabled(known, True, NOW)
            await store.update_device(replace(device, device_id=known, valid_until=NOW + HOUR), NOW)
            await store.remove_device(known, NOW)
        found = await records(store)

        assert [record.event for record in found] == [
            "device_added",
            "device_disabled",
            "device_enabled",
            "device_changed",
            "device_removed",
        ]
        assert {record.facts["device"] for record in found} == {"serial:SN123"}
        assert dict(found[0].facts) == {
            "device": "serial:SN123",
            "user": "alice",
            "profile": "vpn",
            "services": "wifi,vpn",
            "enabled": "true",
            "approval": "false",
            "attributes": '{"a": "1"}',
        }
        assert found[3].facts["valid_until"] == "2026-03-01T13:00:00+00:00"

    async def test_an_import_leaves_one_record(self, store: SqlStore) -> None:
        """With the number and the digest of the sorted list of those that were new; none when all were known."""
        devices = [make_device("SN2"), make_device("SN1")]
        await store.import_devices(devices)
        await store.import_devices(devices)
        [record] = await records(store)

        assert record.event == "devices_imported"
        assert dict(record.facts) == {
            "count": "2",
            "devices_sha256": hashlib.sha256(b"serial:SN1\nserial:SN2\n").hexdigest(),
        }

    async def test_a_revocation_and_a_crl_are_recorded_once(self, store: SqlStore) -> None:
        """What was revoked before, and a CRL that came too late, are not."""
        await store.insert_enrollment(make_enrollment(1), spend=None)
        await store.complete(make_enrollment(1).enrollment_id, make_certificate(1), NOW)
        for _ in range(2):
            await store.revoke_certificate("default", SERIAL + 1, NOW + HOUR, 4)
            await store.save_crl(CRL)
        revoked, saved = (await records(store))[2:]

        assert (revoked.event, revoked.facts["certificate_serial"], revoked.facts["reason"], revoked.at) == (
            "certificate_revoked",
            f"{SERIAL + 1:x}",
            "4",
            NOW + HOUR,
        )
        assert (saved.event, saved.facts["ca"], saved.facts["crl_number"]) == ("crl_saved", "default", "7")

    async def test_refusals_leave_one_record_a_batch(self, store: SqlStore) -> None:
        """Strangers cause them; what is sent again because its arrival was unsure is not recorded again."""
        first, second, third = (make_decision(number) for number in range(3))
        await store.add_decisions([first, second])
        await store.add_decisions([first, second])
        await store.add_decisions([second, third])
        before, after = await records(store)

        text = f"{first.decision_id} {first.record}\n{second.decision_id} {second.record}\n"
        assert (before.event, before.at) == ("requests_refused", second.decided_at)
        assert dict(before.facts) == {
            "count": "2",
            "codes": f"{first.code}=2",
            "first_decision_id": first.decision_id,
            "last_decision_id": second.decision_id,
            "decisions_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        assert (after.facts["count"], after.facts["first_decision_id"]) == ("1", third.decision_id)

    async def test_what_is_no_row_is_recorded_too(self, store: SqlStore) -> None:
        """Starts, keys; text of any kind survives."""
        await store.record_audit(AuditEvent.KEY_LOADED, {"key": "ca Zürich\x00\n\U0001f511"}, NOW)
        assert (await last(store)).facts == {"key": "ca Zürich\x00\n\U0001f511"}

    async def test_what_is_undone_leaves_no_record(self, store: SqlStore) -> None:
        """Record and deed are committed together."""
        with pytest.raises(ChallengeSpent):
            await store.insert_enrollment(make_enrollment(1), spend=b"unknown")
        await store.insert_enrollment(make_enrollment(1), spend=None)
        with pytest.raises(KeyInUse):
            await store.insert_enrollment(
                make_enrollment(2, device_id=device_id("SN9"), spki_digest=make_enrollment(1).spki_digest), spend=None
            )
        assert await events(store) == ["enrollment_authorized"]


class TestChains:
    async def test_nodes_keep_chains_of_their_own(self, databases: tuple[Database, Database]) -> None:
        """Each begins at 1."""
        first, second = SqlStore(databases[0], chain="ra1"), SqlStore(databases[1], chain="ra2", actor="cli:bob")
        for number in range(3):
            await first.add_device(make_device(f"A{number}"))
            await second.add_device(make_device(f"B{number}"))

        places = [(record.chain, record.sequence, record.actor) for record in await records(first)]
        assert places == [
            *(("ra1", number, "server") for number in (1, 2, 3)),
            *(("ra2", number, "cli:bob") for number in (1, 2, 3)),
        ]
        assert [(head.chain, head.sequence) for head in await second.audit_heads()] == [("ra1", 3), ("ra2", 3)]

    async def test_a_chain_stays_straight_under_many_writers(self, databases: tuple[Database, Database]) -> None:
        """Server and command line of one machine share a chain; none is lost or doubled."""
        stores = [SqlStore(database, chain="ra1", actor=f"cli:{place}") for place, database in enumerate(databases)]
        await asyncio.gather(*(stores[number % 2].add_device(make_device(f"SN{number}")) for number in range(60)))
        found = await records(stores[0])

        assert [record.sequence for record in found] == list(range(1, 61))
        assert {record.facts["device"] for record in found} == {f"serial:SN{number}" for number in range(60)}
        assert {record.actor for record in found} == {"cli:0", "cli:1"}

    async def test_a_long_chain_is_read_page_by_page(self, store: SqlStore, database: Database) -> None:
        """From any record on."""

        async def work(session: Session) -> None:
            for number in range(AUDIT_PAGE + 1):
                await store._audit(session, AuditEvent.KEY_LOADED, NOW + timedelta(seconds=number))

        await database.write(work)
        assert len(await records(store)) == AUDIT_PAGE + 1
        assert [record.sequence async for record in store.audit_records({"ra1": AUDIT_PAGE - 1})] == [1000, 1001]
        assert [record async for record in store.audit_records({"ra1": AUDIT_PAGE + 1})] == []

    async def test_the_newest_records_are_found_also_by_device(self, databases: tuple[Database, Database]) -> None:
        """Of all chains, newest first; a device whose ID begins alike is another one."""
        first, second = SqlStore(databases[0], chain="ra1"), SqlStore(databases[1], chain="ra2")
        await first.add_device(make_device("SN1", created_at=NOW))
        await second.add_device(make_device("SN12", created_at=NOW + HOUR))
        await first.set_device_enabled(device_id("SN1"), False, NOW + 2 * HOUR)

        async def found(limit: int, value: str | None = None) -> list[str]:
            device = None if value is None else device_id(value)
            return [record.facts["device"] for record in await first.latest_audit_records(limit, device)]

        assert await found(9) == ["serial:SN1", "serial:SN12", "serial:SN1"]
        assert await found(2) == ["serial:SN1", "serial:SN12"]
        assert await found(9, "SN1") == ["serial:SN1"] * 2
        assert await found(9, "SN") == []


class TestTampering:
    @pytest.mark.parametrize(
        ("sql", "place"),
        [
            ("UPDATE audit SET actor = 'server' WHERE sequence = 2", 2),
            ("UPDATE audit SET event = 'device_enabled' WHERE sequence = 2", 2),
            ("UPDATE audit SET at = at + 1 WHERE sequence = 2", 2),
            ('UPDATE audit SET facts = \'{"device":"serial:SN9"}\' WHERE sequence = 2', 2),
            ("UPDATE audit SET facts = facts || ' ' WHERE sequence = 2", 2),
            ("UPDATE audit SET facts = '[1]' WHERE sequence = 2", 2),
            ("UPDATE audit SET facts = '{\"device\":1}' WHERE sequence = 2", 2),
            ("UPDATE audit SET at = 9000000000000000000 WHERE sequence = 2", 2),
            ("DELETE FROM audit WHERE sequence = 1", 1),
            ("DELETE FROM audit WHERE sequence = 2", 2),
            ("DELETE FROM audit WHERE sequence = 3", 3),
            ("DELETE FROM audit", 1),
            ("UPDATE audit SET sequence = 0 WHERE sequence = 1", 1),
            ("UPDATE audit SET chain = 'ra2' WHERE sequence = 3", 1),
            ("UPDATE audit_head SET sequence = 4", 4),
        ],
    )
    async def test_what_is_done_to_the_tables_is_found(
        self, store: SqlStore, database: Database, sql: str, place: int
    ) -> None:
        """The first place that does not fit is named."""
        for number in range(3):
            await store.add_device(make_device(f"SN{number}"))
        await change(database, sql)
        with pytest.raises(BrokenAuditLog, match=f"at record {place} of chain ra"):
            await records(store)

    async def test_records_whose_head_was_taken_away_are_still_found(self, store: SqlStore, database: Database) -> None:
        """The chains are those of the records."""
        await store.add_device(make_device())
        await change(database, "DELETE FROM audit_head")
        assert [record.chain async for record in store.audit_records()] == ["ra1"]


async def test_the_store_alone_chooses_sequence_and_digest(store: SqlStore) -> None:
    """Facts that are named like columns are facts."""
    facts = {"sequence": "7", "digest": "00", "at": "noon", "event": "none", "session": "tea"}
    await store.record_audit(AuditEvent.SERVER_STARTED, facts, NOW)
    record = await last(store)
    assert (record.sequence, record.facts) == (1, facts)
