"""What ``shoal up`` runs: the parts of one service, their commands and addresses. No I/O."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from shoal.runtime.endpoint import Endpoint
from shoal.runtime.share import share
from shoal.service.topology import SHARED_BATCHER, Role, TellingPart, Topology
from shoal.triton.launch import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from shoal.service.home import Home
    from shoal.service.spec import Observe, Service


_LOOPBACK = frozenset({"127.0.0.1", "::1"})


class Component(StrEnum):
    """A kind of part; parts of one component don't depend on each other."""

    STORE = "store"
    TRITON = "triton"
    WORKER = "worker"
    PIPELINE = "pipeline"
    BATCHER = "batcher"
    ROUTER = "router"


_ROLES: Final[dict[Component, Role]] = {
    Component.STORE: "store",
    Component.TRITON: "triton",
    Component.BATCHER: "batcher",
    Component.WORKER: "worker",
}

START_ORDER = (
    frozenset({Component.STORE}),
    frozenset({Component.TRITON, Component.WORKER, Component.BATCHER}),
    frozenset({Component.ROUTER}),
    frozenset({Component.PIPELINE}),
)
"""Groups, each started once the one before it is ready; a worker isn't before its Triton. What runs a pipeline asks the
workers, through the router, what its models are."""

STOP_ORDER = tuple(
    frozenset({each})
    for each in (
        Component.ROUTER,
        Component.PIPELINE,
        Component.BATCHER,
        Component.WORKER,
        Component.TRITON,
        Component.STORE,
    )
)
"""From the router inwards: what feeds a part leaves before it."""


class Protocol(StrEnum):
    """How a part says that it is ready."""

    TCP = "tcp"
    """It accepts connections."""
    TLS = "tls"
    """It shows a certificate."""
    GRPC = "grpc"
    """``grpc.health.v1.Health/Check`` answers SERVING."""
    WORKER = "worker"
    """It does so for ``shoal.runtime.health.STARTED``: every model was tried. What came of that its report says."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the service."""

    name: str
    component: Component
    command: tuple[str, ...]
    listen: Endpoint
    """Where it is asked whether it is ready."""
    ready: Protocol
    metrics: str | None = None
    """The address of its metrics."""
    group: str = ""
    """The pool of a worker or a Triton, the group of a batcher, the name of a pipeline."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Added to our own. Secrets go here, since command lines are for all to see."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts and where they listen."""

    parts: tuple[Part, ...]
    topology: Topology
    target: str
    """What clients on this machine call."""
    store_url: str | None
    """The managed object store's S3 API; None if the store is elsewhere."""


@dataclass(frozen=True, slots=True)
class PlanFiles:
    """What the parts read, written before they start."""

    service: Path
    topology: Path

    @classmethod
    def of(cls, home: Home) -> PlanFiles:
        """Those of a home."""
        return cls(home.run / "service.yaml", home.run / "topology.json")


def plan(
    service: Service,
    home: Home,
    files: PlanFiles,
    free: Callable[[], Endpoint],
    store: Callable[[Endpoint], Part],
    cores: int,
    gpus: Sequence[str] = (),
) -> Plan:
    """Lays a service out on this machine.

    Args:
        service: what to run.
        home: where its state lives.
        files: what the parts read.
        free: gives an unused endpoint, another each time.
        store: makes the part that serves the managed object store at an endpoint.
        cores: of this machine, which the workers of a pool share: if each had a thread a core, threads would wait.
        gpus: of this machine, as ``CUDA_VISIBLE_DEVICES`` names each. Of several each Triton gets one, in turn.
    """
    stores = (store(free()),) if service.object_store.runs_locally else ()
    topology = Topology(
        public=Endpoint(service.router.host, service.router.port),
        balancer=free(),
        metrics=free(),
        store=stores[0].listen if stores else None,
        uploads=free() if stores else None,
        batchers={group: [free() for _ in range(count)] for group, count in batcher_groups(service).items()},
        pools={
            name: [free() for _ in range(pool.replicas * pool.worker_processes)] for name, pool in service.pools.items()
        },
        pipelines={name: [free() for _ in range(each.replicas)] for name, each in service.pipelines.items()},
    )
    store_url = f"http://{stores[0].listen}" if stores else None
    batchers = tuple(
        _batcher(group, number, listen, topology.balancer, free(), service.observe)
        for group, endpoints in topology.batchers.items()
        for number, listen in enumerate(endpoints, 1)
    )
    own = cycle(gpus if len(gpus) > 1 else [None])
    workers = tuple(_workers(service, topology, home, files, free, own, cores))
    pipelines = tuple(
        _pipeline(name, number, listen, topology.balancer, free(), home, files)
        for name, endpoints in topology.pipelines.items()
        for number, listen in enumerate(endpoints, 1)
    )
    router = _router(service, topology, home, files)
    topology = topology.model_copy(update={"telling": _telling((*batchers, *workers, *stores))})
    return Plan((*stores, *workers, *pipelines, *batchers, router), topology, target(service, topology), store_url)


def _telling(parts: Iterable[Part]) -> dict[str, TellingPart]:
    """What the console shows, but for the router itself. The store has no metrics: it is asked where it listens."""
    return {
        part.name: TellingPart(
            role=role,
            group=part.group,
            metrics=Endpoint.parse(urlsplit(part.metrics).netloc) if part.metrics else part.listen,
        )
        for part in parts
        if (role := _ROLES.get(part.component))
    }


def batcher_groups(service: Service) -> dict[str, int]:
    """Batcher group to its number of processes: the shared one, and one for each model that has its own."""
    own = {name: model.batchers for name, model in service.models.items() if model.batchers}
    return {SHARED_BATCHER: 1, **own}


def _shoal(*arguments: object) -> tuple[str, ...]:
    # -P: the folder that a user starts us in is no place to import from.
    return (sys.executable, "-P", "-m", "shoal", *map(str, arguments))


def _batcher(
    group: str, number: int, listen: Endpoint, balancer: Endpoint, metrics: Endpoint, observe: Observe
) -> Part:
    name = f"batcher-{group}-{number}"
    command = _shoal(
        "serve", "batcher", "--name", name, "--listen", listen, "--balancer", balancer,
        "--metrics", metrics, "--recent-requests", observe.recent_requests, "--log-level", observe.log_level,
        *(("--otlp-endpoint", observe.tracing.otlp_endpoint) if observe.tracing else ()),
    )  # fmt: skip
    return Part(name, Component.BATCHER, command, listen, Protocol.GRPC, f"http://{metrics}/metrics", group)


def _workers(
    service: Service,
    topology: Topology,
    home: Home,
    files: PlanFiles,
    free: Callable[[], Endpoint],
    gpus: Iterator[str | None],
    cores: int,
) -> Iterator[Part]:
    """Each worker's processes, behind the Triton of its own where its pool has them."""
    for pool, endpoints in topology.pools.items():
        settings = service.pools[pool]
        of_one = settings.worker_processes
        for number in range(1, settings.replicas + 1):
            told: list[object] = ["--cores", share(cores, settings.replicas)]
            if settings.starts_triton:
                triton = free()
                told += ["--triton", triton]
                options = Options(
                    home.model_store(service), triton, free(), server=settings.triton_server, gpus=next(gpus)
                )
                yield triton_part(f"triton-{pool}-{number}", options, pool)
            processes = endpoints[(number - 1) * of_one : number * of_one]
            for name, listen in zip(_worker_names(pool, number, of_one), processes, strict=True):
                yield _worker(name, pool, listen, free(), home, files, topology, told)


def _worker_names(pool: str, number: int, processes: int) -> list[str]:
    """``worker-default-1``; of several processes ``worker-default-1.1``, ``worker-default-1.2`` and so on.

    No two parts get one name, for what follows the last dash isn't the pool's.
    """
    name = f"worker-{pool}-{number}"
    return [name] if processes == 1 else [f"{name}.{process}" for process in range(1, processes + 1)]


def _worker(
    name: str,
    pool: str,
    listen: Endpoint,
    metrics: Endpoint,
    home: Home,
    files: PlanFiles,
    topology: Topology,
    told: Iterable[object],
) -> Part:
    command = _shoal(
        "serve", "worker", "--service", files.service, "--home", home.root, "--pool", pool,
        "--verify-identity",  # every user of this machine reaches its loopback
        "--listen", listen, "--metrics", metrics, *_stores(topology), *told,
    )  # fmt: skip
    return Part(name, Component.WORKER, command, listen, Protocol.WORKER, f"http://{metrics}/metrics", pool)


def _pipeline(
    name: str, number: int, listen: Endpoint, balancer: Endpoint, metrics: Endpoint, home: Home, files: PlanFiles
) -> Part:
    command = _shoal(
        "serve", "pipeline", "--service", files.service, "--home", home.root, "--name", name,
        "--verify-identity",  # as a worker does, and for the same reason
        "--listen", listen, "--balancer", balancer, "--metrics", metrics,
    )  # fmt: skip
    metrics_url = f"http://{metrics}/metrics"
    return Part(f"pipeline-{name}-{number}", Component.PIPELINE, command, listen, Protocol.GRPC, metrics_url, name)


def _stores(topology: Topology) -> tuple[str, ...]:
    """Where a worker reads pictures, and where callers bring them."""
    if not (topology.store and topology.uploads):
        return ()
    return "--store-endpoint", f"http://{topology.store}", "--upload-endpoint", f"http://{topology.uploads}"


def triton_part(name: str, options: Options, pool: str = "") -> Part:
    """A Triton."""
    metrics = f"http://{options.metrics}/metrics" if options.metrics else None
    return Part(name, Component.TRITON, options.command(), options.listen, Protocol.GRPC, metrics, pool)


def _router(service: Service, topology: Topology, home: Home, files: PlanFiles) -> Part:
    command = _shoal("serve", "router", "--service", files.service, "--topology", files.topology, "--home", home.root)
    metrics = f"http://{topology.metrics}/stats/prometheus"
    ready = Protocol.TLS if service.router.tls else Protocol.GRPC
    return Part("router", Component.ROUTER, command, reachable(topology.public), ready, metrics)


def target(service: Service, topology: Topology) -> str:
    """What clients on this machine call. With TLS by name, since certificates rarely hold addresses."""
    host, port = reachable(topology.public)
    if service.router.tls is None:
        return str(Endpoint(host, port))
    return f"https://{Endpoint('localhost' if host in _LOOPBACK else host, port)}"


def reachable(listen: Endpoint) -> Endpoint:
    """Where a client on this machine reaches a listener that may be bound to every address."""
    return Endpoint({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host), listen.port)  # noqa: S104
