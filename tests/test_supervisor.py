"""Claims about the parent of several workers and about a worker; `tests/interop/test_workers.py` has real ones.

The parent runs in this process. Its workers here are small programs that do what a test tells them by a socket.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from scep_ra import app, supervisor
from scep_ra.config import Config, Settings
from scep_ra.endpoints import Parts
from scep_ra.errors import BackendError, Misconfigured, Unavailable
from scep_ra.parts import load_cas, load_ras, utc_now
from scep_ra.supervisor import Job, supervise, work
from tests.support.enrollment import Clock, Gate, Office, ScriptedAuthorizer, ScriptedCA

# Reports its job, then obeys: "ready", "deaf" (to SIGTERM), or the exit status to end with.
PUPPET: Final = """
import os, signal, socket, sys
job = sys.stdin.buffer.readline()
with socket.socket(socket.AF_UNIX) as stage:
    stage.connect(sys.argv[1])
    stage.sendall(job)
    for line in stage.makefile():
        match line.strip():
            case "ready":
                os.write(1, b"ready\\n")
            case "deaf":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                stage.sendall(b"deaf\\n")
            case status:
                sys.exit(int(status))
"""


@dataclass(frozen=True, kw_only=True)
class Puppet:
    """A worker that does as it is told."""

    job: Job
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def tell(self, word: str) -> None:
        self.writer.write(f"{word}\n".encode())

    async def end(self) -> None:
        """Wait until it is no more."""
        assert await self.reader.read() == b""


class Stage:
    """Where the workers of a supervisor report; they stay where they are until told otherwise."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.announced = asyncio.Event()
        self._arrivals: asyncio.Queue[Puppet] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._path = settings.data_dir / "stage"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run a supervisor, whose task is yielded, and end it with the block."""
        async with await asyncio.start_unix_server(self._arrive, self._path):
            command = [sys.executable, "-c", PUPPET, str(self._path)]
            task = asyncio.create_task(supervise(self.settings, command, self._announce))
            try:
                yield task
            finally:
                task.cancel()
                await asyncio.wait([task])
                for writer in self._writers:
                    writer.close()
                    with suppress(ConnectionError):
                        await writer.wait_closed()

    def _announce(self, _parts: Parts) -> None:
        self.announced.set()

    async def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if line := await reader.readline():  # a worker may be ended at any moment
            await self._arrivals.put(Puppet(job=Job.parse(line), reader=reader, writer=writer))

    async def next(self) -> Puppet:
        return await self._arrivals.get()

    async def all_ready(self) -> dict[int, Puppet]:
        """Let every worker be ready; return them by number."""
        puppets = [await self.next() for _ in range(self.settings.config.server.workers)]
        for puppet in puppets:
            puppet.tell("ready")
        await self.announced.wait()
        return {puppet.job.number: puppet for puppet in puppets}


@pytest.fixture(scope="module")
def made_before(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a data directory whose keys are made once for all tests."""
    config = Config.model_validate(
        {
            "server": {"port": 0, "workers": 2, "shutdown_timeout_s": 5.0},
            "ca": {"default": {"key_type": "ec-p256", "tiers": 1}},
        }
    )
    settings = Settings(config=config, config_file=None, data_dir=tmp_path_factory.mktemp("made") / "var")
    load_cas(settings)
    load_ras(settings)
    return settings


@pytest.fixture
def settings(made_before: Settings, tmp_path: Path) -> Settings:
    return made_before.model_copy(update={"data_dir": shutil.copytree(made_before.data_dir, tmp_path / "var")})


@pytest.fixture
def stage(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(supervisor, "_FIRST_DELAY_S", 0)
    return Stage(settings)


def port_of(job: Job) -> int:
    return int(job.public_url.rpartition(":")[2])


# --- up ------------------------------------------------------------------------------------------------------------


async def test_each_worker_gets_the_settings_the_url_and_a_listening_socket_of_its_own(stage: Stage) -> None:
    """All sockets on the one port, and the store is there before the first worker is."""
    async with stage.open():
        puppets = await stage.all_ready()
        jobs = [puppet.job for _, puppet in sorted(puppets.items())]

        assert [job.number for job in jobs] == [1, 2]
        assert [job.settings for job in jobs] == [stage.settings] * 2
        assert len({job.listening_fd for job in jobs}) == 2
        for job in jobs:
            # The parent, this process, knows the socket by the same number.
            with socket.socket(fileno=os.dup(job.listening_fd)) as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                assert sock.getsockname()[1] == port_of(jobs[0])
        assert (stage.settings.data_dir / "scep-ra.sqlite").exists()


async def test_a_second_server_is_kept_off_the_port(stage: Stage) -> None:
    """Though the sockets of the workers share it."""
    async with stage.open():
        job = (await stage.next()).job
        with pytest.raises(Misconfigured, match=f"cannot listen on 127.0.0.1 port {port_of(job)}"):
            app.bind_socket("127.0.0.1", port_of(job))


async def test_connections_are_spread_over_the_sockets(stage: Stage) -> None:
    """By the kernel, so that no worker can take more than its share of a burst."""
    async with stage.open():
        puppets = await stage.all_ready()
        job = puppets[1].job
        clients = [socket.create_connection(("127.0.0.1", port_of(job))) for _ in range(64)]
        accepted = []
        with socket.socket(fileno=os.dup(job.listening_fd)) as sock, suppress(BlockingIOError):
            sock.setblocking(False)
            while True:
                accepted.append(sock.accept()[0])
        for each in (*clients, *accepted):
            each.close()
    # 64 tosses of a coin: fewer than 8 or more than 56 heads come once in 10^10.
    assert 8 <= len(accepted) <= 56


def spoil_configuration(settings: Settings) -> Settings:
    (settings.data_dir / "ca" / "default" / "issuing.key").write_text("no key")
    return settings


async def test_what_no_worker_could_do_is_said_before_any_starts(stage: Stage) -> None:
    """Keys, tables and parts are looked at once, by the parent."""
    spoil_configuration(stage.settings)
    async with stage.open() as running:
        with pytest.raises(Misconfigured, match=r"issuing\.key"):
            await running


# --- deaths --------------------------------------------------------------------------------------------------------


async def test_a_worker_that_dies_is_replaced_and_the_other_goes_on(stage: Stage) -> None:
    """With the same number and socket; the log has the exit status."""
    with capture_logs() as log:
        async with stage.open():
            puppets = await stage.all_ready()
            puppets[2].tell("7")
            successor = await stage.next()
            assert (successor.job.number, successor.job.listening_fd) == (2, puppets[2].job.listening_fd)
            assert not puppets[1].reader.at_eof()

    (death,) = [line for line in log if line["event"] == "worker_died"]
    assert death == {"event": "worker_died", "log_level": "error", "worker": 2, "exit_status": 7, "served": True}


@pytest.mark.parametrize(
    ("last_words", "error", "text"),
    [
        ("2", Misconfigured, "worker 1 ended with status 2, 3 times before it could serve"),
        ("3", Unavailable, "worker 1 ended with status 3, 3 times before it could serve"),
    ],
)
async def test_a_worker_that_never_serves_ends_the_server(
    stage: Stage, last_words: str, error: type[BackendError], text: str
) -> None:
    """With the kind of error that it had; the other worker is ended, and nothing was announced."""
    async with stage.open() as running:
        puppets = {puppet.job.number: puppet for puppet in [await stage.next(), await stage.next()]}
        puppets[2].tell("ready")
        puppets[1].tell(last_words)
        for _ in range(2):
            (await stage.next()).tell(last_words)
        with pytest.raises(error, match=text):
            await running
        await puppets[2].end()
    assert not stage.announced.is_set()


async def test_a_start_that_succeeds_forgives_the_failed_ones(stage: Stage) -> None:
    """Two failures, a life, two failures: the server goes on."""
    async with stage.open() as running:
        first, second = [await stage.next(), await stage.next()]
        second.tell("ready")
        first.tell("1")
        for word in ("1", "ready"):
            current = await stage.next()
            current.tell(word)
        await stage.announced.wait()
        current.tell("1")
        for word in ("1", "1"):
            (await stage.next()).tell(word)
        await stage.next()
        assert not running.done()


async def test_a_worker_ended_by_a_signal_before_it_serves_is_said_with_its_name(settings: Settings) -> None:
    """What the kernel does when memory is short."""
    settings = with_server(settings, workers=1)
    command = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    with pytest.raises(Unavailable, match="worker 1 was ended by SIGKILL"):
        await supervise(settings, command, nobody)


async def test_a_program_that_is_gone_ends_the_server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade may have removed it."""
    monkeypatch.setattr(supervisor, "_FIRST_DELAY_S", 0)
    with capture_logs() as log, pytest.raises(Unavailable, match=r"worker . could not be started, 3 times"):
        await supervise(settings, ["/nonexistent/python"], nobody)
    assert any("/nonexistent/python" in line["reason"] for line in log if line["event"] == "worker_not_started")


def nobody(_parts: Parts) -> None:
    pytest.fail("nothing serves")


def with_server(settings: Settings, **changes: Any) -> Settings:
    server = settings.config.server.model_copy(update=changes)
    return settings.model_copy(update={"config": settings.config.model_copy(update={"server": server})})


def test_restarts_come_slower_until_a_worker_lives_long() -> None:
    """Half a second, then twice as long each time, five seconds at most."""
    delays = [0.0]
    for _ in range(6):
        delays.append(supervisor._next_delay_s(delays[-1], lived_s=1.0))
    assert delays[1:] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert supervisor._next_delay_s(5.0, lived_s=60.0) == 0.5


# --- down ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_all_workers_and_frees_the_port(stage: Stage, number: signal.Signals) -> None:
    """The parent waits for them."""
    async with stage.open() as running:
        puppets = await stage.all_ready()
        os.kill(os.getpid(), number)
        await running
        for puppet in puppets.values():
            await puppet.end()
    app.bind_socket("127.0.0.1", port_of(puppets[1].job)).close()


async def test_a_signal_before_the_workers_are_ready_ends_them_too(stage: Stage) -> None:
    """Nothing is announced then."""
    async with stage.open() as running:
        puppet = await stage.next()
        os.kill(os.getpid(), signal.SIGTERM)
        await running
        await puppet.end()
    assert not stage.announced.is_set()


async def test_a_worker_that_does_not_end_is_killed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that it has to drain."""
    monkeypatch.setattr(supervisor, "_END_S", 0)
    stage.settings = with_server(stage.settings, shutdown_timeout_s=0.05)
    with capture_logs() as log:
        async with stage.open() as running:
            puppets = await stage.all_ready()
            puppets[1].tell("deaf")
            assert await puppets[1].reader.readline() == b"deaf\n"
            os.kill(os.getpid(), signal.SIGTERM)
            await running
            await puppets[1].end()
    assert [line["worker"] for line in log if line["event"] == "worker_killed"] == [1]


async def test_a_worker_that_ended_by_the_signal_to_the_whole_group_is_not_missed(settings: Settings) -> None:
    """Ctrl-C in a terminal reaches the workers without the parent's help."""
    stop = asyncio.Event()
    stop.set()
    with app.bind_socket("127.0.0.1", 0) as sock, capture_logs() as log:
        crew = supervisor._Crew(settings, [sys.executable, "-c", ""], [sock], "http://127.0.0.1", stop)
        await crew.keep(1)
    assert log == []


# --- the worker ----------------------------------------------------------------------------------------------------


def test_nobody_is_a_worker_by_hand() -> None:
    """Without a job the error says what to call instead."""
    with pytest.raises(Misconfigured, match="--workers N"):
        Job.parse(b"")


class Parent:
    """What a worker has of its parent: descriptors, and at their other ends sockets."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self.output, self._output = socket.socketpair()
        self.life_line, self._life_line = socket.socketpair()
        self.address = sock.getsockname()
        url = f"http://127.0.0.1:{self.address[1]}"
        self._job = Job(number=3, listening_fd=os.dup(sock.fileno()), public_url=url, settings=settings)

    async def work(self) -> None:
        """Run a worker in this process."""
        with self._life_line, self._output:
            await work(self._job, life_line=self._life_line.fileno(), output=self._output.fileno())


@pytest.fixture
async def parent(settings: Settings) -> AsyncIterator[Parent]:
    with app.bind_socket("127.0.0.1", 0) as sock:
        await app.prepare(settings, "")
        parent = Parent(settings, sock)
        with parent.output, parent.life_line:
            yield parent


async def test_a_worker_serves_and_ends_with_its_parent(parent: Parent) -> None:
    """The life line is there as long as the parent lives, whatever killed it; log lines have the worker's number."""
    with capture_logs([structlog.contextvars.merge_contextvars]) as log:
        working = asyncio.create_task(parent.work())
        parent.output.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(parent.output, 100) == b"ready\n"
        _, writer = await asyncio.open_connection(*parent.address)
        writer.close()
        parent.life_line.close()
        await working
    (line,) = [line for line in log if line["event"] == "parent_gone"]
    assert line["worker"] == 3


async def test_a_worker_whose_parent_dies_during_the_start_ends_quietly(parent: Parent) -> None:
    """There is nobody to be told that it is ready."""
    parent.life_line.close()
    parent.output.close()
    await parent.work()


# --- unfinished business -------------------------------------------------------------------------------------------


async def test_an_intent_at_which_another_worker_is_just_now_is_left_alone_and_could_bear_it(
    settings: Settings,
) -> None:
    """Housekeeping takes older ones only; and were it taken, both would have the same certificate."""
    clock, gate = Clock(), Gate()
    clock.now = utc_now()
    async with app._assembled(settings, "http://127.0.0.1") as server, app._assembled(settings, "") as other:
        authority: Any = other.parts.authorities["default"]
        office = Office(
            store=other.parts.store,
            authorizer=ScriptedAuthorizer(),
            ca=ScriptedCA(authority, gate),
            clock=clock,
        )
        enrolling = asyncio.create_task(office.enroll())
        await gate.entered.wait()

        await server.keep_house_once()
        assert await server.parts.store.list_certificates() == []
        await server.resolve_intents(timedelta(0))
        (stored,) = await server.parts.store.list_certificates()

        gate.opened.set()
        assert (await enrolling).der == stored.der
        assert len(await server.parts.store.list_certificates()) == 1
