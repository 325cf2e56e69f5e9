from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from shoal.runtime import threads as threads_module
from shoal.runtime.priority import Priority
from shoal.runtime.threads import Threads, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def threads() -> Iterator[Threads]:
    with closing(Threads(1, "a name that is too long for the system")) as made:
        yield made


@pytest.mark.parametrize(("quota", "cores"), [("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", None)])
def test_a_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == (cores or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("quota", ["max 100000", "", "nonsense"])
def test_without_a_quota_all_cores_count(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path / "missing") == len(os.sched_getaffinity(0))


async def test_threads_answer_what_the_call_returns_or_raises(threads: Threads) -> None:
    assert await threads.run(lambda a, b: a + b, 1, b=2) == 3
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 / 0)
    name = await threads.run(lambda: threading.current_thread().name)
    assert name == "a name that is too long for the system"


async def test_calls_are_made_in_the_order_of_asking(threads: Threads) -> None:
    made: list[int] = []
    await asyncio.gather(*(threads.run(made.append, number) for number in range(20)))
    assert made == list(range(20))


async def test_owners_share_the_threads(threads: Threads) -> None:
    """One owner's backlog of slow calls delays another's quick one by the call that runs and one more at most."""
    begun, go_on, made = threading.Event(), threading.Event(), []

    def slow(number: int) -> None:
        begun.set()
        go_on.wait()
        made.append(number)

    tasks = [asyncio.create_task(threads.run_for("slow", Priority.INTERACTIVE, slow, number)) for number in range(20)]
    await asyncio.to_thread(begun.wait)
    quick = asyncio.create_task(threads.run_for("quick", Priority.INTERACTIVE, made.append, -1))
    await asyncio.sleep(0)
    assert threads.waiting == 20
    go_on.set()
    await asyncio.gather(quick, *tasks)
    assert made.index(-1) <= 2
    assert [number for number in made if number >= 0] == list(range(20))


async def test_a_cancelled_call_lets_go_of_what_it_was_given(threads: Threads) -> None:
    class Held:
        pass

    go_on, held = threading.Event(), Held()
    gone = weakref.ref(held)
    first = asyncio.create_task(threads.run(go_on.wait))
    second = asyncio.create_task(threads.run(id, held))
    await asyncio.sleep(0)
    del held
    second.cancel()
    await asyncio.wait([second])
    del second
    gc.collect()
    assert gone() is None
    go_on.set()
    await first


async def test_a_call_that_has_begun_ends_before_its_cancelled_waiter_does(threads: Threads) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        begun.set()
        go_on.wait()
        done.set()

    waiter = asyncio.create_task(threads.run(write))
    await asyncio.to_thread(begun.wait)
    waiter.cancel()
    await asyncio.wait({waiter}, timeout=0)
    assert not waiter.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert done.is_set()


async def test_a_cancelled_call_that_has_not_begun_is_never_made(threads: Threads) -> None:
    go_on, made = threading.Event(), []
    first = asyncio.create_task(threads.run(go_on.wait))
    second = asyncio.create_task(threads.run(made.append, 1))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go_on.set()
    await first
    await threads.run(lambda: None)
    assert not made


async def test_the_error_of_a_call_whose_waiter_is_gone_is_nobodys(threads: Threads) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        go_on.wait()
        raise ValueError

    waiter = asyncio.create_task(threads.run(fail))
    await asyncio.to_thread(begun.wait)
    waiter.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter


def test_a_loop_that_is_closed_meanwhile_harms_no_thread(threads: Threads) -> None:
    go_on = threading.Event()

    async def leave() -> None:
        asyncio.get_running_loop().create_task(threads.run(go_on.wait))
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    pending = asyncio.all_tasks(loop)
    loop.close()
    go_on.set()
    assert asyncio.run(threads.run(lambda: 7)) == 7
    for task in pending:
        task.get_coro().close()  # type: ignore[union-attr]


async def test_calls_that_return_while_the_loop_is_busy_wake_it_once(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[None] = []
    settle = threads_module._Returns._settle

    def counted(returns: threads_module._Returns) -> None:
        wakes.append(None)
        settle(returns)

    monkeypatch.setattr(threads_module._Returns, "_settle", counted)
    last = threading.Event()
    calls: list[Callable[[], object]] = [lambda: 1, lambda: 1 / 0, lambda: 3, last.set]
    jobs = [threads.submit("me", Priority.INTERACTIVE, call) for call in calls]
    behind = threading.Event()
    jobs.append(threads.submit("me", Priority.INTERACTIVE, behind.wait))
    last.wait()  # here, so the loop is busy
    behind.set()
    found = await asyncio.gather(*jobs, return_exceptions=True)
    assert [found[0], type(found[1]), found[2:]] == [1, ZeroDivisionError, [3, None, True]]
    assert len(wakes) <= 2, "the last call may return after the loop has looked"


def test_threads_serve_one_loop_after_another(threads: Threads) -> None:
    """Also where the first was closed before its call returned."""
    go_on = threading.Event()

    async def leave() -> None:
        threads.submit("me", Priority.INTERACTIVE, go_on.wait)

    asyncio.run(leave())
    go_on.set()
    assert asyncio.run(threads.run(lambda: 5)) == 5
