"""Reads rendered Kubernetes objects as a cluster would, and says what it would stumble over; no cluster, no I/O."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Object: TypeAlias = dict[str, Any]

_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_CRON_JOB_NAME = 52
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


class _Reader(yaml.CSafeLoader):
    """As Kubernetes reads it: YAML 1.1, where 0440 is octal, and no key twice. Ten times as fast as ruamel's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        assert len(found) == len(node.value), f"a key stands twice: {node.start_mark}"
        return found


@dataclass(frozen=True)
class Container:
    """One container of a pod template."""

    raw: Object
    runs: str
    """``before`` the others and ends, ``along`` as a sidecar of Kubernetes' own, or as a ``main`` one."""

    @property
    def name(self) -> str:
        return str(self.raw["name"])

    @property
    def command(self) -> list[str]:
        return [*self.raw.get("command", []), *self.raw.get("args", [])]

    @property
    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.raw.get("ports", [])}

    @property
    def mounts(self) -> dict[str, Object]:
        """Mount path to mount."""
        return {mount["mountPath"]: mount for mount in self.raw.get("volumeMounts", [])}

    def option(self, name: str) -> str | None:
        """The word after an option in the command."""
        words = self.command
        return words[words.index(name) + 1] if name in words else None


@dataclass(frozen=True)
class Pod:
    """The pod template of a Deployment or a CronJob, or a Pod itself."""

    owner: Object
    template: Object

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.template["metadata"]["labels"])

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.template["metadata"].get("annotations") or {})

    @property
    def spec(self) -> Object:
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[Container]:
        """In the order of their start."""
        early = [
            Container(raw, "along" if raw.get("restartPolicy") == "Always" else "before")
            for raw in self.spec.get("initContainers", [])
        ]
        return [*early, *(Container(raw, "main") for raw in self.spec["containers"])]

    def container(self, name: str) -> Container:
        return next(container for container in self.containers if container.name == name)

    @property
    def ports(self) -> set[int]:
        """Of the containers that stay."""
        return {
            port for container in self.containers if container.runs != "before" for port in container.ports.values()
        }

    @property
    def volumes(self) -> dict[str, Object]:
        return {volume["name"]: volume for volume in self.spec.get("volumes", [])}


@dataclass(frozen=True)
class Rendered:
    """All objects of a release, and what it expects to be there."""

    objects: list[Object]
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Secrets that exist, and their keys."""
    service_accounts: frozenset[str] = frozenset()
    """Those that exist."""

    @classmethod
    def parse(cls, text: str, **there: Any) -> Rendered:
        return cls([each for each in yaml.load_all(text, Loader=_Reader) if each], **there)

    def of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def named(self, kind: str, name: str) -> Object:
        return next(each for each in self.of(kind) if each["metadata"]["name"] == name)

    @property
    def pods(self) -> list[Pod]:
        deployed = [Pod(each, each["spec"]["template"]) for each in self.of("Deployment")]
        scheduled = [Pod(each, each["spec"]["jobTemplate"]["spec"]["template"]) for each in self.of("CronJob")]
        return deployed + scheduled + [Pod(each, each) for each in self.of("Pod")]

    def pod(self, name: str) -> Pod:
        return next(pod for pod in self.pods if pod.name == name)

    def selected(self, labels: Mapping[str, str]) -> list[Pod]:
        return [pod for pod in self.pods if labels.items() <= pod.labels.items()]

    def data(self) -> dict[str, str]:
        """Of the ConfigMap that pods read."""
        (found,) = (each for each in self.of("ConfigMap") if "service.yaml" in each.get("data", {}))
        return dict(found["data"])


def faults(rendered: Rendered) -> list[str]:
    """Everything that a cluster would stumble over, a line each."""
    checks = (
        _names,
        _selectors,
        _services,
        _policies,
        _volumes,
        _probes,
        _references,
        _security,
        _secrets,
        _mounted_paths,
        _scratch,
    )
    return [fault for check in checks for fault in check(rendered)]


def _title(each: Object) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def _names(rendered: Rendered) -> Iterator[str]:
    counted = Counter(map(_title, rendered.objects))
    yield from (f"{title}: {count} of them" for title, count in counted.items() if count > 1)
    for each in rendered.objects:
        name = each["metadata"]["name"]
        if not _LABEL.fullmatch(name) or (each["kind"] == "CronJob" and len(name) > _CRON_JOB_NAME):
            yield f"{_title(each)}: not a name for it"
    labelled = [*(each["metadata"] for each in rendered.objects), *(pod.template["metadata"] for pod in rendered.pods)]
    for metadata in labelled:
        for key, value in metadata.get("labels", {}).items():
            if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
                yield f"label {key}: {value!r} is not a value for it"


def _selectors(rendered: Rendered) -> Iterator[str]:
    """A Deployment's pods are its own, and all of them; a budget is for the Deployment of its name."""
    for each in [*rendered.of("Deployment"), *rendered.of("PodDisruptionBudget")]:
        owners = [pod.name for pod in rendered.selected(each["spec"]["selector"]["matchLabels"])]
        if owners != [each["metadata"]["name"]]:
            yield f"{_title(each)}: selects the pods of {owners}"
    for pod in rendered.pods:
        for constraint in pod.spec.get("topologySpreadConstraints", []):
            if not constraint["labelSelector"]["matchLabels"].items() <= pod.labels.items():
                yield f"{_title(pod.owner)}: spreads other pods than its own"


def _services(rendered: Rendered) -> Iterator[str]:
    for each in rendered.of("Service"):
        pods = rendered.selected(each["spec"]["selector"])
        if len(pods) != 1:
            yield f"{_title(each)}: selects the pods of {[pod.name for pod in pods]}"
        for port in each["spec"]["ports"]:
            yield from (
                f"{_title(each)}: {pod.name} has no port {port['targetPort']}"
                for pod in pods
                if port["targetPort"] not in pod.ports
            )


def _policies(rendered: Rendered) -> Iterator[str]:
    for each in rendered.of("NetworkPolicy"):
        pods = rendered.selected(each["spec"]["podSelector"]["matchLabels"])
        if not pods:
            yield f"{_title(each)}: selects no pod"
        there = {port for pod in pods for port in pod.ports}
        for rule in each["spec"].get("ingress", []):
            for port in rule["ports"]:
                if port["port"] not in there:
                    yield f"{_title(each)}: no pod has port {port['port']}"
            for peer in rule.get("from", []):
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                if "namespaceSelector" not in peer and labels and not rendered.selected(labels):
                    yield f"{_title(each)}: lets in pods that aren't there: {labels}"


def _volumes(rendered: Rendered) -> Iterator[str]:
    for pod in rendered.pods:
        mounted = {mount["name"] for each in pod.containers for mount in each.mounts.values()}
        for name in mounted ^ pod.volumes.keys():
            yield f"{_title(pod.owner)}: volume {name} is {'not there' if name in mounted else 'mounted nowhere'}"
        for each in pod.containers:
            paths = [mount["mountPath"] for mount in each.raw.get("volumeMounts", [])]
            if len(paths) != len(set(paths)):
                yield f"{_title(pod.owner)}: {each.name} mounts two volumes at one path"


def _probes(rendered: Rendered) -> Iterator[str]:
    for pod in rendered.pods:
        names = [name for each in pod.containers for name in each.ports]
        numbers = [number for each in pod.containers for number in each.ports.values()]
        if len(set(names)) != len(names) or len(set(numbers)) != len(numbers):
            yield f"{_title(pod.owner)}: two of its ports are the same: {names}, {numbers}"
        yield from (
            f"{_title(pod.owner)}: {name} is no name of a port" for name in names if not _PORT_NAME.fullmatch(name)
        )
        for each in pod.containers:
            probes = [each.raw[name] for name in PROBES if name in each.raw]
            if each.runs == "before" and (probes or each.ports):
                yield f"{_title(pod.owner)}: {each.name} ends before anybody could ask it"
            if each.runs != "before" and pod.owner["kind"] == "Deployment" and not probes:
                yield f"{_title(pod.owner)}: {each.name} has no probe"
            for probe in probes:
                port = probe["grpc"]["port"] if "grpc" in probe else probe["httpGet"]["port"]
                if port not in {*each.ports, *each.ports.values()}:
                    yield f"{_title(pod.owner)}: {each.name} is probed at port {port}, which it hasn't"


def _references(rendered: Rendered) -> Iterator[str]:
    """What is named is there, with the keys that are wanted of it."""
    maps = {
        each["metadata"]["name"]: {*each.get("data", {}), *each.get("binaryData", {})}
        for each in rendered.of("ConfigMap")
    }
    accounts = (
        {each["metadata"]["name"] for each in rendered.of("ServiceAccount")} | rendered.service_accounts | {"default"}
    )
    for pod in rendered.pods:
        if pod.spec.get("serviceAccountName", "default") not in accounts:
            yield f"{_title(pod.owner)}: no ServiceAccount {pod.spec['serviceAccountName']}"
        for volume in pod.volumes.values():
            source = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
            if source and not keys_of(volume, maps, rendered.secrets):
                yield f"{_title(pod.owner)}: volume {volume['name']}: no {source}, or not with these keys"
        for each in pod.containers:
            for variable in each.raw.get("env", []):
                wanted = variable.get("valueFrom", {}).get("secretKeyRef")
                if wanted and wanted["key"] not in rendered.secrets.get(wanted["name"], ()):
                    yield f"{_title(pod.owner)}: {each.name}: no {wanted['key']} in Secret {wanted['name']}"


def keys_of(volume: Object, maps: Mapping[str, Iterable[str]], secrets: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """The files of a ConfigMap's or a Secret's volume; none if it, or a key, isn't there."""
    if "configMap" in volume:
        there, items = set(maps.get(volume["configMap"]["name"], ())), volume["configMap"].get("items")
    elif "secret" in volume:
        there, items = set(secrets.get(volume["secret"]["secretName"], ())), volume["secret"].get("items")
    else:
        return frozenset()
    if items is None:
        return frozenset(there)
    return frozenset(item["path"] for item in items) if {item["key"] for item in items} <= there else frozenset()


def _security(rendered: Rendered) -> Iterator[str]:
    for pod in rendered.pods:
        context = pod.spec["securityContext"]
        users = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
        if not (
            context["runAsNonRoot"] is True
            and users.items() <= context.items()
            and context["seccompProfile"] == {"type": "RuntimeDefault"}
            and pod.spec["automountServiceAccountToken"] is False
        ):
            yield f"{_title(pod.owner)}: may do more than it needs"
        for each in pod.containers:
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if each.raw.get("securityContext") != wanted:
                yield f"{_title(pod.owner)}: {each.name} may do more than it needs"
            resources = each.raw.get("resources", {})
            if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources["limits"]:
                yield f"{_title(pod.owner)}: {each.name} says not what it needs"


def _secrets(rendered: Rendered) -> Iterator[str]:
    """A Secret's content comes from a Secret alone."""
    yield from (f"{_title(each)}: a chart makes no Secret" for each in rendered.of("Secret"))
    telling = re.compile(
        r"secret_access_key|access_key_id|x-api-key|shoal_[A-Za-z0-9_-]{20,}|BEGIN .*PRIVATE KEY", re.IGNORECASE
    )
    for each in rendered.of("ConfigMap"):
        yield from (
            f"{_title(each)}: {key} holds a secret"
            for key, text in each.get("data", {}).items()
            if telling.search(text)
        )
    for pod in rendered.pods:
        for container in pod.containers:
            for variable in container.raw.get("env", []):
                if re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]) and "value" in variable:
                    yield f"{_title(pod.owner)}: {container.name}: {variable['name']} is written out"


def _mounted_paths(rendered: Rendered) -> Iterator[str]:
    """A file below /etc/shoal that a command names is mounted."""
    for pod in rendered.pods:
        for container in pod.containers:
            for word in container.command:
                if word.startswith("/etc/shoal/") and word not in mounted_files(rendered, pod, container):
                    yield f"{_title(pod.owner)}: {container.name} reads {word}, which isn't mounted"


def _scratch(rendered: Rendered) -> Iterator[str]:
    """No pod may fill its node's disk or memory."""
    for pod in rendered.pods:
        for name, volume in pod.volumes.items():
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{_title(pod.owner)}: volume {name} may grow without an end"


def mounted_files(rendered: Rendered, pod: Pod, container: Container) -> set[str]:
    """The files of ConfigMaps and Secrets in a container."""
    maps = {
        each["metadata"]["name"]: {*each.get("data", {}), *each.get("binaryData", {})}
        for each in rendered.of("ConfigMap")
    }
    return {
        f"{path}/{key}"
        for path, mount in container.mounts.items()
        for key in keys_of(pod.volumes.get(mount["name"], {}), maps, rendered.secrets)
    }


def immutable(rendered: Rendered) -> dict[str, Any]:
    """What the API server refuses to change in an object that exists."""
    found: dict[str, Any] = {}
    for each in rendered.objects:
        spec = each.get("spec", {})
        match each["kind"]:
            case "Deployment":
                found[_title(each)] = spec["selector"]
            case "Service":
                found[_title(each)] = spec.get("clusterIP")
            case kind:
                found[f"{kind} {each['metadata']['name']}"] = each["apiVersion"]
    return found


def apart(rendered: Rendered) -> list[tuple[str, str]]:
    """Pairs of Deployments whose selectors match each other's pods."""
    pairs = combinations([pod for pod in rendered.pods if pod.owner["kind"] == "Deployment"], 2)
    return [
        (a.name, b.name)
        for a, b in pairs
        if a.owner["spec"]["selector"]["matchLabels"].items() <= b.labels.items()
        or b.owner["spec"]["selector"]["matchLabels"].items() <= a.labels.items()
    ]
