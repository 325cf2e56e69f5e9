"""A whole service under virtual time: clients, router, batchers, workers, and what becomes of the requests."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from shoal.simulate.autoscaler import Autoscaler
from shoal.simulate.check import check
from shoal.simulate.cluster import Cluster
from shoal.simulate.events import Events
from shoal.simulate.faults import Faults
from shoal.simulate.front import Apart, Context, Shared
from shoal.simulate.replica import Request
from shoal.simulate.scenario import Outcome
from shoal.simulate.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.simulate.scenario import Load, Scenario


def simulate(scenario: Scenario) -> Outcome:
    """Runs it. The same scenario gives the same outcome, bit for bit, as long as ``times`` of its loads do.

    Raises:
        ConfigurationError: it makes no sense; names what.
    """
    check(scenario)
    return _Run(scenario).outcome()


class Surroundings:
    """Implements ``policy_queue.Ways``."""

    def __init__(self, scenario: Scenario, path: float) -> None:
        self.path = path
        self.slower_store = 1.0
        self.tells = self.named = True
        self._late = scenario.late
        self._source = random.Random(f"{scenario.seed}/late")

    def late(self) -> float:
        """See there."""
        return 0.0 if self._late is None else self._late.draw(self._source)


class _Run:
    """One."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._events = Events()
        shoals = scenario.balancing == "permits"
        # A server that batches for itself has the way there before its queue, and none after it.
        self._ahead = scenario.router + (0.0 if shoals else scenario.path)
        self._ways = Surroundings(scenario, scenario.path if shoals else 0.0)
        self._tallies = {
            model.name: Tally(self._events, scenario.warm_up, scenario.seconds, self._ahead, scenario.moment)
            for model in scenario.models
        }
        context = Context(scenario, self._events, self._ways, self._tallies)
        self._front = Shared(context) if shoals else Apart(context)
        self._cluster = Cluster(scenario, self._events, self._front)

    def outcome(self) -> Outcome:
        """Lets all of it happen."""
        scenario, events = self._scenario, self._events
        self._cluster.start()
        Faults(scenario.faults, self._cluster, self._ways, events)
        for scaling in scenario.autoscaling:
            Autoscaler(scaling, self._cluster, scenario, events)
        events.at(scenario.warm_up, self._cluster.count_from_now)
        events.at(scenario.seconds, self._cluster.count)
        for number, load in enumerate(scenario.loads):
            self.source(number, load).next()
        events.until(float("inf"))
        utilisation, seconds = self._cluster.used
        models = {name: tally.outcome() for name, tally in self._tallies.items()}
        return Outcome(models, utilisation, seconds, events.passed)

    def source(self, number: int, load: Load) -> _Source:
        """Of the requests of a load."""
        enter = self._front.entrance(load.model)
        return _Source(
            number, load, self._scenario.seconds, self._ahead, self._events, self._tallies[load.model], enter
        )


class _Source:
    """Sends the requests of a load, one after the other."""

    def __init__(
        self,
        number: int,
        load: Load,
        until: float,
        ahead: float,
        events: Events,
        tally: Tally,
        enter: Callable[[Request], object],
    ) -> None:
        self._number, self._load, self._until, self._ahead, self._events = number, load, until, ahead, events
        self._times = iter(load.times)
        self._offered, self._enter = tally.offered, enter

    def next(self) -> None:
        """The next one, if there is one before the end."""
        if (sent := next(self._times, self._until)) < self._until:
            self._events.at(sent + self._ahead, self._arrive, sent)

    def _arrive(self, sent: float) -> None:
        come, load = self._events.time, self._load
        request = Request(load.owner, come, come + load.timeout, 0, load.priority, self._number, sent)
        self._offered(request)
        self._enter(request)
        self.next()
