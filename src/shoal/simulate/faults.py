"""What goes wrong, and when it is well again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.simulate.cluster import Cluster
    from shoal.simulate.events import Events
    from shoal.simulate.policy_queue import Ways
    from shoal.simulate.scenario import Fault

ENDING = frozenset({"replica", "server", "zone"})
SLOW = frozenset({"slow_replica", "slow_store"})


class Faults:
    """Strikes at their times."""

    def __init__(self, faults: Sequence[Fault], cluster: Cluster, ways: Ways, events: Events) -> None:
        """Sets them all."""
        self._cluster, self._ways = cluster, ways
        for fault in faults:
            events.at(fault.at, self._begin, fault)
            events.at(fault.until, self._end, fault)

    def _begin(self, fault: Fault) -> None:
        if fault.kind == "slow_store":
            self._ways.slower_store *= fault.factor
            return
        for place in self._cluster.named(fault.kind, fault.target):
            place.struck += fault.kind in ENDING
            if fault.kind in ENDING:
                self._cluster.end(place, fault.detection_seconds)
            elif place.replica is not None:
                place.replica.slower *= fault.factor

    def _end(self, fault: Fault) -> None:
        if fault.kind == "slow_store":
            self._ways.slower_store /= fault.factor
            return
        for place in self._cluster.named(fault.kind, fault.target):
            place.struck -= fault.kind in ENDING
            if fault.kind in ENDING:
                self._cluster.begin(place)
            elif place.replica is not None:
                place.replica.slower = max(1.0, place.replica.slower / fault.factor)
