"""A real PostgreSQL server for the tests, on a socket in a directory of its own and on no port."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.programs import require_program

SUPERUSER: Final = "postgres"
_CONFIGURATION: Final = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 60
max_wal_size = 128MB
shared_buffers = 16MB
deadlock_timeout = 50ms
"""
# Where Debian keeps the programs of each version of the server, which are on nobody's PATH.
_DEBIAN: Final = Path("/usr/lib/postgresql")
_MEMORY: Final = Path("/dev/shm")
# A fresh server has 40 MB, its log 128 MB (max_wal_size), each database 8 MB.
_ROOM_BYTES: Final = 600 << 20
_PATIENCE_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlServer:
    """A server that can be stopped, crashed and started again."""

    binaries: Path
    directory: Path  # for its data and its socket

    def dsn(self, database: str, role: str = SUPERUSER) -> str:
        """Return the URL of a database."""
        return f"postgresql://{role}@/{database}?host={self.directory}"

    def initialise(self) -> None:
        """Make its data directory."""
        data = self.directory / "data"
        self._run("initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        with (data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION.format(directory=self.directory))

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._control("start", "-l", self.directory / "log")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End it: "fast" in order though clients are connected, "immediate" as in a crash."""
        self._control("stop", "-m", mode)

    def is_running(self) -> bool:
        return (self.directory / "data" / "postmaster.pid").exists()

    def sql(self, statement: str, *, dsn: str | None = None) -> str:
        """Run SQL as the superuser, in the database of this URL if it matters, and return what it printed."""
        return self._run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dsn or self.dsn("postgres"), "-c", statement)

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """Make an empty database, lend its URL, and drop it."""
        name = f"test_{secrets.token_hex(6)}"
        self.sql(f"CREATE DATABASE {name}")
        yield self.dsn(name)
        if not self.is_running():
            self.start()
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")

    def new_guarded_database(self, role: str, *, password: str) -> str:
        """Make a role that needs a password, and a database of its own; return its URL, which has no password."""
        self.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        self.sql(f"CREATE DATABASE {role} OWNER {role}")
        rules = self.directory / "data" / "pg_hba.conf"
        rules.write_text(f"local {role} {role} scram-sha-256\n{rules.read_text()}")
        self.sql("SELECT pg_reload_conf()")
        return self.dsn(role, role)

    def set(self, setting: str, value: str) -> None:
        """Change a setting for all who are connected, and wait until it is in force."""
        self.sql(f"ALTER SYSTEM SET {setting} = {value}")
        self.sql("SELECT pg_reload_conf()")
        # The reload is a signal, and each connection gets the settings that are in force when it begins.
        while value not in self.sql(f"SHOW {setting}").split():
            continue

    def _control(self, *arguments: str | Path) -> None:
        self._run("pg_ctl", "-D", self.directory / "data", "-w", "-t", str(_PATIENCE_S), *arguments)

    def _run(self, program: str, *arguments: str | Path) -> str:
        # Into files: a server that pg_ctl leaves behind would hold a pipe open.
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            command = [self.binaries / program, *arguments]
            done = subprocess.run(
                command,
                check=False,
                cwd=self.directory,
                stdout=output,
                stderr=errors,
                timeout=_PATIENCE_S,
                **_unprivileged(),
            )
            output.seek(0)
            errors.seek(0)
            assert done.returncode == 0, f"{program}: {errors.read()}"
            return output.read().strip()


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """Start a server and remove it at the end; without Debian's package skip the test, or fail it where CI=true."""
    binaries = _find_binaries()
    # Not in a directory of pytest, which only its user may enter, and whose path is too long for a socket.
    directory = Path(tempfile.mkdtemp(prefix="scep-ra-pg-", dir=_find_room()))
    server = PostgresqlServer(binaries=binaries, directory=directory)
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, SUPERUSER)
        server.initialise()
        server.start()
        yield server
    finally:
        if server.is_running():
            server.stop("immediate")
        shutil.rmtree(directory)


def _find_binaries() -> Path:
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "postgres").exists()]
    if versions:
        return max(versions, key=lambda path: float(path.parent.name))
    return Path(require_program("postgres", package="postgresql").path).resolve().parent


def _find_room() -> Path | None:
    """Return a directory in memory, where fsync costs nothing, if there is one with room; None = the usual one."""
    is_roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
    return _MEMORY if is_roomy else None


def _unprivileged() -> dict[str, Any]:
    """Return the arguments of a process that must not be root, as PostgreSQL insists."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(SUPERUSER)  # made by Debian's package
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
