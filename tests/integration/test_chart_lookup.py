"""What the chart asks of a live cluster, through the real helm, of an API server that knows two Deployments."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from support.chart import CHART, helm
from support.rendered import Rendered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = {
    "v1": {"services": "Service", "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount"},
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject"},
}
LIVE = {"shoal-router": 5, "shoal-worker-default": 7}
VALUES = """\
object_store: {managed: false}
model_store: {url: "s3://models"}
pools: {default: {models: ["*"]}, spare: {models: [x]}}
kubernetes:
  autoscaling:
    prometheus_url: http://prometheus:9090
    pools: {default: {max_replicas: 9}, spare: {min_replicas: 3, max_replicas: 9}}
    router: {max_replicas: 8}
"""


class ApiServer(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keeps quiet."""

    def do_GET(self) -> None:
        found = answer(self.path.partition("?")[0])
        body = json.dumps(found or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def answer(path: str) -> dict[str, Any] | None:
    """As a Kubernetes API server: its version, what kinds it has, and those Deployments."""
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": "35", "gitVersion": "v1.35.0"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [group(name) for name in KINDS if "/" in name],
            }
        case ["api" | "apis", *rest] if "/".join(rest) in KINDS:
            version = "/".join(rest)
            kinds = [{"name": n, "kind": k, "namespaced": True, "verbs": ["get"]} for n, k in KINDS[version].items()]
            return {"kind": "APIResourceList", "groupVersion": version, "resources": kinds}
        case ["apis", "apps", "v1", "namespaces", "vision", "deployments", name] if name in LIVE:
            return {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": owned(name),
                "spec": {"replicas": LIVE[name]},
            }
    return None


def owned(name: str) -> dict[str, Any]:
    """The metadata of an object that the release has made."""
    release = {"meta.helm.sh/release-name": "shoal", "meta.helm.sh/release-namespace": "vision"}
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    return {"name": name, "namespace": "vision", "labels": labels, "annotations": release}


def group(version: str) -> dict[str, Any]:
    name, _, number = version.partition("/")
    both = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [both], "preferredVersion": both}


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ApiServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_scaled_deployment_keeps_the_replicas_that_it_has(address: str, tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(VALUES)
    cluster = ("--dry-run=server", "--disable-openapi-validation", "--kubeconfig", "/dev/null", "--kube-apiserver")
    given = ("--namespace", "vision", "--values", tmp_path / "v.yaml")
    done = helm("template", "shoal", CHART, *given, *cluster, address)
    assert done.returncode == 0, done.stderr
    found = {
        each["metadata"]["name"]: each["spec"]["replicas"] for each in Rendered.parse(done.stdout).of("Deployment")
    }
    assert found == {**LIVE, "shoal-worker-spare": 3, "shoal-batcher-shared": 1}
