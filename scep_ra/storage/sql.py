"""The store over any SQL database: every statement once, for SQLite and PostgreSQL alike.

The statements live beside their nouns (`sql_devices`, `sql_enrollments`, `sql_decisions`, `sql_certificates`,
`sql_sessions`, `sql_outbox`, `sql_disconnect`, `sql_audit`); this joins them. What differs between
databases belongs into a Database (`sqlite`), never here.
"""

from __future__ import annotations

from scep_ra.storage.database import Database
from scep_ra.storage.sql_certificates import SqlCertificates
from scep_ra.storage.sql_decisions import SqlDecisions
from scep_ra.storage.sql_devices import SqlDevices
from scep_ra.storage.sql_disconnect import SqlDisconnect
from scep_ra.storage.sql_enrollments import SqlEnrollments
from scep_ra.storage.sql_outbox import SqlOutbox
from scep_ra.storage.sql_sessions import SqlSessions


class SqlStore(SqlDevices, SqlEnrollments, SqlDecisions, SqlCertificates, SqlSessions, SqlOutbox, SqlDisconnect):
    """storage.base.Store over a Database that is open and migrated."""

    def __init__(self, database: Database, *, chain: str = "local", actor: str = "server") -> None:
        """Take the database, the audit chain of this node or worker, and in whose name records are written."""
        self._database = database
        self._chain = chain
        self._actor = actor

    async def check(self) -> None:
        """Verify that reading and writing work; raise Unavailable or Misconfigured."""
        await self._database.check()

    async def close(self) -> None:
        """Finish what is under way and let go of the database."""
        await self._database.close()
