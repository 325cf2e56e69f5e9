from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.batcher.meter import STRANGER, Meters, count_strangers
from shoal.batcher.request import Request
from shoal.errors import Code, NotFound
from shoal.observe.metrics import BATCHER
from shoal.runtime.priority import Priority

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


def request(arrived: float = 0.0, priority: Priority = Priority.INTERACTIVE) -> Request:
    return Request(owner="a", arrived=arrived, deadline=9.0, priority=priority, message=b"", reply=None)


def test_requests_for_models_that_nobody_serves_are_counted_together() -> None:
    labels = {"model": STRANGER, "code": "NOT_FOUND", "priority": "interactive"}
    before = gauge("requests_total", **labels) or 0
    refused = request()
    refused.fail(1.0, NotFound("no such model"))
    count_strangers([refused])
    assert gauge("requests_total", **labels) == before + 1


def test_what_ends_together_is_counted_by_code_and_priority() -> None:
    meter = Meters().of("ended", Counted(0, 0))
    answered = [request(arrived) for arrived in (0.0, 0.9)]
    bulk, failed = request(priority=Priority.BULK), request()
    for each in (*answered, bulk):
        each.answer(1.0, b"")
    failed.fail(1.0, NotFound("no such image"))
    meter.ended([*answered, bulk, failed])

    def count(name: str, priority: str, **more: str) -> float | None:
        return gauge(name, model="ended", priority=priority, **more)

    assert count("requests_total", "interactive", code="OK") == 2
    assert count("requests_total", "interactive", code="NOT_FOUND") == 1
    assert count("requests_total", "bulk", code="OK") == 1
    assert count("request_seconds_count", "interactive") == 2
    assert count("request_seconds_sum", "interactive") == 1.1
    assert count("request_seconds_bucket", "interactive", le="0.128") == 1
    assert count("request_seconds_bucket", "bulk", le="1.024") == 1
    assert answered[0].code is Code.OK
