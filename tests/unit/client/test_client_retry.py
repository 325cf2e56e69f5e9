from __future__ import annotations

import asyncio

import pytest

from shoal.client.retry import Retry, told
from shoal.errors import DeadlineExceeded, Overloaded, ShoalError, Unavailable


class World:
    """A clock that only sleeping and calling move, and jitter that always takes the ceiling."""

    def __init__(self, *answers: ShoalError | str, call_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.answers = list(answers)
        self.pauses: list[float] = []
        self.lefts: list[float] = []
        self.call_seconds = call_seconds
        self.retry = Retry(0.1, 0.4, clock=lambda: self.now, sleep=self.sleep, uniform=lambda _low, high: high)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def attempt(self, left: float) -> str:
        self.lefts.append(left)
        self.now += self.call_seconds
        answer = self.answers.pop(0)
        if isinstance(answer, ShoalError):
            raise answer
        return answer

    async def run(self, timeout_seconds: float) -> str:
        return await self.retry.call(self.attempt, self.now + timeout_seconds)


async def test_an_answer_needs_no_pause() -> None:
    world = World("yes")
    assert await world.run(5) == "yes"
    assert world.pauses == []


async def test_unavailable_is_tried_again_with_growing_pauses() -> None:
    world = World(*[Unavailable("away")] * 4, "yes")
    assert await world.run(5) == "yes"
    assert world.pauses == pytest.approx([0.1, 0.2, 0.4, 0.4])
    assert world.lefts == pytest.approx([5, 4.9, 4.7, 4.3, 3.9])


async def test_nothing_else_is_tried_again() -> None:
    world = World(Overloaded("full"), "yes")
    with pytest.raises(Overloaded):
        await world.run(5)
    assert world.pauses == []


async def test_the_last_failure_is_told_when_the_deadline_leaves_no_time() -> None:
    world = World(*[Unavailable("away")] * 9, call_seconds=0.5)
    with pytest.raises(Unavailable, match="away"):
        await world.run(1.2)
    assert len(world.lefts) == 2


async def test_a_deadline_in_the_past_sends_nothing() -> None:
    world = World("yes")
    with pytest.raises(DeadlineExceeded):
        await world.run(0)
    assert world.lefts == []


async def test_a_deadline_in_a_later_attempt_names_what_the_one_before_failed_of() -> None:
    world = World(Unavailable("no worker serves model 'm' now"), DeadlineExceeded("Deadline Exceeded"))
    with pytest.raises(DeadlineExceeded, match="Deadline Exceeded; the attempt before it failed: no worker serves"):
        await world.run(5)


async def test_a_deadline_in_the_first_attempt_names_nothing_else() -> None:
    with pytest.raises(DeadlineExceeded, match=r"^Deadline Exceeded$"):
        await World(DeadlineExceeded("Deadline Exceeded")).run(5)


@pytest.mark.parametrize("during", ["attempt", "pause"])
async def test_a_time_limit_around_it_can_tell_the_failure_too(during: str) -> None:
    async def attempt(_: float) -> None:
        attempts.append(None)
        if during == "pause" or len(attempts) == 1:
            raise Unavailable("the store is away")
        await asyncio.Event().wait()

    async def sleep(_: float) -> None:
        if during == "pause":
            await asyncio.Event().wait()

    attempts: list[None] = []
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await Retry(sleep=sleep, uniform=lambda *_: 0.0, clock=lambda: 0.0).call(attempt, 60.0)
    assert caught.value.__cause__ is not None
    assert told(caught.value.__cause__.__cause__) == "; the attempt before it failed: the store is away"
