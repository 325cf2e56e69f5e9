"""What the chart makes for Prometheus, Grafana and KEDA, read as their operators would.

Shapes: pydantic models that are generated from the operators' CRDs (cloudcoil-models-prometheus-operator and -keda).
Rules, queries and labels are compared with the code's own.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as operator
from ruamel.yaml import YAML

from shoal.local.scrape import ROUTER_METRICS
from shoal.observe import dashboards, ruleset
from support.chart import HELM, SCENARIOS, render, template

if TYPE_CHECKING:
    from pathlib import Path

    from support.rendered import Rendered

KUBERNETES = "1.37"
VALUES = """\
object_store: {url: "s3://images", managed: false}
model_store: {url: "s3://models"}
pools:
  default: {models: ["*"]}
  gpu.a: {engine: triton, models: [resnet50], worker_processes: 3}
models: {resnet_50.v1: {batchers: 2}}
pipelines: {street.cars: {detect: {model: finder}, then: [{model: species}], replicas: 3}}
kubernetes:
  monitoring:
    enabled: true
    labels: {release: kube-prometheus-stack}
    dashboard_annotations: {grafana_folder: Shoal}
  autoscaling:
    prometheus_url: http://prometheus.monitoring.svc:9090
    authentication: prometheus
    authentication_modes: [tls, bearer]
    scale_down_seconds: 600
    pools:
      default: {max_replicas: 8}
      gpu.a: {min_replicas: 2, max_replicas: 4, slot_demand: 0.6}
    batchers: {shared: {max_replicas: 3}, resnet_50.v1: {max_replicas: 2, requests_per_second: 500}}
    pipelines: {street.cars: {max_replicas: 5}}
    router: {max_replicas: 6}
"""
OF_A_PART = ("shoal.dev/pool", "shoal.dev/batcher", "shoal.dev/pipeline")
KINDS = {
    "PodMonitor": operator.PodMonitor,
    "PrometheusRule": operator.PrometheusRule,
    "ScaledObject": keda.ScaledObject,
}

pytestmark = pytest.mark.skipif(not HELM.exists(), reason="make helm")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(VALUES)
    return file


@pytest.fixture(scope="module")
def rendered(values: Path) -> Rendered:
    return render(values)


def monitors(rendered: Rendered) -> dict[str, dict[str, Any]]:
    """By the component that they select."""
    found = rendered.of("PodMonitor")
    return {each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: each for each in found}


def endpoints(rendered: Rendered) -> list[tuple[str, str, dict[str, str]]]:
    """Component selected, port, and the labels that are set to a word."""
    return [
        (
            component,
            endpoint["port"],
            {it["targetLabel"]: it["replacement"] for it in endpoint["relabelings"] if "replacement" in it},
        )
        for component, monitor in monitors(rendered).items()
        for endpoint in monitor["spec"]["podMetricsEndpoints"]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_objects_have_the_shape_of_their_crds(rendered: Rendered, kind: str) -> None:
    objects = rendered.of(kind)
    assert objects
    for each in objects:
        read = KINDS[kind].model_validate(each)
        again = json.loads(read.model_dump_json(by_alias=True, exclude_unset=True))
        assert lost(each, again) == []


def lost(wanted: Any, found: Any, path: str = "") -> list[str]:
    """What a CRD has no field for, and so a cluster would drop."""
    if isinstance(wanted, dict):
        missing = [f"{path}.{key}" for key in wanted if key not in found]
        return missing + [it for key in wanted if key in found for it in lost(wanted[key], found[key], f"{path}.{key}")]
    if isinstance(wanted, list):
        return [it for one, other in zip(wanted, found, strict=True) for it in lost(one, other, f"{path}[]")]
    return []


def test_nothing_of_it_is_there_unless_it_is_asked_for(tmp_path: Path) -> None:
    plain = tmp_path / "values.yaml"
    plain.write_text('object_store: {url: "s3://images", managed: false}\nmodel_store: {url: "s3://models"}\n')
    kinds = {each["kind"] for each in render(plain).objects}
    assert kinds.isdisjoint(KINDS)
    assert all("replicas" in pod.owner["spec"] for pod in render(plain).pods if pod.owner["kind"] == "Deployment")


def test_every_port_with_metrics_is_asked(rendered: Rendered) -> None:
    asked = {(component, port) for component, port, _ in endpoints(rendered)}
    there = {
        (pod.labels["app.kubernetes.io/component"], name)
        for pod in rendered.pods
        for container in pod.containers
        for name in container.ports
        if re.fullmatch(r"(.*-)?metrics(-\d+)?", name)
    }
    assert asked == there


def test_labels_are_those_of_a_service_on_one_machine(rendered: Rendered) -> None:
    said = {port: labels["component"] for _, port, labels in endpoints(rendered) if port != "metrics"}
    more = {"metrics-2": "worker", "metrics-3": "worker"}
    assert said == {"triton-metrics": "triton", "sync-metrics": "model-sync", **more}
    named = {port: labels["instance"] for _, port, labels in endpoints(rendered) if "instance" in labels}
    assert named == {"metrics-2": "$1-2", "metrics-3": "$1-3"}, "two targets of one pod would else be one instance"
    plain = {component: labels["component"] for component, port, labels in endpoints(rendered) if port == "metrics"}
    assert plain == {name: name for name in ("router", "batcher", "worker", "pipeline")}
    assert {labels["service"] for _, _, labels in endpoints(rendered)} == {"vision/shoal"}
    for monitor in monitors(rendered).values():
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            read = {it["targetLabel"]: it["sourceLabels"] for it in endpoint["relabelings"] if "sourceLabels" in it}
            assert read == {
                "pool": ["__meta_kubernetes_pod_label_shoal_dev_pool"],
                "batcher": ["__meta_kubernetes_pod_label_shoal_dev_batcher"],
                "instance": ["__meta_kubernetes_pod_name"],
            }


def test_the_router_is_asked_at_its_own_path_for_what_is_used(rendered: Rendered) -> None:
    (endpoint,) = monitors(rendered)["router"]["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/stats/prometheus"
    (keep,) = endpoint["metricRelabelings"]
    assert (keep["action"], keep["regex"]) == ("keep", ROUTER_METRICS)


def test_prometheus_selects_monitors_and_rules_by_label(rendered: Rendered) -> None:
    for each in (*rendered.of("PodMonitor"), *rendered.of("PrometheusRule")):
        assert each["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_the_rules_are_the_codes(rendered: Rendered) -> None:
    (rule,) = rendered.of("PrometheusRule")
    assert rule["spec"] == YAML(typ="safe").load(ruleset.render())


def test_runbooks_are_found_under_a_base(values: Path) -> None:
    base = "https://git.example/shoal"
    (rule,) = render(values, settings={"kubernetes.monitoring.runbook_base": f"{base}/"}).of("PrometheusRule")
    assert rule["spec"] == YAML(typ="safe").load(ruleset.render(base))


def test_grafanas_sidecar_finds_the_dashboards(rendered: Rendered) -> None:
    (found,) = [each for each in rendered.of("ConfigMap") if each["metadata"]["name"] == "shoal-dashboards"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Shoal"}
    assert found["data"] == dashboards.render()
    assert sum(map(len, found["data"].values())) < 2**20
    kubernetes_validate.validate(found, KUBERNETES, strict=True)


def test_dashboards_may_go_without_labels_of_grafanas(values: Path) -> None:
    found = render(values, settings={"kubernetes.monitoring.dashboard_labels": None})
    (labels,) = (
        each["metadata"]["labels"] for each in found.of("ConfigMap") if each["metadata"]["name"] == "shoal-dashboards"
    )
    assert "grafana_dashboard" not in labels


def test_each_part_is_scaled_apart_and_nobody_else_has_a_say(rendered: Rendered) -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in rendered.of("ScaledObject")}
    deployments = {pod.name: pod for pod in rendered.pods if pod.owner["kind"] == "Deployment"}
    assert scaled.keys() == deployments.keys()
    # Who applies a number owns it, and the autoscaler's would be a conflict.
    assert all("replicas" not in pod.owner["spec"] for pod in deployments.values())
    bounds = {name: (spec["minReplicaCount"], spec["maxReplicaCount"]) for name, spec in scaled.items()}
    parts = {
        next(filter(None, map(pod.labels.get, OF_A_PART)), "router"): bounds[name] for name, pod in deployments.items()
    }
    assert parts == {"default": (1, 8), "gpu.a": (2, 4), "shared": (1, 3), "resnet_50.v1": (1, 2), "router": (2, 6)} | {
        "street.cars": (1, 5)
    }


def test_triggers_ask_for_recorded_signals_of_this_release(rendered: Rendered) -> None:
    gauges = {"shoal_pipeline_in_flight", "shoal_batcher_queue_depth"}  # they need no rule
    recorded = {rule.record for rule in ruleset.RECORDINGS} | gauges
    thresholds = {}
    for each in rendered.of("ScaledObject"):
        for trigger in each["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            signals = re.findall(r"shoal[:_][a-z0-9_:]+", query)
            assert recorded.issuperset(signals)
            assert query.count('service="vision/shoal"') == len(signals) > 0
            assert query.startswith(("max(", "sum("))
            assert trigger["authenticationRef"] == {"name": "prometheus"}
            assert trigger["metadata"]["authModes"] == "tls,bearer"
            name = next(filter(None, map(each["metadata"]["labels"].get, OF_A_PART)), "router")
            thresholds[name, trigger["name"]] = (trigger["metricType"], float(trigger["metadata"]["threshold"]))
    assert thresholds == {
        ("street.cars", "pictures"): ("AverageValue", 32.0),
        ("default", "slot-demand"): ("Value", 0.7),
        ("default", "queue-seconds"): ("Value", 0.25),
        ("gpu.a", "slot-demand"): ("Value", 0.6),
        ("gpu.a", "queue-seconds"): ("Value", 0.25),
        ("shared", "requests"): ("AverageValue", 2000),
        ("resnet_50.v1", "requests"): ("AverageValue", 500),
        ("router", "calls"): ("AverageValue", 1500),
    }


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"router": {"max_replicas": 4}}, "prometheus_url is missing"),
        ({"prometheus_url": "http://p", "pools": {"other": {"max_replicas": 4}}}, "pools.other: there are default"),
        ({"prometheus_url": "http://p", "batchers": {"x": {"max_replicas": 4}}}, "batchers.x: there are"),
        ({"prometheus_url": "http://p", "router": {"max_replicas": 1}}, "min_replicas \\(2\\) is over max_replicas"),
        ({"prometheus_url": "http://p", "router": {}}, "max_replicas"),
        ({"prometheus_url": "p:9090", "router": {"max_replicas": 4}}, "prometheus_url"),
        ({"authentication": "a"}, "authentication and authentication_modes go together"),
        ({"authentication_modes": ["tls"]}, "authentication and authentication_modes go together"),
        ({"authentication": "a", "authentication_modes": ["password"]}, "authentication_modes"),
    ],
)
def test_contradictions_end_the_rendering(tmp_path: Path, settings: dict[str, Any], fault: str) -> None:
    plain = tmp_path / "values.yaml"
    plain.write_text('object_store: {url: "s3://images", managed: false}\nmodel_store: {url: "s3://models"}\n')
    done = template(plain, settings={"kubernetes.autoscaling": settings})
    assert done.returncode != 0
    assert re.search(fault, done.stderr)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda file: file.parent.name)
def test_every_scenario_can_be_watched(scenario: Path) -> None:
    found = render(scenario, settings={"kubernetes.monitoring.enabled": True})
    assert len(found.of("PodMonitor")) == 3
    assert len(found.of("PrometheusRule")) == 1


def test_a_schedule_is_a_trigger_for_each_run_of_hours_above_the_least_also_across_midnight(tmp_path: Path) -> None:
    by_hour = [4, 4, *[3] * 5, 5, *[6] * 14, 5, 4]
    file = tmp_path / "values.yaml"
    schedule = {"timezone": "Europe/Berlin", "replicas_by_hour": by_hour}
    pool = {"min_replicas": 3, "max_replicas": 6, "schedule": schedule}
    scaling = {"prometheus_url": "http://p", "pools": {"default": pool}}
    file.write_text(
        'object_store: {url: "s3://images", managed: false}\nmodel_store: {url: "s3://models"}\n'
        f"kubernetes: {json.dumps({'autoscaling': scaling})}\n"
    )
    (scaled,) = render(file).of("ScaledObject")
    KINDS["ScaledObject"].model_validate(scaled)
    told = [each["metadata"] for each in scaled["spec"]["triggers"] if each["type"] == "cron"]
    assert {each["timezone"] for each in told} == {"Europe/Berlin"}
    assert [(each["start"], each["end"], each["desiredReplicas"]) for each in told] == [
        ("55 6 * * *", "0 8 * * *", "5"),
        ("55 7 * * *", "0 22 * * *", "6"),
        ("55 21 * * *", "0 23 * * *", "5"),
        ("55 22 * * *", "0 2 * * *", "4"),
    ]
