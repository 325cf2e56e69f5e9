"""Envoy's clusters: the batchers behind the public listener, and the workers behind the load balancer."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from shoal.batching.wire import SERVICE
from shoal.router import console, uploads
from shoal.router.health import HEALTH, health_socket
from shoal.router.resources import address, extension, pipe, typed
from shoal.runtime.envoy_http2 import HANG, STREAMS_OF_CALLS, Json, trusted_http2, windows
from shoal.service.topology import SHARED_BATCHER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.spec import Service
    from shoal.service.topology import Topology

ANY_WORKER = "workers"
"""The cluster of all pools' workers, for what any of them can answer: uploads, reflection, health's Watch."""

INTAKE = "pictures"
"""The same workers, for calls that bring their picture along: on connections of their own, whose buffers are small."""

ADMIN = "admin"
"""The cluster of Envoy's own admin socket, for those two paths of it that others may read."""

MAX_WATCHES = 100
"""Watches of health at a time, over all callers; more are answered RESOURCE_EXHAUSTED."""
MAX_CHECKS = 1_000
"""Checks of health at a time."""
"""What workers are asked for: one that lacks a model isn't ready, and serves the others."""
MAX_INTAKES = 1_000
"""Calls that bring their picture along, at a time. One whose worker reads nothing holds a few of ``windows`` here."""
_AUTHORITY = "shoal"
"""The ``:authority`` of health checks. The default is the cluster's name, whose slash HTTP/2 refuses."""
_CALLS_PER_CONNECTION = 1_000
"""In flight on one connection to a batcher; more open another, so that fewer are lost with one."""
MAX_STREAMS = 1_000
"""Streams of calls to one group of batchers at a time, over all callers; more are answered RESOURCE_EXHAUSTED.

One that is not read, and whose batcher reads nothing, holds 0.7 MiB here: measured."""
_UNBOUNDED = 1_000_000  # where the parts themselves bound: batching streams by permits, connections by requests
_ONE_IS_ENOUGH = 1_000_000  # percent
_WORKER_HANGS: Json = {"interval": "1s", "timeout": "1s"}
"""HTTP/2 pings that end a hanging worker's connection, as ``HANG`` does: what it holds is sent elsewhere within 2 s."""
_AT_ONCE: Json = {"update_merge_window": "0s"}
"""A host's second change within a second would count only after it: calls would go on to one that has just died."""


def batcher_cluster(group: str) -> str:
    """The cluster of a batcher group."""
    return f"batcher/{group}"


def streams_cluster(group: str) -> str:
    """The cluster of a batcher group's streams of calls: the same hosts, on connections of their own."""
    return f"streams/{group}"


def pool_cluster(pool: str) -> str:
    """The cluster of a pool's workers."""
    return f"pool/{pool}"


def pipeline_cluster(name: str) -> str:
    """The cluster of a pipeline's processes."""
    return f"pipeline/{name}"


def own_batcher_cluster(group: str) -> str:
    """The cluster of a model with a batcher group of its own: that group, or the shared one while it has no host."""
    return f"own/{group}"


def own_streams_cluster(group: str) -> str:
    """The same for streams of calls."""
    return f"own-streams/{group}"


def clusters(service: Service, topology: Topology, admin: Path) -> list[Json]:
    """All clusters. They depend on addresses only, never on keys or models."""
    most = service.router.max_requests
    batchers = [
        each
        for group, hosts in topology.batchers.items()
        for each in (_calls(group, hosts, most), _streams(group, hosts))
    ]
    own = [each for group in topology.batchers if group != SHARED_BATCHER for each in _own_batcher(group, most)]
    pools = [_pool(pool_cluster(pool), hosts) for pool, hosts in topology.pools.items()]
    pipelines = [_pool(pipeline_cluster(name), hosts) for name, hosts in topology.pipelines.items()]
    workers = [host for hosts in topology.pools.values() for host in hosts]
    operators = [_admin(admin)] if topology.metrics else []
    store = [uploads.cluster(_load_assignment(uploads.STORE, [address(*topology.store)]))] if topology.store else []
    page = [console.cluster(admin)] if service.router.console else []
    return [
        *batchers,
        *own,
        *pools,
        *pipelines,
        _any_worker(workers),
        _intake(workers),
        _health(health_socket(admin)),
        *operators,
        *store,
        *page,
    ]


def _calls(group: str, hosts: Sequence[Endpoint], max_requests: int) -> Json:
    """A group's batchers, for unary calls."""
    checks = {"interval": "0.5s", "no_traffic_interval": "0.5s"}
    cluster = _cluster(
        batcher_cluster(group),
        hosts,
        max_requests,
        max_concurrent_streams=_CALLS_PER_CONNECTION,
        connection_keepalive=HANG,
    )
    return _batcher(cluster, checks)


def _streams(group: str, hosts: Sequence[Endpoint]) -> Json:
    """A group's batchers, for streams of calls.

    What is not read is bounded for each stream, and stops neither other streams nor unary calls: those have connections
    of their own. Streams are opened seldom, so a batcher's health is asked for less often than for calls.
    """
    checks = {"interval": "1s", "no_traffic_interval": "5s"}
    cluster = _cluster(
        streams_cluster(group),
        hosts,
        MAX_STREAMS,
        max_concurrent_streams=STREAMS_OF_CALLS,
        connection_keepalive=HANG,
        **windows(),
    )
    return _batcher(cluster, checks)


def _batcher(cluster: Json, checks: Json) -> Json:
    """A cluster of batchers. One that hangs, or whose host vanished, is left within 2 s, and its calls end.

    A ping is answered by its Envoy even while very many calls wait for Python, so it tells a hang from a load. Out it
    stays until it answers a health check. Where none is healthy all are tried: a late answer is better than none.
    """
    health = {**_health_check(), **checks, "timeout": "5s", "grpc_health_check": {"authority": _AUTHORITY}}
    # As long as one host is healthy, nothing goes to the shared group.
    cluster["load_assignment"]["policy"] = {"overprovisioning_factor": _ONE_IS_ENOUGH}
    return {
        **cluster,
        "lb_policy": "LEAST_REQUEST",
        "health_checks": [health],
        # Until the health check, which then follows within half a second, or for this long.
        "outlier_detection": {**_outlier_detection(), "base_ejection_time": "10s", "max_ejection_time": "10s"},
    }


def _own_batcher(group: str, max_requests: int) -> list[Json]:
    """A new group's pods may not be there yet, and those of one that was taken out are gone before routers know."""
    kinds = (
        (own_batcher_cluster, batcher_cluster, max_requests),
        (own_streams_cluster, streams_cluster, MAX_STREAMS),
    )
    return [
        {
            **_first_healthy(own(group), [first(group), first(SHARED_BATCHER)]),
            # Envoy counts retries here, and all else where the hosts are.
            "circuit_breakers": {"thresholds": [{"max_retries": most}]},
        }
        for own, first, most in kinds
    ]


def _pool(name: str, hosts: Sequence[Endpoint]) -> Json:
    """A pool's workers, or what runs a pipeline: each new stream to the one that has the fewest.

    A worker that fails its health check gets no new streams but keeps those it has: a draining one finishes its
    batches, and a hiccup costs nothing. A dead one's connection is reset; of one that hangs, or whose host vanished, it
    is closed when a ping stays unanswered, so that the batches it holds go elsewhere.
    """
    return {
        **_cluster(name, hosts, _UNBOUNDED, connection_keepalive=_WORKER_HANGS),
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": extension(
                        "envoy.load_balancing_policies.least_request",
                        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
                        selection_method="FULL_SCAN",
                    )
                }
            ]
        },
        # No panic mode: a stream to a worker that can't take it only comes back later than the refusal would.
        "common_lb_config": {**_AT_ONCE, "healthy_panic_threshold": {"value": 0}},
        "health_checks": [_health_check()],
    }


def _any_worker(hosts: Sequence[Endpoint]) -> Json:
    """Watches of health, which need no key, have a limit of their own: the thresholds of HIGH.

    Calls to a worker that hangs end as a pool's streams do: else a client that asks for an upload waits in vain.
    """
    cluster = _cluster(ANY_WORKER, hosts, _UNBOUNDED, connection_keepalive=_WORKER_HANGS)
    watches = {**_thresholds(MAX_WATCHES), "priority": "HIGH"}
    return {
        **cluster,
        "common_lb_config": {**_AT_ONCE, "healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": {"thresholds": [*cluster["circuit_breakers"]["thresholds"], watches]},
        "health_checks": [_health_check()],
    }


def _intake(hosts: Sequence[Endpoint]) -> Json:
    keepalive = {"connection_keepalive": _WORKER_HANGS}
    return {
        **_cluster(INTAKE, hosts, MAX_INTAKES, **keepalive, **windows()),
        "common_lb_config": {**_AT_ONCE, "healthy_panic_threshold": {"value": 0}},
        "health_checks": [_health_check()],
    }


def _health(socket: Path) -> Json:
    """Envoy itself, where it answers health checks."""
    cluster = _cluster(HEALTH, [], MAX_CHECKS)
    return {**cluster, "load_assignment": _load_assignment(HEALTH, [pipe(socket)])}


def _health_check() -> Json:
    """Two failures, 0.3 s apart, take a worker out; one success brings it back."""
    return {
        "interval": "0.3s",
        "no_traffic_interval": "0.3s",
        "timeout": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": SERVICE, "authority": _AUTHORITY},
    }


def _outlier_detection() -> Json:
    """A host that refuses a connection is left at once: having no calls in flight, it would be the next choice too.

    It is tried again after 1 to 2 s, or when a health check says so. What a call ends with counts for nothing.
    """
    return {
        "consecutive_local_origin_failure": 1,
        "split_external_local_origin_errors": True,
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_time": "2s",
        "max_ejection_percent": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
    }


def _first_healthy(name: str, names: Sequence[str]) -> Json:
    """Other clusters in order: the first with a healthy host answers."""
    kind = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=name,
        connect_timeout="1s",
        lb_policy="CLUSTER_PROVIDED",
        cluster_type=extension("envoy.clusters.aggregate", kind, clusters=names),
    )


def _admin(socket: Path) -> Json:
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=ADMIN,
        connect_timeout="1s",
        load_assignment=_load_assignment(ADMIN, [pipe(socket)]),
    )


def _cluster(name: str, hosts: Sequence[Endpoint], max_requests: int, **http2_options: object) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = trusted_http2(**http2_options)
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=name,
        connect_timeout="1s",
        load_assignment=_load_assignment(name, [address(*host) for host in hosts]),
        circuit_breakers={"thresholds": [_thresholds(max_requests)]},
        outlier_detection=_outlier_detection(),
        common_lb_config=_AT_ONCE,
        typed_extension_protocol_options={
            options: typed(options, explicit_http_config={"http2_protocol_options": http2})
        },
        **_discovery(hosts),
    )


def _load_assignment(name: str, addresses: Sequence[Json]) -> Json:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": each}} for each in addresses]}],
    }


def _discovery(hosts: Sequence[Endpoint]) -> Json:
    """A name may stand for many hosts, as a headless Kubernetes service does; it is asked for again every second.

    Its TTL counts for nothing: a cluster's DNS may have held the answer for that long already.
    """
    if all(_is_address(host.host) for host in hosts):
        return {"type": "STATIC"}
    return {
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "dns_refresh_rate": "1s",
        "respect_dns_ttl": False,
    }


def _thresholds(max_requests: int) -> Json:
    return {
        "max_connections": _UNBOUNDED,
        "max_pending_requests": max_requests,
        "max_requests": max_requests,
        "max_retries": max_requests,
    }


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
