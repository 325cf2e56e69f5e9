"""Where requests are queued: in front of all replicas, or at each."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from shoal.batcher.quarantine import Quarantine
from shoal.errors import Unavailable
from shoal.runtime.priority import BULK, INTERACTIVE
from shoal.simulate.policy_queue import PolicyQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.runtime.priority import Priority
    from shoal.simulate.events import Events
    from shoal.simulate.policy_queue import Ways
    from shoal.simulate.replica import Replica, Request
    from shoal.simulate.scenario import Scenario
    from shoal.simulate.tally import Tally


@dataclass(frozen=True, slots=True)
class Context:
    """What makes queues."""

    scenario: Scenario
    events: Events
    ways: Ways
    tallies: Mapping[str, Tally]

    def queues(self, quarantine: Quarantine, models: tuple[str, ...], place: str = "") -> dict[str, PolicyQueue]:
        """One for each of the models."""
        return {
            model.name: PolicyQueue(
                model,
                self.events,
                self.ways,
                self.tallies[model.name],
                random.Random(f"{self.scenario.seed}/prepare/{model.name}/{place}"),
                quarantine,
            )
            for model in self.scenario.models
            if model.name in models
        }

    def levels(self, model: str) -> list[Priority]:
        """Streams are of the one priority until requests of the other come."""
        bulk = any(load.model == model and load.priority is BULK for load in self.scenario.loads)
        return [INTERACTIVE, BULK] if bulk else [INTERACTIVE]


class Shared:
    """Shoal's batcher: a queue a model, and batches go to whichever replica has a permit."""

    def __init__(self, context: Context) -> None:
        """Without replicas."""
        self._context = context
        names = tuple(model.name for model in context.scenario.models)
        self._queues = context.queues(Quarantine(self._freed), names)
        self._levels = {name: context.levels(name) for name in names}

    def entrance(self, model: str) -> Callable[[Request], object]:
        """Where its requests come in."""
        return self._queues[model].enter_one

    def join(self, replica: Replica) -> None:
        """It takes batches from now on."""
        for name, processes in replica.models.items():
            for served in processes:
                self._queues[name].join(served, self._levels[name])

    def drain(self, replica: Replica) -> None:
        """It takes no more of them."""
        for name in replica.models:
            self._queues[name].drain(replica.name)

    def lost(self, replica: Replica) -> None:
        """It has ended under what it had."""
        for name in replica.models:
            self._queues[name].lost(replica.name)

    def _freed(self) -> None:
        """A worker has no suspect any more; told in the midst of an event."""
        self._context.events.at(self._context.events.time, self._wake)

    def _wake(self) -> None:
        for queue in self._queues.values():
            queue.wake()


class Apart:
    """A load balancer of single requests: each replica has queues of its own, and batches for itself."""

    def __init__(self, context: Context) -> None:
        """Without replicas."""
        self._context = context
        self._balancing = context.scenario.balancing
        self._source = random.Random(f"{context.scenario.seed}/balancing")
        self._of: dict[str, dict[str, PolicyQueue]] = {}
        """By replica and model."""
        self._turn: dict[str, list[str]] = {model.name: [] for model in context.scenario.models}
        """The replicas of each model, whose turn is next first."""

    def entrance(self, model: str) -> Callable[[Request], object]:
        """Where its requests come in."""
        return partial(self._enter, model)

    def _enter(self, model: str, request: Request) -> None:
        """It goes to the replica whose turn it is, that has least (of several, whose turn it is), or any."""
        turn = self._turn[model]
        if not turn:
            request.ended = True
            self._context.tallies[model].refused(request, Unavailable("no replica serves the model now"))
            return
        name = self._choice(turn)
        self._of[name][model].enter_one(request)

    def _choice(self, turn: list[str]) -> str:
        if self._balancing == "random":
            return self._source.choice(turn)
        name = min(turn, key=self._load) if self._balancing == "least_load" else turn[0]
        turn.remove(name)
        turn.append(name)
        return name

    def join(self, replica: Replica) -> None:
        """It takes requests from now on."""
        models = tuple(replica.models)
        self._of[replica.name] = queues = self._context.queues(Quarantine(), models, replica.name)
        for name, processes in replica.models.items():
            for served in processes:
                queues[name].join(served, self._context.levels(name))
            self._turn[name].insert(0, replica.name)

    def drain(self, replica: Replica) -> None:
        """It takes no more of them; those that it has are answered."""
        for name in replica.models:
            self._turn[name].remove(replica.name)

    def lost(self, replica: Replica) -> None:
        """It has ended: all that it had fails."""
        self.drain(replica)
        for queue in self._of.pop(replica.name).values():
            queue.fail(replica.name, Unavailable("the server ended"))

    def _load(self, name: str) -> int:
        return sum(queue.in_flight for queue in self._of[name].values())
