"""A TCP connection that a test cuts."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from shoal.runtime.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Cable:
    """Carries what is connected to ``url`` to another address."""

    def __init__(self, to: Endpoint) -> None:
        self._to = to
        self._ends: set[asyncio.StreamWriter] = set()
        self.url = ""

    def cut(self) -> None:
        """Breaks every connection; new ones are carried."""
        for end in self._ends:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._to.host, self._to.port)
        self._ends |= {writer, there[1]}
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while content := await reader.read(2**16):
                writer.write(content)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def cable(url: str) -> AsyncIterator[Cable]:
    """One to the server at ``url``, ``HOST:PORT``."""
    made = Cable(Endpoint.parse(url))
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
    made.url = "{}:{}".format(*server.sockets[0].getsockname())
    async with server:
        yield made
        made.cut()
