from __future__ import annotations

import asyncio

import pytest

from shoal.batching.permits import Permit, PermitGate
from shoal.errors import Unavailable
from shoal.runtime.priority import Priority


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_and_the_next_when_one_comes_back() -> None:
    gate = PermitGate(1)
    with await gate.acquire("a"):
        waiting = asyncio.ensure_future(gate.acquire("a"))
        await settle()
        assert not waiting.done()
    (await waiting).release()
    assert gate.granted == 0


async def test_batchers_take_turns() -> None:
    gate = PermitGate(1)
    held = await gate.acquire("greedy")
    order: list[str] = []

    async def use(batcher: str) -> None:
        with await gate.acquire(batcher):
            order.append(batcher)

    users = [asyncio.ensure_future(use(batcher)) for batcher in ("greedy", "greedy", "greedy", "modest")]
    await settle()
    held.release()
    await asyncio.gather(*users)
    assert order == ["greedy", "modest", "greedy", "greedy"]


async def test_idle_permits_of_one_do_not_shut_out_another() -> None:
    gate = PermitGate(2, idle_seconds=0)
    for _ in range(2):
        await gate.acquire("idle")
    for _ in range(2):
        (await gate.acquire("busy")).use()
    late = [asyncio.ensure_future(gate.acquire(name)) for name in ("idle", "busy", "new")]
    await settle()
    assert gate.granted == 4
    gate.close()
    await asyncio.gather(*late, return_exceptions=True)


async def test_one_who_asks_gets_no_more_than_the_limit_however_idle() -> None:
    gate = PermitGate(2, idle_seconds=0)
    held = [await gate.acquire("a") for _ in range(2)]
    held[0].use()
    more = asyncio.ensure_future(gate.acquire("a"))
    await settle()
    assert not more.done()
    held[1].release()
    await more


async def test_a_permit_just_granted_counts_against_all() -> None:
    gate = PermitGate(1, idle_seconds=60)
    held = await gate.acquire("a")
    other = asyncio.ensure_future(gate.acquire("b"))
    await settle()
    assert not other.done()
    held.release()
    await other


async def test_giving_back_twice_counts_once() -> None:
    gate = PermitGate(2)
    permit = await gate.acquire("a")
    permit.release()
    permit.release()
    assert gate.granted == 0


async def test_a_waiter_that_leaves_costs_no_permit() -> None:
    gate = PermitGate(1)
    held = await gate.acquire("a")
    leaver = asyncio.ensure_future(gate.acquire("a"))
    await settle()
    leaver.cancel()
    held.release()
    await settle()
    assert gate.granted == 0


async def test_a_waiter_that_leaves_just_after_its_grant_gives_it_back() -> None:
    gate = PermitGate(1)
    held = await gate.acquire("a")
    leaver = asyncio.ensure_future(gate.acquire("a"))
    await settle()
    held.release()
    leaver.cancel()
    await settle()
    assert gate.granted == 0


async def test_a_closed_gate_turns_all_away() -> None:
    gate = PermitGate(1)
    await gate.acquire("a")
    waiting = asyncio.ensure_future(gate.acquire("a"))
    await settle()
    gate.close()
    with pytest.raises(Unavailable, match="draining"):
        await waiting
    with pytest.raises(Unavailable, match="draining"):
        await gate.acquire("a")


async def test_a_permit_is_renewed_for_the_next_batch_while_nobody_else_waits() -> None:
    gate = PermitGate(1)
    permit = await gate.acquire("a")
    own = asyncio.ensure_future(gate.acquire("a"))
    await settle()
    permit.use()
    assert permit.renew()
    assert (gate.granted, gate.in_use, own.done()) == (1, 0, False)
    own.cancel()


async def test_a_permit_goes_to_another_who_waits() -> None:
    gate = PermitGate(1)
    permit = await gate.acquire("a")
    permit.use()
    other = asyncio.ensure_future(gate.acquire("b"))
    await settle()
    assert not permit.renew()
    (await other).release()
    assert gate.granted == 0


async def test_a_closed_gate_renews_nothing() -> None:
    gate = PermitGate(1)
    permit = await gate.acquire("a")
    permit.use()
    gate.close()
    assert not permit.renew()
    await gate.drained()


async def test_it_is_told_once_how_long_each_permit_was_in_use() -> None:
    used: list[float] = []
    gate = PermitGate(2, used=lambda seconds, _: used.append(seconds))
    unused, first = await gate.acquire("a"), await gate.acquire("a")
    first.use()
    assert first.renew()
    assert len(used) == 1
    first.use()
    first.release()
    first.release()
    unused.release()
    assert len(used) == 2
    assert all(seconds >= 0 for seconds in used)


INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


async def waits(gate: PermitGate, asker: str, priority: Priority) -> asyncio.Future[Permit]:
    asking = asyncio.ensure_future(gate.acquire(asker, priority))
    await settle()
    return asking


async def in_use(gate: PermitGate, priority: Priority, count: int, asker: str = "a") -> list[Permit]:
    permits = [await gate.acquire(asker, priority) for _ in range(count)]
    for permit in permits:
        permit.use()
    return permits


@pytest.mark.parametrize("limit", [2, 5])
async def test_interactive_waits_for_no_bulk_permit(limit: int) -> None:
    gate = PermitGate(limit, idle_seconds=60)
    await in_use(gate, BULK, limit)
    await in_use(gate, INTERACTIVE, limit)
    assert (gate.in_use_of(BULK), gate.in_use_of(INTERACTIVE)) == (limit, limit)


@pytest.mark.parametrize("used", range(6))
async def test_bulk_has_what_interactive_batches_leave_and_always_one(used: int) -> None:
    gate = PermitGate(5, idle_seconds=60)
    await in_use(gate, INTERACTIVE, used)
    left = max(1, 5 - used)
    await in_use(gate, BULK, left)
    more = await waits(gate, "a", BULK)
    assert not more.done()
    more.cancel()


async def test_unused_interactive_permits_take_nothing_from_bulk() -> None:
    for seconds in (0, 60):
        gate = PermitGate(2, idle_seconds=seconds)
        for _ in range(2):
            await gate.acquire("a")
        await settle()
        await in_use(gate, BULK, 2)


async def test_bulk_goes_on_when_an_interactive_batch_is_through() -> None:
    gate = PermitGate(3, idle_seconds=60)
    first, second = await in_use(gate, INTERACTIVE, 2)
    await in_use(gate, BULK, 1)
    renewed, released = await waits(gate, "a", BULK), await waits(gate, "b", BULK)
    assert first.renew()
    await settle()
    assert renewed.done()
    second.release()
    await settle()
    assert released.done()


async def test_bulk_gives_back_what_interactive_batches_took_meanwhile() -> None:
    gate = PermitGate(3, idle_seconds=60)
    bulk = await in_use(gate, BULK, 3)
    await in_use(gate, INTERACTIVE, 3)
    assert [permit.renew() for permit in bulk] == [False, False, True]
    assert gate.in_use_of(BULK) == 0


async def test_bulk_askers_take_turns_among_themselves() -> None:
    gate = PermitGate(2, idle_seconds=60)
    first, second = await in_use(gate, BULK, 2, "greedy")
    greedy, modest = await waits(gate, "greedy", BULK), await waits(gate, "modest", BULK)
    interactive = await waits(gate, "other", INTERACTIVE)
    assert interactive.done()
    assert not first.renew()
    await settle()
    assert greedy.done()
    assert not second.renew()
    assert (await modest).asker == "modest"


async def test_a_closed_gate_turns_bulk_away_too_and_waits_for_it() -> None:
    gate = PermitGate(1)
    (held,) = await in_use(gate, BULK, 1)
    waiting = await waits(gate, "a", BULK)
    gate.close()
    with pytest.raises(Unavailable, match="draining"):
        await waiting
    drained = asyncio.ensure_future(gate.drained())
    await settle()
    assert not drained.done()
    held.release()
    await drained
