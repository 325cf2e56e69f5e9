from __future__ import annotations

import asyncio

from shoal.runtime.doorbell import Doorbell


async def test_a_ring_wakes_all_who_wait_and_nobody_who_comes_later() -> None:
    bell = Doorbell()
    first = [asyncio.create_task(bell.rings()) for _ in range(2)]
    await asyncio.sleep(0)
    bell.ring()
    late = asyncio.create_task(bell.rings())
    await asyncio.gather(*first)
    assert not late.done()
    bell.ring()
    await late


async def test_one_that_waits_no_longer_is_passed_over() -> None:
    bell = Doorbell()
    left, stays = asyncio.create_task(bell.rings()), asyncio.create_task(bell.rings())
    await asyncio.sleep(0)
    left.cancel()
    bell.ring()
    await stays
    await asyncio.wait([left])
    assert left.cancelled()
