"""Many calls at a time, over an input of any length, in bounded memory."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable

ItemT = TypeVar("ItemT")
T = TypeVar("T")


async def bounded_map(
    call: Callable[[ItemT], Coroutine[object, object, T]],
    items: Iterable[ItemT],
    *,
    concurrency: int,
    ordered: bool = False,
) -> AsyncGenerator[T]:
    """Yields what ``call`` answers for each of ``items``, as they finish or in the order of the input.

    The input is read lazily. Calls that run, and answers that wait to be taken, are ``concurrency`` together at most.
    An exception of ``call`` ends the map. Ending it early cancels what runs.
    """
    iterator = iter(items)
    running: dict[asyncio.Task[T], None] = {}  # in the order of the input
    finished: asyncio.Queue[asyncio.Task[T]] = asyncio.Queue()
    try:
        while True:
            for item in islice(iterator, concurrency - len(running)):
                task = asyncio.create_task(call(item))
                if not ordered:  # who takes them in their order never looks there: it would keep all of them
                    task.add_done_callback(finished.put_nowait)
                running[task] = None
                del item, task
            if not running:
                return
            yield await _take(running, None if ordered else finished)  # nothing here keeps what was taken
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _take(running: dict[asyncio.Task[T], None], finished: asyncio.Queue[asyncio.Task[T]] | None) -> T:
    """The next answer, whose call isn't running any more: the first to finish, or the first of the input."""
    task = next(iter(running)) if finished is None else await finished.get()
    answer = await task
    del running[task]
    return answer
