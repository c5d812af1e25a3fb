"""A connection to servers that do what real ones rarely do; tests/aaa/test_ldap.py has a real one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from scep_ra.ldap.connection import Address, Disconnected, LdapConnection, Security
from scep_ra.ldap.messages import Scope, Search
from tests.support.tls import write_server_files

BOUND = "300c 020101 6107 0a0100 0400 0400"
DONE = "300c 020102 6507 0a0100 0400 0400"
ENTRY = "300c 020102 6407 04036f3d78 3000"
SEARCH = Search(base="o=x", scope=Scope.BASE, filter=b"\x87\x01a", attributes=(), max_entries=2, time_limit_s=1)

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def directory(*answers: str | bytes) -> AsyncIterator[Address]:
    """Listen, give one answer to each request and hang up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.read(4096)
            writer.write(answer if isinstance(answer, bytes) else bytes.fromhex(answer))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Address(url=f"ldap://127.0.0.1:{port}", security=Security.NONE, host="127.0.0.1", port=port)


async def connect(address: Address) -> LdapConnection:
    async with asyncio.timeout(20):
        return await LdapConnection.open(address, ssl.create_default_context(), bind_dn="", password="")


async def search_at(address: Address) -> None:
    connection = await connect(address)
    try:
        async with asyncio.timeout(20):
            await connection.search(SEARCH)
    finally:
        connection.abort()


def result(code: int, *, tag: int = 0x65, message_id: int = 2) -> bytes:
    return bytes.fromhex("300c 0201") + bytes((message_id, tag)) + bytes.fromhex(f"07 0a01{code:02x} 0400 0400")


async def test_a_connection_knows_that_the_server_has_closed_it() -> None:
    """So that it is not asked in vain."""
    async with directory(BOUND) as address:
        connection = await connect(address)
        async with asyncio.timeout(20):
            await connection._reader.read()
        assert not connection.is_alive
        connection.abort()


@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        (49, Misconfigured, "bind_dn or its password is wrong, result code 49"),
        (13, Misconfigured, "it wants TLS"),
        (51, Unavailable, "it is busy, result code 51"),
        (80, Unavailable, "no success, result code 80"),
    ],
)
async def test_a_bind_that_is_refused_says_whether_time_can_mend_it(
    code: int, error: type[Exception], reason: str
) -> None:
    """RFC 4511 A.2."""
    async with directory(result(code, tag=0x61, message_id=1)) as address:
        with pytest.raises(error, match=f"bind as '' ?.*{reason}"):
            await connect(address)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("3080", "a length that is not definite"),
        ("3085 0000000001", "of more than 4 octets"),
        ("3084 7fffffff", "2147483647 octets where 65536 are allowed"),
        ("3003 020102", "what is no LDAP"),
        (ENTRY.replace("020102", "020109"), "an answer to request 9 where 2 is the last"),
        (ENTRY * 70, "more than 64 entries and references"),
    ],
)
async def test_answers_that_are_none_end_the_question(answer: str, reason: str) -> None:
    """No server makes us read for ever, or more than we can hold."""
    async with directory(BOUND, answer) as address:
        with pytest.raises(Unavailable, match=reason):
            await search_at(address)


async def test_an_entry_in_place_of_a_result_is_no_bind() -> None:
    """Nothing is found before we are bound."""
    async with directory(ENTRY.replace("020102", "020101")) as address:
        with pytest.raises(Unavailable, match="an entry where a result is expected"):
            await connect(address)


@pytest.mark.parametrize("answer", ["", ENTRY, "3084", "30", result(52, tag=0x78, message_id=0)])
async def test_a_connection_that_ends_before_the_answer_is_told_from_others(answer: str | bytes) -> None:
    """Because the question may be asked again; with a notice of disconnection (RFC 4511 4.4.1) or without."""
    async with directory(BOUND, answer) as address:
        with pytest.raises(Disconnected):
            await search_at(address)


async def test_a_limit_of_our_own_making_is_no_error() -> None:
    """Two entries are all that anybody wants to see."""
    async with directory(BOUND, bytes.fromhex(ENTRY * 2) + result(4)) as address:
        await search_at(address)


async def test_more_than_is_shown_is_an_error() -> None:
    """The one entry is not the only one."""
    async with directory(BOUND, bytes.fromhex(ENTRY) + result(4)) as address:
        with pytest.raises(Misconfigured, match="size limit"):
            await search_at(address)


async def test_what_is_said_in_clear_behind_start_tls_is_not_heard(tmp_path: Path) -> None:
    """Somebody on the way puts a success there; the server itself, through TLS, refuses the password."""
    files = write_server_files(tmp_path)
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(files.certificate, files.key)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(result(0, tag=0x78, message_id=1) + result(0, tag=0x61, message_id=2))
        await writer.start_tls(server_tls)
        await reader.read(4096)
        writer.write(result(49, tag=0x61, message_id=2))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = Address(url="ldap://x", security=Security.START_TLS, host="127.0.0.1", port=port)
        client_tls = ssl.create_default_context(cafile=files.ca)
        async with asyncio.timeout(20):
            with pytest.raises(Misconfigured, match="result code 49"):
                await LdapConnection.open(address, client_tls, bind_dn="", password="")


async def test_a_connection_closed_during_the_handshake_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As asyncio tells it."""

    async def closed(*_arguments: object, **_options: object) -> None:
        return None

    monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", closed)
    async with directory("300c 020101 7807 0a0100 0400 0400") as address:
        upgraded = Address(url=address.url, security=Security.START_TLS, host=address.host, port=address.port)
        with pytest.raises(Disconnected):
            await connect(upgraded)


async def test_what_speaks_no_tls_is_told() -> None:
    """A port of LDAP in clear, asked for TLS."""
    async with directory(BOUND) as address:
        with pytest.raises(Unavailable, match="does not speak TLS as we do"):
            await connect(Address(url="ldaps://x", security=Security.TLS, host=address.host, port=address.port))


async def test_a_socket_that_is_not_there_is_told() -> None:
    """With the system's word."""
    with pytest.raises(Unavailable, match="cannot be reached: No such file"):
        await connect(Address.from_url("ldapi://%2Fnowhere%2Fldapi", start_tls=False))


@pytest.mark.parametrize(
    ("url", "start_tls", "address"),
    [
        ("ldap://h", False, ("none", "h", 389, "")),
        ("ldap://h", True, ("start_tls", "h", 389, "")),
        ("ldaps://h", False, ("tls", "h", 636, "")),
        ("ldaps://[::1]:1636/", False, ("tls", "::1", 1636, "")),
        ("ldapi://%2Frun%2Fldapi", False, ("none", "", 0, "/run/ldapi")),
    ],
)
def test_a_url_says_where_and_how(url: str, start_tls: bool, address: tuple[str, str, int, str]) -> None:
    """With the ports of RFC 4516 and of custom."""
    read = Address.from_url(url, start_tls=start_tls)
    assert (read.security.value, read.host, read.port, read.path) == address


def test_a_url_of_another_kind_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ConfigurationError, match="should begin with ldaps://"):
        Address.from_url("http://h", start_tls=False)
