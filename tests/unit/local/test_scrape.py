from __future__ import annotations

import re

from shoal.local.scrape import ROUTER_METRICS, configuration
from shoal.local.state import PartState, ServiceState


def part(name: str, role: str, metrics: str | None, group: str = "") -> PartState:
    return PartState(
        name=name, role=role, state="ready", pid=1, restarts=0, listen="h:1", metrics=metrics, group=group, log="l"
    )


SERVICE = ServiceState(
    pid=1,
    ready=True,
    target="127.0.0.1:8080",
    store_url=None,
    models="m",
    logs="l",
    parts=(
        part("store", "store", None),
        part("triton-a-1", "triton", "http://127.0.0.1:4/metrics", "a"),
        part("worker-a-1", "worker", "http://127.0.0.1:1/metrics", "a"),
        part("batcher-shared-1", "batcher", "http://[::1]:2/metrics", "shared"),
        part("router", "router", "http://127.0.0.1:3/stats/prometheus"),
    ),
)


def test_each_part_with_metrics_is_asked_where_it_answers() -> None:
    jobs = configuration(SERVICE, 15, ["rules.yml"])["scrape_configs"]
    asked = {job["job_name"]: (job["static_configs"][0]["targets"], job["metrics_path"]) for job in jobs}
    assert asked == {
        "triton-a-1": (["127.0.0.1:4"], "/metrics"),
        "worker-a-1": (["127.0.0.1:1"], "/metrics"),
        "batcher-shared-1": (["[::1]:2"], "/metrics"),
        "router": (["127.0.0.1:3"], "/stats/prometheus"),
    }


def test_labels_say_what_a_part_is() -> None:
    jobs = configuration(SERVICE, 15, [])["scrape_configs"]
    assert [job["static_configs"][0]["labels"] for job in jobs] == [
        {"service": "local", "component": "triton", "instance": "triton-a-1", "pool": "a"},
        {"service": "local", "component": "worker", "instance": "worker-a-1", "pool": "a"},
        {"service": "local", "component": "batcher", "instance": "batcher-shared-1", "batcher": "shared"},
        {"service": "local", "component": "router", "instance": "router"},
    ]


def test_rules_are_evaluated_as_often_as_parts_are_asked() -> None:
    made = configuration(SERVICE, 0.5, ["rules.yml"])
    assert made["global"] == {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    assert made["rule_files"] == ["rules.yml"]


def test_of_the_routers_metrics_those_that_are_used_are_kept() -> None:
    assert re.fullmatch(ROUTER_METRICS, "envoy_http_downstream_rq_time_bucket")
    assert re.fullmatch(ROUTER_METRICS, "envoy_cluster_membership_healthy")
    assert not re.fullmatch(ROUTER_METRICS, "envoy_cluster_membership_degraded")
