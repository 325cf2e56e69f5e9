"""A client in the node's network namespace: a steady load on several models, and what became of it.

``python -m support.cluster.load`` takes an ``Order`` as its first line, and answers each line ``NUMBER`` once so many
more requests a model have ended, and the end of its input with a ``Report`` a model.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import grpc

from support.steady_load import Counts, steady_load

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator

    from support.cluster.network import Network
    from support.steady_load import SteadyLoad


@dataclass(frozen=True)
class Order:
    """What to send."""

    target: str
    api_key: str
    models: list[str]
    rate: float
    """Requests a second, of each model."""
    deadline_seconds: float
    authority: str
    """PEM: who may vouch for the service."""


class Report(NamedTuple):
    """Of one model."""

    counts: Counts
    troubles: list[str]


class Load:
    """Our side of it. ``reports`` are there once the load has ended."""

    def __init__(self, process: Process, models: list[str]) -> None:
        self.reports: dict[str, Report] = {}
        self._process = process
        self._models = models

    async def more(self, count: int) -> None:
        """Waits for the end of ``count`` requests a model that are yet to be sent."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{count}\n".encode())
        assert await self._process.stdout.readline(), "the client has ended"

    async def end(self) -> None:
        """Sends no more, and waits for the last answer."""
        output, _ = await self._process.communicate(b"")
        for line in output.splitlines():
            model, counts, troubles = json.loads(line)
            self.reports[model] = Report(Counts(**counts), troubles)


@asynccontextmanager
async def load(network: Network, order: Order) -> AsyncGenerator[Load]:
    """A load that is over at the end of the block."""
    async with network.helper("support.cluster.load") as process:
        assert process.stdin
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        made = Load(process, order.models)
        yield made
        await made.end()


async def _main() -> None:
    order = Order(**json.loads(sys.stdin.readline()))
    trust = grpc.ssl_channel_credentials(order.authority.encode())
    loads: dict[str, SteadyLoad] = {}
    async with AsyncExitStack() as stack:
        for model in order.models:
            begun = steady_load(
                order, model, rate=order.rate, deadline_seconds=order.deadline_seconds, credentials=trust
            )
            loads[model] = await stack.enter_async_context(begun)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await asyncio.gather(*(each.more(int(line)) for each in loads.values()))
            print("ended", flush=True)  # noqa: T201 - our only way to say it
    for model, each in loads.items():
        counts = Counts.of(each.requests, Counter(), 0)
        troubles = [request.trouble for request in each.requests if request.outcome != "answered"][:5]
        print(json.dumps([model, asdict(counts), troubles]))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_main())
