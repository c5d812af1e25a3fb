"""Several processes on one port: a parent that prepares, starts, replaces and ends its workers, and what a worker does.

Each worker has a listening socket of its own, made and kept by the parent, and the kernel spreads connections over
them. A worker gets its job as a line on standard input, which then stays open: its end says that the parent is gone. It
writes a line to standard output when it serves. What serving means belongs to `app`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Self, cast

import structlog

from scep_ra import app
from scep_ra.config import Settings
from scep_ra.endpoints import Parts
from scep_ra.errors import Misconfigured, Unavailable

log = structlog.stdlib.get_logger(__name__)

_READY: Final = b"ready\n"
# A cause that lasts (a missing library, no memory) shows in three; a passing one is gone by then.
_MAX_FAILED_STARTS: Final = 3
_FIRST_DELAY_S: Final = 0.5
# Meanwhile connections to the socket of the dead one wait.
_MAX_DELAY_S: Final = 5.0
# Whoever served this long did not die of its start.
_STEADY_S: Final = 60.0
# Beyond the drain: closing the store, the end of the interpreter.
_END_S: Final = 5.0
# What `cli.main` makes of a ConfigurationError and of a Misconfigured.
_MISCONFIGURED_STATUS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the parent tells a worker; settings and all, so that a file that is edited makes no two workers differ."""

    number: int
    listening_fd: int
    public_url: str
    settings: Settings

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read a job; raise Misconfigured where there is none."""
        if not line:
            raise Misconfigured("--worker is for the processes that `scep-ra serve --workers N` starts: use that")
        job = json.loads(line)
        return cls(**{**job, "settings": Settings.model_validate_json(job["settings"])})

    def encode(self) -> bytes:
        """Return the job as one line."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps({**fields, "settings": self.settings.model_dump_json()}).encode() + b"\n"


# --- the worker ----------------------------------------------------------------------------------------------------


async def work(job: Job, *, life_line: int, output: int) -> None:
    """Serve until SIGTERM, SIGINT or the end of the parent, then drain.

    The parent holds the other end of the descriptor `life_line`, and reads from `output` that this worker serves.
    Raise ConfigurationError or a BackendError when it cannot start.
    """
    structlog.contextvars.bind_contextvars(worker=job.number)
    stop = app.stop_on_signals()
    asyncio.get_running_loop().add_reader(life_line, _on_parent_gone, life_line, stop)
    with socket.socket(fileno=job.listening_fd) as sock:
        await app.serve_beside_others(
            job.settings, sock, job.public_url, stop, partial(_say_ready, output), is_first=job.number == 1
        )


def _on_parent_gone(life_line: int, stop: asyncio.Event) -> None:
    """Stop: the parent writes nothing after the job, so there is something to read at the end only."""
    asyncio.get_running_loop().remove_reader(life_line)
    log.warning("parent_gone")
    stop.set()


def _say_ready(output: int) -> None:
    with suppress(BrokenPipeError):  # the parent is gone, and the life line tells
        os.write(output, _READY)


# --- the parent ----------------------------------------------------------------------------------------------------


async def supervise(settings: Settings, command: Sequence[str], announce: Callable[[Parts], None]) -> None:
    """Serve with `server.workers` processes until SIGTERM or SIGINT, then have them drain.

    `command` starts a worker; `announce` is called once all of them answer requests. Raise ConfigurationError or a
    BackendError when the preparation fails or a worker cannot start.
    """
    stop = app.stop_on_signals()
    config = settings.config.server
    with ExitStack() as stack:
        sockets = [stack.enter_context(app.bind_socket(config.bind, config.port))]
        sockets += [stack.enter_context(_share(sockets[0])) for _ in range(1, config.workers)]
        url = app.public_url(config, sockets[0])
        parts = await app.prepare(settings, url)
        crew = _Crew(settings, command, sockets, url, stop)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(crew.keep(number)) for number in crew.numbers]
                tasks.append(group.create_task(_announce(crew, partial(announce, parts))))
                await stop.wait()
                log.info("stopping")
                # Whoever connects from now on is refused, not kept waiting for nobody.
                stack.close()
                for task in tasks:
                    task.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
    log.info("stopped")


def _share(first: socket.socket) -> socket.socket:
    """Return another listening socket on the address of one that listens.

    On one socket for all, the worker that wakes first takes a whole burst of connections: of 32 at once, one of two
    had 29 on average, with a socket each 18. A second server has no SO_REUSEPORT when it binds and so is kept off.
    """
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock = socket.socket(first.family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(first.getsockname())
    sock.listen()
    return sock


async def _announce(crew: _Crew, announce: Callable[[], None]) -> None:
    await crew.wait_ready()
    announce()


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """How a worker ended."""

    served: bool
    exit_status: int | None  # negative: by this signal; None: there was no process


class _Crew:
    """The workers, each kept by a task of its own."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        public_url: str,
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._command = command
        self._public_url = public_url
        self._stop = stop
        self._sockets = dict(enumerate(sockets, start=1))
        self.numbers: Final = tuple(self._sockets)
        self._ready = {number: asyncio.Event() for number in self.numbers}

    async def wait_ready(self) -> None:
        """Wait until every worker has served."""
        for ready in self._ready.values():
            await ready.wait()

    async def keep(self, number: int) -> None:
        """Have a worker run, and another whenever it dies; cancelled, end it in good order.

        Raise Misconfigured or Unavailable when it dies too often before it serves.
        """
        failed_starts, delay_s = 0, 0.0
        while True:
            began = time.monotonic()
            end = await self._run(number)
            if self._stop.is_set():  # the signal went to the whole process group
                return
            log.error("worker_died", worker=number, exit_status=end.exit_status, served=end.served)
            failed_starts = 0 if end.served else failed_starts + 1
            if failed_starts == _MAX_FAILED_STARTS:
                raise _give_up(number, end)
            delay_s = _next_delay_s(delay_s, lived_s=time.monotonic() - began)
            await asyncio.sleep(delay_s)

    async def _run(self, number: int) -> _End:
        """Run a worker to its end."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self._sockets[number].fileno()]
            )
        except OSError as error:
            log.error("worker_not_started", worker=number, reason=str(error))  # noqa: TRY400 - the text says it all
            return _End(served=False, exit_status=None)
        try:
            served = await self._bring_up(number, process)
            return _End(served=served, exit_status=await process.wait())
        finally:
            await self._end(number, process)

    async def _bring_up(self, number: int, process: asyncio.subprocess.Process) -> bool:
        """Give a worker its job and wait until it serves; return False when it ends before."""
        stdin, stdout = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
        stdin.write(
            Job(
                number=number,
                listening_fd=self._sockets[number].fileno(),
                public_url=self._public_url,
                settings=self._settings,
            ).encode()
        )
        served = await stdout.readline() == _READY
        if served:
            log.info("worker_ready", worker=number, pid=process.pid)
            self._ready[number].set()
        return served

    async def _end(self, number: int, process: asyncio.subprocess.Process) -> None:
        """Have a worker drain if it still runs, and kill it if that takes too long."""
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._settings.config.server.shutdown_timeout_s + _END_S):
                await process.wait()
        except TimeoutError:
            log.error("worker_killed", worker=number)  # noqa: TRY400 - the text says it all
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()


def _next_delay_s(previous_s: float, *, lived_s: float) -> float:
    """Return how long to wait before the next start: twice as long each time, until a worker has lived long."""
    return _FIRST_DELAY_S if lived_s >= _STEADY_S else min(max(2 * previous_s, _FIRST_DELAY_S), _MAX_DELAY_S)


def _give_up(number: int, end: _End) -> Misconfigured | Unavailable:
    match end.exit_status:
        case None:
            how = "could not be started"
        case status if status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        case status:
            how = f"ended with status {status}"
    text = f"worker {number} {how}, {_MAX_FAILED_STARTS} times before it could serve: see its messages before this one"
    return Misconfigured(text) if end.exit_status == _MISCONFIGURED_STATUS else Unavailable(text)
