"""The audit log in SQL: records are appended inside the unit of work that they tell of, so both are there or neither.

How records are chained is `audit_chain`'s. Nothing here changes or removes a record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from scep_ra.identity.types import DeviceID
from scep_ra.storage.audit_chain import (
    START,
    UNREADABLE,
    AuditEvent,
    AuditHead,
    AuditRecord,
    BrokenAuditLog,
    check_types,
    decode_facts,
    digest_of,
    encode_facts,
)
from scep_ra.storage.database import Database, Row, Session, decode_time, encode_time

# Records read at a time: about ten milliseconds, so that other readers hardly wait.
AUDIT_PAGE: Final = 1000
_FROM_THE_START: Final[Mapping[str, int]] = MappingProxyType({})
# Below every sequence, so that a record that somebody put before the first is found, too.
_LOWEST: Final = -(1 << 63)


async def append(session: Session, record: AuditRecord) -> None:
    """Put a record at the end of its chain, as the last step of a unit of work; its sequence and digest are made here.

    From here to the commit the chain's head is locked: what a unit of work does after this, others wait for.
    """
    heads = await session.fetch(
        "INSERT INTO audit_head (chain, sequence, digest) VALUES ($1, 1, $2)"
        " ON CONFLICT (chain) DO UPDATE SET sequence = audit_head.sequence + 1 RETURNING sequence, digest",
        record.chain,
        START,
    )
    numbered = replace(record, sequence=heads[0]["sequence"])
    digest = digest_of(heads[0]["digest"], numbered)
    await session.execute(
        "INSERT INTO audit (chain, sequence, at, actor, event, facts, digest) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        numbered.chain,
        numbered.sequence,
        encode_time(numbered.at),
        numbered.actor,
        numbered.event,
        encode_facts(numbered.facts),
        digest,
    )
    await session.execute("UPDATE audit_head SET digest = $2 WHERE chain = $1", numbered.chain, digest)


class SqlAudit:
    """AuditLog over a Database, and how the other parts of the store record what they do."""

    _database: Database
    _chain: str
    _actor: str

    async def _audit(self, session: Session, event: AuditEvent, at: datetime, /, **facts: str | None) -> None:
        """Append a record, as the last step of a unit of work; facts that are None are left out."""
        known = {name: fact for name, fact in facts.items() if fact is not None}
        await append(
            session,
            AuditRecord(chain=self._chain, sequence=0, at=at, actor=self._actor, event=event.value, facts=known),
        )

    async def record_audit(self, event: AuditEvent, facts: Mapping[str, str], now: datetime) -> None:
        """Append a record of something that is no row of the store."""
        await self._database.write(lambda session: self._audit(session, event, now, **facts))

    async def audit_heads(self) -> Sequence[AuditHead]:
        """Return where each chain stands, by name."""
        sql = "SELECT * FROM audit_head ORDER BY chain"
        rows = await self._database.read(lambda session: session.fetch(sql))
        return [AuditHead(chain=row["chain"], sequence=row["sequence"], digest=row["digest"]) for row in rows]

    async def audit_records(self, after: Mapping[str, int] = _FROM_THE_START) -> AsyncIterator[AuditRecord]:
        """Iterate over the chains by name, each by sequence from behind the one named; raise BrokenAuditLog.

        Not one transaction: records come in pages, and what is appended meanwhile may be in or out.
        """
        # Not from the heads: records whose head was taken away must be found.
        chain = await self._next_chain("")
        while chain is not None:
            last = after.get(chain, _LOWEST)
            while page := await self._read_page(chain, last):
                for row in page:
                    yield _read_record(row)
                last = page[-1]["sequence"]
            chain = await self._next_chain(chain)

    async def latest_audit_records(self, limit: int, device_id: DeviceID | None = None) -> Sequence[AuditRecord]:
        """Return the newest records of all chains, or of those that name a device, newest first."""
        # REPLACE finds text exactly as it is in both dialects, which differ in LIKE.
        sql = (
            "SELECT * FROM audit WHERE $1 = '' OR REPLACE(facts, $1, '') <> facts"
            " ORDER BY at DESC, chain, sequence DESC LIMIT $2"
        )
        sought = "" if device_id is None else encode_facts({"device": str(device_id)})[1:-1]
        rows = await self._database.read(lambda session: session.fetch(sql, sought, limit))
        return [_read_record(row) for row in rows]

    async def _next_chain(self, chain: str) -> str | None:
        sql = "SELECT MIN(chain) AS chain FROM audit WHERE chain > $1"
        rows = await self._database.read(lambda session: session.fetch(sql, chain))
        found: str | None = rows[0]["chain"]
        return found

    async def _read_page(self, chain: str, after: int) -> Sequence[Row]:
        sql = "SELECT * FROM audit WHERE chain = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"
        return await self._database.read(lambda session: session.fetch(sql, chain, after, AUDIT_PAGE))


def _read_record(row: Row) -> AuditRecord:
    """Return the record that a row of table `audit` holds; raise BrokenAuditLog when it holds none."""
    try:
        record = AuditRecord(
            chain=row["chain"],
            sequence=row["sequence"],
            at=decode_time(row["at"]),
            actor=row["actor"],
            event=row["event"],
            facts=decode_facts(row["facts"]),
            digest=row["digest"],
        )
        check_types(record)
    except UNREADABLE as error:
        raise BrokenAuditLog(
            f"the audit log is broken at record {row['sequence']} of chain {row['chain']}: {error}"
        ) from None
    return record
