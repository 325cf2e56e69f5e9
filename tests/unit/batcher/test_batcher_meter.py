from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.batcher.meter import STRANGER, Meters, count_stranger
from shoal.errors import Code
from shoal.observe.metrics import BATCHER

if TYPE_CHECKING:
    from shoal.batcher.batch_stream import StreamState


@dataclass(eq=False)
class Counted:
    queued: int
    in_flight: int

    def streams(self, state: StreamState) -> int:
        return self.queued if state == "parked" else 0


def gauge(name: str, **labels: str) -> float | None:
    return BATCHER.get_sample_value(f"shoal_batcher_{name}", labels)


def test_gauges_show_the_sum_over_a_models_queues() -> None:
    meters, one, other = Meters(), Counted(2, 5), Counted(3, 7)
    assert meters.of("summed", one) is meters.of("summed", other)
    assert gauge("queue_depth", model="summed") == 5
    assert gauge("in_flight", model="summed") == 12
    assert gauge("streams", model="summed", state="parked") == 5
    meters.remove("summed", one)
    assert gauge("queue_depth", model="summed") == 3


def test_a_queue_that_never_counted_can_be_removed() -> None:
    Meters().remove("never-seen", Counted(1, 1))
    assert gauge("queue_depth", model="never-seen") is None


def test_requests_for_models_that_nobody_serves_are_counted_together() -> None:
    before = gauge("requests_total", model=STRANGER, code="NOT_FOUND") or 0
    count_stranger(Code.NOT_FOUND)
    assert gauge("requests_total", model=STRANGER, code="NOT_FOUND") == before + 1
