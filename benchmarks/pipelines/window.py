"""Some seconds of load, and what came of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Ask = Callable[[int], Awaitable[int]]
    """Does one picture, by its number; answers the bytes that it sent."""


@dataclass
class Window:
    """What came of some seconds."""

    seconds: list[float] = field(default_factory=list)
    """Of each picture."""
    sent_bytes: int = 0
    whole: int = 0
    """Pictures with all of their parts answered."""
    parts: int = 0
    failed: int = 0


async def closed_loop(ask: Ask, seconds: float, at_once: int, *, first: int = 0) -> Window:
    """``at_once`` pictures at a time; those that are under way at the end count, too."""
    found, ends = Window(), perf_counter() + seconds
    numbers = count(first)

    async def work() -> None:
        while (began := perf_counter()) < ends:
            sent = await ask(next(numbers))
            found.sent_bytes += sent  # in a line of its own: += before an await would lose what others add meanwhile
            found.seconds.append(perf_counter() - began)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return found
