from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.batching.fair_queue import FairQueue, Queued


def queued(*owners: str) -> list[Queued]:
    return [Queued(owner, 0.0, 1.0) for owner in owners]


def test_one_owner_is_first_in_first_out() -> None:
    queue: FairQueue[Queued] = FairQueue()
    items = queued("a", "a", "a")
    for item in items:
        queue.append(item)
    assert queue.take(2) == items[:2]
    assert len(queue) == 1


def test_owners_take_turns_across_takes() -> None:
    queue: FairQueue[Queued] = FairQueue()
    for item in queued("a", "a", "a", "a", "b", "b"):
        queue.append(item)
    assert [item.owner for item in queue.take(3)] == ["a", "b", "a"]
    assert [item.owner for item in queue.take(3)] == ["b", "a", "a"]


def test_whoever_is_taken_from_has_had_its_turn() -> None:
    queue: FairQueue[Queued] = FairQueue()
    items = queued("a", "b", "b", "c")
    queue.extend(items)
    assert queue.take_of("b") is items[1]
    assert list(queue.owners) == ["a", "c", "b"]
    assert queue.take_of("c") is items[3]
    assert list(queue.owners) == ["a", "b"]
    assert len(queue) == 2


def test_what_is_pushed_back_comes_first_of_its_owner() -> None:
    queue: FairQueue[Queued] = FairQueue()
    first, second = queued("a", "a")
    queue.append(second)
    queue.push_back(first)
    assert queue.take(2) == [first, second]


def test_discarding_twice_is_harmless() -> None:
    queue: FairQueue[Queued] = FairQueue()
    (item,) = queued("a")
    queue.append(item)
    assert queue.discard(item)
    assert not queue.discard(item)
    assert len(queue) == 0


def test_the_longest_owner_gives_up_its_newest() -> None:
    queue: FairQueue[Queued] = FairQueue()
    items = queued("a", "b", "b")
    for item in items:
        queue.append(item)
    assert queue.pop_newest_of_longest("a") == [items[2]]


def test_a_tie_costs_the_newcomer() -> None:
    queue: FairQueue[Queued] = FairQueue()
    items = queued("a", "b")
    for item in items:
        queue.append(item)
    assert queue.pop_newest_of_longest("b") == [items[1]]


def test_how_many_leave_before_the_newest_of_an_owner() -> None:
    queue: FairQueue[Queued] = FairQueue()
    for item in queued("a", "a", "a", "a", "b", "b"):
        queue.append(item)
    assert queue.ahead_of(queue.waiting_of("a")) == 5
    assert queue.ahead_of(queue.waiting_of("b")) == 3
    assert queue.ahead_of(1) == 1


def test_room_for_several_is_made_by_those_who_have_most() -> None:
    queue: FairQueue[Queued] = FairQueue()
    items = queued("a", "b", "b", "c", "c", "c", "c")
    queue.extend(items)
    popped = queue.pop_newest_of_longest("a", 4)
    assert popped == [items[6], items[5], items[2], items[4]] or popped == [items[6], items[5], items[4], items[2]]
    assert [item.owner for item in queue.take(9)] == ["a", "b", "c"]


def test_no_more_is_popped_than_there_is() -> None:
    queue: FairQueue[Queued] = FairQueue()
    queue.extend(queued("a", "b"))
    assert len(queue.pop_newest_of_longest("a", 5)) == 2
    assert len(queue) == 0


@given(st.lists(st.sampled_from("aaaaaab"), min_size=1, max_size=60), st.integers(1, 8))
def test_nobody_starves(owners: list[str], size: int) -> None:
    queue: FairQueue[Queued] = FairQueue()
    for item in queued(*owners):
        queue.append(item)
    waiting = owners.count("b")
    while len(queue):
        batch = [item.owner for item in queue.take(size)]
        assert batch.count("b") >= min(waiting, len(batch) // 2)
        waiting -= batch.count("b")
