from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import Overloaded
from shoal.worker.budget import Account, Budget, Reservation


async def acquire(budget: Budget, account: Account, amount: int) -> Reservation:
    return budget.take(account, amount) or await budget.queue(account, amount)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_released_goes_to_who_waits() -> None:
    budget = Budget(10, max_waiting=10)
    first = await acquire(budget, Account("a"), 7)
    waiting = asyncio.create_task(acquire(budget, Account("b"), 7))
    await settle()
    assert not waiting.done()
    first.release()
    first.release()
    reservation = await waiting
    assert (reservation.held, first.held, budget.used) == (True, False, 7)


async def test_one_owner_leaves_room_and_a_newcomer_finds_it() -> None:
    budget = Budget(100, max_waiting=100, leaves_room=True)
    held = [budget.take(Account("greedy"), 10) for _ in range(10)]
    assert sum(reservation is not None for reservation in held) == 5
    assert budget.take(Account("newcomer"), 10) is not None


async def test_the_whole_budget_is_granted_to_one_that_is_so_large() -> None:
    budget = Budget(100, max_waiting=10, leaves_room=True)
    small = await acquire(budget, Account("a"), 10)
    large = asyncio.create_task(acquire(budget, Account("b"), 100))
    await settle()
    assert budget.take(Account("c"), 1) is None, "nobody overtakes it"
    small.release()
    assert (await large).amount == 100


async def test_who_waits_for_its_own_shares_holds_up_nobody() -> None:
    budget = Budget(100, max_waiting=10, leaves_room=True)
    held = await acquire(budget, Account("greedy"), 60)
    more = asyncio.create_task(acquire(budget, Account("greedy"), 60))
    await settle()
    other = await asyncio.wait_for(acquire(budget, Account("other"), 30), 60)
    assert not more.done()
    held.release()
    await more
    other.release()


async def test_owners_take_turns() -> None:
    budget = Budget(1, max_waiting=100)
    order: list[str] = []
    first = await acquire(budget, Account("x"), 1)

    async def one(owner: str) -> None:
        with await acquire(budget, Account(owner), 1):
            order.append(owner)

    tasks = [asyncio.create_task(one(owner)) for owner in ("a", "a", "a", "b", "a", "c")]
    await settle()
    first.release()
    await asyncio.gather(*tasks)
    assert order[:3] == ["a", "b", "c"]


async def test_too_many_of_one_owner_are_turned_away() -> None:
    budget = Budget(1, max_waiting=1)
    first = await acquire(budget, Account("a"), 1)
    waiting = asyncio.create_task(acquire(budget, Account("a"), 1))
    await settle()
    with pytest.raises(Overloaded):
        await acquire(budget, Account("a"), 1)
    other = asyncio.create_task(acquire(budget, Account("b"), 1))
    first.release()
    (await waiting).release()
    (await other).release()


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_wait_takes_nothing(granted: bool) -> None:
    budget = Budget(1, max_waiting=10)
    first = await acquire(budget, Account("a"), 1)
    waiting = budget.queue(Account("b"), 1)
    if granted:
        first.release()
    assert waiting.cancel() is not granted
    if granted:
        waiting.result().release()
    first.release()
    assert budget.used == 0
    assert budget.take(Account("c"), 1) is not None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20), st.booleans()), max_size=40),
    st.booleans(),
)
def test_it_is_never_exceeded_and_everybody_is_served(steps: list[tuple[str, int, bool]], leaves_room: bool) -> None:
    async def run() -> None:
        budget = Budget(20, max_waiting=1000, leaves_room=leaves_room)
        held: list[Reservation] = []
        served: Counter[str] = Counter()

        async def one(owner: str, amount: int) -> None:
            reservation = await acquire(budget, Account(owner), amount)
            assert budget.used <= 20
            held.append(reservation)
            served[owner] += 1

        tasks = []
        for owner, amount, release in steps:
            tasks.append(asyncio.create_task(one(owner, amount)))
            await settle()
            if release and held:
                held.pop(0).release()
        while not all(task.done() for task in tasks):
            await settle()
            if held:
                held.pop(0).release()
        await asyncio.gather(*tasks)
        assert served == Counter(owner for owner, _, _ in steps)
        while held:
            held.pop().release()
        assert budget.used == 0

    asyncio.run(asyncio.wait_for(run(), 60))


async def served(budget: Budget, accounts: list[Account]) -> list[Account]:
    """In which order those who wait behind somebody else get a reservation of 1."""
    order: list[Account] = []

    async def one(account: Account) -> None:
        with await acquire(budget, account, 1):
            order.append(account)

    first = await acquire(budget, Account("x"), budget.limit)
    tasks = [asyncio.create_task(one(account)) for account in accounts]
    await settle()
    first.release()
    await asyncio.gather(*tasks)
    return order


async def test_interactive_goes_before_bulk_but_for_its_share() -> None:
    accounts = [*[Account("a", bulk=True)] * 4, *[Account("b")] * 20]
    order = await served(Budget(1, max_waiting=100), accounts)
    assert [number for number, account in enumerate(order) if account.bulk] == [7, 15, 22, 23]


async def test_an_interactive_one_overtakes_bulk_that_waits_and_bulk_overtakes_nobody() -> None:
    budget = Budget(10, max_waiting=100)
    held = await acquire(budget, Account("x"), 5)
    bulk = asyncio.create_task(acquire(budget, Account("a", bulk=True), 10))
    await settle()
    assert budget.take(Account("c", bulk=True), 1) is None
    assert budget.take(Account("b"), 1) is not None
    held.release()
    await settle()
    assert not bulk.done()
    bulk.cancel()


async def test_interactive_ones_that_always_find_room_do_not_starve_a_large_bulk_one() -> None:
    budget = Budget(10, max_waiting=100)
    held = [await acquire(budget, Account("x"), 1)]
    bulk = asyncio.create_task(acquire(budget, Account("a", bulk=True), 10))
    await settle()
    while (reservation := budget.take(Account("b"), 1)) is not None:
        held.append(reservation)
        held.pop(0).release()
    for each in held:
        each.release()
    assert (await bulk).amount == 10


async def test_what_an_owner_does_in_bulk_leaves_room_for_its_interactive_pictures() -> None:
    budget = Budget(100, max_waiting=1, leaves_room=True)
    while budget.take(Account("a", bulk=True), 10):
        pass
    assert budget.take(Account("a"), 10) is not None
