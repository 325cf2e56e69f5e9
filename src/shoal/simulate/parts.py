"""A part of a service in place of all of it: so many of its replicas, with as large a share of its requests.

A service of 1,000 replicas is too large to be simulated for long. A fiftieth of it has 20 of them and every fiftieth
request, so that its load varies as that of the whole does, and a fiftieth of its queue's bound. What is lost is what
only the size brings: fewer requests come while a batch waits, and fewer replicas can take it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from shoal.batcher.policy import DEFAULT_MAX_QUEUE_SIZE
from shoal.errors import ConfigurationError
from shoal.simulate.times import Divisible, Recorded

if TYPE_CHECKING:
    from shoal.simulate.scenario import Load, Scenario, SimulatedModel

MOST_REQUESTS: Final = 10_000_000
"""Of which all are simulated, if nothing else is said."""
SAMPLED_REQUESTS: Final = 3_000_000
"""Of all parts of the full size together, where there are more than that."""
LEAST_REPLICAS: Final = 8
"""Of a pool in a part, whatever the number of requests, where there are as many."""
_OF_ALL: Final = frozenset({"slow_store"})
"""Faults that strike a part as they strike the whole."""


def expected_requests(scenario: Scenario) -> float:
    """How many come, in the mean, of those loads that know it."""
    return sum(load.times.expected(scenario.seconds) for load in scenario.loads if isinstance(load.times, Divisible))


def is_large(scenario: Scenario, parts: int) -> bool:
    """Whether so many parts stand for it, if nothing else is said: where it is too large, and has them."""
    if expected_requests(scenario) <= MOST_REQUESTS:
        return False
    return pieces(scenario) >= parts and all(fault.kind in _OF_ALL for fault in scenario.faults)


def pieces(scenario: Scenario) -> int:
    """Into how many equal pieces it may be cut, of which any number make a part; 1: it can't be cut."""
    limits = [limit for each in scenario.autoscaling for limit in (each.smallest, each.largest)]
    return math.gcd(*(pool.replicas for pool in scenario.pools), *limits)


def share_for(scenario: Scenario, parts: int) -> Fraction:
    """The share of a part with which so many take some minutes.

    Raises:
        ConfigurationError: it has no parts.
    """
    whole = pieces(scenario)
    wanted = SAMPLED_REQUESTS / parts / max(1.0, expected_requests(scenario)) * whole
    least = math.ceil(LEAST_REPLICAS * whole / min(pool.replicas for pool in scenario.pools))
    number = min(max(least, int(wanted)), whole // parts)
    if number >= 4:
        number -= number % 4  # so that there are parts of half and a quarter of the size
    share = Fraction(max(1, number), whole)
    check(scenario, share)
    return share


def check(scenario: Scenario, share: Fraction) -> None:
    """Raises ConfigurationError where it has no such part, naming why and what would do."""
    whole = pieces(scenario)
    sizes = " and ".join(f"{pool.replicas:,}" for pool in scenario.pools)
    if whole == 1:
        raise ConfigurationError(
            f"this scenario has no parts: pools of {sizes} replicas, with the limits of their autoscaling, have no "
            "common divisor; simulate all of it, or change a number"
        )
    if not 0 < share < 1 or (share * whole).denominator > 1:
        raise ConfigurationError(
            f"a share of {share}: pools of {sizes} replicas have parts of 1/{whole}, 2/{whole} and so on"
        )
    for fault in scenario.faults:
        if fault.kind not in _OF_ALL:
            raise ConfigurationError(
                f"a fault of kind {fault.kind} strikes more of a part than of the whole: simulate all of it, or leave "
                "the fault out"
            )


def part(scenario: Scenario, share: Fraction, number: int) -> Scenario:
    """One of its parts; ``check`` says which there are. Another number is other chance."""
    scaling = [
        replace(each, smallest=int(each.smallest * share), largest=int(each.largest * share))
        for each in scenario.autoscaling
    ]
    one_queue = scenario.balancing == "permits"
    return replace(
        scenario,
        models=[_queue_of(model, share) if one_queue else model for model in scenario.models],
        pools=[replace(pool, replicas=int(pool.replicas * share)) for pool in scenario.pools],
        loads=[_load(load, share, number, by_chance=scenario.balancing == "random") for load in scenario.loads],
        autoscaling=scaling,
        seed=scenario.seed * 1_000_003 + number,
    )


def _queue_of(model: SimulatedModel, share: Fraction) -> SimulatedModel:
    """A queue of all replicas is as much longer; one of each replica is not."""
    longest = model.settings.max_queue_size or DEFAULT_MAX_QUEUE_SIZE
    return replace(model, settings=replace(model.settings, max_queue_size=max(1, round(longest * share))))


def _load(load: Load, share: Fraction, number: int, *, by_chance: bool) -> Load:
    times = load.times if isinstance(load.times, Divisible) else Recorded(list(load.times))
    return replace(load, times=times.part(share, number, by_chance=by_chance))
