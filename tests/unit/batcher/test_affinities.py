from __future__ import annotations

import pytest

from shoal.batcher.affinities import Affinities
from shoal.batching.fair_queue import Queued
from shoal.modelconfig.batching import BatchingSettings
from support.policy_bench import BULK, INTERACTIVE, Bench

AT_ONCE = BatchingSettings(max_batch_size=4)
CAT, DOG = "6ba7b810", "7cb8c921"


def bench(settings: BatchingSettings = AT_ONCE) -> Bench:
    """Two idle workers, ``old`` and ``new``; a request about a cat went to the new one, one about a dog to the old."""
    made = Bench(settings)
    for worker, picture in (("new", CAT), ("old", DOG)):
        made.permit(f"{worker}-0", worker=worker)
        made.arrive(1, affinity=picture)
        made.pass_time(1)
        made.policy.executed(made.now, f"{worker}-0")
    assert list(made.sent) == ["new-0", "old-0"]
    made.sent.clear()
    return made


def offer(made: Bench, *workers: str) -> None:
    for worker in workers:
        made.permit(f"{worker}-1", worker=worker)


def test_of_workers_that_are_idle_the_one_that_had_the_picture_is_taken() -> None:
    made = bench()
    offer(made, "old", "new")
    made.arrive(1, affinity=CAT)
    assert list(made.sent) == ["new-1"]
    made.pass_time(1)
    made.arrive(1, affinity=DOG)
    assert list(made.sent) == ["new-1", "old-1"]


@pytest.mark.parametrize("affinity", ["", "unheard of"])
def test_a_request_that_suits_nobody_goes_where_it_always_went(affinity: str) -> None:
    made = bench()
    offer(made, "old", "new")
    made.arrive(1, affinity=affinity)
    assert list(made.sent) == ["old-1"]


def test_nobody_waits_for_a_worker_that_is_busy() -> None:
    made = bench()
    offer(made, "new")
    made.permit("new-2", worker="new")
    made.arrive(1)  # keeps it busy
    offer(made, "old")
    made.pass_time(0.001)
    made.arrive(1, affinity=CAT)
    assert list(made.sent) == ["new-1", "old-1"]


def test_nobody_waits_for_a_worker_that_is_gone() -> None:
    made = bench()
    made.do(made.policy.lost(made.now, "new-0", []))
    offer(made, "old")
    made.arrive(1, affinity=CAT)
    assert list(made.sent) == ["old-1"]
    made.pass_time(1)
    made.policy.executed(made.now, "old-1")
    made.permit("other-1", worker="other")
    made.permit("old-2", worker="old")
    made.arrive(1, affinity=CAT)  # from now on it is the other's
    assert list(made.sent) == ["old-1", "old-2"]


def test_one_owners_words_say_nothing_to_another() -> None:
    made = bench()
    offer(made, "old", "new")
    made.arrive(1, owner="b", affinity=CAT)
    assert list(made.sent) == ["old-1"]


def test_bulk_has_its_own_permits_and_the_same_memory() -> None:
    made = bench()
    for worker in ("old", "new"):
        made.permit(f"{worker}-1", BULK, worker=worker)
    made.arrive(1, BULK, affinity=CAT)
    assert list(made.sent) == ["new-1"]
    offer_stream = "new-9"
    made.permit(offer_stream, INTERACTIVE, worker="new")
    assert "new-9" not in made.sent


def test_with_a_latency_objective_it_decides_between_workers_that_have_as_much_to_do() -> None:
    made = bench(BatchingSettings(max_batch_size=4, latency_objective_microseconds=500_000))
    made.permit("new-1", worker="new")
    made.permit("another-1", worker="another")
    made.arrive(1, affinity=CAT)
    assert list(made.sent) == ["new-1"]  # by name it would be the other one


def test_workers_without_a_name_are_no_place() -> None:
    made = Bench(AT_ONCE)
    made.permit("s-0", worker="")
    made.arrive(1, affinity=CAT)
    assert len(made.policy._affinities) == 0


def test_only_so_many_are_remembered_and_those_that_were_used_stay() -> None:
    memory = Affinities(most=3)
    asked = [Queued("a", 0, 1, affinity=text) for text in ("1", "2", "3", "1", "4")]
    for number, request in enumerate(asked):
        memory.sent([request], f"w{number}")
    assert len(memory) == 3
    assert [memory.wanted(Queued("a", 0, 1, affinity=text)) for text in ("1", "2", "3", "4")] == ["w3", "", "w2", "w4"]
    memory.sent([Queued("a", 0, 1) for _ in range(9)], "w")
    assert len(memory) == 3
