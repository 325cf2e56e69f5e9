"""Ray Serve: replicas that batch with ``@serve.batch``, with HAProxy in front of them.

Settings, after https://docs.ray.io/en/latest/serve/advanced-guides/performance.html,
https://docs.ray.io/en/latest/serve/advanced-guides/haproxy-guide.html and
https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html:

- ``RAY_SERVE_ENABLE_HA_PROXY=1``: HAProxy in place of the Python proxy, straight to the replicas.
- ``RAY_SERVE_THROUGHPUT_OPTIMIZED=1``: the page's set of settings for throughput.
- ``max_batch_size``: "a power of 2"; ``batch_wait_timeout_s`` 5 ms, as Shoal's model has, and 20 ms;
  ``max_concurrent_batches`` is tried.
- ``max_ongoing_requests`` above the number of callers, so that none is turned away.
- Blocking work goes to a thread (the page on asyncio); one core a replica, or one replica with two streams.
- ``RAY_SERVE_HAPROXY_NBTHREAD=2``: there are two cores; the default is 4.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from benchmarks.peers.environments import Environment
from benchmarks.peers.peer import HttpPeer
from benchmarks.peers.servers.plan import Choice
from shoal.runtime.ports import FreePorts

if TYPE_CHECKING:
    from benchmarks.peers.servers.plan import Plan

_CHOICES = (
    Choice("2 replicas", options={"batches": 1}),
    Choice("2 replicas, 2 batches each", options={"batches": 2}),
    Choice("1 replica, 2 batches", processes=1, threads=2, streams=2, options={"batches": 2}),
    Choice("1 replica, 3 batches", processes=1, threads=2, streams=2, options={"batches": 3}),
    Choice("2 replicas, 2 batches each, 20 ms", wait_ms=20, options={"batches": 2}),
)
_PORTS_APART = 50


def _variables(plan: Plan) -> dict[str, str]:
    ports = FreePorts()
    first = ports().port
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "2",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "2",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{plan.scratch}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{plan.scratch}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{plan.scratch}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{plan.scratch}",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{plan.scratch}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports().port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports().port),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _PORTS_APART),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # on a busy machine 5 are too few, and the start fails
        "RAY_worker_niceness": "0",  # by default replicas give way to everything else that runs, the client included
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray leaves one in the home folder
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
    }


RAY_SERVE = HttpPeer(
    "ray",
    "Ray Serve",
    Environment("ray", ("ray[serve]==2.60.0",)),
    _CHOICES,
    "benchmarks.peers.servers.ray_server",
    "/",
    _variables,
)
