from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.runtime.deadlines import TICK_SECONDS, Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(eq=False)
class Entry:
    deadline: float


@dataclass
class Timer:
    when: float
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Loop:
    """A loop whose time goes on by hand."""

    timers: list[Timer] = field(default_factory=list)

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    @property
    def waiting(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def go_to(self, now: float) -> None:
        while due := [timer for timer in self.waiting if timer.when <= now]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            first.call()


def made() -> tuple[Deadlines[Entry], Loop, list[Entry]]:
    loop, passed = Loop(), list[Entry]()
    fake: Any = loop
    return Deadlines(fake, passed.extend), loop, passed


def test_each_is_told_once_after_its_deadline_and_at_most_a_tick_later() -> None:
    deadlines, loop, passed = made()
    entries = [Entry(1 + n / 7) for n in (3, 0, 2, 1)]
    deadlines.add(entries)
    for entry in sorted(entries, key=lambda entry: entry.deadline):
        loop.go_to(entry.deadline - 1e-9)
        assert entry not in passed
        loop.go_to(entry.deadline + TICK_SECONDS + 1e-9)
        assert passed[-1] is entry
    assert len(passed) == 4
    assert not loop.waiting


def test_all_of_a_tick_are_told_together_with_one_timer() -> None:
    deadlines, loop, passed = made()
    deadlines.add(Entry(2.0001) for _ in range(1000))
    assert len(loop.waiting) == 1
    loop.go_to(3)
    assert len(passed) == 1000


def test_what_was_removed_is_not_told_and_wakes_nobody() -> None:
    deadlines, loop, passed = made()
    soon, later = Entry(1.0), Entry(50.0)
    deadlines.add([soon, later])
    deadlines.remove(soon)
    deadlines.remove(soon)
    loop.go_to(2)
    assert not passed
    assert [timer.when >= 50.0 for timer in loop.waiting] == [True]
    deadlines.remove(later)
    loop.go_to(60)
    assert not passed
    assert not loop.waiting


def test_an_earlier_deadline_moves_the_timer() -> None:
    deadlines, loop, passed = made()
    deadlines.add([Entry(9.0)])
    early = Entry(1.0)
    deadlines.add([early])
    loop.go_to(1 + TICK_SECONDS + 1e-9)
    assert passed == [early]


def test_far_deadlines_that_nobody_waited_for_leave_nothing_behind() -> None:
    deadlines, _, _ = made()
    for n in range(100_000):
        entry = Entry(1e6 + n)
        deadlines.add([entry])
        deadlines.remove(entry)
    assert len(deadlines._ticks) < 5_000
    assert not deadlines._buckets


async def test_a_real_loop_keeps_the_time() -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[list[Entry]] = loop.create_future()
    deadlines = Deadlines[Entry](loop, told.set_result)
    entry = Entry(loop.time() + 0.01)
    deadlines.add([entry])
    assert await told == [entry]
    assert loop.time() >= entry.deadline
    deadlines.close()
