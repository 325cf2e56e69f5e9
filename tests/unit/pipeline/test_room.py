from __future__ import annotations

import asyncio

import pytest

from shoal.pipeline.room import LEAST, TARGET, WINDOW, Room


def fill(room: Room) -> None:
    for _ in range(room.limit):
        room.take()


def turn(room: Room, seconds: float | None, budget_seconds: float = 1.0, pictures: int = WINDOW) -> None:
    """Some leave, and others take their place."""
    for _ in range(pictures):
        room.leave(seconds, budget_seconds)
        room.take()


@pytest.fixture
def room() -> Room:
    made = Room(64)
    fill(made)
    return made


def test_pictures_that_spend_too_much_of_their_time_here_are_fewer_at_once(room: Room) -> None:
    turn(room, 0.8)
    assert room.limit == 64 * TARGET / 0.8
    turn(room, TARGET)
    assert room.limit == 40  # as it should be
    turn(room, 1.6, 4.0)  # a longer deadline has room for longer
    assert room.limit == 40


def test_there_is_a_least_and_a_most(room: Room) -> None:
    turn(room, 100.0)
    assert room.limit == LEAST
    for _ in range(20):
        turn(room, 0.1)
    assert room.limit == 64


def test_it_grows_only_where_it_holds_back() -> None:
    room = Room(64)
    fill(room)
    turn(room, 1.0)
    assert room.limit == 32
    for _ in range(64):
        room.leave(None)
    room.take()
    turn(room, 0.01)  # the window in which it was full
    limit = room.limit
    turn(room, 0.01)
    assert room.limit == limit


def test_what_was_refused_at_once_and_whoever_waits_for_ever_say_nothing(room: Room) -> None:
    turn(room, None, pictures=100)
    turn(room, 1000.0, float("inf"), pictures=100)
    assert room.limit == 64


def test_one_caller_with_a_short_deadline_does_not_decide_for_all(room: Room) -> None:
    for _ in range(10):
        turn(room, 1.0, 0.01, pictures=WINDOW // 2 - 1)
        turn(room, TARGET, pictures=WINDOW // 2 + 1)
    assert room.limit == 64


async def test_who_waits_goes_on_once_there_is_room(room: Room) -> None:
    waiting = asyncio.create_task(room.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    room.leave()
    await waiting
