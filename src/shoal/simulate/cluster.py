"""Replicas on servers: how they come, end, drain and become slow."""

from __future__ import annotations

import random
from bisect import insort
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import TYPE_CHECKING, Protocol

from shoal.simulate.replica import Replica, ServedModel

if TYPE_CHECKING:
    from shoal.simulate.events import Events
    from shoal.simulate.scenario import Scenario, SimulatedPool


class Listener(Protocol):
    """Who sends requests to replicas."""

    def join(self, replica: Replica) -> None:
        """It takes batches from now on."""
        ...

    def drain(self, replica: Replica) -> None:
        """It takes no more of them."""
        ...

    def lost(self, replica: Replica) -> None:
        """It has ended under what it had."""
        ...


@dataclass(eq=False, slots=True)
class Place:
    """A replica's, whichever process is there."""

    pool: SimulatedPool
    number: int
    server: int
    replica: Replica | None = None
    """None: it starts, or is down."""
    started: int = 0
    """Processes that were here."""
    began: float = 0.0
    """When the process began that is here, or came last."""
    since: float = 0.0
    """From when on its seconds count."""
    measured: float = 0.0
    """Seconds of its device's work when the autoscaler looked last."""
    struck: int = 0
    """Faults for whose time no process can be here."""
    leaving: bool = False

    @property
    def name(self) -> str:
        """As faults name it."""
        return f"{self.pool.name}-{self.number}"


class Cluster:
    """All places, and the accounts of what was used."""

    def __init__(self, scenario: Scenario, events: Events, listener: Listener) -> None:
        """Without any replica; ``start`` starts the pools'."""
        self.places: list[Place] = []
        self._scenario, self._events, self._listener = scenario, events, listener
        self._models = {model.name: model for model in scenario.models}
        self._full: list[Fraction] = []
        """How much of each server is used."""
        self._room: list[int] = []
        """The servers that aren't full, in order."""
        self._numbers: dict[str, set[int]] = {pool.name: set() for pool in scenario.pools}
        """Of each pool, those of its places."""
        self._seconds: dict[str, float] = {pool.name: 0.0 for pool in scenario.pools}
        self._device_seconds = dict(self._seconds)
        self._busy = dict(self._seconds)
        self._base: dict[str, float] = {}
        self.used: tuple[dict[str, float], dict[str, float]] = ({}, {})
        """Of each pool: the share of its devices' time that was used, and replica seconds."""

    def start(self) -> None:
        """The pools' replicas are there."""
        for pool in self._scenario.pools:
            for _ in range(pool.replicas):
                self.begin(self.add(pool))

    def of(self, pool: str) -> list[Place]:
        """Its places that aren't about to go."""
        return [place for place in self.places if place.pool.name == pool and not place.leaving]

    def add(self, pool: SimulatedPool) -> Place:
        """A place on the first server that has room."""
        taken = self._numbers[pool.name]
        number = next(n for n in count() if n not in taken)
        taken.add(number)
        share = Fraction(1, pool.replicas_of_a_server)
        server = next((n for n in self._room if self._full[n] + share <= 1), len(self._full))
        if server == len(self._full):
            self._full.append(Fraction(0))
            self._room.append(server)
        self._full[server] += share
        if self._full[server] == 1:
            self._room.remove(server)
        place = Place(pool, number, server)
        self.places.append(place)
        return place

    def begin(self, place: Place) -> None:
        """A fresh process is there and serves."""
        if place.replica is not None or place.leaving or place.struck:
            return
        name = place.name if not place.started else f"{place.name}.{place.started}"
        pool, seed = place.pool, self._scenario.seed
        replica = Replica(
            name,
            self._events,
            pool.decoding_threads,
            shared=pool.devices == "shared",
            processes=pool.worker_processes,
        )
        for model in pool.models:
            source = random.Random(f"{seed}/{name}/{model}")
            for process in range(pool.worker_processes):
                ServedModel(replica, self._models[model], self._events, source, process=process)
        place.replica, place.started, place.measured = replica, place.started + 1, 0.0
        place.began = place.since = self._events.time
        self._listener.join(replica)

    def end(self, place: Place, detection_seconds: float = 0.0) -> None:
        """The process dies."""
        if (replica := place.replica) is None:
            return
        self._account(place)
        replica.die()
        place.replica = None
        self._events.at(self._events.time + detection_seconds, self._listener.lost, replica)

    def remove(self, place: Place) -> None:
        """It drains; its place goes."""
        place.leaving = True
        if self._full[place.server] == 1:
            insort(self._room, place.server)
        self._full[place.server] -= Fraction(1, place.pool.replicas_of_a_server)
        self._numbers[place.pool.name].discard(place.number)
        self.places.remove(place)
        if place.replica is not None:
            self._account(place)
            self._listener.drain(place.replica)

    def named(self, kind: str, target: str) -> list[Place]:
        """Where a fault strikes."""
        if kind in {"replica", "slow_replica"}:
            return [place for place in self.places if place.name == target]
        if kind == "server":
            return [place for place in self.places if place.server == int(target)]
        return [place for place in self.places if place.server % self._scenario.zones == int(target)]

    # Accounts.

    def count_from_now(self) -> None:
        """What was used until now doesn't count."""
        for account in (self._seconds, self._device_seconds, self._busy):
            account.update(dict.fromkeys(account, 0.0))
        for place in self.places:
            if place.replica is not None:
                place.since = self._events.time
                self._base[place.replica.name] = place.replica.device.busy()

    def count(self) -> None:
        """What is used from now on doesn't count."""
        for place in self.places:
            self._account(place)
        shares = {
            pool: self._busy[pool] / seconds if seconds else 0.0 for pool, seconds in self._device_seconds.items()
        }
        self.used = shares, dict(self._seconds)

    def _account(self, place: Place) -> None:
        if (replica := place.replica) is None:
            return
        pool, seconds = place.pool.name, self._events.time - place.since
        self._seconds[pool] += seconds
        self._device_seconds[pool] += seconds * replica.devices
        self._busy[pool] += replica.device.busy() - self._base.get(replica.name, 0.0)
