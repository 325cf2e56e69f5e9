from __future__ import annotations

import asyncio
import weakref
from itertools import count

import pytest

from shoal.client.mapping import bounded_map


class Calls:
    """Calls that finish when told to."""

    def __init__(self) -> None:
        self.doors: dict[int, asyncio.Event] = {}
        self.cancelled: list[int] = []
        self.more = asyncio.Condition()

    async def __call__(self, item: int) -> int:
        door = self.doors[item] = asyncio.Event()
        async with self.more:
            self.more.notify_all()
        try:
            await door.wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        return item

    async def started(self, number: int) -> None:
        async with self.more:
            await self.more.wait_for(lambda: len(self.doors) >= number)


async def answer(item: int) -> int:
    return item


async def test_every_item_is_answered_once() -> None:
    answers = [item async for item in bounded_map(answer, range(1000), concurrency=7)]
    assert sorted(answers) == list(range(1000))


async def test_ordered_keeps_the_order_of_the_input() -> None:
    calls = Calls()
    answers = bounded_map(calls, range(3), concurrency=3, ordered=True)
    first = asyncio.ensure_future(anext(answers))
    await calls.started(3)
    for item in (2, 1, 0):
        calls.doors[item].set()
    assert [await first, await anext(answers), await anext(answers)] == [0, 1, 2]


async def test_unordered_yields_as_they_finish() -> None:
    calls = Calls()
    answers = bounded_map(calls, range(3), concurrency=3)
    first = asyncio.ensure_future(anext(answers))
    await calls.started(3)
    calls.doors[1].set()
    assert await first == 1
    await answers.aclose()


async def test_an_endless_input_is_read_only_as_far_as_needed() -> None:
    read: list[int] = []
    endless = (read.append(n) or n for n in count())
    answers = bounded_map(answer, endless, concurrency=4)
    for _ in range(10):
        await anext(answers)
    assert len(read) <= 10 + 4
    await answers.aclose()


async def test_leaving_early_cancels_what_runs() -> None:
    calls = Calls()
    answers = bounded_map(calls, range(100), concurrency=3)
    first = asyncio.ensure_future(anext(answers))
    await calls.started(3)
    calls.doors[0].set()
    await first
    await answers.aclose()
    assert calls.cancelled == [1, 2]


async def test_an_exception_ends_the_map() -> None:
    async def fail(item: int) -> int:
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        await anext(bounded_map(fail, range(5), concurrency=1))


class Answer:
    """As large as a picture and its result."""


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_was_taken_is_kept_by_nobody(ordered: bool) -> None:
    kept: list[weakref.ref[Answer]] = []

    async def make(_: Answer) -> Answer:
        kept.extend([weakref.ref(_), weakref.ref(answer := Answer())])
        return answer

    answers = bounded_map(make, (Answer() for _ in range(100)), concurrency=4, ordered=ordered)
    for taken in range(1, 61):
        await anext(answers)
        await asyncio.sleep(0)
        alive = sum(reference() is not None for reference in kept)
        assert alive <= 2 * 4, f"after {taken}"
    await answers.aclose()


async def test_an_ordered_map_reads_no_further_than_its_bound_behind_a_slow_first() -> None:
    calls = Calls()
    read: list[int] = []
    answers = bounded_map(calls, (read.append(n) or n for n in count()), concurrency=5, ordered=True)
    first = asyncio.ensure_future(anext(answers))
    await calls.started(5)
    for item in (1, 2, 3, 4):
        calls.doors[item].set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert read == [0, 1, 2, 3, 4]
    calls.doors[0].set()
    assert await first == 0
    await answers.aclose()
