"""Tests of `scep_ra.web.crypto_pool`: results, a bounded queue, cancellation, the end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterator

import pytest

from scep_ra.web.crypto_pool import CryptoPool, Overloaded

PATIENCE_S = 20.0


@pytest.fixture
def pool() -> Iterator[CryptoPool]:
    """Give a pool of one thread and two waiting jobs, and end it."""
    pool = CryptoPool(threads=1, max_waiting=2)
    yield pool
    pool.close()


class Held:
    """A function that begins, says so to the loop, and ends when it is let go."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._release = threading.Event()
        self.begun = asyncio.Event()
        self.ended = False

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._release.wait(PATIENCE_S)
        self.ended = True
        return "held"

    def let_go(self) -> None:
        self._release.set()


async def test_the_result_comes_back_from_another_thread(pool: CryptoPool) -> None:
    """Arguments go in, the result comes out, and the loop's thread did not work."""

    def work(left: int, *, right: int) -> tuple[int, str]:
        return left + right, threading.current_thread().name

    assert await pool.run(work, 1, right=2) == (3, "crypto-0")


async def test_an_exception_comes_back(pool: CryptoPool) -> None:
    """What the function raises, the caller gets."""
    with pytest.raises(ValueError, match="invalid literal"):
        await pool.run(int, "x")


async def test_a_stray_stop_iteration_does_not_hang_the_caller(pool: CryptoPool) -> None:
    """A future cannot carry StopIteration; it becomes a RuntimeError."""
    empty: Iterator[int] = iter(())

    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(pool.run(next, empty), PATIENCE_S)


async def test_the_callers_context_goes_along(pool: CryptoPool) -> None:
    """Log lines of a job carry the names that its request has bound."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("request-7")

    assert await pool.run(name.get) == "request-7"


async def test_a_full_queue_refuses_within_100_ms(pool: CryptoPool) -> None:
    """With one job at work and two waiting, the next caller is told at once; the others get their results."""
    held = Held()
    working = asyncio.ensure_future(pool.run(held))
    await asyncio.wait_for(held.begun.wait(), PATIENCE_S)
    waiting = [asyncio.ensure_future(pool.run(abs, -n)) for n in (1, 2)]
    await asyncio.sleep(0)
    assert pool.waiting == 2

    started = time.monotonic()
    with pytest.raises(Overloaded, match="max_waiting_requests"):
        await pool.run(abs, -3)
    elapsed = time.monotonic() - started

    held.let_go()
    assert (await working, await asyncio.gather(*waiting)) == ("held", [1, 2])
    assert elapsed < 0.1
    assert pool.waiting == 0


async def test_cancelling_a_caller_does_not_stop_a_job_that_has_begun(pool: CryptoPool) -> None:
    """The job is finished, its result dropped, and the thread serves the next caller."""
    held = Held()
    working = asyncio.ensure_future(pool.run(held))
    await asyncio.wait_for(held.begun.wait(), PATIENCE_S)

    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    held.let_go()

    assert await pool.run(abs, -1) == 1
    assert held.ended


async def test_a_failure_nobody_waits_for_is_dropped(pool: CryptoPool) -> None:
    """A cancelled caller's exception reaches neither the loop's handler nor the next caller."""
    held = Held()

    def fail() -> None:
        held()
        raise ValueError

    working = asyncio.ensure_future(pool.run(fail))
    await asyncio.wait_for(held.begun.wait(), PATIENCE_S)
    working.cancel()
    held.let_go()

    assert await pool.run(abs, -1) == 1


async def test_a_job_cancelled_while_it_waits_is_not_begun(pool: CryptoPool) -> None:
    """Work that nobody waits for any more is left out."""
    held = Held()
    called = threading.Event()
    working = asyncio.ensure_future(pool.run(held))
    await asyncio.wait_for(held.begun.wait(), PATIENCE_S)
    waiting = asyncio.ensure_future(pool.run(called.set))
    await asyncio.sleep(0)
    assert pool.waiting == 1

    waiting.cancel()
    await asyncio.wait({waiting})
    held.let_go()
    await working
    await pool.run(abs, -1)

    assert not called.is_set()


async def test_a_closed_pool_takes_no_work() -> None:
    """A call after the end is a mistake of ours and does not wait forever."""
    pool = CryptoPool(threads=2, max_waiting=1)
    pool.close()

    with pytest.raises(RuntimeError, match="closed"):
        await pool.run(abs, -1)


def test_a_job_that_outlives_its_loop_does_not_break_its_thread() -> None:
    """The loop may end while a job is at work; the thread goes on and ends with the pool."""
    pool = CryptoPool(threads=1, max_waiting=2)

    async def leave() -> Held:
        held = Held()
        task = asyncio.ensure_future(pool.run(held))
        await asyncio.wait_for(held.begun.wait(), PATIENCE_S)
        task.cancel()
        return held

    async def come_back() -> int:
        return await asyncio.wait_for(pool.run(abs, -1), PATIENCE_S)

    asyncio.run(leave()).let_go()

    assert asyncio.run(come_back()) == 1
    pool.close()


async def test_without_threads_the_work_is_done_at_once_in_the_thread_of_the_loop() -> None:
    """A pool of no threads costs no hand-over."""
    pool = CryptoPool(threads=0, max_waiting=1)
    assert await pool.run(threading.get_ident) == threading.get_ident()
    pool.close()
