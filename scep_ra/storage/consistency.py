"""What must hold between the rows of a store, whatever happened to it; for `scep-ra db check` and for tests of crashes.

Every fact is a statement that finds its breaches, the same for SQLite and PostgreSQL. Nothing is mended here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from scep_ra.storage.database import Session

# What is found -> which rows break it.
_BREACHES: Final = {
    "enrollment is issued without a certificate": (
        "SELECT enrollment_id AS row FROM enrollment AS e WHERE state = 'issued' AND NOT EXISTS"
        " (SELECT 1 FROM certificate AS c WHERE c.ca = e.ca AND c.certificate_serial = e.certificate_serial)"
    ),
    "enrollment is being issued without a serial or an order": (
        "SELECT enrollment_id AS row FROM enrollment"
        " WHERE state = 'issuing' AND (certificate_serial IS NULL OR signing_order IS NULL)"
    ),
    "challenge was spent by an enrollment that is not there": (
        "SELECT used_by AS row FROM challenge"
        " WHERE used_by IS NOT NULL AND used_by NOT IN (SELECT enrollment_id FROM enrollment)"
    ),
    "certificate was issued for no enrollment": (
        "SELECT certificate_serial AS row FROM certificate AS c WHERE NOT EXISTS"
        " (SELECT 1 FROM enrollment AS e WHERE e.ca = c.ca AND e.certificate_serial = c.certificate_serial)"
    ),
    "serial was given to two enrollments": (
        "SELECT certificate_serial AS row FROM enrollment WHERE state IN ('issuing', 'issued')"
        " GROUP BY ca, certificate_serial HAVING COUNT(*) > 1"
    ),
    "certificate has a successor that is not there": (
        "SELECT certificate_serial AS row FROM certificate AS c WHERE successor IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM certificate AS s WHERE s.ca = c.ca AND s.certificate_serial = c.successor)"
    ),
    "certificate is revoked without a reason": (
        "SELECT certificate_serial AS row FROM certificate WHERE (revoked_at IS NULL) <> (revocation_reason IS NULL)"
    ),
    "CA has more revoked certificates than it counted": (
        "SELECT c.ca AS row FROM certificate AS c WHERE c.revoked_at IS NOT NULL GROUP BY c.ca HAVING COUNT(*) >"
        " COALESCE((SELECT revocation_sequence FROM revocation_counter AS r WHERE r.ca = c.ca), 0)"
    ),
}


async def find_breaches(session: Session) -> Sequence[str]:
    """Return a sentence for each fact that does not hold, with a row that breaks it; a unit of work."""
    sentences = []
    for breach, sql in _BREACHES.items():
        rows = await session.fetch(sql)
        if rows:
            sentences.append(f"{breach}: {rows[0]['row']}" + (f" and {len(rows) - 1} more" if rows[1:] else ""))
    return sentences
