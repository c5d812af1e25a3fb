"""A site of one or several server processes on one store: for tests that run, kill and race them from one event loop.

Beside it a ledger: the rows of the store, read without the product's own code and without being in its way.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
from aiohttp import ClientSession

from scep_ra.config_file import CONFIG_FILE_NAME
from scep_ra.pki.certificates import Certificate
from tests.support.crashing_server import DIRECTORY, CrashDirectory
from tests.support.openssl import read_pem
from tests.support.server import environment

# A loaded machine may take its time; a test that meets this has failed.
PATIENCE_S: Final = 30.0
# A traceback is one line of JSON.
_LONGEST_LINE: Final = 1 << 20
_NAMED: Final = '[server]\nnode = "{}"\n'


class Ledger(Protocol):
    """What the store holds."""

    async def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteLedger:
    """The file, opened so that neither its log is merged nor anything else is changed."""

    path: Path

    async def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        return await asyncio.to_thread(self._read, sql)

    def _read(self, sql: str) -> Sequence[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlLedger:
    """A database on a server."""

    dsn: str

    async def rows(self, sql: str) -> Sequence[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A data directory and the store that goes with it."""

    data: Path
    ledger: Ledger

    @property
    def ra_certificate(self) -> Certificate:
        """Return what clients encrypt to, once a server has made it."""
        return read_pem(self.data / "ra/default/ra.pem")[0]

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run `scep-ra` on this site; return exit status and output."""
        process = await asyncio.create_subprocess_exec(
            *_command("scep_ra", self, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


def make_site(parent: Path, *, dsn: str | None = None, toml: str = "") -> Site:
    """Make a data directory; without the URL of a PostgreSQL database the store is SQLite."""
    data = parent / "var"
    data.mkdir(mode=0o700, parents=True)
    storage = "" if dsn is None else f'[storage]\ntype = "postgresql"\ndsn = "{dsn}"\n'
    (data / CONFIG_FILE_NAME).write_text(_NAMED.format("first") + storage + toml)
    ledger = SqliteLedger(path=data / "scep-ra.sqlite") if dsn is None else PostgresqlLedger(dsn=dsn)
    return Site(data=data, ledger=ledger)


def make_twin(site: Site, parent: Path) -> Site:
    """Make the data directory of a second node on the same store, with the same keys and configuration."""
    twin = Site(data=parent / "var", ledger=site.ledger)
    shutil.copytree(site.data, twin.data)
    config = twin.data / CONFIG_FILE_NAME
    # Each node has an audit chain of its own.
    config.write_text(config.read_text().replace(_NAMED.format("first"), _NAMED.format("second")))
    return twin


def _command(module: str, site: Site, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, "--data", str(site.data), *arguments]


class NodeLog:
    """What a server writes to standard error, as records."""

    def __init__(self) -> None:
        self.text = ""
        self._records: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()

    async def follow(self, stream: asyncio.StreamReader) -> None:
        """Read to the end of the stream."""
        async for line in stream:
            self.text += line.decode()
            if line.startswith(b"{"):
                self._records.append(json.loads(line))
            async with self._changed:
                self._changed.notify_all()

    def events(self, name: str) -> Sequence[dict[str, Any]]:
        return [record for record in self._records if record["event"] == name]

    async def wait_for(self, name: str, *, times: int = 1) -> Sequence[dict[str, Any]]:
        """Wait until an event has been logged so often."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.events(name)) >= times)
        return self.events(name)

    def faults(self) -> Sequence[str]:
        """Return a sentence where the server met a bug of its own."""
        has_bug = "Traceback" in self.text or "internal_error" in self.text
        return [f"the server met a bug:\n{self.text}"] if has_bug else []


@dataclass(kw_only=True)
class Node:
    """A server process."""

    process: asyncio.subprocess.Process
    log: NodeLog = field(default_factory=NodeLog, repr=False)
    base_url: str = ""
    _reading: asyncio.Task[None] = field(repr=False)

    @classmethod
    @asynccontextmanager
    async def spawn(
        cls, site: Site, *options: str, crash: CrashDirectory | None = None, under: Sequence[str] = ()
    ) -> AsyncIterator[Node]:
        """Start a server, one that can be made to crash if there is a directory for that; kill it after the block.

        `under` is a program that starts it in its place.
        """
        module = "scep_ra" if crash is None else "tests.support.crashing_server"
        extra = {} if crash is None else {DIRECTORY: str(crash.path)}
        process = await asyncio.create_subprocess_exec(
            *under,
            *_command(module, site, "serve", "--port", "0", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**environment(), **extra},
            limit=_LONGEST_LINE,
        )
        assert process.stderr is not None
        log = NodeLog()
        node = cls(process=process, log=log, _reading=asyncio.create_task(log.follow(process.stderr)))
        try:
            yield node
        finally:
            if process.returncode is None:
                process.kill()
            await node.wait_end()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, site: Site, *options: str, crash: CrashDirectory | None = None, under: Sequence[str] = ()
    ) -> AsyncIterator[Node]:
        """Lend a server that is ready, and have it end in good order after the block."""
        async with cls.spawn(site, *options, crash=crash, under=under) as node:
            if not await node.is_ready():
                await node.wait_end()
                raise AssertionError(f"the server did not start:\n{node.log.text}")
            yield node
            await node.stop()

    async def is_ready(self) -> bool:
        """Wait until /readyz says yes, and return False if the process ends before it listens."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            lines = [await self.process.stdout.readline() for _ in range(2)]
        if not lines[1]:
            return False
        self.base_url = lines[1].decode().strip().partition("/scep/")[0]
        async with ClientSession() as session, session.get(f"{self.base_url}/readyz") as response:
            assert response.status == 200, await response.text()
        return True

    async def wait_end(self) -> int:
        """Wait for the end of the process and return its exit status, negative for a signal."""
        async with asyncio.timeout(PATIENCE_S):
            assert self.process.stdout is not None
            await self.process.stdout.read()
            await self._reading
            await self.process.wait()
        assert self.process.returncode is not None
        return self.process.returncode

    async def stop(self) -> None:
        """Send SIGTERM and insist on an orderly end."""
        self.process.send_signal(signal.SIGTERM)
        status = await self.wait_end()
        assert status == 0, self.log.text
        assert not self.log.faults()
