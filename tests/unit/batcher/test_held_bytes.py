from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.batcher.held_bytes import REQUEST_BYTES, HeldBytes
from shoal.errors import Overloaded

LIMIT = 100 * REQUEST_BYTES


@pytest.mark.parametrize(("owners", "share"), [(1, 50), (2, 33), (4, 20)])
def test_each_of_n_owners_gets_one_part_of_n_and_one_more(owners: int, share: int) -> None:
    budget = HeldBytes(LIMIT)
    held = dict.fromkeys(map(str, range(owners)), 0)
    for _ in range(100):
        for owner in held:
            try:
                budget.take(owner, 0)
            except Overloaded:
                continue
            held[owner] += 1
    assert all(count == pytest.approx(share, abs=1) for count in held.values())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30_000)), max_size=60))
def test_what_is_given_back_is_free_again_and_a_newcomer_always_finds_room(calls: list[tuple[str, int]]) -> None:
    budget = HeldBytes(LIMIT)
    taken = []
    for owner, size in calls:
        try:
            budget.take(owner, size)
        except Overloaded:
            continue
        taken.append((owner, size))
    assert budget._free >= LIMIT / 2**3
    for owner, size in taken:
        budget.give_back(owner, size)
    assert (budget._free, budget._held) == (LIMIT, {})
