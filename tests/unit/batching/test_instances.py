from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batching.instances import Execution, Instances

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def chooses(*items: Any) -> Callable[[], Sequence[Any]]:
    return lambda: items


async def outcome(instances: Instances, *items: Any) -> Any:
    execution = await instances.run(chooses(*items))
    assert isinstance(execution, Execution)
    return execution.outcome


class Gate:
    """A function that says when it has begun and ends when it may, on the event loop or in threads."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[Sequence[int]] = asyncio.Queue()
        self.go = asyncio.Event()
        self.may_end = threading.Event()
        self.at_once = self.most_at_once = 0
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()

    async def on_the_loop(self, items: Sequence[int]) -> Sequence[int]:
        self._begin(items)
        try:
            await self.go.wait()
        finally:
            self.at_once -= 1
        return items

    def in_a_thread(self, items: Sequence[int]) -> Sequence[int]:
        with self._lock:
            self._begin(items)
        self.may_end.wait(60)
        with self._lock:
            self.at_once -= 1
        return items

    def _begin(self, items: Sequence[int]) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self._loop.call_soon_threadsafe(self.begun.put_nowait, items)

    def end(self) -> None:
        self.go.set()
        self.may_end.set()


@pytest.mark.parametrize("kind", ["on_the_loop", "in_a_thread"])
async def test_so_many_run_at_once(kind: str) -> None:
    gate = Gate()
    instances = Instances(getattr(gate, kind), 2, "test")
    runs = [asyncio.ensure_future(outcome(instances, number)) for number in range(5)]
    for _ in range(2):
        await gate.begun.get()
    assert instances.busy
    gate.end()
    assert await asyncio.gather(*runs) == [[number] for number in range(5)]
    assert gate.most_at_once == 2
    assert not instances.busy
    instances.close()


async def test_what_runs_is_chosen_when_an_instance_is_free() -> None:
    gate = Gate()
    instances = Instances(gate.on_the_loop, 1, "test")
    first = asyncio.ensure_future(outcome(instances, 1))
    await gate.begun.get()
    items = [2, 3]
    second = asyncio.ensure_future(instances.run(lambda: items))
    await asyncio.sleep(0)
    items.clear()
    gate.end()
    assert await first == [1]
    assert await second is None
    assert gate.begun.empty()


async def test_a_choice_that_fails_holds_no_instance() -> None:
    instances = Instances(list, 1, "test")

    def fail() -> Sequence[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await instances.run(fail)
    assert await outcome(instances, 1) == [1]
    instances.close()


@pytest.mark.parametrize("error", [ValueError, StopIteration, SystemExit])
async def test_whatever_a_thread_raises_is_its_outcome(error: type[BaseException]) -> None:
    def fail(_: Sequence[int]) -> Sequence[int]:
        raise error

    instances = Instances(fail, 1, "test")
    assert isinstance(await outcome(instances, 1), error)
    instances.close()


async def test_whatever_a_coroutine_raises_is_its_outcome() -> None:
    async def fail(_: Sequence[int]) -> Sequence[int]:
        raise ValueError

    assert isinstance(await outcome(Instances(fail, 1, "test"), 1), ValueError)


async def test_a_coroutine_that_cancels_itself_has_failed() -> None:
    async def fail(_: Sequence[int]) -> Sequence[int]:
        raise asyncio.CancelledError

    instances = Instances(fail, 1, "test")
    assert isinstance(await outcome(instances, 1), RuntimeError)
    assert not instances.busy


async def test_an_iterator_is_read_where_the_function_runs() -> None:
    def lazily(items: Sequence[int]) -> Any:
        yield threading.current_thread().name
        yield from items

    instances = Instances(lazily, 1, "lazy")
    name, *rest = await outcome(instances, 1)
    assert name.startswith("lazy")
    assert rest == [1]
    instances.close()


async def test_giving_up_cancels_a_coroutine_and_frees_its_instance() -> None:
    gate = Gate()
    instances = Instances(gate.on_the_loop, 1, "test")
    run = asyncio.ensure_future(outcome(instances, 1))
    await gate.begun.get()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    gate.end()
    assert await outcome(instances, 2) == [2]


async def test_a_thread_that_is_given_up_keeps_its_instance_until_it_ends() -> None:
    gate = Gate()
    instances = Instances(gate.in_a_thread, 1, "test")
    run = asyncio.ensure_future(outcome(instances, 1))
    await gate.begun.get()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    following = asyncio.ensure_future(outcome(instances, 2))
    await asyncio.sleep(0)
    assert instances.busy
    assert gate.begun.empty()
    gate.end()
    assert await following == [2]
    assert gate.most_at_once == 1
    instances.close()
