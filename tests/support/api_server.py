"""A Kubernetes API server in this process, for the real helm and kubectl: objects and who owns their fields.

It stores what it is given, says which kinds it has, applies server-side, and sets the one default that matters here, a
Deployment's ``replicas``. No controller acts on anything, and nothing is validated.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from base64 import b64encode
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ruamel.yaml import YAML

from support import server_side_apply as ssa
from support.server_side_apply import Conflict, Manager, Object, Owned

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "services": "Service",
        "configmaps": "ConfigMap",
        "serviceaccounts": "ServiceAccount",
        "secrets": "Secret",
        "pods": "Pod",
        "namespaces": "Namespace",
    },
    "apps/v1": {"deployments": "Deployment"},
    "batch/v1": {"cronjobs": "CronJob"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    # In every cluster, and in nothing that renders without one.
    "apiregistration.k8s.io/v1": {"apiservices": "APIService"},
}
OPERATORS: dict[str, dict[str, str]] = {
    "monitoring.coreos.com/v1": {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject"},
    "gateway.networking.k8s.io/v1": {"grpcroutes": "GRPCRoute", "httproutes": "HTTPRoute"},
}
_CLUSTER_WIDE = {"Namespace", "APIService"}
_PROTOBUF = b"k8s\x00"


@dataclass
class Stored:
    """An object and the owners of its fields."""

    tree: Object
    owned: Owned = field(default_factory=dict)


class Cluster:
    """What the API server knows."""

    def __init__(self, kinds: dict[str, dict[str, str]]) -> None:
        self.kinds = kinds
        self.address = ""
        self.forbidden: set[str] = set()
        """Paths that the caller may not read."""
        self._objects: dict[str, Stored] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, path: str, tree: Object) -> None:
        """Puts an object there, as a cluster's own."""
        self._objects[path] = Stored(self._identified(tree, path))

    def get(self, path: str) -> Object:
        """An object, as it is read."""
        stored = self._objects[path]
        tree = deepcopy(stored.tree)
        tree["metadata"]["managedFields"] = ssa.managed_fields(stored.owned, tree["apiVersion"])
        return tree

    def there(self, path: str) -> bool:
        """Whether there is such an object."""
        return path in self._objects

    def listed(self, path: str, selector: str) -> Object:
        """The objects of a kind in a namespace."""
        labels = dict(each.split("=", 1) for each in selector.split(",") if "=" in each)
        found = [self.get(each) for each in sorted(self._objects) if each.rpartition("/")[0] == path]
        items = [each for each in found if labels.items() <= each["metadata"].get("labels", {}).items()]
        version, kind = self._kind(path)
        return {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}

    def write(self, path: str, tree: Object, manager: Manager) -> Object:
        """Creates or updates an object."""
        with self._lock:
            stored = self._objects.get(path) or Stored({})
            owned = deepcopy(stored.owned)
            after = self._identified(tree, path)
            ssa.update(stored.tree, after, owned, manager)
            self._objects[path] = Stored(after, owned)
            return self.get(path)

    def apply(self, path: str, tree: Object, manager: Manager, *, force: bool) -> Object:
        """Server-side apply.

        Raises:
            Conflict: others own what it would change.
        """
        with self._lock:
            stored = self._objects.get(path) or Stored({"apiVersion": tree["apiVersion"], "kind": tree["kind"]})
            owned = deepcopy(stored.owned)
            after = ssa.apply(stored.tree, owned, tree, manager, force=force)
            self._objects[path] = Stored(self._identified(after, path), owned)
            return self.get(path)

    def scale(self, path: str, replicas: int, manager: str) -> None:
        """What an autoscaler or ``kubectl scale`` does, through the subresource ``scale``."""
        tree = self.get(path)
        tree["spec"]["replicas"] = replicas
        self.write(path, tree, Manager(manager, "Update", "scale"))

    def delete(self, path: str) -> Object:
        """Takes an object away."""
        return self._objects.pop(path).tree

    def _kind(self, path: str) -> tuple[str, str]:
        plural = path.rpartition("/")[2]
        return next((version, names[plural]) for version, names in self.kinds.items() if plural in names)

    def _identified(self, tree: Object, path: str) -> Object:
        tree = deepcopy(tree)
        metadata = tree.setdefault("metadata", {})
        if found := re.search("/namespaces/([^/]+)/", path):
            metadata["namespace"] = found[1]
        metadata.pop("managedFields", None)
        metadata["name"] = path.rpartition("/")[2]
        metadata.setdefault("uid", f"uid-{path}")
        metadata["resourceVersion"] = str(next(self._versions))
        if tree["kind"] == "Deployment":
            tree["spec"].setdefault("replicas", 1)
        return tree


@contextmanager
def api_server(*operators: str, without: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """Serves a cluster at ``Cluster.address``.

    Args:
        operators: versions of OPERATORS that it has.
        without: kinds that it lacks all the same.
    """
    kinds = KINDS | {version: OPERATORS[version] for version in operators}
    cluster = Cluster(
        {version: {n: k for n, k in names.items() if k not in without} for version, names in kinds.items()}
    )

    class Handler(_Handler):
        known = cluster

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        cluster.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield cluster
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    known: Cluster
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""

    def do_GET(self) -> None:
        path, query = self._asked()
        if path in self.known.forbidden:
            self._refuse(403, "Forbidden", f"{path} is forbidden")
        elif (found := _discovery(path, self.known.kinds)) is not None:
            self._answer(200, found)
        elif path.endswith("/scale") and self.known.there(path.removesuffix("/scale")):
            self._answer(200, _scale(self.known.get(path.removesuffix("/scale"))))
        elif self.known.there(path):
            self._answer(200, self.known.get(path))
        elif path.rpartition("/")[2] in _plurals(self.known.kinds):
            self._answer(200, self.known.listed(path, query.get("labelSelector", "")))
        else:
            self._refuse(404, "NotFound", f"{path} not found")

    def do_POST(self) -> None:
        path, query = self._asked()
        tree = self._body()
        path = f"{path}/{tree['metadata']['name']}"
        if self.known.there(path):
            self._refuse(409, "AlreadyExists", f"{path} is there")
        else:
            self._answer(201, self.known.write(path, tree, self._updater(query)))

    def do_PUT(self) -> None:
        path, query = self._asked()
        if path.endswith("/scale"):
            self._rescale(path, query)
        else:
            self._answer(200, self.known.write(path, self._body(), self._updater(query)))

    def do_PATCH(self) -> None:
        path, query = self._asked()
        if path.endswith("/scale"):
            self._rescale(path, query)
        elif "apply-patch" in self.headers["Content-Type"]:
            manager = Manager(query["fieldManager"], "Apply")
            try:
                done = self.known.apply(path, self._body(), manager, force=query.get("force") == "true")
            except Conflict as conflict:
                self._refuse(409, "Conflict", str(conflict))
            else:
                self._answer(200, done)
        elif self.known.there(path):
            patched = _merged(self.known.get(path), self._body())
            self._answer(200, self.known.write(path, patched, self._updater(query)))
        else:
            self._refuse(404, "NotFound", f"{path} not found")

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.known.there(path):
            self._answer(200, self.known.delete(path))
        else:
            self._refuse(404, "NotFound", f"{path} not found")

    def _rescale(self, path: str, query: dict[str, str]) -> None:
        path = path.removesuffix("/scale")
        self.known.scale(path, self._body()["spec"]["replicas"], self._updater(query).name)
        self._answer(200, _scale(self.known.get(path)))

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path.rstrip("/"), {key: values[0] for key, values in parse_qs(parts.query).items()}

    def _updater(self, query: dict[str, str]) -> Manager:
        return Manager(query.get("fieldManager") or self.headers["User-Agent"].partition("/")[0], "Update")

    def _body(self) -> Any:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if body.startswith(_PROTOBUF):
            return _secret(body.removeprefix(_PROTOBUF))
        return json.loads(body) if body.startswith(b"{") else YAML(typ="safe").load(body)

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        self._answer(code, {**status, "reason": reason, "message": message, "code": code})

    def _answer(self, code: int, tree: Object) -> None:
        body = json.dumps(tree).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _plurals(kinds: dict[str, dict[str, str]]) -> set[str]:
    return {name for names in kinds.values() for name in names}


def _discovery(path: str, kinds: dict[str, dict[str, str]]) -> Object | None:
    """The server's version, and what kinds it has."""
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            groups = [_group(version) for version in kinds if "/" in version]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["api" | "apis", *rest] if "/".join(rest) in kinds:
            version = "/".join(rest)
            return {"kind": "APIResourceList", "groupVersion": version, "resources": _resources(kinds[version])}
    return None


def _resources(names: dict[str, str]) -> list[Object]:
    verbs = ["create", "delete", "get", "list", "patch", "update"]
    found = [
        {"name": name, "singularName": "", "kind": kind, "namespaced": kind not in _CLUSTER_WIDE, "verbs": verbs}
        for name, kind in names.items()
    ]
    if "deployments" in names:
        scale = {"name": "deployments/scale", "singularName": "", "kind": "Scale", "namespaced": True}
        found.append({**scale, "group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"]})
    return found


def _group(version: str) -> Object:
    name, _, number = version.partition("/")
    both = {"groupVersion": version, "version": number}
    return {"name": name, "versions": [both], "preferredVersion": both}


def _scale(deployment: Object) -> Object:
    metadata = {key: deployment["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    spec = {"replicas": deployment["spec"]["replicas"]}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec, "status": spec}


def _secret(body: bytes) -> Object:
    """Helm's record of a release, which comes as protobuf: fields of Unknown, Secret, ObjectMeta by their numbers."""
    secret = _message(_message(body)[2][0])
    metadata = _message(secret[1][0])
    labels = dict(_entry(each) for each in metadata.get(11, []))
    data = dict(_entry(each) for each in secret.get(2, []))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata[1][0].decode(),
            "namespace": metadata[3][0].decode(),
            "labels": {key: value.decode() for key, value in labels.items()},
        },
        "type": secret[3][0].decode(),
        "data": {key: b64encode(value).decode() for key, value in data.items()},
    }


def _entry(body: bytes) -> tuple[str, bytes]:
    pair = _message(body)
    return pair[1][0].decode(), pair.get(2, [b""])[0]


def _message(body: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message that have a length; numbers are passed over."""
    found: dict[int, list[bytes]] = {}
    place = 0
    while place < len(body):
        tag, place = _varint(body, place)
        size, place = _varint(body, place)
        if tag & 7 == 2:  # it has a length; of a number, `size` was the number
            found.setdefault(tag >> 3, []).append(body[place : place + size])
            place += size
    return found


def _varint(body: bytes, place: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = body[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place


def _merged(tree: Any, patch: Any) -> Any:
    """A JSON merge patch, RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(tree) if isinstance(tree, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
