"""An HTTP client that sends exactly the bytes it is told to, whole or in drops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

# Long enough for a loaded machine; a test that meets it has failed.
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A parsed HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    """One TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self, *, head: bool = False) -> Answer:
        """Read one response; with `head`, one that has no body whatever its Content-Length says."""
        async with asyncio.timeout(PATIENCE_S):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(_split(line) for line in lines[1:] if line)
            length = 0 if head else int(headers.get("content-length", "0"))
            body = await self._reader.readexactly(length)
        return Answer(status=int(lines[0].split()[1]), headers=headers, body=body)

    async def rest(self) -> bytes:
        """Read until the server closes the connection, in good order or not."""
        received = bytearray()
        async with asyncio.timeout(PATIENCE_S):
            try:
                while chunk := await self._reader.read(65536):
                    received += chunk
            except ConnectionError:
                pass
        return bytes(received)

    async def dribble(self, drops: Iterable[bytes], *, every_s: float) -> None:
        """Send drop by drop until the server closes the connection or no drop is left."""
        closed = asyncio.ensure_future(self.rest())
        for drop in drops:
            self.send(drop)
            done, _ = await asyncio.wait({closed}, timeout=every_s)
            if done:
                return
        await closed


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


@asynccontextmanager
async def connect(port: int, *, receive_buffer_bytes: int | None = None) -> AsyncIterator[RawClient]:
    """Open a connection to 127.0.0.1, with a small receive buffer for a client that does not read."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    # The limit keeps the client's own buffer from reading ahead.
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096 if receive_buffer_bytes else 2**20)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
