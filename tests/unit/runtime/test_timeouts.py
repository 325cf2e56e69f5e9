from __future__ import annotations

import asyncio

import pytest

from shoal.runtime.timeouts import TICK_SECONDS, Timeouts


def ticks(timeouts: Timeouts) -> list[int]:
    """Those at which somebody's time passes."""
    assert timeouts._deadlines is not None
    return list(timeouts._deadlines._buckets)


async def test_what_takes_longer_is_ended_and_what_does_not_goes_on() -> None:
    timeouts = Timeouts()
    with pytest.raises(TimeoutError), timeouts.within(0.001):
        await asyncio.Event().wait()
    with timeouts.within(60), timeouts.within(None):
        await asyncio.sleep(0)
    assert not ticks(timeouts)


async def test_one_that_passed_before_ends_the_next_wait() -> None:
    with pytest.raises(TimeoutError), Timeouts().within(-1.0):
        await asyncio.Event().wait()


@pytest.mark.parametrize(("outer", "inner", "passes"), [(0.001, 60, "outer"), (60, 0.001, "inner")])
async def test_of_two_within_each_other_the_one_that_passed_raises(outer: float, inner: float, passes: str) -> None:
    timeouts, raised = Timeouts(), ["outer"]

    async def wait() -> None:
        try:
            with timeouts.within(inner):
                await asyncio.Event().wait()
        except TimeoutError:
            raised.append("inner")
            raise

    with pytest.raises(TimeoutError), timeouts.within(outer):
        await wait()
    assert raised[-1] == passes
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_somebody_elses_cancellation_stays_one() -> None:
    timeouts, begun = Timeouts(), asyncio.Event()

    async def wait() -> None:
        with timeouts.within(60):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ticks(timeouts)


async def test_those_of_one_tick_share_a_timer_and_each_ends() -> None:
    timeouts = Timeouts()

    async def wait(seconds: float) -> str:
        try:
            with timeouts.within(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            return "passed"
        return ""

    tasks = [asyncio.create_task(wait(0.03 + number * TICK_SECONDS / 1000)) for number in range(100)]
    await asyncio.sleep(0)
    assert len(ticks(timeouts)) <= 2
    assert await asyncio.gather(*tasks) == ["passed"] * 100
    assert not ticks(timeouts)
