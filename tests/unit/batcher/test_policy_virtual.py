"""What the policy comes to over thousands of requests: the real one, under virtual time, with engines on a curve."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.percentile import percentile
from shoal.runtime.precedence import PATIENCE
from shoal.runtime.priority import Priority
from shoal.simulate.curve import CostCurve
from shoal.simulate.queue import Load, VirtualService

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.simulate.replica import Batch

INTERACTIVE, BULK = Priority
GPU = CostCurve(0.005, 0.0002)
"""32 requests in 11 ms."""
CPU = CostCurve(0.0015, 0.0065)
"""8 in 54 ms."""
SLOW_GPU = CostCurve(0.0232, 0.00105)
"""16 in 40 ms."""
SMALL_GPU = CostCurve(0.0147, 0.00066)
"""8 in 20 ms."""
OBJECTIVE = 0.1
PREFETCH = {"path_seconds": 0.0005, "prepare_seconds": 0.003}


def batching(size: int, **changes: int) -> BatchingSettings:
    return BatchingSettings(max_batch_size=size, **changes)


def promised(size: int, seconds: float = OBJECTIVE) -> BatchingSettings:
    return batching(size, latency_objective_microseconds=int(1e6 * seconds))


def p99(service: VirtualService, since: float = 1.0) -> float:
    found = percentile(service.latencies(INTERACTIVE, since), 0.99)
    assert found is not None
    return found


ANY = st.builds(
    batching,
    st.sampled_from([1, 4, 16]),
    preferred_batch_size=st.sampled_from([(), (1,), (4, 16)]),
    max_queue_delay_microseconds=st.sampled_from([0, 5_000]),
    latency_objective_microseconds=st.sampled_from([0, 1_000, 40_000]),
    max_queue_size=st.sampled_from([0, 30]),
    instance_count=st.integers(1, 2),
)
LOADS = st.lists(
    st.builds(
        Load,
        st.sampled_from([20.0, 200.0, 800.0]),
        st.sampled_from(Priority),
        st.sampled_from([1, 32]),
        st.sampled_from([0, 60]),
        st.sampled_from("ab"),
        st.sampled_from([0.02, 0.2, 1e9]),
    ),
    min_size=1,
    max_size=3,
)


@given(ANY, LOADS, st.sampled_from([GPU, CPU]), st.integers(1, 5), st.booleans(), st.integers(0, 9))
@settings(max_examples=60)
def test_each_request_is_answered_or_refused_once(
    chosen: BatchingSettings, loads: list[Load], curve: CostCurve, workers: int, named: bool, seed: int
) -> None:
    service = VirtualService(chosen, curve, workers, noise=0.3, seed=seed, named=named, **PREFETCH)
    service.run(0.2, loads)
    out = Counter(map(id, (request for request, _ in service.answered)))
    out += Counter(id(rejection.request) for rejection in service.rejected)
    assert set(out.values()) <= {1}
    assert len(out) == service.arrivals
    assert service.policy.queued == 0
    assert all(1 <= len(batch.requests) <= chosen.max_batch_size for batch in service.batches)
    assert all(
        batch.requests[0].priority is batch.priority or batch.priority is INTERACTIVE for batch in service.batches
    )
    assert all(
        request.priority is BULK for batch in service.batches if batch.priority is BULK for request in batch.requests
    )


@pytest.mark.parametrize(("curve", "size"), [(GPU, 32), (CPU, 8)])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_lone_interactive_request_waits_for_the_executing_batch_and_its_own(
    curve: CostCurve, size: int, workers: int
) -> None:
    service = VirtualService(batching(size), curve, workers, **PREFETCH)
    service.run(10.0, [Load(2.0), Load(1.0, BULK, in_flight=8 * size * workers, owner="b")])
    assert len(service.latencies(INTERACTIVE)) >= 10
    own = max(curve.seconds(len(b.requests)) for b in service.batches if b.priority is INTERACTIVE)
    assert service.latencies(INTERACTIVE, 1.0)[-1] <= curve.seconds(size) + own + 0.006


@pytest.mark.parametrize(("curve", "size"), [(GPU, 32), (CPU, 8)])
@pytest.mark.parametrize("chosen", [batching, promised])
def test_bulk_takes_what_interactive_requests_leave(curve: CostCurve, size: int, chosen: type) -> None:
    service = VirtualService(chosen(size), curve, 2, **PREFETCH)
    capacity = 2 * curve.capacity(size)
    service.run(8.0, [Load(0.3 * capacity), Load(1.0, BULK, in_flight=16 * size, owner="b")])
    interactive, bulk = (
        sum(1 < at <= 8 for request, at in service.answered if request.priority is priority) / 7 / capacity
        for priority in (INTERACTIVE, BULK)
    )
    assert interactive == pytest.approx(0.3, abs=0.05)
    assert bulk >= 0.9 * (1 - interactive)


def test_bulk_has_its_share_however_much_interactive_work_there_is() -> None:
    service = VirtualService(batching(8), CPU, 1, **PREFETCH)
    service.run(30.0, [Load(1.0, in_flight=64), Load(1.0, BULK, in_flight=64, owner="b")])
    bulk = sum(batch.priority is BULK for batch in service.batches if 1 < batch.ended < 30)
    assert bulk / sum(1 < batch.ended < 30 for batch in service.batches) >= 0.1


def test_bulk_under_an_older_worker_without_classes_is_served_all_the_same() -> None:
    service = VirtualService(batching(8), CPU, 1, levels=False, tells=False, **PREFETCH)
    service.run(10.0, [Load(1.0, in_flight=64), Load(1.0, BULK, in_flight=64, owner="b")])
    shares = Counter(batch.priority for batch in service.batches)
    assert min(shares[BULK], shares[INTERACTIVE]) > 0.3 * len(service.batches)


FLOOD = Load(1.0, BULK, in_flight=192, owner="b")
"""Twelve batches: more than workers take ahead, so there is always more."""


@pytest.mark.parametrize(
    ("around", "most"),
    [
        ({"path_seconds": 0.001}, 1.5),
        ({"path_seconds": 0.001, "noise": 0.2}, 1.5),
        ({"path_seconds": 0.001, "noise": 0.1, "late_seconds": 0.004}, 1.5),
        ({"path_seconds": 0.001, "prepare_seconds": 0.004}, 1.5),
        ({"path_seconds": 0.001, "tells": False}, 2.0),
    ],
    ids=["calm", "noise", "late", "prepares", "older worker"],
)
def test_interactive_p99_beside_bulk_is_hardly_more_than_alone_and_bulk_gets_the_rest(
    around: dict[str, Any], most: float
) -> None:
    found, bulk = {}, 0.0
    for name, loads in {"alone": [Load(120.0)], "beside": [Load(120.0), FLOOD]}.items():
        service = VirtualService(batching(16, max_queue_delay_microseconds=20_000), SLOW_GPU, **around)
        service.run(60.0, loads)
        found[name] = p99(service)
        bulk = sum(1 < at <= 60 for request, at in service.answered if request.priority is BULK) / 59
    assert found["beside"] <= most * found["alone"]
    assert bulk >= 0.9 * (SLOW_GPU.capacity(16) / (1 + around.get("noise", 0) / 2) - 120.0)


def test_no_bulk_request_waits_for_good_while_others_ride() -> None:
    """At most two bulk batches are at a worker, and each waits for its patience."""
    service = VirtualService(batching(16), SLOW_GPU, path_seconds=0.001)
    service.run(60.0, [Load(120.0), FLOOD])
    assert service.latencies(BULK)[-1] <= (2 * PATIENCE + 16) * SLOW_GPU.seconds(16)


@given(
    st.sampled_from([0.1, 0.3, 0.6, 0.8]),
    st.sampled_from([1, 3]),
    st.floats(0, 0.25),
    st.floats(0, 0.015),
    st.floats(0, 0.01),
    st.booleans(),
    st.integers(0, 99),
)
@settings(max_examples=25)
def test_p99_keeps_the_objective_whatever_batches_take_and_however_late_the_timer_is(
    load: float, workers: int, noise: float, late: float, prepare: float, tells: bool, seed: int
) -> None:
    around: dict[str, Any] = {"noise": noise, "late_seconds": late, "prepare_seconds": prepare, "tells": tells}
    service = VirtualService(promised(32), GPU, workers, seed=seed, path_seconds=0.0005, **around)
    capacity = workers * GPU.capacity(32) / (1 + noise / 2)
    service.run(max(2.0, 4000 / capacity / load), [Load(load * capacity)])
    assert p99(service) <= OBJECTIVE


def doubled(_: str, batch: Batch, seconds: float) -> float:
    """From one batch to the next each takes twice as long."""
    return 2 * seconds if batch.began >= 10 else seconds


def one_slow(worker: str, _: Batch, seconds: float) -> float:
    """The first replica, at which work gathers."""
    return 2 * seconds if worker == "w00" else seconds


def shared(_: str, batch: Batch, seconds: float) -> float:
    """Another model has the first 20 ms of each 50 ms."""
    return seconds + max(0.0, 0.02 - batch.began % 0.05)


@pytest.mark.parametrize("takes", [doubled, one_slow, shared])
@pytest.mark.parametrize(("workers", "load"), [(1, 0.1), (4, 0.1), (4, 0.3)])
def test_p99_keeps_the_objective_at_workers_that_are_not_as_they_were(
    takes: Callable[[str, Batch, float], float], workers: int, load: float
) -> None:
    service = VirtualService(promised(8), SMALL_GPU, workers, path_seconds=0.001, noise=0.1, takes=takes)
    service.run(30.0, [Load(load * workers * SMALL_GPU.capacity(8))])
    assert p99(service) <= OBJECTIVE


@pytest.mark.parametrize("workers", [1, 4])
def test_p99_keeps_the_objective_over_steps_of_the_load(workers: int) -> None:
    service = VirtualService(promised(8), SMALL_GPU, workers, path_seconds=0.001, noise=0.1)
    for load in (0.1, 0.8, 0.1, 0.5, 0.02):
        began = service.now
        service.run(10.0, [Load(load * workers * SMALL_GPU.capacity(8) / 1.05)])
        assert p99(service, began + 0.3) <= OBJECTIVE


@pytest.mark.parametrize("late", [0.0, 0.01])
def test_a_late_timer_costs_little_engine_time(late: float) -> None:
    service = VirtualService(promised(8), SMALL_GPU, path_seconds=0.001, late_seconds=late)
    service.run(60.0, [Load(0.3 * SMALL_GPU.capacity(8))])
    assert sum(service.busy.values()) / len(service.answered) * SMALL_GPU.capacity(8) <= 1.2


@pytest.mark.parametrize("load", [0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_p99_keeps_the_objective(load: float, workers: int) -> None:
    service = VirtualService(promised(32), GPU, workers, noise=0.2, **PREFETCH)
    capacity = workers * GPU.capacity(32) / 1.1  # with the noise
    service.run(max(1.0, min(20.0, 6000 / capacity / load)), [Load(load * capacity)])
    assert p99(service, since=0.3) <= OBJECTIVE
    assert not service.rejected


@pytest.mark.parametrize("load", [0.1, 0.3, 0.6])
def test_p99_keeps_the_objective_where_each_request_takes_its_time(load: float) -> None:
    service = VirtualService(promised(8), CPU, 1, noise=0.2, **PREFETCH)
    service.run(60.0, [Load(load * CPU.capacity(8) / 1.1)])
    assert p99(service) <= 1.02 * OBJECTIVE


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_at_part_load_engine_seconds_are_nearly_those_of_full_batches(workers: int) -> None:
    capacity = workers * GPU.capacity(32)
    seconds = max(1.0, min(10.0, 12000 / capacity))
    spent = {}
    for name, chosen in {"objective": promised(32), "delay 0": batching(32)}.items():
        service = VirtualService(chosen, GPU, workers, **PREFETCH)
        service.run(seconds, [Load(0.3 * capacity)])
        spent[name] = sum(service.busy.values()) / len(service.answered) * GPU.capacity(32)
    assert spent["objective"] <= 1.2
    assert spent["delay 0"] > 2.0


def test_at_part_load_some_workers_stay_idle() -> None:
    service = VirtualService(promised(32), GPU, 8, **PREFETCH)
    service.run(3.0, [Load(0.25 * 8 * GPU.capacity(32))])
    idle = [name for name, seconds in service.busy.items() if seconds < 0.05]
    assert len(idle) >= 4
