"""A caller in a process of its own, so that nothing but the service is shared with whoever attacks it.

python -m support.good_neighbour TARGET KEY UUID: calls one after the other on each of two connections. A line on
standard input begins the next phase; at its end the phases are printed as JSON, each with the seconds of its calls and
the troubles that they had.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import grpc

from support.callers import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEAST = 10
"""Calls of each connection in each phase."""


@dataclass
class Phase:
    """What its calls were told."""

    seconds: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


class GoodNeighbour:
    """The process, as a test sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def next_phase(self) -> None:
        """Begins it."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")

    async def end(self) -> list[Phase]:
        """All phases, once the last one has its calls."""
        out, _ = await self._process.communicate(b"")  # which closes its input; nothing would not
        return [Phase(**phase) for phase in json.loads(out)]


@asynccontextmanager
async def good_neighbour(target: str, key: str, image_uuid: str) -> AsyncIterator[GoodNeighbour]:
    """One that has begun with its first phase."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, target, key, image_uuid, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[1]
    )
    try:
        yield GoodNeighbour(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _live(who: Caller) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    phases = []
    async with who.channels(2) as channels:
        line = b"a phase"
        while line:
            phase = Phase()
            over = loop.create_task(lines.readline())
            await asyncio.gather(*(_call(who, channel, phase, over) for channel in channels))
            phases.append(vars(phase))
            line = await over
    print(json.dumps(phases))  # noqa: T201


async def _call(who: Caller, channel: grpc.aio.Channel, phase: Phase, over: asyncio.Task[bytes]) -> None:
    done = 0
    while done < LEAST or not over.done():
        began = monotonic()
        call = who.start(channel)
        if await call.code() is not grpc.StatusCode.OK:
            phase.troubles.append(f"{await call.code()}: {await call.details()}")
        phase.seconds.append(monotonic() - began)
        done += 1


if __name__ == "__main__":
    asyncio.run(_live(Caller(*sys.argv[1:])))
