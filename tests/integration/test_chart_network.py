"""Who reaches what in a cluster: the chart's NetworkPolicies, evaluated, and its route of the Gateway API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shoal.service.topology import Topology
from support.chart import SCENARIOS, render, template
from support.policies import Peer, allowed

if TYPE_CHECKING:
    from pathlib import Path

    from support.rendered import Rendered

S3 = "object_store: {managed: false}\nmodel_store: {url: 's3://models'}\n"
VOLUME = "kubernetes: {model_store: {volume: {persistent_volume_claim: models}}}\n"
SERVED = {
    *{("router", "batcher", 9000), ("router", "worker", 9000), ("batcher", "router", 9001)},
    ("worker", "worker", 9000),  # a new one asks what has to be served
}
ALL = ["router", "batcher", "worker", "image-retention", "test"]
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
OUTSIDE = Peer(namespace=None, address="203.0.113.9")
METRICS = {("router", 9100), ("batcher", 9100), ("worker", 9100), ("worker", 9103)}


@pytest.fixture
def values(tmp_path: Path) -> Path:
    file = tmp_path / "values.yaml"
    file.write_text(S3 + "kubernetes: {image_retention: {enabled: true}}\n")
    return file


def shut(file: Path, **settings: Any) -> Rendered:
    """Rendered with egress limited."""
    return render(file, settings={"kubernetes.network_policies.egress.enabled": True, **settings})


def part(rendered: Rendered, component: str) -> Peer:
    pods = rendered.selected({"app.kubernetes.io/component": component})
    return Peer(pods[0].labels)


def open_between(rendered: Rendered) -> set[tuple[str, str, int]]:
    """Every connection between parts of the release that comes about."""
    ports = {8080, 9000, 9001, 9100, 9101, 9102, 9103, 8001, 8002, 9901, 53, 443}
    peers = {name: part(rendered, name) for name in ALL}
    return {
        (source, target, port)
        for source in ALL
        for target in ALL
        for port in ports
        if allowed(rendered, peers[source], peers[target], port)
    }


def test_parts_reach_those_that_they_ask_and_no_others(values: Path) -> None:
    private = {"kubernetes.network_policies.clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    # No port of a store's in the release's own pods: an address's port is meant for the outside.
    within = {each for each in open_between(shut(values, **private)) if each[2] != 443}
    assert within == SERVED | {("test", "router", 8080)}


def test_every_process_of_a_worker_is_reached(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(
        S3
        + "pools: {a: {engine: triton, worker_processes: 3}, b: {models: [x]}}\n"
        + "kubernetes: {image_retention: {enabled: true}}\n"
    )
    rendered = shut(tmp_path / "v.yaml")
    peers = {name: part(rendered, name) for name in ALL}
    prometheus = Peer({}, "monitoring")
    for number in (2, 3):
        reached = {each for each in ALL if allowed(rendered, peers[each], peers["worker"], 9200 + number)}
        assert reached == {"router"}
        assert allowed(rendered, prometheus, peers["worker"], 9300 + number)
        assert not any(allowed(rendered, peers[each], peers["worker"], 9300 + number) for each in ALL)
    assert not allowed(rendered, peers["router"], peers["worker"], 9204)


@pytest.mark.parametrize("processes", [1, 3])
def test_with_a_console_the_router_reaches_what_parts_tell(tmp_path: Path, processes: int) -> None:
    file = tmp_path / "v.yaml"
    pools = f"pools: {{a: {{engine: triton, worker_processes: {processes}}}}}\n"
    file.write_text(S3 + pools + "router: {console: true}\nkubernetes: {image_retention: {enabled: true}}\n")
    rendered = shut(file)
    topology = Topology.model_validate_json(rendered.data()["topology.json"])
    assert {(each.role, each.group) for each in topology.telling.values()} == {("batcher", "shared"), ("worker", "a")}
    assert len(topology.telling) == 1 + processes
    peers = {name: part(rendered, name) for name in ALL}
    for each in topology.telling.values():
        asking = {name for name in ALL if allowed(rendered, peers[name], peers[each.role], each.metrics.port)}
        assert asking == {"router"}, each


def test_without_limits_on_egress_the_same_is_let_in(values: Path) -> None:
    assert open_between(render(values)) >= SERVED
    assert not any(port not in {8080, 9000, 9001} for _, _, port in open_between(render(values)))


@pytest.mark.parametrize("component", ALL)
def test_everybody_asks_the_clusters_dns_and_nobody_elses(values: Path, component: str) -> None:
    rendered = shut(values)
    for protocol in ("UDP", "TCP"):
        assert allowed(rendered, part(rendered, component), DNS, 53, protocol)
        assert not allowed(rendered, part(rendered, component), OUTSIDE, 53, protocol)
    assert not allowed(rendered, part(rendered, component), Peer({"app": "x"}, "kube-system"), 53, "UDP")


def test_stores_are_reached_by_those_that_use_them(values: Path) -> None:
    rendered = shut(values)
    reach = {name for name in ALL if allowed(rendered, part(rendered, name), OUTSIDE, 443)}
    assert reach == {"router", "worker", "image-retention", "test"}
    assert not any(allowed(rendered, part(rendered, name), OUTSIDE, 80) for name in ALL)


def test_a_router_without_published_models_reaches_no_store(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("object_store: {managed: false}\n" + VOLUME)
    rendered = shut(tmp_path / "v.yaml")
    assert not allowed(rendered, part(rendered, "router"), OUTSIDE, 443)
    assert allowed(rendered, part(rendered, "worker"), OUTSIDE, 443)


def test_a_router_that_follows_its_keys_reaches_the_kubernetes_api(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("object_store: {managed: false}\n" + VOLUME)
    rendered = shut(tmp_path / "v.yaml", **{"kubernetes.router.watch_keys": True})
    for port in (443, 6443):
        assert allowed(rendered, part(rendered, "router"), OUTSIDE, port)
    assert not allowed(rendered, part(rendered, "worker"), OUTSIDE, 6443)


@pytest.mark.parametrize(
    ("endpoint", "there", "elsewhere"),
    [
        ("http://minio.minio.svc:9000", (Peer({}, "minio"), 9000), (Peer({}, "other"), 9000)),
        ("http://rgw.rook-ceph.svc.cluster.local", (Peer({}, "rook-ceph"), 8080), (OUTSIDE, 80)),
        ("http://minio:9000", (Peer({"app": "minio"}, "vision"), 9000), (Peer({"app": "minio"}, "other"), 9000)),
        ("https://s3.example.com:8443", (OUTSIDE, 8443), (OUTSIDE, 443)),
        ("https://s3.example.com", (OUTSIDE, 443), (OUTSIDE, 80)),
        ("http://s3.example.com/", (OUTSIDE, 80), (OUTSIDE, 443)),
        ("http://10.0.0.7:9000", (OUTSIDE, 9000), (OUTSIDE, 443)),
    ],
)
def test_a_stores_address_says_where_it_is(
    tmp_path: Path, endpoint: str, there: tuple[Peer, int], elsewhere: tuple[Peer, int]
) -> None:
    (tmp_path / "v.yaml").write_text(f"object_store: {{managed: false, endpoint: '{endpoint}'}}\n{VOLUME}")
    rendered = shut(tmp_path / "v.yaml")
    worker = part(rendered, "worker")
    assert allowed(rendered, worker, *there)
    assert not allowed(rendered, worker, *elsewhere)


def test_ways_that_are_given_take_the_place_of_what_addresses_say(values: Path) -> None:
    given = [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 9000}]}]
    extra = [{"to": [{"ipBlock": {"cidr": "169.254.170.23/32"}}], "ports": [{"port": 80}]}]
    rendered = shut(
        values,
        **{
            "kubernetes.network_policies.egress.stores": given,
            "kubernetes.network_policies.egress.extra": extra,
            "kubernetes.network_policies.egress.dns": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
        },
    )
    worker = part(rendered, "worker")
    assert allowed(rendered, worker, OUTSIDE, 9000)
    assert not allowed(rendered, worker, OUTSIDE, 443)
    agent, cache = Peer(namespace=None, address="169.254.170.23"), Peer(namespace=None, address="169.254.20.10")
    for name in ALL:
        assert allowed(rendered, part(rendered, name), agent, 80)
        assert allowed(rendered, part(rendered, name), cache, 53, "UDP")
        assert not allowed(rendered, part(rendered, name), DNS, 53, "UDP")


def test_metrics_are_for_prometheus_alone(values: Path) -> None:
    rendered = shut(values)
    asked = {
        (name, port)
        for name in ALL
        for port in range(8000, 9200)
        if allowed(rendered, Peer({}, "monitoring"), part(rendered, name), port)
    }
    assert asked == METRICS | {("router", 8080)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda file: file.parent.name)
def test_every_scenario_may_be_shut(scenario: Path) -> None:
    rendered = shut(scenario)
    for source, target, port in SERVED:
        assert allowed(rendered, part(rendered, source), part(rendered, target), port)


# The Gateway API: by its specification, since there is no schema of it here.


@pytest.mark.parametrize("kind", ["GRPCRoute", "HTTPRoute"])
def test_a_route_leads_to_the_routers_service(values: Path, kind: str) -> None:
    parents = [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    found = render(
        values,
        settings={
            "kubernetes.gateway": {
                "enabled": True,
                "kind": kind,
                "parent_refs": parents,
                "hostnames": ["shoal.example"],
                "labels": {"team": "vision"},
                "annotations": {"note": "1"},
            },
            "kubernetes.router.service.port": 443,
        },
    )
    (route,) = found.of(kind)
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["metadata"]["labels"]["team"] == "vision"
    assert route["metadata"]["annotations"] == {"note": "1"}
    spec = route["spec"]
    assert (spec["parentRefs"], spec["hostnames"]) == (parents, ["shoal.example"])
    (rule,) = spec["rules"]
    (backend,) = rule["backendRefs"]
    service = found.named("Service", backend["name"])
    assert backend["port"] in {port["port"] for port in service["spec"]["ports"]}
    # What tells a Gateway to speak HTTP/2 without TLS to it.
    assert service["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
    assert rule.keys() - {"backendRefs"} == ({"timeouts"} if kind == "HTTPRoute" else set())


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"kubernetes.gateway.enabled": True}, "kubernetes.gateway: parent_refs is missing"),
        ({"kubernetes.gateway.kind": "TCPRoute"}, "kubernetes/gateway/kind"),
        (
            {"kubernetes.network_policies.enabled": False, "kubernetes.network_policies.egress.enabled": True},
            "egress.enabled goes with enabled: true",
        ),
    ],
)
def test_contradictions_are_told(values: Path, settings: dict[str, Any], fault: str) -> None:
    done = template(values, settings=settings)
    assert done.returncode != 0
    assert fault in done.stderr
