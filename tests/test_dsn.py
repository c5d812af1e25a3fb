"""Claims about the words for PostgreSQL servers and their errors."""

from __future__ import annotations

import errno
import os

import pytest

from scep_ra.dsn import describe_dsn, reason_of


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://scep_ra@/scep_ra?host=/run/postgresql", "PostgreSQL database scep_ra at /run/postgresql"),
        ("postgresql://scep_ra:secret@db.example:5433/ra", "PostgreSQL database ra at db.example"),
        ("postgresql:///", "PostgreSQL database (default) at the default address"),
    ],
)
def test_messages_name_database_and_host_and_nothing_else(dsn: str, words: str) -> None:
    """That is what an operator looks for; a password is what nobody may see."""
    assert describe_dsn(dsn) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad value\nDETAIL: the row is (secret)"), "bad value"),
        (OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), "Connection refused"),
        (TimeoutError(), "no answer in time"),
    ],
)
def test_a_reason_is_one_line_without_the_rows_behind_it(error: Exception, words: str) -> None:
    """PostgreSQL quotes rows in DETAIL."""
    assert reason_of(error) == words
