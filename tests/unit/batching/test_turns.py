from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.batching.turns import Order, Turns
from shoal.errors import DeadlineExceeded
from shoal.runtime.precedence import BULK_SHARE, PATIENCE
from shoal.runtime.priority import Priority

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


class Begun(NamedTuple):
    """How a batch was handed over."""

    priority: Priority
    overtakes: bool
    """An interactive one waited."""
    passes_bulk: bool
    """A bulk one waited that could have begun."""
    executes: bool
    """An instance was free for it."""


class Engine:
    """One that runs what it is handed in that order, one batch an instance; a step ends the batch that began first."""

    def __init__(self, instances: int, ahead: int) -> None:
        self.order = Order(instances, ahead)
        self.instances = instances
        self.handed: list[int] = []
        """What is there, in the order of coming: the first ``instances`` of it execute."""
        self.priorities: dict[int, Priority] = {}
        self.waiting: Counter[Priority] = Counter()
        self.begun: list[Begun] = []

    def ask(self, number: int, priority: Priority, riding: float = 0.0) -> None:
        self.priorities[number] = priority
        self.waiting[priority] += 1
        self.order.ask(number, priority, riding)
        self._hand_over()

    def step(self) -> int | None:
        if not self.handed:
            return None
        ended = self.handed.pop(0)
        self.order.end(self.priorities[ended])
        self._hand_over()
        return ended

    def _hand_over(self) -> None:
        while (number := self.order.begin()) is not None:
            bulk = [self.priorities[each] for each in self.handed].count(BULK)
            passes_bulk = bool(self.waiting[BULK]) and bulk < self.instances
            executes = len(self.handed) < self.instances
            self.begun.append(Begun(self.priorities[number], bool(self.waiting[INTERACTIVE]), passes_bulk, executes))
            self.waiting[self.priorities[number]] -= 1
            self.handed.append(number)


@given(st.integers(1, 3), st.integers(0, 1), st.lists(st.sampled_from([INTERACTIVE, BULK, None]), max_size=80))
def test_an_interactive_batch_waits_for_those_that_execute_alone_but_for_bulks_share(
    instances: int, ahead: int, steps: list[Priority | None]
) -> None:
    engine = Engine(instances, ahead)
    for number, step in enumerate(steps):
        if step is None:
            engine.step()
        else:
            engine.ask(number, step)
        assert len(engine.handed) <= instances + ahead
        assert [engine.priorities[each] for each in engine.handed].count(BULK) <= instances
    passed = 0
    for begun in engine.begun:
        if begun.priority is BULK:
            if begun.overtakes or not begun.executes:
                assert passed == BULK_SHARE - 1
            passed = 0
        else:
            passed = passed + 1 if begun.passes_bulk else 0
            assert passed < BULK_SHARE


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("instances", [1, 2, 4])
def test_while_both_wait_bulk_has_its_share(instances: int, ahead: int) -> None:
    engine = Engine(instances, ahead)
    for number in range(800):
        engine.ask(number, INTERACTIVE if number % 2 else BULK)
    ended = Counter(engine.priorities[number] for _ in range(160) if (number := engine.step()) is not None)
    assert ended[BULK] == pytest.approx(160 / BULK_SHARE, abs=instances + 1)


def test_interactive_batches_that_come_ahead_of_every_end_starve_no_bulk() -> None:
    """None of them ever waits: the place ahead is free whenever one comes."""
    engine = Engine(1, 1)
    engine.ask(0, INTERACTIVE)
    engine.ask(1, BULK)
    ended = []
    for number in range(2, 100):
        engine.ask(number, INTERACTIVE)
        ended.append(engine.step())
    assert ended.index(1) == BULK_SHARE
    assert engine.step() is not None


def test_bulk_that_rides_in_interactive_batches_has_its_share_there() -> None:
    engine = Engine(1, 0)
    engine.ask(0, BULK)
    engine.ask(1, BULK)
    for number in range(2, 2 + PATIENCE):
        engine.ask(number, INTERACTIVE, riding=0.5)
    ended = [engine.step() for _ in range(2 + PATIENCE)]
    assert ended.index(1) == PATIENCE


def test_bulk_takes_free_instances_alone_and_interactive_goes_ahead() -> None:
    engine = Engine(2, 1)
    for number in range(4):
        engine.ask(number, BULK)
    assert engine.handed == [0, 1]
    engine.ask(4, INTERACTIVE)
    assert engine.handed == [0, 1, 4]
    engine.step()
    assert engine.handed == [1, 4]
    engine.step()
    assert engine.handed == [4, 2]


def test_who_leaves_holds_up_nobody() -> None:
    engine = Engine(1, 0)
    for number in range(3):
        engine.ask(number, BULK)
    assert engine.order.leave(1, BULK)
    assert not engine.order.leave(1, BULK)
    engine.step()
    assert engine.handed == [2]


async def test_interactive_goes_first_when_a_turn_ends() -> None:
    turns, order = Turns(1), []
    await turns.begin(BULK)

    async def one(name: str, priority: Priority) -> None:
        async with turns.turn(priority):
            order.append(name)

    tasks = [
        asyncio.create_task(one(name, priority)) for name, priority in (("b", BULK), ("c", BULK), ("i", INTERACTIVE))
    ]
    await asyncio.sleep(0)
    turns.end(BULK)
    await asyncio.gather(*tasks)
    assert order == ["i", "b", "c"]


async def test_a_deadline_ends_the_wait_and_leaves_the_turn_to_the_next() -> None:
    turns = Turns(1)
    await turns.begin(INTERACTIVE)
    with pytest.raises(DeadlineExceeded):
        await turns.begin(INTERACTIVE, monotonic())
    waiting = asyncio.create_task(turns.begin(BULK))
    turns.end(INTERACTIVE)
    await waiting


async def test_one_that_is_cancelled_as_its_turn_comes_gives_it_back() -> None:
    turns = Turns(1)
    await turns.begin(INTERACTIVE)
    gone, following = (asyncio.create_task(turns.begin(INTERACTIVE)) for _ in range(2))
    await asyncio.sleep(0)
    turns.end(INTERACTIVE)
    gone.cancel()
    await following
    assert gone.cancelled()
