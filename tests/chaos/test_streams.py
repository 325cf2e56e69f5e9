"""Each part is killed or rolled under many calls by stream: each gets its right answer, once."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from support.blows import DEADLINE_SECONDS, kill, resent, roll
from support.steady_load import Counts, steady_load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.stack import Stack

RATE = 100.0
"""Calls a second."""
SOME = 200
"""Calls before the blow, and after its end."""
ROLES = ("batcher", "router")


@asynccontextmanager
async def streams_around(stack: Stack, tally: dict[str, Counts], scenario: str) -> AsyncIterator[None]:
    """Calls by stream around a blow."""
    before = await resent(stack)
    async with steady_load(stack, "tiny", rate=RATE, deadline_seconds=DEADLINE_SECONDS, by_stream=True) as load:
        await load.more(SOME)
        yield
        await load.more(SOME)
    after = await resent(stack)
    counts = tally[scenario] = Counts.of(load.requests, Counter(), after - before * (after >= before))
    assert not [request.trouble for request in load.requests if request.outcome != "answered"]
    assert counts.answered == counts.sent


@pytest.mark.parametrize("role", ["worker", *ROLES])
async def test_killed(stack: Stack, tally: dict[str, Counts], role: str) -> None:
    async with streams_around(stack, tally, f"{role}: SIGKILL, by stream"):
        await kill(stack, role)


@pytest.mark.parametrize("role", ["workers", *ROLES])
async def test_rolled(stack: Stack, tally: dict[str, Counts], role: str) -> None:
    async with streams_around(stack, tally, f"{role}: SIGTERM, by stream"):
        await roll(stack, role)
