from __future__ import annotations

import asyncio

from shoal.client.calls import Call, Deadlines
from shoal.errors import DeadlineExceeded


class World:
    """A clock that a test moves, and the deadlines that go by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.deadlines = Deadlines(lambda: self.now)

    def call(self, seconds: float) -> Call:
        call = Call(b"", self.now + seconds, asyncio.get_running_loop().create_future())
        self.deadlines.add(call)
        return call

    def move(self, seconds: float) -> None:
        """What the timer would do then."""
        self.now += seconds
        self.deadlines._look()


def ended(calls: list[Call]) -> list[int]:
    return [place for place, call in enumerate(calls) if call.answer.done()]


async def test_each_call_ends_when_its_own_time_is_up() -> None:
    world = World()
    calls = [world.call(seconds) for seconds in (30, 5, 60, 5)]
    for seconds, expected in ((4.9, []), (0.2, [1, 3]), (25, [0, 1, 3]), (60, [0, 1, 2, 3])):
        world.move(seconds)
        assert ended(calls) == expected
    assert isinstance(calls[0].answer.result(), DeadlineExceeded)
    assert len(world.deadlines) == 0


async def test_an_answered_call_keeps_its_answer() -> None:
    world = World()
    call = world.call(5)
    call.end(None)
    world.move(6)
    assert call.answer.result() is None


async def test_one_timer_waits_for_the_earliest() -> None:
    world = World()
    loop = asyncio.get_running_loop()
    for seconds, earliest in ((30, 30), (60, 30), (5, 5), (7, 5)):
        world.call(seconds)
        assert world.deadlines._timer is not None
        assert abs(world.deadlines._timer.when() - loop.time() - earliest) < 1
    world.deadlines.close()
    assert world.deadlines._timer is None


async def test_answered_calls_are_not_kept_until_their_deadlines() -> None:
    world = World()
    waiting = [world.call(30) for _ in range(3000)]
    for _ in range(50_000):
        world.call(30).end(None)
        assert len(world.deadlines) <= 2 * 3000 + 2
    assert ended(waiting) == []
    world.move(31)
    assert len(ended(waiting)) == 3000
