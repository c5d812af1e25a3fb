"""A real OpenLDAP server on 127.0.0.1 and a Unix socket, with a configuration, a schema and devices of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.support.programs import Program, require_program
from tests.support.tls import ServerFiles, write_server_files

BASE: Final = "ou=devices,dc=example,dc=com"
READER: Final = "cn=reader,dc=example,dc=com"
ADMINISTRATOR: Final = "cn=admin,dc=example,dc=com"
LIMITED_READER: Final = "cn=limited,dc=example,dc=com"
PASSWORD: Final = "reader's pass"
_PATIENCE_S: Final = 20.0
_SCHEMA: Final = """
attributetype ( 1.3.6.1.4.1.4203.666.11.100.1 NAME 'raDeviceStatus'
    EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.11.100.2 NAME 'raDeviceImei'
    EQUALITY numericStringMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.36 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.11.100.3 NAME 'raDeviceService'
    EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.4203.666.11.100.4 NAME 'raDeviceFlag'
    EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.11.100.5 NAME 'raDeviceBlob'
    SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
attributetype ( 1.3.6.1.4.1.4203.666.11.100.6 NAME 'raDeviceProfile'
    EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.4203.666.11.100.7 NAME 'raDeviceUntil'
    EQUALITY caseExactMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.4203.666.11.100.10 NAME 'raDevice' SUP top AUXILIARY
    MAY ( raDeviceStatus $ raDeviceImei $ raDeviceService $ raDeviceFlag $ raDeviceBlob $ raDeviceProfile $
        raDeviceUntil ) )
"""
_CONFIGURATION: Final = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include {directory}/radevice.schema
pidfile {directory}/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCACertificateFile {tls.ca}
TLSCertificateFile {tls.certificate}
TLSCertificateKeyFile {tls.key}
access to attrs=userPassword by anonymous auth by * none
access to * by * read
database mdb
suffix "dc=example,dc=com"
rootdn "{administrator}"
rootpw "{password}"
directory {directory}/data
maxsize 16777216
limits dn.exact="{limited}" size=1
"""
_ENTRIES: Final = """
dn: dc=example,dc=com
objectClass: domain
dc: example

dn: cn=reader,dc=example,dc=com
objectClass: person
cn: reader
sn: reader
userPassword: {password}

dn: cn=limited,dc=example,dc=com
objectClass: person
cn: limited
sn: limited
userPassword: {password}

dn: ou=devices,dc=example,dc=com
objectClass: organizationalUnit
ou: devices

dn: cn=first,ou=devices,dc=example,dc=com
objectClass: device
objectClass: raDevice
cn: first
serialNumber: SN123
description: alice
l: Café
raDeviceStatus: approved
raDeviceImei: 004999010640000
raDeviceFlag: TRUE
raDeviceService: vpn
raDeviceService: wifi
raDeviceBlob:: /wD+

dn: cn=blocked,ou=devices,dc=example,dc=com
objectClass: device
objectClass: raDevice
cn: blocked
serialNumber: SN-BLOCKED
raDeviceStatus: blocked

dn: cn=twin 1,ou=devices,dc=example,dc=com
objectClass: device
objectClass: raDevice
cn: twin 1
serialNumber: SN-TWIN

dn: cn=twin 2,ou=devices,dc=example,dc=com
objectClass: device
objectClass: raDevice
cn: twin 2
serialNumber: SN-TWIN

dn: ou=elsewhere,dc=example,dc=com
objectClass: extensibleObject
objectClass: referral
ou: elsewhere
ref: ldap://127.0.0.1:9/ou=elsewhere,dc=example,dc=com
"""


@dataclass(kw_only=True)
class Slapd:
    """A server that can be held, ended and started again."""

    program: Program
    directory: Path
    tls: ServerFiles
    port: int
    port_tls: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def url_tls(self) -> str:
        return f"ldaps://127.0.0.1:{self.port_tls}"

    @property
    def url_socket(self) -> str:
        return f"ldapi://{quote(str(self.directory / 'socket'), safe='')}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.program.path,
                    *("-h", f"{self.url} {self.url_tls} {self.url_socket}"),
                    *("-f", self.directory / "slapd.conf"),
                    *("-d", "0"),  # in the foreground
                ],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _PATIENCE_S
        while not self._listens():
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < end, "slapd does not listen"

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(_PATIENCE_S)

    def hold(self) -> None:
        """Let it stand still: the kernel goes on accepting connections for it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)  # until the last of its threads stands

    def release(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def add(self, ldif: str) -> None:
        """Add entries, as an administrator would."""
        file = self.directory / "added.ldif"
        file.write_text(ldif, "utf-8")
        program = require_program("ldapadd", package="ldap-utils")
        added = program("-H", self.url, "-x", "-D", ADMINISTRATOR, "-w", PASSWORD, "-f", file, cwd=self.directory)
        assert added.returncode == 0, added.stderr

    def _listens(self) -> bool:
        with socket.socket(socket.AF_INET) as probe:
            # It takes up its sockets in the order of -h, and answers when it has all.
            return probe.connect_ex(("127.0.0.1", self.port_tls)) == 0 and (self.directory / "socket").exists()


@contextmanager
def running_slapd() -> Iterator[Slapd]:
    """Start a server with a few devices; without Debian's package skip the test, or fail it where CI=true."""
    program = require_program("slapd", package="slapd")
    # The path of a socket must be short.
    directory = Path(tempfile.mkdtemp(prefix="scep-ra-slapd-"))
    server = Slapd(
        program=program,
        directory=directory,
        tls=write_server_files(directory, owner="slapd"),
        port=_free_port(),
        port_tls=_free_port(),
    )
    try:
        _prepare(server)
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.process.kill()
            server.process.wait(_PATIENCE_S)
        shutil.rmtree(directory)


def _prepare(server: Slapd) -> None:
    directory = server.directory
    (directory / "data").mkdir()
    (directory / "radevice.schema").write_text(_SCHEMA)
    (directory / "slapd.conf").write_text(
        _CONFIGURATION.format(
            directory=directory, tls=server.tls, limited=LIMITED_READER, administrator=ADMINISTRATOR, password=PASSWORD
        )
    )
    (directory / "entries.ldif").write_text(_ENTRIES.format(password=PASSWORD), "utf-8")
    added = require_program("slapadd", package="slapd")(
        "-f", directory / "slapd.conf", "-l", directory / "entries.ldif", cwd=directory
    )
    assert added.returncode == 0, added.stderr


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
