"""What tests of several packages share: one PostgreSQL server, and an empty database on it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgresql import PostgresqlServer, running_postgresql


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgresql_dsn(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """Return the URL of a database of the test's own; a test that ends the server need not start it again."""
    with postgresql_server.fresh_database() as dsn:
        yield dsn
