"""The chart in a cluster: the real helm and kubectl, of an API server that applies as Kubernetes does."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from support import server_side_apply as ssa
from support.api_server import OPERATORS, Cluster, api_server
from support.chart import CHART, HELM, ROOT, SCENARIOS, helm
from support.rendered import Rendered
from support.server_side_apply import Conflict, Manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMESPACE = "/api/v1/namespaces/vision"
DEPLOYMENTS = "/apis/apps/v1/namespaces/vision/deployments"
WORKER = f"{DEPLOYMENTS}/shoal-worker-default"
ROUTER = f"{DEPLOYMENTS}/shoal-router"
PLAIN = """\
object_store: {managed: false}
model_store: {url: "s3://models"}
pools: {default: {replicas: 6}, spare: {models: [x]}}
"""
SCALED = """\
kubernetes:
  autoscaling:
    prometheus_url: http://prometheus:9090
    pools: {default: {max_replicas: 9}, spare: {min_replicas: 3, max_replicas: 9}}
    batchers: {shared: {max_replicas: 3}}
    router: {max_replicas: 8}
"""
HPA = "kube-controller-manager"
ENFORCE = "pod-security.kubernetes.io/enforce"


@dataclass
class Release:
    """Helm's commands for the release ``shoal`` in the namespace ``vision``."""

    cluster: Cluster
    folder: Path
    values: str = PLAIN

    def run(self, command: str, *words: object) -> subprocess.CompletedProcess[str]:
        if command in {"install", "upgrade"}:
            (self.folder / "values.yaml").write_text(self.values)
            words = (CHART, "--disable-openapi-validation", "--values", self.folder / "values.yaml", *words)
        where = ("--namespace", "vision", "--kubeconfig", os.devnull, "--kube-apiserver", self.cluster.address)
        return helm(command, "shoal", *words, *where, "--qps", "1000", "--burst-limit", "1000")

    def do(self, command: str, *words: object) -> None:
        """Runs what has to succeed."""
        done = self.run(command, *words)
        assert done.returncode == 0, done.stderr

    def refused(self, command: str, *words: object) -> str:
        """Why a command fails."""
        done = self.run(command, *words)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def shell(self, line: str) -> None:
        """Runs a line that the docs or an error give, with kubectl led to the cluster."""
        home = {"HOME": str(self.folder), "KUBECONFIG": os.devnull, "PATH": f"{HELM.parent}:{os.environ['PATH']}"}
        line = line.replace("kubectl ", f"kubectl --server {self.cluster.address} ")
        done = subprocess.run(line, shell=True, env=home, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def pods(self, path: str = WORKER) -> int:
        return int(self.cluster.get(path)["spec"]["replicas"])


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    """In a cluster with every operator."""
    with api_server(*OPERATORS) as cluster:
        yield Release(cluster, tmp_path)


# Who scales.


def test_what_an_autoscaler_says_outlives_upgrades_and_rollbacks(release: Release) -> None:
    release.values = PLAIN + SCALED
    release.do("install")
    assert {release.pods(f"{DEPLOYMENTS}/shoal-{name}") for name in ("router", "worker-default", "batcher-shared")} == {
        1
    }
    for path, pods in ((WORKER, 7), (ROUTER, 5)):
        release.cluster.scale(path, pods, HPA)
    release.do("upgrade", "--set", "observe.log_level=debug")
    assert (release.pods(), release.pods(ROUTER)) == (7, 5)
    release.do("rollback", "1")
    assert (release.pods(), release.pods(ROUTER)) == (7, 5)


def test_a_cluster_changes_nothing_of_what_is_rendered(release: Release) -> None:
    release.values = PLAIN + SCALED
    release.do("install")
    release.cluster.scale(WORKER, 7, HPA)
    where = ("--dry-run=server", "--disable-openapi-validation", "--kubeconfig", os.devnull)
    given = ("--namespace", "vision", "--values", release.folder / "values.yaml")
    within = helm("template", "shoal", CHART, *given, *where, "--kube-apiserver", release.cluster.address)
    without = helm("template", "shoal", CHART, *given)
    assert within.returncode == without.returncode == 0, within.stderr
    assert Rendered.parse(within.stdout).objects == Rendered.parse(without.stdout).objects


@pytest.mark.parametrize("part", ["router", "batcher", "worker", "pools.default"])
def test_what_is_scaled_elsewhere_is_nobody_elses(part: str, tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(PLAIN)
    done = helm(
        "template", "shoal", CHART, "--values", tmp_path / "v.yaml", "--set", f"kubernetes.{part}.scaled_elsewhere=true"
    )
    left = {
        each["metadata"]["name"]
        for each in Rendered.parse(done.stdout).of("Deployment")
        if "replicas" not in each["spec"]
    }
    assert (
        left
        == {
            "router": {"shoal-router"},
            "batcher": {"shoal-batcher-shared"},
            "worker": {"shoal-worker-default", "shoal-worker-spare"},
            "pools.default": {"shoal-worker-default"},
        }[part]
    )


@pytest.mark.parametrize("way", ["kubectl", HPA])
def test_a_number_of_the_charts_that_another_changed_is_a_conflict_with_ways_out(release: Release, way: str) -> None:
    release.do("install")
    if way == "kubectl":
        release.shell("kubectl --namespace vision scale deployment shoal-worker-default --replicas=8")
    else:
        release.cluster.scale(WORKER, 8, way)
    refused = release.refused("upgrade")
    assert f'conflict with "{way}" with subresource "scale" using apps/v1: .spec.replicas' in refused
    release.do("upgrade", "--set", "kubernetes.pools.default.scaled_elsewhere=true")
    assert release.pods() == 8
    assert ".spec.replicas" in release.refused("rollback", "1")
    release.do("rollback", "1", "--force-conflicts")
    assert release.pods() == 6
    release.do("upgrade")


@pytest.mark.parametrize(
    "more", [SCALED, "kubernetes: {worker: {scaled_elsewhere: true}}\n"], ids=["KEDA", "elsewhere"]
)
def test_a_number_is_handed_over_before_it_is_left_out(release: Release, more: str) -> None:
    release.do("install")
    release.values = PLAIN + more
    refused = release.refused("upgrade", "--set", "kubernetes.router.scaled_elsewhere=false")
    told = re.search(r"Deployment (\S+) has (\d) pods.*\n\s+(echo .*)", refused)
    assert told, refused
    while told:  # each Deployment with more than one pod
        release.shell(told[3])
        refused = release.run("upgrade").stderr
        told = re.search(r"Deployment (\S+) has (\d) pods.*\n\s+(echo .*)", refused)
    assert refused == ""
    assert release.pods() == 6
    release.do("upgrade", "--set", "observe.log_level=debug")
    assert release.pods() == 6
    release.cluster.scale(WORKER, 9, HPA)
    release.do("upgrade")
    assert release.pods() == 9


def test_the_chapters_way_to_hand_over(release: Release) -> None:
    (lines,) = re.findall(r"```sh\n(name=.*?)```", (ROOT / "docs" / "rollouts.md").read_text(), re.DOTALL)
    release.do("install")
    release.shell(lines)
    assert (release.pods(), release.pods(ROUTER)) == (6, 2)
    release.do("upgrade", "--set", "kubernetes.pools.default.scaled_elsewhere=true")
    assert release.pods() == 6
    release.do(
        "upgrade", "--set", "kubernetes.pools.default.scaled_elsewhere=true", "--set", "pools.default.replicas=2"
    )
    assert release.pods() == 6


def test_a_number_in_the_values_that_is_there_already_is_no_conflict(release: Release) -> None:
    release.do("install")
    release.cluster.scale(WORKER, 8, "kubectl")
    release.do("upgrade", "--set", "pools.default.replicas=8")
    assert ".spec.replicas" in release.refused("upgrade", "--set", "pools.default.replicas=7")
    release.do("upgrade", "--set", "pools.default.replicas=7", "--force-conflicts")
    assert release.pods() == 7


def test_nothing_is_changed_by_an_upgrade_that_would_give_a_number_up(release: Release) -> None:
    release.do("install")
    before = release.cluster.get(ROUTER)
    release.values = PLAIN + SCALED
    release.refused("upgrade", "--set", "observe.log_level=debug")
    assert release.cluster.get(ROUTER) == before
    assert release.pods() == 6


def test_the_chart_takes_a_number_back(release: Release) -> None:
    release.values = PLAIN + SCALED
    release.do("install")
    release.cluster.scale(WORKER, 9, HPA)
    release.values = PLAIN
    assert ".spec.replicas" in release.refused("upgrade")
    release.do("upgrade", "--force-conflicts")
    assert release.pods() == 6
    release.do("upgrade", "--set", "pools.default.replicas=4")
    assert release.pods() == 4


# Operators.


@pytest.mark.parametrize(
    ("setting", "version", "kind", "told"),
    [
        ("monitoring.enabled=true", "monitoring.coreos.com/v1", "PodMonitor", "Prometheus operator"),
        ("monitoring.enabled=true", "monitoring.coreos.com/v1", "PrometheusRule", "kubernetes.monitoring.rules: false"),
        ("autoscaling.router.max_replicas=4", "keda.sh/v1alpha1", "ScaledObject", "KEDA"),
        ("gateway.enabled=true", "gateway.networking.k8s.io/v1", "GRPCRoute", "kubernetes.gateway.enabled: false"),
        ("gateway.kind=HTTPRoute", "gateway.networking.k8s.io/v1", "HTTPRoute", "the Gateway API"),
    ],
)
def test_a_missing_operator_is_named_before_anything_is_made(
    tmp_path: Path, setting: str, version: str, kind: str, told: str
) -> None:
    words = operator_words(setting)
    with api_server(*OPERATORS, without=(kind,)) as cluster:
        release = Release(cluster, tmp_path)
        refused = release.refused("install", *words)
        assert f"this cluster has no {kind} ({version}), which " in refused
        assert told in refused
        assert not cluster.there(f"{NAMESPACE}/configmaps/shoal-service")
        cluster.kinds[version] = OPERATORS[version]
        release.do("install", *words)


@pytest.mark.parametrize("version", OPERATORS)
def test_an_upgrade_is_told_so_too(tmp_path: Path, version: str) -> None:
    setting = {"m": "monitoring.enabled=true", "k": "autoscaling.router.max_replicas=4", "g": "gateway.enabled=true"}
    with api_server(*(OPERATORS.keys() - {version})) as cluster:
        release = Release(cluster, tmp_path)
        release.do("install")
        assert version in release.refused("upgrade", *operator_words(setting[version[0]]))


def operator_words(setting: str) -> list[str]:
    settings = [f"kubernetes.{setting}", "kubernetes.autoscaling.prometheus_url=http://p"]
    if "gateway" in setting:
        settings += ["kubernetes.gateway.enabled=true", "kubernetes.gateway.parent_refs[0].name=public"]
    return [word for each in settings for word in ("--set", each)]


def test_what_renders_without_a_cluster_takes_operators_for_granted(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(PLAIN + SCALED)
    words = ("template", "shoal", CHART, "--values", tmp_path / "v.yaml", "--set", "kubernetes.monitoring.enabled=true")
    plain = helm(*words)
    assert plain.returncode == 0, plain.stderr
    some = helm(*words, "--api-versions", "monitoring.coreos.com/v1")
    assert Rendered.parse(some.stdout).objects == Rendered.parse(plain.stdout).objects
    # What Argo CD says: all that its cluster has.
    known = "apiregistration.k8s.io/v1,apiregistration.k8s.io/v1/APIService,monitoring.coreos.com/v1"
    kinds = "monitoring.coreos.com/v1/PodMonitor,monitoring.coreos.com/v1/PrometheusRule"
    assert "no ScaledObject" in helm(*words, "--api-versions", f"{known},{kinds}").stderr
    every = f"{known},{kinds},keda.sh/v1alpha1/ScaledObject"
    assert helm(*words, "--api-versions", every).returncode == 0


# Namespaces.


def namespace(level: str | None) -> dict[str, Any]:
    labels = {ENFORCE: level} if level else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "vision", "labels": labels}}


HOST, NFS = "host_path: /shared", "nfs: {server: s, path: /m}"
VOLUME = "object_store: {managed: false}\nkubernetes: {model_store: {volume: {%s}}}\n"
EXTRA = PLAIN + "kubernetes: {batcher: {extra_volumes: [{name: a, %s}]}}\n"


@pytest.mark.parametrize(
    ("values", "level", "refused"),
    [
        (VOLUME % HOST, "baseline", "router (hostPath), worker-default (hostPath)"),
        (VOLUME % HOST, "restricted", "router (hostPath), worker-default (hostPath)"),
        (VOLUME % HOST, "privileged", ""),
        (VOLUME % HOST, None, ""),
        (VOLUME % NFS, "restricted", "router (nfs), worker-default (nfs)"),
        (VOLUME % NFS, "baseline", ""),
        (VOLUME % "persistent_volume_claim: m", "restricted", ""),
        (EXTRA % "hostPath: {path: /a}", "baseline", "batcher (hostPath)"),
        (EXTRA % "nfs: {server: s, path: /m}", "restricted", "batcher (nfs)"),
        (EXTRA % "secret: {secretName: s}", "restricted", ""),
    ],
)
def test_what_a_namespace_refuses_is_told_first(tmp_path: Path, values: str, level: str | None, refused: str) -> None:
    with api_server() as cluster:
        cluster.add(NAMESPACE, namespace(level))
        release = Release(cluster, tmp_path, values)
        if not refused:
            release.do("install")
            return
        told = release.refused("install")
        assert f"namespace vision has the label {ENFORCE}={level}, which refuses the volumes of {refused}" in told
        assert not cluster.there(f"{NAMESPACE}/configmaps/shoal-service")
        release.do("install", "--set", "kubernetes.namespace.look_up=false")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda file: file.parent.name)
def test_a_namespace_is_read_only_where_it_may_refuse(tmp_path: Path, scenario: Path) -> None:
    with api_server() as cluster:
        cluster.add(NAMESPACE, namespace("restricted"))
        cluster.forbidden.add(NAMESPACE)
        done = Release(cluster, tmp_path, scenario.read_text()).run("install")
        assert (done.returncode == 0) is (scenario.parent.name not in {"laptop", "one-pool-nfs"}), done.stderr


def test_a_namespace_that_is_yet_to_be_made_refuses_nothing(tmp_path: Path) -> None:
    with api_server() as cluster:
        Release(cluster, tmp_path, VOLUME % HOST).do("install")


# The stand-in's own rules, of the chapter "Server-Side Apply".


def test_a_field_that_nobody_applies_any_longer_falls_back_to_its_default() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"selector": {"a": "b"}, "replicas": 6}}
    less = {**deployment, "spec": {"selector": {"a": "b"}}}
    with api_server() as cluster:
        cluster.apply(WORKER, deployment, Manager("helm", "Apply"), force=False)
        assert cluster.get(WORKER)["spec"]["replicas"] == 6
        cluster.apply(WORKER, less, Manager("helm", "Apply"), force=False)
        assert cluster.get(WORKER)["spec"]["replicas"] == 1


def test_equal_values_are_shared_and_a_last_owner_keeps_them() -> None:
    one, other = Manager("one", "Apply"), Manager("other", "Apply")
    tree = {"apiVersion": "v1", "kind": "X", "spec": {"a": 1}}
    owned: ssa.Owned = {}
    live = ssa.apply({}, owned, tree, one, force=False)
    live = ssa.apply(live, owned, tree, other, force=False)
    with pytest.raises(Conflict, match=r'conflict with "other" using v1: \.spec\.a'):
        ssa.apply(live, owned, {**tree, "spec": {"a": 2}}, one, force=False)
    live = ssa.apply(live, owned, {**tree, "spec": {}}, one, force=False)
    assert live["spec"] == {"a": 1}
    assert owned == {one: {("spec",)}, other: {("spec", "a")}}
    assert ssa.managed_fields(owned, "v1")[1]["fieldsV1"] == {"f:spec": {"f:a": {}}}
