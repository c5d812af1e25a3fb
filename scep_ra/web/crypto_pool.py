"""Where RSA and EC work is done: in the event loop's own thread, or in others with a bounded queue.

An RSA-2048 operation takes a quarter of a millisecond; handing it to a thread, with all that two threads cost each
other under Python's lock, takes more. So threads are for larger keys and slower tokens. They are own ones and no
`ThreadPoolExecutor`: 45 us of processor time a hop instead of 72 (Python 3.11), and a queue whose length is known.
Only pure functions run here: no storage, no network, no event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar, cast

from scep_ra.errors import Unavailable

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Overloaded(Unavailable):
    """As much work waits as is allowed to; the peer should come back later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[[], Any]

    def perform(self) -> None:
        if self.future.cancelled():
            return
        try:
            settle = partial(self._succeed, self.function())
        except StopIteration as error:
            # A future cannot carry it, and the caller would wait forever.
            settle = partial(self._fail, RuntimeError(f"function raised {error!r}"))
        except BaseException as error:  # noqa: BLE001 - it is the caller's, of whatever kind
            settle = partial(self._fail, error)
        # RuntimeError: the loop has ended and with it whoever waited.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(settle)

    def _succeed(self, result: object) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class CryptoPool:
    """A fixed number of threads that share one queue of at most `max_waiting` jobs; with no threads, no hand-over."""

    def __init__(self, *, threads: int, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        # Daemons: a job that hangs must not keep the process alive after its shutdown timeout.
        self._threads = [threading.Thread(target=self._work, name=f"crypto-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no thread has taken yet, cancelled ones included."""
        return self._jobs.qsize()

    async def run(
        self, function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """Return what the function returns, or raise what it raises; raise Overloaded at once when the queue is full.

        When the caller is cancelled, a job that has begun is finished and its result dropped.
        """
        if self._closed:
            raise RuntimeError("the pool is closed")
        if not self._threads:
            return function(*args, **kwargs)
        if self._jobs.qsize() >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} requests are waiting already ([limits] max_waiting_requests)")
        loop = asyncio.get_running_loop()
        # The caller's context goes along, so that log lines of the job carry its request's names.
        bound = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))
        job = _Job(loop=loop, future=loop.create_future(), function=bound)
        self._jobs.put(job)
        return cast(_Result, await job.future)

    def close(self) -> None:
        """Finish what is queued and end the threads; blocks, so call it when requests have been drained."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._perform_next():
            pass

    def _perform_next(self) -> bool:
        # A function of its own: its variables, which may hold plaintext, do not outlive the job.
        job = self._jobs.get()
        if job is None:
            return False
        job.perform()
        return True
