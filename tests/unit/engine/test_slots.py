from __future__ import annotations

import asyncio
from itertools import count

import pytest

from shoal.engine.slots import SlotPool
from shoal.errors import Unavailable
from shoal.runtime.priority import Priority


def pool(limit: int) -> SlotPool[int]:
    numbers = count()
    return SlotPool(lambda: next(numbers), limit)


async def test_slots_are_made_when_needed_and_the_warm_one_comes_first() -> None:
    slots = pool(3)
    assert await slots.acquire() == 0
    slots.release(0)
    assert await slots.acquire() == 0
    assert await slots.acquire() == 1


async def test_who_waits_longest_is_served_first() -> None:
    slots = pool(1)
    await slots.acquire()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    slots.release(0)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False]
    slots.release(0)
    await asyncio.gather(*waiting)


async def test_who_gave_up_is_passed_over() -> None:
    slots = pool(1)
    await slots.acquire()
    gone, next_one = [asyncio.create_task(slots.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    gone.cancel()
    slots.release(0)
    assert await next_one == 0


async def test_a_slot_handed_to_someone_who_just_left_is_not_lost() -> None:
    slots = pool(1)
    await slots.acquire()
    gone = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await slots.acquire() == 0


async def test_a_closed_pool_turns_everyone_away() -> None:
    slots = pool(1)
    await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.close()
    with pytest.raises(Unavailable):
        await waiting
    slots.release(0)
    with pytest.raises(Unavailable):
        await slots.acquire()


async def test_a_slot_that_could_not_be_made_is_made_for_the_next_who_asks() -> None:
    faults = [MemoryError("no shared memory"), MemoryError("no shared memory")]

    def make() -> int:
        if faults:
            raise faults.pop()
        return 7

    slots = SlotPool(make, 1)
    for _ in range(2):
        with pytest.raises(MemoryError, match="no shared memory"):
            await slots.acquire()
    assert await slots.acquire() == 7
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.release(7)
    assert await waiting == 7


async def test_one_who_leaves_while_the_pool_closes_keeps_no_slot() -> None:
    slots = pool(1)
    await slots.acquire()
    gone = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    slots.release(0)
    gone.cancel()
    slots.close()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert slots._free == []


async def test_neither_priority_waits_for_a_slot_that_the_other_holds() -> None:
    slots = pool(2)
    for priority in Priority:
        for _ in range(2):
            await asyncio.wait_for(slots.acquire(priority), 60)
    waiting = {priority: asyncio.create_task(slots.acquire(priority)) for priority in Priority}
    await asyncio.sleep(0)
    slots.release(3)
    await waiting[Priority.BULK]
    assert not waiting[Priority.INTERACTIVE].done()
    slots.release(0)
    await waiting[Priority.INTERACTIVE]


async def test_slots_go_from_one_priority_to_the_other_before_more_are_made() -> None:
    slots = pool(2)
    slots.release(await slots.acquire(Priority.BULK))
    assert await slots.acquire(Priority.INTERACTIVE) == 0
