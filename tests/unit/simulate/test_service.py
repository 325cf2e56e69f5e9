from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from shoal.arrivals.processes import poisson, until
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.percentile import percentile
from shoal.runtime.priority import Priority
from shoal.simulate.cluster import Cluster
from shoal.simulate.costs import MeasuredCosts
from shoal.simulate.curve import CostCurve
from shoal.simulate.events import Events
from shoal.simulate.replica import Replica, ServedModel
from shoal.simulate.scenario import Autoscaling, Fault, Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant, LogNormal

CURVE = CostCurve(0.008, 0.001)
"""8 in 16 ms: 500 a second."""


def model(name: str = "a", **batching: int) -> SimulatedModel:
    return SimulatedModel(name, BatchingSettings(**{"max_batch_size": 8, **batching}), CURVE, Constant(0.002))


def evenly(rate: float, seconds: float) -> list[float]:
    return [number / rate for number in range(int(rate * seconds))]


def scenario(rate: float = 300.0, replicas: int = 1, seconds: float = 5.0, **changes: object) -> Scenario:
    told = Scenario(
        [model()], [SimulatedPool("p", ("a",), replicas)], [Load("a", evenly(rate, seconds))], seconds, warm_up=1.0
    )
    return replace(told, **changes)  # type: ignore[arg-type]


def test_a_lone_request_takes_its_ways_its_preparation_and_a_batch_of_one() -> None:
    outcome = simulate(scenario(rate=1.0)).models["a"]
    assert outcome.latencies == pytest.approx([0.0005 + 0.0005 + 0.002 + 0.009 + 0.0005 + 0.0005] * 4)
    assert (outcome.offered, outcome.answered, outcome.mean_batch_size) == (4, 4, 1.0)


@pytest.mark.parametrize("balancing", ["permits", "round_robin", "least_load", "random"])
def test_all_are_answered_and_the_utilisation_is_what_the_batches_take(balancing: str) -> None:
    outcome = simulate(scenario(rate=1200.0, replicas=3, balancing=balancing))
    told = outcome.models["a"]
    assert told.answered == told.offered == 4800
    assert told.throughput == pytest.approx(1200.0, rel=0.02)
    batches = told.throughput / told.mean_batch_size
    busy = batches * CURVE.seconds(1) + (told.throughput - batches) * CURVE.slope
    assert outcome.utilisation["p"] == pytest.approx(busy / 3, rel=0.02)
    assert outcome.replica_seconds["p"] == pytest.approx(12.0)


def test_batching_in_front_makes_larger_batches_than_batching_in_each_server() -> None:
    """At part load with a delay, and one request in many replicas' queues each."""
    settings = model(max_queue_delay_microseconds=10_000)
    sizes = [
        simulate(scenario(rate=1600.0, replicas=8, models=[settings], balancing=balancing)).models["a"].mean_batch_size
        for balancing in ("permits", "round_robin")
    ]
    assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize("balancing", ["permits", "least_load"])
def test_the_same_seed_gives_the_same_outcome_bit_for_bit_and_another_one_another(balancing: str) -> None:
    told = replace(model(), prepare=LogNormal(0.002, 0.8), jitter=LogNormal(1.0, 0.1))
    outcomes = [simulate(scenario(models=[told], balancing=balancing, seed=seed)) for seed in (3, 3, 4)]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].models["a"].latencies != outcomes[2].models["a"].latencies


def test_two_models_share_a_device_and_own_ones_do_not() -> None:
    models = [model("a"), model("b")]
    loads = [Load(name, evenly(300.0, 5.0)) for name in ("a", "b")]
    medians = []
    for devices in ("shared", "own"):
        pool = SimulatedPool("p", ("a", "b"), 1, devices=devices)
        outcome = simulate(scenario(models=models, pools=[pool], loads=loads)).models
        medians.append(outcome["a"].latencies[len(outcome["a"].latencies) // 2])
    assert medians[0] > 1.2 * medians[1]


def test_decoding_threads_bound_what_is_prepared_at_once() -> None:
    slow = replace(model(), prepare=Constant(0.050))
    few = SimulatedPool("p", ("a",), 1, decoding_threads=8)
    loads = [Load("a", evenly(300.0, 5.0), timeout=math.inf)]
    outcome = simulate(scenario(models=[slow], pools=[few], loads=loads)).models["a"]
    assert outcome.throughput <= 8 / 0.050
    assert simulate(scenario(models=[slow], loads=loads)).models["a"].throughput > 1.2 * outcome.throughput


def test_beyond_capacity_requests_are_refused_and_owners_share() -> None:
    loads = [
        Load("a", evenly(900.0, 5.0), owner="loud"),
        Load("a", [time + 1e-4 for time in evenly(100.0, 5.0)], owner="soft"),
    ]
    outcome = simulate(scenario(models=[model(max_queue_size=200)], loads=loads)).models["a"]
    assert outcome.offered == outcome.answered + outcome.refused + outcome.late + outcome.failed
    assert outcome.refused > 1000
    assert outcome.throughput == pytest.approx(500.0, rel=0.05)
    offered, answered = outcome.owners["soft"]
    assert answered > 0.9 * offered


def test_who_is_not_answered_in_time_is_late_and_costs_no_engine_time() -> None:
    fault = Fault("replica", 2.0, 3.0, "p-0", detection_seconds=0.9)
    loads = [Load("a", evenly(300.0, 5.0), timeout=0.2)]
    outcome = simulate(scenario(loads=loads, faults=[fault])).models["a"]
    assert 200 < outcome.late <= 330
    assert outcome.latencies[-1] <= 0.2 + 0.005 + 0.001


def test_interactive_requests_go_before_bulk() -> None:
    bulk = Load("a", evenly(900.0, 5.0), owner="night", priority=Priority.BULK)
    outcome = simulate(scenario(rate=100.0, loads=[Load("a", evenly(100.0, 5.0)), bulk])).models["a"]
    offered, answered = outcome.owners["anyone"]
    assert answered == offered
    assert outcome.latencies[int(0.99 * offered)] < 0.1  # they are the quicker ones


@pytest.mark.parametrize(("kind", "target"), [("replica", "p-0"), ("server", "0"), ("zone", "0")])
def test_requests_under_a_replica_that_ends_are_sent_again(kind: str, target: str) -> None:
    told = scenario(rate=600.0, replicas=4, zones=2, faults=[Fault(kind, 2.0, 3.0, target)])
    outcome = simulate(told)
    gone = {"replica": 1, "server": 1, "zone": 2}[kind]
    assert outcome.replica_seconds["p"] == pytest.approx(16.0 - gone)
    assert outcome.models["a"].answered >= outcome.models["a"].offered - 8  # two that die at once may have had the same
    assert outcome.models["a"].latencies[-1] > 0.02  # those that were sent again, alone


def test_without_shoal_what_a_server_had_fails_with_it() -> None:
    told = scenario(rate=600.0, replicas=4, balancing="round_robin", faults=[Fault("replica", 2.0, 3.0, "p-0")])
    assert 0 < simulate(told).models["a"].failed < 20


def test_where_no_worker_is_left_requests_fail_after_a_while() -> None:
    told = scenario(rate=10.0, seconds=20.0, faults=[Fault("replica", 2.0, 15.0, "p-0")])
    outcome = simulate(told).models["a"]
    assert 115 < outcome.failed <= 130  # those of the last second before it is back are answered
    assert outcome.answered == outcome.offered - outcome.failed


def test_until_a_loss_is_noticed_requests_wait_for_it() -> None:
    fault = Fault("replica", 2.0, 4.0, "p-0", detection_seconds=1.5)
    outcome = simulate(scenario(rate=300.0, replicas=2, faults=[fault])).models["a"]
    assert outcome.answered == outcome.offered
    assert outcome.latencies[-1] > 1.4


def test_what_is_slow_makes_answers_late_for_its_time() -> None:
    usual = simulate(scenario()).models["a"].latencies[-1]
    for fault in (Fault("slow_replica", 2.0, 3.0, "p-0", 2.0), Fault("slow_store", 2.0, 3.0, factor=30.0)):
        assert simulate(scenario(faults=[fault])).models["a"].latencies[-1] > 1.2 * usual


def test_an_autoscaler_adds_replicas_late_and_takes_them_away_later() -> None:
    scaling = Autoscaling("p", 1, 4, 0.6, scrape_seconds=5.0, start_seconds=10.0, stabilisation_seconds=20.0)
    times = evenly(480.0, 60.0) + [60.0 + time for time in evenly(20.0, 120.0)]
    told = scenario(loads=[Load("a", times)], seconds=180.0, autoscaling=[scaling])
    seconds = simulate(told).replica_seconds["p"]
    assert 179 + 45 < seconds < 179 + 3 * 85
    unscaled = simulate(replace(told, autoscaling=[]))
    assert unscaled.replica_seconds["p"] == pytest.approx(179.0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"balancing": "by_turns"}, "expected one of permits"),
        ({"warm_up": 9.0}, "less than seconds"),
        ({"loads": [Load("b", [])]}, "no pool serves"),
        ({"faults": [Fault("replica", 1.0, 2.0, "q-0")]}, "POOL-NUMBER, such as p-0"),
        ({"faults": [Fault("zone", 1.0, 2.0, "east")]}, "its number, from 0"),
        ({"faults": [Fault("flood", 1.0, 2.0)]}, "expected one of replica"),
        ({"faults": [Fault("server", 2.0, 2.0, "0")]}, "a later end"),
        ({"autoscaling": [Autoscaling("q", 1, 2)]}, "isn't there"),
        ({"autoscaling": [Autoscaling("p", 3, 2)]}, "3 to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        simulate(scenario(**changes))


def test_a_place_that_goes_leaves_its_number_and_its_room_to_the_next() -> None:
    told = scenario(pools=[SimulatedPool("p", ("a",), 3, replicas_of_a_server=2), SimulatedPool("q", ("a",), 1)])
    cluster = Cluster(told, Events(), Nobody())
    cluster.start()
    assert [(place.name, place.server) for place in cluster.places] == [("p-0", 0), ("p-1", 0), ("p-2", 1), ("q-0", 2)]
    cluster.remove(cluster.places[0])
    added = [cluster.add(pool) for pool in (told.pools[0], told.pools[0], told.pools[1])]
    assert [(place.name, place.server) for place in added] == [("p-0", 0), ("p-3", 1), ("q-1", 3)]


class Nobody:
    """Sends nothing to replicas."""

    def join(self, replica: Replica) -> None: ...
    def drain(self, replica: Replica) -> None: ...
    def lost(self, replica: Replica) -> None: ...


@pytest.mark.parametrize(
    ("processes", "instances", "prepare", "rate"),
    [
        (1, 1, 0.030, 2 * 8 / 0.047),  # two permits; a batch of 8 holds one for 30 ms, then 16 to execute, and 1 of way
        (2, 1, 0.030, 500.0),  # four could carry 680 a second; the one instance of both processes can't
        (3, 4, 0.030, 9 * 8 / 0.047),  # each has its part of four, rounded up, and one more permit
        (3, 4, 0.010, 2000.0),  # nine could carry 2,667; no more than four ever execute
    ],
)
def test_each_process_of_a_worker_has_permits_and_all_share_its_instances(
    processes: int, instances: int, prepare: float, rate: float
) -> None:
    told = replace(model(instance_count=instances), prepare=Constant(prepare))
    pool = SimulatedPool("p", ("a",), 1, worker_processes=processes, devices="own")
    outcome = simulate(scenario(rate=2.0 * rate, models=[told], pools=[pool]))
    assert outcome.models["a"].throughput == pytest.approx(rate, rel=0.01)
    assert outcome.utilisation["p"] == pytest.approx(rate / 500 / instances, rel=0.01)


def test_batchers_are_told_a_process_s_part_of_the_instances() -> None:
    events, told = Events(), model(instance_count=4)
    worker = Replica("w", events, processes=3)
    served = ServedModel(worker, told, events, random.Random(1))
    assert served.settings == replace(told.settings, instance_count=2)


def test_batches_of_several_processes_are_full_under_an_objective_though_a_device_is_shared() -> None:
    flat = MeasuredCosts((8,), (0.005,), (1.0, 1.5, 2.0, 2.5))
    settings = BatchingSettings(max_batch_size=8, latency_objective_microseconds=18_000, instance_count=4)
    models = [SimulatedModel("a", settings, flat, Constant(0.005))]
    pools = [SimulatedPool("p", ("a",), 4, worker_processes=4)]
    times = until(poisson(0.7 * 4 * 4000, random.Random(1)), 1.5)
    outcome = simulate(Scenario(models, pools, [Load("a", times)], 1.5, warm_up=0.5)).models["a"]
    assert outcome.mean_batch_size > 7.9
    assert percentile(outcome.latencies, 0.99) == pytest.approx(0.0155, abs=0.001)


def test_a_worker_that_ends_takes_all_of_its_processes_with_it() -> None:
    pool = SimulatedPool("p", ("a",), 2, worker_processes=2)
    lost = Fault("replica", at=2.0, until=60.0, target="p-0")
    outcome = simulate(scenario(rate=1000.0, pools=[pool], faults=[lost])).models["a"]
    assert outcome.failed == 0
    after = simulate(scenario(rate=1000.0, pools=[pool], faults=[lost], warm_up=3.0)).models["a"]
    assert 450 < after.throughput <= 505  # the other worker alone
