"""Requests that wait so long that their answers would come too late."""

from __future__ import annotations

from shoal.batching.fair_queue import Queued
from shoal.modelconfig.batching import BatchingSettings
from support.policy_bench import Bench


def test_a_request_whose_answer_would_come_too_late_makes_room_for_the_next() -> None:
    bench = Bench(BatchingSettings(max_batch_size=2))
    bench.learn((0.02, 0.0))
    hurried, patient = ([Queued("a", bench.now, bench.now + left) for _ in range(2)] for left in (0.01, 1.0))
    bench.do(bench.policy.arrived(bench.now, [*hurried, *patient]))
    bench.permit("s")
    assert (bench.rejected, bench.sent["s"]) == (hurried, patient)


def test_where_nobody_is_left_to_take_its_place_it_is_sent_all_the_same() -> None:
    """What was expected may be wrong, and only an answer corrects it."""
    bench = Bench(BatchingSettings(max_batch_size=2))
    bench.learn((5.0, 0.0))
    hurried = [Queued("a", bench.now, bench.now + 0.5)]
    bench.do(bench.policy.arrived(bench.now, hurried))
    bench.permit("s")
    assert (bench.rejected, bench.sent["s"]) == ([], hurried)
