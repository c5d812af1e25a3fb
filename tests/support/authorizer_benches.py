"""Authorizers together with whatever answers them, so that one contract is played on all of them.

A bench tells its peer whom to permit, and can take it away. Who adds a backend adds a bench to BENCHES.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from enum import Enum, auto
from pathlib import Path
from typing import Final

from aiohttp import web

from scep_ra.aaa.accept_all import AcceptAll
from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import AccessRequest, Authorizer, Decision, Reject, SupportsClose
from scep_ra.aaa.chain import AllOf, AnyOf, FirstOf, Members
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.aaa.guard import Guard, GuardRules
from scep_ra.aaa.registry import Parts, load_authorizer
from scep_ra.config_aaa import (
    GUARD_KEYS,
    AuthorizerTable,
    CommandConfig,
    HttpConfig,
    LdapConfig,
    RadiusConfig,
    SqlConfig,
)
from scep_ra.errors import Unavailable
from scep_ra.identity.types import DeviceID
from scep_ra.radius.packets import Code, Packet, decode_request, encode_reply
from scep_ra.storage.base import Device, Store
from scep_ra.storage.sql import SqlStore
from scep_ra.storage.sqlite import SqliteDatabase
from tests.support.authorizers import Scripted, Stopwatch
from tests.support.radius_server import SECRET, fake_server
from tests.support.records import NOW
from tests.support.slapd import BASE, Slapd, running_slapd
from tests.support.webhook_server import WebhookServer, reply, webhook_server

Attributes = Mapping[str, Sequence[str]]
NOTHING: Final[Attributes] = {}


class Can(Enum):
    """What a bench is able to do, besides permitting a device."""

    REFUSE = auto()  # there are devices that get a no
    SHAPE = auto()  # attributes come with a yes
    LEAVE = auto()  # the peer can be gone
    HUSH = auto()  # the peer can be there and say nothing


class Bench:
    """An authorizer and its peer, which knows nobody at first."""

    can: frozenset[Can] = frozenset()

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer: Final = authorizer

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        """Let the peer say yes to a device, with these attributes."""

    async def refuse(self, device_id: DeviceID) -> None:
        """Let the peer say no to a device that it knows."""

    async def leave(self) -> None:
        """Let the peer be gone."""

    async def come_back(self) -> None:
        """Let the peer be there again, knowing what it knew."""

    async def hush(self) -> None:
        """Let the peer answer nothing."""

    async def speak(self) -> None:
        """Let the peer answer again."""


BenchMaker = Callable[[Path], AbstractAsyncContextManager[Bench]]


# --- the embedded registry -----------------------------------------------------------------------------------------


class RegistryBench(Bench):
    """Entries are rows of our own store, which is never away alone."""

    can = frozenset({Can.REFUSE, Can.SHAPE})

    def __init__(self, store: Store) -> None:
        super().__init__(RegistryAuthorizer(store, lambda: NOW))
        self._store = store

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        said = accept_from(attributes)
        free = {name: value for name, value in said.attributes.items() if name != "user"}
        device = Device(
            device_id=device_id,
            created_at=NOW,
            user=said.attributes.get("user", ""),
            valid_until=said.not_after,
            services=tuple(sorted(said.services)),
            approval=said.approval,
            attributes={**free, **({"certificate_profile": said.profile} if said.profile else {})},
        )
        await self._store.add_device(device)

    async def refuse(self, device_id: DeviceID) -> None:
        await self._store.add_device(Device(device_id=device_id, created_at=NOW, enabled=False))


@asynccontextmanager
async def registry(directory: Path) -> AsyncIterator[Bench]:
    store = SqlStore(await SqliteDatabase.open(directory / "store.sqlite"))
    yield RegistryBench(store)
    await store.close()


@asynccontextmanager
async def accept_all(_directory: Path) -> AsyncIterator[Bench]:
    yield Bench(AcceptAll())


# --- a plug-in, alone and in chains --------------------------------------------------------------------------------


class Guests:
    """A plug-in with a list."""

    def __init__(self) -> None:
        self.list: dict[DeviceID, Attributes | None] = {}  # None: not welcome
        self.is_gone = False
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def authorize(self, request: AccessRequest) -> Decision:
        await self.check()
        attributes = self.list.get(request.device_id)
        return Reject(reason="not on the list") if attributes is None else accept_from(attributes)

    async def check(self) -> None:
        await self.speaks.wait()
        if self.is_gone:
            raise Unavailable("nobody holds the list")


class GuestsBench(Bench):
    """The plug-in, or a chain that it is a member of."""

    can = frozenset(Can)

    def __init__(self, guests: Guests, authorizer: Authorizer) -> None:
        super().__init__(authorizer)
        self._guests = guests

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        self._guests.list[device_id] = attributes

    async def refuse(self, device_id: DeviceID) -> None:
        self._guests.list[device_id] = None

    async def leave(self) -> None:
        self._guests.is_gone = True

    async def come_back(self) -> None:
        self._guests.is_gone = False

    async def hush(self) -> None:
        self._guests.speaks.clear()

    async def speak(self) -> None:
        self._guests.speaks.set()


@asynccontextmanager
async def plug_in(_directory: Path) -> AsyncIterator[Bench]:
    guests = Guests()
    yield GuestsBench(guests, guests)


def in_chain(kind: Callable[[Members], Authorizer], other: Authorizer) -> BenchMaker:
    """Return the maker of a bench whose plug-in stands behind another member in a chain of this kind."""

    @asynccontextmanager
    async def make(_directory: Path) -> AsyncIterator[Bench]:
        guests = Guests()
        members = {"other": other, "guests": guarded("guests", guests, timeout_s=30)}
        yield GuestsBench(guests, guarded("chain", kind(members), timeout_s=30))

    return make


def guarded(name: str, authorizer: Authorizer, *, timeout_s: float) -> Guard:
    """Put an authorizer under a guard as the server does, with a breaker that does not get in the way."""
    rules = GuardRules(timeout_s=timeout_s, breaker_failures=1000, breaker_reset_s=30, cache_s=0)
    return Guard(name, authorizer, rules, Stopwatch())


# --- a RADIUS server -----------------------------------------------------------------------------------------------


class RadiusBench(Bench):
    """A server of ours that speaks as FreeRADIUS does, so that a device is known without restarting it."""

    can = frozenset({Can.REFUSE, Can.SHAPE, Can.HUSH})

    def __init__(self, authorizer: Authorizer, users: RadiusUsers) -> None:
        super().__init__(authorizer)
        self._users = users

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        self._users.entries[device_id.value] = attributes

    async def refuse(self, device_id: DeviceID) -> None:
        self._users.entries.pop(device_id.value, None)

    async def hush(self) -> None:
        self._users.is_silent = True

    async def speak(self) -> None:
        self._users.is_silent = False


class RadiusUsers:
    """The users file, as the script of a server."""

    def __init__(self) -> None:
        self.entries: dict[str, Attributes] = {}
        self.is_silent = False

    def __call__(self, octets: bytes, _count: int) -> Sequence[bytes]:
        if self.is_silent:
            return []
        request = decode_request(octets, SECRET)
        entry = next((self.entries[name] for name in request.texts("User-Name") if name in self.entries), None)
        code = Code.ACCESS_REJECT if entry is None else Code.ACCESS_ACCEPT
        texts = [f"scep-ra:{name}={value}" for name, values in (entry or {}).items() for value in values]
        pairs = tuple(("Cisco-AVPair", text) for text in ("pki:cert-application=all", *texts))
        return [encode_reply(Packet(code=code, attributes=pairs), request, SECRET)]


@asynccontextmanager
async def radius(directory: Path) -> AsyncIterator[Bench]:
    write_private(directory / "radius.secret", SECRET)
    users = RadiusUsers()
    async with fake_server(users) as server:
        table = RadiusConfig(servers=(str(server.address),), retransmit_s=0.05, tries=10)
        authorizer = made(table, directory)
        yield RadiusBench(authorizer, users)
        await closed(authorizer)


# --- a program -----------------------------------------------------------------------------------------------------


_PROGRAM: Final = """\
#!{python} -IS
import json, os, sys, time
directory = {directory!r}
device = json.load(sys.stdin)["device"]["id"]
while os.path.exists(os.path.join(directory, "silent")):
    time.sleep(0.01)
with open(os.path.join(directory, "devices.json")) as file:
    found = json.load(file).get(device)
print(json.dumps({{"attributes": found}} if found is not None else {{"reason": "unknown"}}))
sys.exit(found is None)
"""


class CommandBench(Bench):
    """A program that reads a file of devices."""

    can = frozenset({Can.REFUSE, Can.SHAPE, Can.HUSH})

    def __init__(self, authorizer: Authorizer, directory: Path) -> None:
        super().__init__(authorizer)
        self._directory = directory
        self._devices: dict[str, Attributes | None] = {}
        self._write()

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        self._devices[str(device_id)] = attributes
        self._write()

    async def refuse(self, device_id: DeviceID) -> None:
        self._devices[str(device_id)] = None
        self._write()

    async def hush(self) -> None:
        (self._directory / "silent").touch()

    async def speak(self) -> None:
        (self._directory / "silent").unlink()

    def _write(self) -> None:
        (self._directory / "devices.json").write_text(json.dumps(self._devices))


@asynccontextmanager
async def command(directory: Path) -> AsyncIterator[Bench]:
    program = directory / "authorize"
    program.write_text(_PROGRAM.format(python=sys.executable, directory=str(directory)))
    program.chmod(0o700)
    authorizer = made(CommandConfig(argv=(str(program),)), directory)
    yield CommandBench(authorizer, directory)
    await closed(authorizer)


# --- a web service -------------------------------------------------------------------------------------------------


class HttpBench(Bench):
    """A web service that answers by what it knows of devices."""

    can = frozenset(Can)

    def __init__(self, authorizer: Authorizer, server: WebhookServer) -> None:
        super().__init__(authorizer)
        self._server = server
        self._devices: dict[str, Attributes] = {}
        self._is_silent = False
        server.script = self._reply

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        self._devices[str(device_id)] = attributes

    async def refuse(self, device_id: DeviceID) -> None:
        self._devices.pop(str(device_id), None)

    async def leave(self) -> None:
        await self._server.stop()

    async def come_back(self) -> None:
        await self._server.start()

    async def hush(self) -> None:
        self._is_silent = True

    async def speak(self) -> None:
        self._is_silent = False

    def _reply(self, count: int) -> web.Response | None:
        received = self._server.received[count]
        if self._is_silent:
            return None
        if received.method == "HEAD":
            return web.Response()
        device = received.document["scepRa"]["deviceId"]
        found = self._devices.get(f"{device['kind']}:{device['value']}")
        return reply({"allow": found is not None, "data": {name: list(each) for name, each in (found or {}).items()}})


@asynccontextmanager
async def http(directory: Path) -> AsyncIterator[Bench]:
    async with webhook_server() as server:
        authorizer = made(HttpConfig(url=server.url), directory)
        yield HttpBench(authorizer, server)
        await closed(authorizer)


# --- a database ----------------------------------------------------------------------------------------------------


_COLUMNS: Final = ("user", "dns", "profile", "services", "valid_until", "approval")


class SqlBench(Bench):
    """A table of devices in a file of SQLite."""

    can = frozenset({Can.REFUSE, Can.SHAPE})

    def __init__(self, authorizer: Authorizer, database: sqlite3.Connection) -> None:
        super().__init__(authorizer)
        self._database = database

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        values = [next(iter(attributes.get(name, ())), None) for name in _COLUMNS]
        self._insert(device_id, 1, *values)

    async def refuse(self, device_id: DeviceID) -> None:
        self._insert(device_id, 0, *(None for _ in _COLUMNS))

    def _insert(self, device_id: DeviceID, *values: object) -> None:
        marks = ", ".join("?" for _ in values)
        self._database.execute(f"INSERT INTO devices VALUES (?, {marks})", (str(device_id), *values))
        self._database.commit()


@asynccontextmanager
async def sql(directory: Path) -> AsyncIterator[Bench]:
    names = ", ".join(f'"{name}"' for name in _COLUMNS)
    with closing(sqlite3.connect(directory / "devices.sqlite")) as database:
        database.execute(f"CREATE TABLE devices (device TEXT PRIMARY KEY, allow INTEGER, {names})")
        authorizer = made(SqlConfig(authorize=f"SELECT allow, {names} FROM devices WHERE device = :device"), directory)
        yield SqlBench(authorizer, database)
        await closed(authorizer)


# --- a directory ---------------------------------------------------------------------------------------------------


_LDAP_NAMES: Final = {
    "user": "description",
    "dns": "l",
    "profile": "raDeviceProfile",
    "services": "raDeviceService",
    "valid_until": "raDeviceUntil",
    "approval": "raDeviceFlag",
}


class LdapBench(Bench):
    """A real OpenLDAP server: the contract is about what it takes for equal, too."""

    can = frozenset(Can)

    def __init__(self, authorizer: Authorizer, slapd: Slapd) -> None:
        super().__init__(authorizer)
        self._slapd = slapd

    async def permit(self, device_id: DeviceID, attributes: Attributes = NOTHING) -> None:
        self._add(device_id, "approved", attributes)

    async def refuse(self, device_id: DeviceID) -> None:
        self._add(device_id, "blocked", NOTHING)

    async def leave(self) -> None:
        self._slapd.stop()

    async def come_back(self) -> None:
        self._slapd.start()

    async def hush(self) -> None:
        self._slapd.hold()

    async def speak(self) -> None:
        self._slapd.release()

    def _add(self, device_id: DeviceID, status: str, attributes: Attributes) -> None:
        # LDAP writes its booleans in capitals.
        lines = [
            f"{_LDAP_NAMES[name]}: {value.upper() if name == 'approval' else value}"
            for name, values in attributes.items()
            for value in values
        ]
        self._slapd.add(
            f"dn: cn={device_id.value},{BASE}\nobjectClass: device\nobjectClass: raDevice\ncn: {device_id.value}\n"
            + "\n".join([f"serialNumber: {device_id.value}", f"raDeviceStatus: {status}", *lines])
            + "\n"
        )


@asynccontextmanager
async def ldap(directory: Path) -> AsyncIterator[Bench]:
    with running_slapd() as slapd:
        table = LdapConfig(
            url=slapd.url, base=BASE, attributes=_LDAP_NAMES, accept_if={"raDeviceStatus": ("approved",)}
        )
        authorizer = made(table, directory)
        yield LdapBench(authorizer, slapd)
        await closed(authorizer)


# --- all of them ---------------------------------------------------------------------------------------------------


def made(table: AuthorizerTable, directory: Path) -> Authorizer:
    """Make a backend by its table, as the server does."""
    parts = Parts(
        devices=SqlStore.__new__(SqlStore),
        now=lambda: NOW,
        name="bench",
        data_directory=directory,
        timeout_s=table.timeout_s,
    )
    return load_authorizer(table.type, parts, table.model_dump(exclude=set(GUARD_KEYS)))


async def closed(authorizer: Authorizer) -> None:
    """Close a backend that holds something."""
    if isinstance(authorizer, SupportsClose):
        await authorizer.close()


def write_private(file: Path, octets: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(octets)


# By name: what a bench is able to do, and how it is made.
BENCHES: Final[Mapping[str, tuple[frozenset[Can], BenchMaker]]] = {
    "registry": (RegistryBench.can, registry),
    "accept-all": (Bench.can, accept_all),
    "plug-in": (GuestsBench.can, plug_in),
    "all": (GuestsBench.can, in_chain(AllOf, AcceptAll())),
    "any": (GuestsBench.can, in_chain(AnyOf, Scripted(answer=Reject(reason="never")))),
    "first": (GuestsBench.can, in_chain(FirstOf, Scripted(answer=Unavailable("never there")))),
    "radius": (RadiusBench.can, radius),
    "command": (CommandBench.can, command),
    "http": (HttpBench.can, http),
    "sql": (SqlBench.can, sql),
    "ldap": (LdapBench.can, ldap),
}
