"""Claims about the record of who said what."""

from __future__ import annotations

import asyncio

from scep_ra.aaa.base import Accept
from scep_ra.aaa.trace import Verdict, trace, tracing

VERDICT = Verdict(authorizer="corp", answer=Accept(), elapsed_s=0.5)


def test_nothing_is_collected_unless_somebody_traces() -> None:
    """And nothing outside of it."""
    trace(VERDICT)
    with tracing() as verdicts:
        assert verdicts == []
        trace(VERDICT)
    trace(VERDICT)
    assert verdicts == [VERDICT]


async def test_verdicts_of_tasks_are_collected_too() -> None:
    """Chains ask their members in tasks."""

    async def ask() -> None:
        trace(VERDICT)

    with tracing() as verdicts:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
    assert verdicts == [VERDICT]
