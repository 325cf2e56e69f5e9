"""A service of real routers and batchers with scripted workers behind them, in a home of its own."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.batching.replicas import Orders
from benchmarks.common import cpu
from benchmarks.common.files import ROOT
from shoal.client import AsyncClient
from shoal.errors import Internal
from shoal.local.plan import Component, Part, Plan, PlanFiles, Protocol, plan
from shoal.local.process import LocalProcess
from shoal.local.supervisor import Supervisor
from shoal.runtime.ports import FreePorts
from shoal.runtime.priority import Priority
from shoal.runtime.threads import usable_cores
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.spec import Service
from shoal.service.topology import SHARED_BATCHER

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from benchmarks.batching.replicas import Model
    from shoal.runtime.endpoint import Endpoint

_REPLICA_PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """What to run."""

    models: Mapping[str, Model]
    replicas: int = 1
    batchers: int = 0
    """Of each model, for it alone. 0: one for all."""
    inside: bool = False
    """No batchers: the router spreads single calls over replicas that batch for themselves."""
    batcher_front: str = ""
    """``grpcio``: not inside Envoy."""


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is ready."""

    target: str
    api_key: str = field(repr=False)
    plan: Plan
    supervisor: Supervisor

    def client(self, priority: Priority = Priority.INTERACTIVE, *, streams: bool | None = None) -> AsyncClient:
        """One with a connection of its own."""
        return AsyncClient(self.target, api_key=self.api_key, priority=priority, streams=streams)

    def cpu_seconds(self, component: Component) -> float:
        """What all processes of a component have used."""
        pids = [keeper.pid for keeper in self.supervisor.keepers if keeper.part.component == component]
        return sum(cpu.of_process(process) for pid in pids if pid for process in cpu.tree(pid))

    async def metric(self, component: Component, sample: str) -> float:
        """A sample over all parts of a component and all labels."""
        addresses = [part.metrics for part in self.plan.parts if part.component == component]
        return sum([await _metric(address, sample) for address in addresses if address])

    def check(self) -> None:
        """Raises Internal if a part went away meanwhile."""
        if ended := [keeper.part.name for keeper in self.supervisor.keepers if keeper.restarts]:
            raise Internal(f"{', '.join(ended)} ended while it was measured")


@asynccontextmanager
async def running(layout: Layout) -> AsyncGenerator[Running]:
    """Starts the service, and stops it at the end, however that comes."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        home = Home(Path(folder))
        key = _prepare(home, layout)
        laid_out = _lay_out(home, layout)
        supervisor = Supervisor(
            laid_out.parts,
            lambda part: LocalProcess.start(part, home.logs),
            changed=lambda: None,
            say=lambda text: print(text, file=sys.stderr),
        )
        try:
            await supervisor.start()
            found = Running(str(laid_out.topology.public), key.key, laid_out, supervisor)
            yield found
            found.check()
        finally:
            await supervisor.stop()


def _prepare(home: Home, layout: Layout) -> api_keys.Key:
    for folder in (home.run, home.logs, home.cache):
        folder.mkdir(parents=True, mode=0o700)
    for name in layout.models:  # the router asks only which models there are
        (home.models / name).mkdir(parents=True)
        (home.models / name / "config.pbtxt").touch()
    return api_keys.create(home.keys, "bench")


def _lay_out(home: Home, layout: Layout) -> Plan:
    ports = FreePorts()
    service = Service.model_validate(
        {
            "object_store": {"managed": False},
            "router": {"port": ports().port},
            "pools": {"default": {"replicas": layout.replicas}},
            "models": {name: {"batchers": layout.batchers} for name in layout.models},
        }
    )
    files = PlanFiles.of(home)
    laid_out = plan(service, home, files, ports, _no_store, usable_cores())
    workers = laid_out.topology.pools["default"]
    topology = laid_out.topology
    if layout.inside:
        topology = topology.model_copy(update={"batchers": {SHARED_BATCHER: workers}})
    files.service.write_text(service.model_dump_json(exclude_defaults=True), encoding="utf-8")
    topology.save(files.topology)
    parts = [part for part in laid_out.parts if part.component == Component.ROUTER]
    if not layout.inside:
        unused = f"batcher-{SHARED_BATCHER}-1" if layout.batchers else ""
        batchers = [part for part in laid_out.parts if part.component == Component.BATCHER and part.name != unused]
        parts += [replace(part, environment=_front(layout.batcher_front)) for part in batchers]
    return replace(laid_out, parts=(*parts, *_replicas(workers, layout)), topology=topology)


def _front(name: str) -> dict[str, str]:
    return {"SHOAL_BATCHER_FRONT": name} if name else {}


def _replicas(endpoints: Sequence[Endpoint], layout: Layout) -> list[Part]:
    """A few processes with several replicas each."""
    shares = [endpoints[first::_REPLICA_PROCESSES] for first in range(min(_REPLICA_PROCESSES, len(endpoints)))]
    return [
        Part(
            name=f"replicas-{number}",
            component=Component.WORKER,
            command=(
                *(sys.executable, "-m", "benchmarks.batching.replicas"),
                str(Orders([str(endpoint) for endpoint in share], layout.models, layout.inside)),
            ),
            listen=share[-1],  # the last to listen
            ready=Protocol.GRPC,
            environment={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        for number, share in enumerate(shares, 1)
    ]


def _no_store(_: Endpoint) -> Part:
    raise Internal("these workers fetch nothing")


async def _metric(address: str, sample: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        families = text_string_to_metric_families(await response.text())
    return sum(found.value for family in families for found in family.samples if found.name == sample)
