"""Batches of which more or less is executed than was sent: answers that the worker knows, and requests with regions."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from shoal.batching.fair_queue import Queued
from shoal.errors import Unavailable
from shoal.modelconfig.batching import BatchingSettings
from support.policy_bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.batcher.learning import BatchTimes

BASE, SLOPE = 0.004, 0.002
SIZES = range(1, 9)


def engine(size: int) -> float:
    """Seconds."""
    return BASE + SLOPE * size


def half_known(source: random.Random, size: int) -> int:
    """Of a batch, what the engine runs."""
    return sum(source.random() < 0.5 for _ in range(size))


def none_known(_: random.Random, size: int) -> int:
    return size


def regions(_: random.Random, size: int) -> int:
    """Of each request."""
    return 3 * size


def taught(runs: Callable[[random.Random, int], int], *, tells: bool = True, least: int = 1) -> Bench:
    """After 200 batches of ``least`` to 8, as far as those are filled, one after the other."""
    bench, source = Bench(BatchingSettings(max_batch_size=8)), random.Random(1)
    for number in range(200):
        size, stream = source.randint(least, 8), f"s{number}"
        bench.arrive(size)
        bench.permit(stream)
        bench.policy.fail(Unavailable("what had no room"))
        if executed := runs(source, len(bench.sent[stream])):
            bench.now += engine(executed)
            bench.policy.executed(bench.now, stream, 0.0, executed if tells else 0)
        else:
            bench.policy.stalled(bench.now, stream)
    return bench


def times(bench: Bench) -> BatchTimes:
    return bench.policy._work.times


@pytest.mark.parametrize("runs", [none_known, half_known, regions])
@pytest.mark.parametrize("least", [1, 8])
def test_the_engines_curve_is_the_same_whatever_is_known(runs: Callable[[random.Random, int], int], least: int) -> None:
    learned = times(taught(runs, least=least))
    seen = SIZES if least == 1 or runs is half_known else [8 if runs is none_known else 6]
    assert [learned.executing(size) for size in seen] == pytest.approx([engine(size) for size in seen])


def test_a_batch_is_expected_to_know_as_much_as_those_before() -> None:
    assert times(taught(none_known)).share == 1.0
    assert times(taught(regions)).share == pytest.approx(3.0)
    learned = times(taught(half_known))
    assert learned.share == pytest.approx(0.5, abs=0.08)
    assert learned.expected(8) == pytest.approx(engine(8 * learned.share))
    assert learned.largest(learned.expected(6)) == pytest.approx(6)
    assert learned.more(learned.expected(6) - learned.expected(4)) == pytest.approx(2)


@pytest.mark.parametrize(("preferred", "sizes"), [((), [2]), ((3, 6), [1, 2]), ((4,), [1])])
def test_requests_that_need_several_rows_fill_a_batch_sooner(preferred: tuple[int, ...], sizes: list[int]) -> None:
    bench = taught(regions)
    settings = BatchingSettings(max_batch_size=8, preferred_batch_size=preferred, max_queue_delay_microseconds=10**6)
    bench.policy.configure(settings)
    bench.arrive(5)
    bench.permit("full")
    assert (len(bench.sent["full"]), bench.closed["full"]) == (sizes[-1], "preferred")
    assert bench.policy._closing._sizes == sizes
    bench.policy.fail(Unavailable("the rest"))
    for number in range(300):  # and whole pictures come again
        stream = f"w{number}"
        bench.arrive(8)
        bench.permit(stream)
        bench.policy.fail(Unavailable("what had no room"))
        bench.now += 0.01
        bench.policy.executed(bench.now, stream, 0.0, len(bench.sent[stream]))
    assert len(bench.sent["w299"]) == (preferred or (8,))[-1]


def test_requests_that_need_more_rows_than_a_batch_has_are_seen_for_what_they_need() -> None:
    bench = Bench(BatchingSettings(max_batch_size=8))
    for number in range(100):
        stream = f"s{number}"
        bench.arrive(8)
        bench.permit(stream)
        bench.policy.fail(Unavailable("what had no room"))
        needed = 3 * len(bench.sent[stream])
        executed = min(8, needed)
        bench.now += engine(executed)
        bench.policy.executed(bench.now, stream, 0.0, executed, needed - executed)
    learned = times(bench)
    assert learned.share == pytest.approx(3.0)
    assert len(bench.sent["s99"]) == 2  # and not three, of which one would wait until the others are through
    assert [learned.executing(size) for size in (6, 8)] == pytest.approx([engine(6), engine(8)])


def test_known_answers_make_no_larger_batch() -> None:
    bench = taught(half_known)
    bench.arrive(20)
    bench.permit("full")
    assert (len(bench.sent["full"]), bench.closed["full"]) == (8, "preferred")


def test_an_older_worker_seems_to_execute_all_that_is_sent() -> None:
    learned = times(taught(half_known, tells=False))
    assert learned.share == 1.0
    assert learned.executing(8) == learned.expected(8) < 0.75 * engine(8)


@pytest.mark.parametrize(("runs", "refused"), [(none_known, 8), (half_known, 0)])
def test_a_request_is_refused_by_what_is_executed_of_those_ahead(
    runs: Callable[[random.Random, int], int], refused: int
) -> None:
    """One full batch executes and one waits: 36 to 50 ms where all is executed of them, 33 at most where half is."""
    bench = taught(runs)
    bench.arrive(8)
    bench.permit("busy")
    bench.arrive(8)
    hurried = [Queued("a", bench.now, bench.now + 0.0345) for _ in range(8)]
    bench.do(bench.policy.arrived(bench.now, hurried))
    assert len(bench.rejected) == refused
