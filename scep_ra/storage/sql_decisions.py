"""Decision records in SQL: why each request was let in, put off or refused.

Records of enrollments come in with them (`sql_enrollments`); what a record says is not looked at here.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.audit_chain import AuditEvent
from scep_ra.storage.base import DecisionOutcome, StoredDecision
from scep_ra.storage.database import Row, Session, decode_time, encode_time
from scep_ra.storage.sql_audit import SqlAudit

_ID_PREFIX: Final = re.compile("[0-9a-f]{1,32}")
# Asked for one outcome at a time, so that the index gives the newest of each without sorting all of them.
_NEWEST: Final = "SELECT * FROM decision WHERE outcome = $1 ORDER BY decided_at DESC, decision_id DESC LIMIT $2"
_NEWEST_OF_DEVICE: Final = (
    "SELECT * FROM decision WHERE outcome = $1 AND device_kind = $3 AND device_value = $4"
    " ORDER BY decided_at DESC, decision_id DESC LIMIT $2"
)


def id_range(id_prefix: str) -> tuple[str, str] | None:
    """Return the IDs between which (last one excluded) all that begin so lie; None when no ID can begin so."""
    # "g" comes after every hexadecimal digit, in whatever locale the database sorts.
    return (id_prefix, f"{id_prefix}g") if _ID_PREFIX.fullmatch(id_prefix) else None


def read_decision(row: Row) -> StoredDecision:
    """Return the record that a row of table `decision` holds."""
    kind = row["device_kind"]
    return StoredDecision(
        decision_id=row["decision_id"],
        decided_at=decode_time(row["decided_at"]),
        profile=row["profile"],
        transaction_id=row["transaction_id"],
        source=row["source"],
        device_id=None if kind is None else DeviceID(kind=DeviceIDKind(kind), value=row["device_value"]),
        outcome=DecisionOutcome(row["outcome"]),
        code=row["code"],
        record=row["record"],
    )


async def insert_decision(session: Session, decision: StoredDecision) -> bool:
    """Insert a record, inside a unit of work; one that is there already stays, and False is returned."""
    # Whoever does not know whether a batch arrived sends it again.
    inserted = await session.execute(
        "INSERT INTO decision (decision_id, decided_at, profile, transaction_id, source, device_kind, device_value,"
        " outcome, code, record) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
        decision.decision_id,
        encode_time(decision.decided_at),
        decision.profile,
        decision.transaction_id,
        decision.source,
        None if decision.device_id is None else decision.device_id.kind.value,
        None if decision.device_id is None else decision.device_id.value,
        decision.outcome.value,
        decision.code,
        decision.record,
    )
    return inserted == 1


def _summary(decisions: Sequence[StoredDecision]) -> dict[str, str]:
    """Return what the audit log keeps of refusals: one record per batch, because strangers cause them at will."""
    codes = Counter(decision.code for decision in decisions)
    text = "".join(f"{decision.decision_id} {decision.record}\n" for decision in decisions)
    return {
        "count": str(len(decisions)),
        "codes": ",".join(f"{code}={count}" for code, count in sorted(codes.items())),
        "first_decision_id": decisions[0].decision_id,
        "last_decision_id": decisions[-1].decision_id,
        "decisions_sha256": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
    }


class SqlDecisions(SqlAudit):
    """DecisionStore over a Database."""

    async def add_decisions(self, decisions: Sequence[StoredDecision]) -> None:
        """Insert records of requests that became no enrollment, all in one transaction; known IDs are left alone."""

        async def work(session: Session) -> None:
            fresh = [decision for decision in decisions if await insert_decision(session, decision)]
            if fresh:
                await self._audit(session, AuditEvent.REQUESTS_REFUSED, fresh[-1].decided_at, **_summary(fresh))

        await self._database.write(work)

    async def find_decisions(self, id_prefix: str) -> Sequence[StoredDecision]:
        """Return at most two records whose ID begins so; none when that is not one to 32 lower-case digits."""
        ids = id_range(id_prefix)
        if ids is None:
            return []
        sql = "SELECT * FROM decision WHERE decision_id >= $1 AND decision_id < $2 ORDER BY decision_id LIMIT 2"
        return [read_decision(row) for row in await self._database.read(lambda session: session.fetch(sql, *ids))]

    async def list_decisions(
        self,
        *,
        outcomes: Collection[DecisionOutcome] = frozenset(DecisionOutcome),
        device_id: DeviceID | None = None,
        limit: int = 100,
    ) -> Sequence[StoredDecision]:
        """Return the newest records, newest first."""
        device = () if device_id is None else (device_id.kind.value, device_id.value)
        sql = _NEWEST_OF_DEVICE if device else _NEWEST

        async def work(session: Session) -> Sequence[Row]:
            return [row for outcome in outcomes for row in await session.fetch(sql, outcome.value, limit, *device)]

        found = [read_decision(row) for row in await self._database.read(work)]
        return sorted(found, key=lambda decision: (decision.decided_at, decision.decision_id), reverse=True)[:limit]

    async def prune_decisions(self, before: datetime, keep: int) -> int:
        """Delete records of refused requests older than `before`, and all but the newest `keep`; return how many."""
        sql = (
            "DELETE FROM decision WHERE decision_id IN (SELECT decision_id FROM (SELECT decision_id, decided_at,"
            " ROW_NUMBER() OVER (ORDER BY decided_at DESC, decision_id DESC) AS place"
            " FROM decision WHERE outcome = $1) AS refused WHERE decided_at < $2 OR place > $3)"
        )
        refused = DecisionOutcome.REFUSED.value
        return await self._database.write(lambda session: session.execute(sql, refused, encode_time(before), keep))
