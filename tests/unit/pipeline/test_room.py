from __future__ import annotations

import asyncio
import math

import pytest

from shoal.pipeline.room import DECIDES, KEPT, LEAST, TARGET, Room, Rooms
from shoal.runtime.priority import Priority


@pytest.fixture
async def room() -> Room:
    made = Room(lambda: 64)
    made.limit = 64
    for _ in range(64):
        await made.enter()
    return made


def answered(room: Room, seconds: float, budget_seconds: float = 1.0, pictures: int = KEPT) -> None:
    for _ in range(pictures):
        room.spent(seconds, room.taken, budget_seconds)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_there_is_room_for_as_many_as_spend_half_of_their_time_here(room: Room) -> None:
    answered(room, 1.0)
    assert room.limit == int(64 * TARGET)
    answered(room, 2.0, budget_seconds=4.0)  # a longer deadline has room for longer
    assert room.limit == int(64 * 2 * TARGET)


async def test_there_is_a_least_and_a_most(room: Room) -> None:
    answered(room, 100.0)
    assert room.limit == LEAST
    answered(room, 0.001)
    waiting = asyncio.create_task(room.enter())
    await turns()
    assert not waiting.done()
    waiting.cancel()


async def test_those_with_time_enough_decide(room: Room) -> None:
    """A flood of callers with short deadlines takes no room from the others."""
    for _ in range(KEPT):
        answered(room, 1.0, 0.01, pictures=2)
        answered(room, 1.0, 2.0, pictures=1)
    assert room.limit == int(64 * 2 * TARGET)
    answered(room, 1.0, 0.01, pictures=math.ceil((1 - DECIDES) * KEPT))
    assert room.limit == LEAST


async def test_whoever_waits_for_ever_is_bounded_by_the_most_alone(room: Room) -> None:
    answered(room, 1000.0, math.inf)
    assert room.limit > 64


async def test_those_that_came_later_count_too() -> None:
    room = Room(lambda: 64)
    room.limit = 64
    for _ in range(20):
        await room.enter()
    room.spent(1.0, 1, 1.0)  # it came first, and shared the engines with nineteen
    assert room.limit == int(20 * TARGET)


async def test_who_waits_comes_in_in_order_once_there_is_room() -> None:
    room = Room(lambda: 1)
    assert await room.enter() == 1
    came: list[int] = []

    async def come(number: int) -> None:
        await room.enter()
        came.append(number)

    tasks = [asyncio.create_task(come(number)) for number in range(3)]
    await turns()
    assert came == []
    tasks[0].cancel()  # its caller left
    room.leave()
    await turns()
    assert came == [1]
    room.leave()
    await turns()
    assert came == [1, 2]


async def test_who_leaves_as_its_turn_comes_takes_no_place() -> None:
    room = Room(lambda: 1)
    await room.enter()
    waiting = asyncio.create_task(room.enter())
    await turns()
    room.leave()
    waiting.cancel()
    await turns()
    assert room.taken == 0


async def test_bulk_has_what_interactive_pictures_leave_and_always_one() -> None:
    rooms = Rooms(2)
    interactive, bulk = rooms.of(Priority.INTERACTIVE), rooms.of(Priority.BULK)
    await interactive.enter()
    await interactive.enter()
    await bulk.enter()
    waiting = asyncio.create_task(bulk.enter())
    await turns()
    assert not waiting.done()
    interactive.leave()
    interactive.leave()
    await turns()
    assert waiting.done()


def test_processes_share_the_least() -> None:
    for processes, least in ((1, LEAST), (2, LEAST // 2), (100, 1)):
        room = Rooms(64, processes).of(Priority.INTERACTIVE)
        room.spent(100.0, 64, 1.0)
        assert room.limit == least
