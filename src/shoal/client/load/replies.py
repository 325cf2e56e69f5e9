"""Calls of which each one's answer is kept, with its stages: what a calculation is fitted to, and judged by."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from shoal.errors import Code, ShoalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.client.load.generator import LoadClient, LoadRequest
    from shoal.client.results import Timing


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one call. Times are seconds since the first one might have been sent."""

    model: str
    intended: float
    """When it was to be sent."""
    lag: float
    """By how much later it was."""
    finished: float
    code: Code = Code.OK
    timing: Timing | None = None
    """Of a good answer."""

    @property
    def latency(self) -> float:
        """Seconds from when it was to be sent."""
        return self.finished - self.intended


async def replies_to(
    client: LoadClient, calls: Iterable[tuple[float, LoadRequest]], timeout_seconds: float
) -> list[Reply]:
    """An open loop: each call at its time, in order, whatever became of those before. Returns when all have ended."""
    caller = _Caller(client, timeout_seconds)
    async with asyncio.TaskGroup() as group:
        for intended, request in calls:
            await asyncio.sleep(max(intended - caller.now(), 0))
            group.create_task(caller.call(intended, request))
    return caller.replies


async def replies_of(
    client: LoadClient, requests: Sequence[LoadRequest], callers: int, seconds: float, timeout_seconds: float
) -> list[Reply]:
    """A closed loop: so many callers, each of which sends ``requests`` one after the other for so long."""
    caller = _Caller(client, timeout_seconds)

    async def loop() -> None:
        for request in cycle(requests):
            if (now := caller.now()) >= seconds:
                return
            await caller.call(now, request)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(loop())
    return caller.replies


class _Caller:
    def __init__(self, client: LoadClient, timeout_seconds: float) -> None:
        self.replies: list[Reply] = []
        self._client = client
        self._timeout = timeout_seconds
        self._time = asyncio.get_running_loop().time
        self._start = self._time()

    def now(self) -> float:
        return self._time() - self._start

    async def call(self, intended: float, request: LoadRequest) -> None:
        lag = self.now() - intended
        left = self._timeout - lag
        code, timing = Code.OK, None
        try:
            timing = await request.send(self._client, request.model, left)
        except ShoalError as error:
            code = error.code
            await asyncio.sleep(0)  # an error that needed no waiting must not keep the loop from others
        self.replies.append(Reply(request.model, intended, lag, self.now(), code, timing))
