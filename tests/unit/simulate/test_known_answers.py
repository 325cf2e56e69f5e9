"""Queues whose mean times are known, each in the 99 % confidence interval of a run with the real policy and permits.

The interval is that of batch means (Law, Simulation Modeling and Analysis, chapter 9.5.3): a run is cut into 20 parts,
whose means count as independent. Formulas: Kleinrock, Queueing Systems, volume 1 (1975) and 2 (1976).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

import pytest

from shoal.arrivals.processes import poisson
from shoal.engine.slots import PREFETCHED
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from shoal.simulate.curve import CostCurve
from shoal.simulate.queue import Load, VirtualService
from shoal.simulate.scenario import Load as Requests
from shoal.simulate.scenario import Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.simulate.replica import Batch, Request

PARTS, T99 = 20, 2.861
"""Student's t of 19 degrees of freedom, two-sided."""
REQUESTS = 10_000
MORE = 24_000
"""Where times vary more, or requests are cheaper in batches."""
MOST_WIDTH = 0.2
"""Half of an interval, over the answer: a wider one would prove nothing."""


@dataclass(frozen=True)
class Draws:
    """Service times of a mean of 1, as a factor; implements ``Spread``."""

    of: Callable[[random.Random], float]

    def draw(self, source: random.Random) -> float:
        return self.of(source)


def exponential(source: random.Random) -> float:
    return source.expovariate(1.0)


def mixed(source: random.Random) -> float:
    """Hyperexponential: one in ten takes 5.5, the others 0.5; a second moment of 2 * (0.1 * 5.5**2 + 0.9 * 0.5**2)."""
    return source.expovariate(1 / 5.5 if source.random() < 0.1 else 1 / 0.5)


MIXED_SECOND_MOMENT = 6.5


def sojourns(
    settings: BatchingSettings,
    rate: float,
    draw: Callable[[random.Random], float] | None,
    loads: Sequence[Load] = (),
    requests: int = REQUESTS,
) -> list[float]:
    """Times from arrival to answer, in the order of answers; a batch takes 1 s in the mean."""
    source = random.Random(7)

    def takes(_: str, __: Batch, seconds: float) -> float:
        return seconds if draw is None else draw(source)

    service = VirtualService(settings, CostCurve(1.0, 0.0), takes=takes, seed=11)
    service.run(requests / rate, loads or [Load(rate)])
    return [at - request.arrived for request, at in service.answered]


def agrees(times: Sequence[float], answer: float) -> None:
    """The answer lies in the interval, which is narrow."""
    kept = times[len(times) // 20 :]
    size = len(kept) // PARTS
    means = [fmean(kept[part * size : (part + 1) * size]) for part in range(PARTS)]
    half = T99 * stdev(means) / math.sqrt(PARTS)
    assert half <= MOST_WIDTH * answer
    assert fmean(means) == pytest.approx(answer, abs=half)


def pollaczek_khinchine(rate: float, second_moment: float) -> float:
    """Mean wait in M/G/1 whose service takes 1 s in the mean (volume 1, 5.68)."""
    return rate * second_moment / (2 * (1 - rate))


def erlang_c(servers: int, offered: float) -> float:
    """The probability of waiting in M/M/c (volume 1, 3.40)."""
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


ONE = BatchingSettings(max_batch_size=1)


@pytest.mark.parametrize(
    ("draw", "second_moment", "rate"),
    [(None, 1.0, 0.7), (exponential, 2.0, 0.6), (mixed, MIXED_SECOND_MOMENT, 0.4)],
    ids=["M/D/1", "M/M/1", "M/G/1"],
)
def test_one_server_waits_as_pollaczek_and_khinchine_say(
    draw: Callable[[random.Random], float] | None, second_moment: float, rate: float
) -> None:
    agrees(sojourns(ONE, rate, draw), pollaczek_khinchine(rate, second_moment) + 1.0)


@pytest.mark.parametrize(("servers", "offered"), [(2, 1.4), (5, 4.0)])
def test_several_servers_wait_as_erlang_says(servers: int, offered: float) -> None:
    settings = BatchingSettings(max_batch_size=1, instance_count=servers)
    wait = erlang_c(servers, offered) / (servers - offered)
    agrees(sojourns(settings, offered, exponential), wait + 1.0)


@pytest.mark.parametrize(("size", "load"), [(4, 0.7), (8, 0.8)])
def test_service_in_full_batches_waits_as_the_bulk_queue_does(size: int, load: float) -> None:
    """The server takes exactly ``size`` at a time, and waits until there are so many: the bulk queue M/M^[K,K]/1.

    Full batches arrive with Erlang gaps: E_K/M/1, a GI/M/1 whose root is sigma (volume 1, 6.3 and 6.23). Before that a
    request waits for those that complete its batch.
    """
    rate = load * size
    sigma = 0.5
    for _ in range(1000):
        sigma = (rate / (rate + 1 - sigma)) ** size
    settings = BatchingSettings(max_batch_size=size, max_queue_delay_microseconds=10**15)
    agrees(sojourns(settings, rate, exponential, requests=MORE), (size - 1) / (2 * rate) + sigma / (1 - sigma) + 1.0)


def test_priorities_move_waits_about_and_save_none() -> None:
    """Kleinrock's conservation law (volume 2, 3.16): of equal service times the mean over all is that of M/M/1."""
    loads = [Load(0.3), Load(0.3, Priority.BULK, owner="b")]
    agrees(sojourns(ONE, 0.6, exponential, loads), pollaczek_khinchine(0.6, 2.0) + 1.0)


POLLED = {"often": (0.6, 0.5), "rarely": (0.15, 2.0)}
"""Of each owner: requests a second, and the mean of their exponential service times."""


def polled(loads: dict[str, tuple[float, float]], requests: int) -> list[tuple[Request, float]]:
    """Owners' queues at one server, which takes one of each in turn and needs no time to go to the next: polling with
    1-limited service. Each request with the time until it began."""
    source, begun = random.Random(7), {}

    def takes(_: str, batch: Batch, __: float) -> float:
        (request,) = batch.requests
        begun[request] = batch.began - request.arrived
        return source.expovariate(1 / loads[request.owner][1])

    service = VirtualService(ONE, CostCurve(1.0, 0.0), takes=takes, seed=11)
    rates = [Load(rate, owner=owner) for owner, (rate, _) in loads.items()]
    service.run(requests / sum(rate for rate, _ in loads.values()), rates)
    return [(request, begun[request]) for request, _ in service.answered]


def test_owners_in_turn_wait_as_the_pseudo_conservation_law_says() -> None:
    """Boxma and Groenendijk, Pseudo-conservation laws in cyclic-service systems (J. Appl. Prob. 24, 1987, 949-964).

    Where the way from queue to queue takes no time, the sum of ``load * mean wait`` over the queues is Kleinrock's
    (volume 2, 3.16): what the turns save one queue the others pay, weighed by their work. Here as a mean over requests,
    each of which counts its owner's mean service time.
    """
    load = sum(rate * mean for rate, mean in POLLED.values())
    second_moments = sum(rate * 2 * mean**2 for rate, mean in POLLED.values())
    law = load * second_moments / (2 * (1 - load))
    waits = polled(POLLED, MORE)
    agrees([POLLED[request.owner][1] * wait for request, wait in waits], law / sum(rate for rate, _ in POLLED.values()))


def test_a_rare_owner_waits_for_one_turn_of_the_other_and_not_for_its_queue() -> None:
    """Exact as its rate goes to 0. Of k requests in M/M/1 when it comes, which are so many with ``(1 - a) * a**k``, the
    one that executes and the prefetched ones are ahead of it; of the queue behind them one request has its turn."""
    often, rare = 0.7, 0.02
    waits = [
        wait for request, wait in polled({"often": (often, 1.0), "rare": (rare, 1.0)}, MORE) if request.owner == "rare"
    ]
    agrees(waits, sum(often**ahead for ahead in range(1, PREFETCHED + 3)))


@pytest.mark.parametrize("draw", [exponential, mixed])
def test_a_shared_device_is_processor_sharing(draw: Callable[[random.Random], float]) -> None:
    """M/G/1 with processor sharing: ``1 / (1 - rate)`` whatever the distribution (volume 2, 4.17).

    Its interval is that of independent runs, since an outcome's times are sorted.
    """
    rate, runs = 0.5, 8
    settings = BatchingSettings(max_batch_size=1, instance_count=100)
    model = SimulatedModel("a", settings, CostCurve(1.0, 0.0), Constant(), Draws(draw))
    seconds = MORE / rate / runs
    means = []
    for seed in range(runs):
        loads = [Requests("a", poisson(rate, random.Random(seed)), timeout=math.inf)]
        pools = [SimulatedPool("p", ("a",), 1)]
        scenario = Scenario([model], pools, loads, seconds, seconds / 20, path=0.0, router=0.0, seed=seed)
        means.append(fmean(simulate(scenario).models["a"].latencies))
    half = 3.499 * stdev(means) / math.sqrt(runs)  # Student's t of 7 degrees of freedom
    assert half <= MOST_WIDTH / (1 - rate)
    assert fmean(means) == pytest.approx(1 / (1 - rate), abs=half)
