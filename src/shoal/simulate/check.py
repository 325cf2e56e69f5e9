"""Whether a scenario makes sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.simulate.faults import ENDING, SLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.simulate.scenario import Autoscaling, Fault, Scenario

BALANCING = ("permits", "round_robin", "least_load", "random")


def check(scenario: Scenario) -> None:
    """Raises ConfigurationError, naming all that makes no sense."""
    if faults := list(_faults(scenario)):
        raise ConfigurationError("the scenario: " + "; ".join(faults))


def _faults(scenario: Scenario) -> Iterator[str]:
    if not 0 <= scenario.warm_up < scenario.seconds:
        yield f"warm_up is {scenario.warm_up:g} s: expected 0 or more, and less than seconds, {scenario.seconds:g}"
    if scenario.balancing not in BALANCING:
        yield f"balancing is {scenario.balancing!r}: expected one of {', '.join(BALANCING)}"
    if scenario.zones < 1:
        yield f"zones is {scenario.zones}: expected 1 or more"
    for pool in (pool for pool in scenario.pools if pool.worker_processes < 1):
        yield f"pool {pool.name!r} has {pool.worker_processes} worker processes: expected 1 or more"
    models = {model.name for model in scenario.models}
    served = {name for pool in scenario.pools for name in pool.models}
    for name in sorted(served - models):
        yield f"a pool serves {name!r}, of which nothing is known; models are {', '.join(sorted(models))}"
    for load in scenario.loads:
        if load.model not in served:
            yield f"a load asks for {load.model!r}, which no pool serves; pools serve {', '.join(sorted(served))}"
    for fault in scenario.faults:
        yield from _fault(scenario, fault)
    for scaling in scenario.autoscaling:
        yield from _scaling(scenario, scaling)


def _fault(scenario: Scenario, fault: Fault) -> Iterator[str]:
    if fault.kind not in ENDING | SLOW:
        yield f"a fault is {fault.kind!r}: expected one of {', '.join(sorted(ENDING | SLOW))}"
    if not 0 <= fault.at < fault.until:
        yield f"a fault lasts from {fault.at:g} s to {fault.until:g} s: expected a later end"
    if fault.kind in SLOW and not fault.factor > 0:
        yield f"a fault makes slower by {fault.factor:g}: expected more than 0"
    if fault.kind in {"server", "zone"} and not fault.target.isdecimal():
        yield f"a fault strikes {fault.kind} {fault.target!r}: expected its number, from 0"
    if fault.kind in {"replica", "slow_replica"} and not _names_a_replica(scenario, fault.target):
        yield f"a fault strikes the replica {fault.target!r}: expected POOL-NUMBER, such as {scenario.pools[0].name}-0"


def _names_a_replica(scenario: Scenario, target: str) -> bool:
    pool, _, number = target.rpartition("-")
    return number.isdecimal() and pool in {each.name for each in scenario.pools}


def _scaling(scenario: Scenario, scaling: Autoscaling) -> Iterator[str]:
    if scaling.pool not in {pool.name for pool in scenario.pools}:
        yield f"autoscaling names the pool {scaling.pool!r}, which isn't there"
    if not 0 < scaling.smallest <= scaling.largest:
        yield f"autoscaling from {scaling.smallest} to {scaling.largest} replicas: expected 1 or more, and no less then"
    if not 0 < scaling.target_utilisation <= 1:
        yield f"autoscaling to a utilisation of {scaling.target_utilisation:g}: expected more than 0, and 1 at most"
    if scaling.scrape_seconds <= 0:
        yield f"autoscaling looks every {scaling.scrape_seconds:g} s: expected more than 0"
