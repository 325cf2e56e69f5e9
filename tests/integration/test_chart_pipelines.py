"""What the chart makes of pipelines: a Deployment each, whom it reaches, and what the router knows of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.service.spec import parse
from shoal.service.topology import Topology
from support.chart import HELM, render, template

if TYPE_CHECKING:
    from pathlib import Path

    from support.rendered import Rendered

VALUES = """\
object_store: {url: "s3://images", managed: false}
model_store: {url: "s3://models"}
pipelines:
  street.cars: {detect: {model: finder}, then: [{model: species, for: [bird]}], replicas: 3}
  plain: {detect: {model: finder}, then: [{model: species}]}
kubernetes: {network_policies: {egress: {enabled: true}}}
"""

pytestmark = pytest.mark.skipif(not HELM.exists(), reason="make helm")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(VALUES)
    return file


@pytest.fixture(scope="module")
def rendered(values: Path) -> Rendered:
    return render(values)


def test_each_has_a_deployment_of_its_own(rendered: Rendered) -> None:
    pods = {pod.labels.get("shoal.dev/pipeline"): pod for pod in rendered.pods}
    assert pods.keys() >= {"street.cars", "plain"}
    for name, replicas in (("street.cars", 3), ("plain", 1)):
        pod = pods[name]
        assert pod.owner["spec"]["replicas"] == replicas
        (container,) = pod.containers
        assert container.command[:3] == ["shoal", "serve", "pipeline"]
        assert container.option("--name") == name
        assert container.option("--balancer") == "shoal-balancer.vision.svc:9001"
        assert {"/etc/shoal/service", "/etc/shoal/keys"} <= container.mounts.keys()


def test_the_router_finds_it_and_reads_what_it_is(rendered: Rendered) -> None:
    texts = {key: text for each in rendered.of("ConfigMap") for key, text in each.get("data", {}).items()}
    topology = Topology.model_validate(json.loads(texts["topology.json"]))
    services = {each["metadata"]["name"] for each in rendered.of("Service")}
    hosts = {name: [host.host.split(".")[0] for host in each] for name, each in topology.pipelines.items()}
    assert hosts.keys() == {"street.cars", "plain"}
    assert {host for each in hosts.values() for host in each} <= services
    assert parse(texts["service.yaml"], "s").pipelines["street.cars"].then[0].labels == ["bird"]


def test_without_pipelines_there_is_nothing_of_them(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text('object_store: {url: "s3://images", managed: false}\nmodel_store: {url: "s3://models"}\n')
    assert "pipeline" not in template(file).stdout.replace("kubernetes.pipeline", "")


def test_the_router_alone_calls_it_and_it_calls_the_router_alone(rendered: Rendered) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in rendered.of("NetworkPolicy")}
    own = policies["shoal-pipeline"]
    sources = [rule["from"] for rule in own["ingress"] if {"port": 9000} in rule["ports"]]
    assert [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in sources[0]] == ["router"]
    assert [rule["ports"] for rule in own["egress"]] == [[{"port": 9001}]]
    inner = next(rule for rule in policies["shoal-router"]["ingress"] if {"port": 9001} in rule["ports"])
    callers = {each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in inner["from"]}
    assert callers == {"batcher", "pipeline"}


SPECIES: dict[str, object] = {"model": "species"}
FINDER: dict[str, object] = {"model": "finder"}


def steps(*then: dict[str, object], **detect: object) -> dict[str, object]:
    """A pipeline."""
    return {"detect": FINDER | detect, "then": list(then)}


def deep(levels: int, **last: object) -> dict[str, object]:
    """Steps behind each other, ``levels`` of them."""
    own = {"model": f"level-{levels}"}
    return own | (last if levels == 1 else {"then": [deep(levels - 1, **last)]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"plain": steps(deep(3))},
        {"plain": steps(deep(2), deep(4))},
        {"plain": steps({"model": "plain"})},
        {"plain": steps({"model": "street.cars"})},
        {"plain": steps(SPECIES, model="street.cars")},
        {"plain": steps({"model": "plates", "then": [{"model": "plain"}]})},
        {"plain": steps(SPECIES, SPECIES)},
        {"plain": steps(SPECIES, {"model": "plates", "then": [{"model": "x", "name": "species"}]})},
        {"plain": steps({"model": "finder"})},
        {"plain": steps({**SPECIES, "for": ["boat", "bird", "car"]}, classes=["bird", "cat"])},
        {"plain": steps({"model": "plates", "classes": ["front"], "then": [{**SPECIES, "for": ["back"]}]})},
        {"plain": steps({**SPECIES, "top_k": 3, "square": False})},
        {"plain": steps({**SPECIES, "top_k": 3, "padding": 0})},
        {"plain": steps({**SPECIES, "top_k": 3, "then": [{"model": "x"}]})},
        {"plain": steps({"model": "plates", "max_boxes": 60, "then": [{"model": "x"}]})},
        {"plain": steps({"model": "a", "max_boxes": 100, "then": [{"model": "b"}, {"model": "c"}]}, max_boxes=100)},
        {"plain": steps({"model": "Species"})},
        {"plain": steps({"model": "species-2"})},
        {"plain": steps({"model": "a"}, model="unknown")},
        {"plain": steps({"model": "bone"})},
        {"plain": steps({"model": "zone-2"})},
        {"shared": steps(SPECIES)},
    ],
)
def test_what_the_file_shows_to_be_wrong_is_refused_in_the_same_words(
    values: Path, wrong: dict[str, dict[str, object]]
) -> None:
    models = ["finder", "species", "plates", "x", "?", "level-*", "[!a-y]one"]
    service = {"pools": {"default": {"models": models}}, "pipelines": {"street.cars": steps(SPECIES), **wrong}}
    with pytest.raises(ConfigurationError) as caught:
        parse(json.dumps(service), "s")
    done = template(values, settings=service)
    assert done.returncode != 0
    first, _, text = str(caught.value).partition(": ")
    assert first.startswith("s:")
    assert text in done.stderr


@pytest.mark.parametrize(
    "right",
    [
        steps(deep(2)),
        steps({**SPECIES, "for": ["bird"]}, classes=["bird", "cat"]),
        steps({"model": "plates", "then": [{**SPECIES, "for": ["any"], "top_k": 2}]}, classes=["car"], max_boxes=20),
        steps({**SPECIES, "top_k": None, "max_boxes": 3}),
        steps({**SPECIES, "name": "one"}, {**SPECIES, "name": "other", "then": []}),
        steps({"model": "zone"}, {"model": "a"}),
    ],
)
def test_what_the_file_shows_to_be_right_is_rendered(values: Path, right: dict[str, object]) -> None:
    """Also where one step says nothing of what another one says."""
    models = ["finder", "species", "plates", "x", "?", "level-*", "[!a-y]one"]
    done = template(values, settings={"pools": {"default": {"models": models}}, "pipelines": {"plain": right}})
    assert done.returncode == 0, done.stderr


def test_what_needs_the_models_is_left_to_the_pods(values: Path) -> None:
    """Whether a step's model is a detector, and has a label, say the workers: there is no store here."""
    told = steps({**SPECIES, "then": [{"model": "letters", "for": ["plate"]}]})
    assert template(values, settings={"pipelines": {"plain": told}}).returncode == 0


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("kubernetes.pipeline.termination_grace_seconds", 10, "kubernetes.pipeline.termination_grace_seconds: must be"),
        ("kubernetes.pipeline.labels", {"shoal.dev/pipeline": "x"}, "shoal.dev/pipeline: pods are selected by it"),
        (
            "kubernetes.autoscaling",
            {"prometheus_url": "http://p", "pipelines": {"x": {"max_replicas": 2}}},
            "kubernetes.autoscaling.pipelines.x: there are plain, street.cars",
        ),
        ("pipelines.plain.then", [], "minItems"),
        ("models", {"plain": {"max_batch_size": 2}}, "models.plain: is a pipeline"),
        ("pools", {"default": {"models": ["plain", "*"]}}, "pipelines.plain: pools.default.models names a model"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_made(values: Path, path: str, value: object, told: str) -> None:
    done = template(values, settings={path: value})
    assert done.returncode != 0
    assert told in done.stderr
