"""Envoy's clusters: the batchers behind the public listener, and the workers behind the load balancer."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from shoal.router.resources import Json, address, extension, typed
from shoal.topology import SHARED_BATCHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.spec import Service
    from shoal.topology import Endpoint, Topology

ANY_WORKER = "workers"
"""The cluster of all pools, for what any worker can answer: uploads, health, reflection."""

ADMIN = "admin"
"""The cluster of Envoy's own admin address, for those two paths of it that others may read."""

BATCHING = "shoal.batching.v1.Batching"
"""What workers are asked for: one that lacks a model isn't ready, and serves the others."""

_UNBOUNDED = 1_000_000  # where the parts themselves bound: batching streams by permits, connections by requests
_ONE_IS_ENOUGH = 1_000_000  # percent
_AT_ONCE: Json = {"update_merge_window": "0s"}
"""A host's second change within a second would count only after it: calls would go on to one that has just died."""
_STREAMS_PER_CONNECTION = 100_000  # a batcher's and a worker's own limit is what binds


def batcher_cluster(group: str) -> str:
    """The cluster of a batcher group."""
    return f"batcher/{group}"


def pool_cluster(pool: str) -> str:
    """The cluster of a pool's workers."""
    return f"pool/{pool}"


def own_batcher_cluster(group: str) -> str:
    """The cluster of a model with a batcher group of its own: that group, or the shared one while it has no host."""
    return f"own/{group}"


def clusters(service: Service, topology: Topology) -> list[Json]:
    """All clusters. They depend on addresses only, never on keys or models."""
    batchers = [_batcher(group, hosts, service.router.max_requests) for group, hosts in topology.batchers.items()]
    own = [_own_batcher(group, service.router.max_requests) for group in topology.batchers if group != SHARED_BATCHER]
    pools = [_pool(pool, hosts) for pool, hosts in topology.pools.items()]
    any_worker = _first_healthy(ANY_WORKER, [pool_cluster(pool) for pool in topology.pools])
    admin = [_admin(topology.admin)] if topology.metrics else []
    return [*batchers, *own, *pools, any_worker, *admin]


def _batcher(group: str, hosts: Sequence[Endpoint], max_requests: int) -> Json:
    cluster = {**_cluster(batcher_cluster(group), hosts, max_requests), "lb_policy": "LEAST_REQUEST"}
    # As long as one host is healthy, nothing goes to the shared group.
    cluster["load_assignment"]["policy"] = {"overprovisioning_factor": _ONE_IS_ENOUGH}
    return cluster


def _own_batcher(group: str, max_requests: int) -> Json:
    """A new group's pods may not be there yet, and those of one that was taken out are gone before routers know."""
    names = [batcher_cluster(group), batcher_cluster(SHARED_BATCHER)]
    # Envoy counts retries here, and all else where the hosts are.
    breakers = {"thresholds": [{"max_retries": max_requests}]}
    return {**_first_healthy(own_batcher_cluster(group), names), "circuit_breakers": breakers}


def _pool(pool: str, hosts: Sequence[Endpoint]) -> Json:
    """A pool's workers, each new stream to the one that has the fewest.

    A worker that fails its health check gets no new streams but keeps those it has: a draining one finishes its
    batches, and a hiccup costs nothing. A dead one's connection is reset; of one that hangs, or whose host vanished, it
    is closed when a ping stays unanswered, so that the batches it holds go elsewhere.
    """
    return {
        **_cluster(pool_cluster(pool), hosts, _UNBOUNDED, connection_keepalive={"interval": "1s", "timeout": "1s"}),
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


def _health_check() -> Json:
    """Two failures, 0.3 s apart, take a worker out; one success brings it back."""
    return {
        "interval": "0.3s",
        "no_traffic_interval": "0.3s",
        "timeout": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": BATCHING},
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


def _admin(endpoint: Endpoint) -> Json:
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=ADMIN,
        connect_timeout="1s",
        load_assignment=_load_assignment(ADMIN, [endpoint]),
        **_discovery([endpoint]),
    )


def _cluster(name: str, hosts: Sequence[Endpoint], max_requests: int, **http2_options: Json) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"max_concurrent_streams": _STREAMS_PER_CONNECTION, **http2_options}
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=name,
        connect_timeout="1s",
        load_assignment=_load_assignment(name, hosts),
        circuit_breakers={"thresholds": [_thresholds(max_requests)]},
        outlier_detection=_outlier_detection(),
        common_lb_config=_AT_ONCE,
        typed_extension_protocol_options={
            options: typed(options, explicit_http_config={"http2_protocol_options": http2})
        },
        **_discovery(hosts),
    )


def _load_assignment(name: str, hosts: Sequence[Endpoint]) -> Json:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(*host)}} for host in hosts]}],
    }


def _discovery(hosts: Sequence[Endpoint]) -> Json:
    """A name may stand for many hosts, as a headless Kubernetes service does; it is asked for again every 5 s.

    Its TTL counts for nothing: a cluster's DNS may have held the answer for that long already.
    """
    if all(_is_address(host.host) for host in hosts):
        return {"type": "STATIC"}
    return {
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "dns_refresh_rate": "5s",
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
