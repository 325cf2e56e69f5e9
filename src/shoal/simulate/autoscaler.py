"""Replicas follow the load, by the rule of Kubernetes' HorizontalPodAutoscaler.

https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details:
``ceil(replicas * metric / target)``; nothing happens within a tenth of the target; replicas that aren't ready count as
idle where more are wanted, and as busy as is wanted where fewer are; fewer is the most that was right in a window.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shoal.simulate.cluster import Cluster, Place
    from shoal.simulate.events import Events
    from shoal.simulate.scenario import Autoscaling, Scenario

TOLERANCE: Final = 0.1


def wanted(target: float, busy: float, ready: int, replicas: int) -> int:
    """How many replicas the rule asks for.

    Args:
        target: The wanted share of a replica's time.
        busy: The sum of the shares of those that are ready.
        ready: How many are.
        replicas: Those that start included.
    """
    if not ready:
        return replicas
    starting = replicas - ready
    ratio = busy / ready / target
    if starting and abs(ratio - 1) > TOLERANCE:
        assumed = 0.0 if ratio > 1 else target * starting
        adjusted = (busy + assumed) / replicas / target
        if (adjusted > 1) != (ratio > 1):
            return replicas
        ratio = adjusted
    return replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(round(ratio * replicas, 9))


class Autoscaler:
    """Of one pool."""

    def __init__(self, settings: Autoscaling, cluster: Cluster, scenario: Scenario, events: Events) -> None:
        """Looks for the first time after ``scrape_seconds``."""
        self._settings, self._cluster, self._events = settings, cluster, events
        self._until = scenario.seconds
        self._pool = next(pool for pool in scenario.pools if pool.name == settings.pool)
        self._right: deque[tuple[float, int]] = deque()
        """What was asked for, and when."""
        self._next()

    def _next(self) -> None:
        if (at := self._events.time + self._settings.scrape_seconds) < self._until:
            self._events.at(at, self._look)

    def _look(self) -> None:
        places = self._cluster.of(self._pool.name)
        shares = [share for place in places if (share := self._share(place)) is not None]
        asked = wanted(self._settings.target_utilisation, sum(shares), len(shares), len(places))
        self._follow(places, min(max(asked, self._settings.smallest), self._settings.largest))
        self._next()

    def _share(self, place: Place) -> float | None:
        """Of the time since the last look for which it was busy; None: it wasn't there for all of it."""
        if (replica := place.replica) is None or place.began > self._events.time - self._settings.scrape_seconds:
            return None
        busy = replica.device.busy()
        seconds, place.measured = busy - place.measured, busy
        return seconds / self._settings.scrape_seconds / replica.devices

    def _follow(self, places: list[Place], asked: int) -> None:
        now = self._events.time
        self._right.append((now, asked))
        while self._right[0][0] < now - self._settings.stabilisation_seconds:
            self._right.popleft()
        for _ in range(asked - len(places)):
            place = self._cluster.add(self._pool)
            self._events.at(now + self._settings.start_seconds, self._cluster.begin, place)
        most = max(number for _, number in self._right)
        # Those that aren't ready go first, then the youngest.
        order = sorted(places, key=lambda place: (place.replica is not None, -place.began))
        for place in order[: max(0, len(places) - most)]:
            self._cluster.remove(place)
