"""The readers of rendered objects fail where something is wrong: each break is one that a template could make."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest

from support.chart import SCENARIOS, render
from support.rendered import Rendered, apart, faults, immutable

if TYPE_CHECKING:
    from collections.abc import Callable

WORKER = "shoal-worker-yolov8"


@pytest.fixture(scope="module")
def sound() -> Rendered:
    (scenario,) = (file for file in SCENARIOS if file.parent.name == "dedicated-pools")
    return render(scenario, settings={"kubernetes.image_retention.enabled": True})


@pytest.fixture
def broken(sound: Rendered) -> Rendered:
    """A copy to break."""
    return deepcopy(sound)


def deployment(rendered: Rendered, name: str = WORKER) -> Any:
    return rendered.named("Deployment", name)["spec"]


def template(rendered: Rendered, name: str = WORKER) -> Any:
    return deployment(rendered, name)["template"]["spec"]


def container(rendered: Rendered, which: str, name: str = WORKER) -> Any:
    spec = template(rendered, name)
    return next(each for each in [*spec.get("initContainers", []), *spec["containers"]] if each["name"] == which)


BREAKS: list[tuple[str, Callable[[Rendered], Any]]] = [
    # selectors
    (
        "Service shoal-router: selects the pods of []",
        lambda r: service(r, "shoal-router")["selector"].update({"x": "y"}),
    ),
    ("selects the pods of ['shoal-batcher-", lambda r: service(r, "shoal-batcher-shared")["selector"].popitem()),
    (f"Deployment {WORKER}: selects", lambda r: deployment(r)["selector"]["matchLabels"].popitem()),
    (f"Deployment {WORKER}: selects", lambda r: deployment(r)["template"]["metadata"]["labels"].popitem()),
    (f"PodDisruptionBudget {WORKER}: selects", lambda r: budget(r)["selector"]["matchLabels"].popitem()),
    ("spreads other pods than its own", lambda r: constraint(r)["labelSelector"]["matchLabels"].update({"x": "y"})),
    (
        "NetworkPolicy shoal-worker: selects no pod",
        lambda r: policy(r)["podSelector"]["matchLabels"].update({"x": "y"}),
    ),
    ("lets in pods that aren't there", lambda r: peer(r)["podSelector"]["matchLabels"].update({"x": "y"})),
    # ports and probes
    ("shoal-router has no port 8081", lambda r: service(r, "shoal-router")["ports"][0].update({"targetPort": 8081})),
    (f"{WORKER} has no port 9000", lambda r: container(r, "worker")["ports"].pop(0)),
    ("no pod has port 9007", lambda r: policy(r)["ingress"][0]["ports"][0].update({"port": 9007})),
    (
        "worker is probed at port 9001",
        lambda r: container(r, "worker")["readinessProbe"]["grpc"].update({"port": 9001}),
    ),
    ("triton is probed at port metrics", lambda r: probe(r, "triton")["httpGet"].update({"port": "metrics"})),
    (
        "worker has no probe",
        lambda r: [container(r, "worker").pop(f"{p}Probe") for p in ("startup", "readiness", "liveness")],
    ),
    ("two of its ports are the same", lambda r: container(r, "triton")["ports"][0].update({"containerPort": 9000})),
    ("is no name of a port", lambda r: container(r, "worker")["ports"][0].update({"name": "a-very-long-port-name"})),
    ("ends before anybody could ask it", lambda r: container(r, "triton").pop("restartPolicy")),
    # mounts and keys
    ("volume shm is not there", lambda r: drop(template(r)["volumes"], "shm")),
    ("volume keys is mounted nowhere", lambda r: drop(container(r, "worker")["volumeMounts"], "keys")),
    (
        "mounts two volumes at one path",
        lambda r: container(r, "worker")["volumeMounts"][0].update({"mountPath": "/tmp"}),
    ),
    ("volume keys: no other, or not with", lambda r: volume(r, "keys")["secret"].update({"secretName": "other"})),
    ("volume keys: no shoal-keys, or not", lambda r: volume(r, "keys")["secret"]["items"][0].update({"key": "k.json"})),
    ("volume service: no absent, or not", lambda r: volume(r, "service")["configMap"].update({"name": "absent"})),
    (
        "worker reads /etc/shoal/service/service.yaml, which isn't mounted",
        lambda r: r.of("ConfigMap")[0]["data"].pop("service.yaml"),
    ),
    ("reads /etc/shoal/service.yaml", lambda r: container(r, "worker")["command"].append("/etc/shoal/service.yaml")),
    ("no AWS_KEY in Secret x", lambda r: container(r, "worker")["env"].append(secret_variable("AWS_KEY", "x"))),
    ("no ServiceAccount nobody", lambda r: template(r).update({"serviceAccountName": "nobody"})),
    # names
    ("not a name for it", lambda r: r.named("Service", WORKER)["metadata"].update({"name": "a.b"})),
    ("not a name for it", lambda r: r.named("Service", WORKER)["metadata"].update({"name": "1a"})),
    ("not a name for it", lambda r: r.of("CronJob")[0]["metadata"].update({"name": "c" * 53})),
    ("2 of them", lambda r: r.objects.append(r.objects[0])),
    ("is not a value for it", lambda r: deployment(r)["template"]["metadata"]["labels"].update({"x": "a" * 64})),
    # rights and secrets
    (
        "may do more than it needs",
        lambda r: container(r, "triton")["securityContext"].update({"readOnlyRootFilesystem": False}),
    ),
    ("may do more than it needs", lambda r: container(r, "worker").pop("securityContext")),
    ("may do more than it needs", lambda r: template(r)["securityContext"].update({"runAsUser": 0})),
    ("may do more than it needs", lambda r: template(r).update({"automountServiceAccountToken": True})),
    ("says not what it needs", lambda r: container(r, "worker")["resources"]["limits"].pop("memory")),
    ("a chart makes no Secret", lambda r: r.objects.append({"kind": "Secret", "metadata": {"name": "keys"}})),
    ("holds a secret", lambda r: r.of("ConfigMap")[0]["data"].update({"c": '{"secret_access_key": "x"}'})),
    (
        "AWS_SECRET_ACCESS_KEY is written out",
        lambda r: container(r, "worker")["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}),
    ),
]


def service(rendered: Rendered, name: str) -> Any:
    return rendered.named("Service", name)["spec"]


def budget(rendered: Rendered) -> Any:
    return rendered.named("PodDisruptionBudget", WORKER)["spec"]


def policy(rendered: Rendered) -> Any:
    return rendered.named("NetworkPolicy", "shoal-worker")["spec"]


def peer(rendered: Rendered) -> Any:
    return policy(rendered)["ingress"][0]["from"][0]


def constraint(rendered: Rendered) -> Any:
    return template(rendered)["topologySpreadConstraints"][0]


def probe(rendered: Rendered, which: str) -> Any:
    return container(rendered, which)["livenessProbe"]


def volume(rendered: Rendered, name: str) -> Any:
    return next(each for each in template(rendered)["volumes"] if each["name"] == name)


def drop(named: list[Any], name: str) -> None:
    named[:] = [each for each in named if each["name"] != name]


def secret_variable(key: str, secret: str) -> Any:
    return {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def test_what_is_sound_has_no_fault(sound: Rendered) -> None:
    assert faults(sound) == []


@pytest.mark.parametrize(("fault", "break_it"), BREAKS, ids=range(len(BREAKS)))
def test_a_break_is_seen(fault: str, break_it: Callable[[Rendered], Any], broken: Rendered) -> None:
    break_it(broken)
    assert any(fault in told for told in faults(broken)), faults(broken)


def test_pools_that_share_pods_are_seen(broken: Rendered) -> None:
    assert apart(broken) == []
    deployment(broken)["selector"]["matchLabels"].pop("shoal.dev/pool")
    assert apart(broken)


def test_a_changed_selector_is_seen(sound: Rendered, broken: Rendered) -> None:
    deployment(broken)["selector"]["matchLabels"]["helm.sh/chart"] = "shoal-0.2.0"
    assert immutable(broken) != immutable(sound)


def test_what_the_api_does_not_know_is_seen(broken: Rendered) -> None:
    deployment(broken)["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken.named("Deployment", WORKER), "1.37", strict=True)
