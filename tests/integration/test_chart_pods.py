"""What the chart's pods may do and have: Pod Security's levels, what users add, GPUs, and `helm test`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from shoal.service.kubernetes_extras import OWN_FOLDERS, OWN_TREES, OWN_VARIABLES, OWN_VOLUMES
from support.chart import CHART, ROOT, SCENARIOS, helm, render, template
from support.pod_security import level
from support.rendered import faults

if TYPE_CHECKING:
    from support.rendered import Container, Pod
    from support.stack import Stack

S3 = "object_store: {managed: false}\nmodel_store: {url: 's3://models'}\n"
PARTS = ["router", "batcher", "worker", "image_retention", "test"]
CHAPTER = ROOT / "docs" / "pods-and-networks.md"
BINARIES = Path(sys.executable).parent


@pytest.fixture
def values(tmp_path: Path) -> Path:
    file = tmp_path / "values.yaml"
    file.write_text(
        S3 + "pools: {a: {engine: triton}, b: {models: [x]}}\nkubernetes: {image_retention: {enabled: true}}\n"
    )
    return file


def pods_of(part: str, pods: list[Pod]) -> list[Pod]:
    return [pod for pod in pods if pod.labels["app.kubernetes.io/component"] == part.replace("_", "-")]


# Pod Security.


def levels(file: Path, **settings: Any) -> dict[str, str]:
    return {pod.name.removeprefix("shoal-"): level(pod.spec) for pod in render(file, settings=settings).pods}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda file: file.parent.name)
def test_the_chapter_says_which_pods_of_a_scenario_a_namespace_refuses(scenario: Path) -> None:
    found = levels(scenario)
    name = scenario.parent.name
    (row,) = re.findall(rf"^\| `{name}` \| `(\w+)` \| (.*) \|$", CHAPTER.read_text(), re.MULTILINE)
    least = min(found.values(), key=["privileged", "baseline", "restricted"].index)
    assert row[0] == least
    assert {pod for pod, its in found.items() if its != "restricted"} == set(re.findall(r"`([\w-]+)`", row[1]))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda file: file.parent.name)
def test_the_notes_say_so_first(scenario: Path) -> None:
    notes = helm("install", "shoal", CHART, "--dry-run=client", "--namespace", "vision", "--values", scenario).stdout
    above, _, rest = notes.partition("NOTES:\n")[2].partition("Shoal ")
    told = dict(re.findall(r"^  (\S+) needs (\w+), for a volume of \w+$", above, re.MULTILINE))
    assert told == {pod: its for pod, its in levels(scenario).items() if its != "restricted"}
    assert rest


@pytest.mark.parametrize(
    ("volume", "needs"),
    [
        ({"hostPath": {"path": "/a"}}, "privileged"),
        ({"nfs": {"server": "a", "path": "/b"}}, "baseline"),
        ({"csi": {"driver": "d"}}, "restricted"),
        ({"projected": {"sources": []}}, "restricted"),
        ({"ephemeral": {}}, "restricted"),
    ],
)
@pytest.mark.parametrize("part", PARTS)
def test_added_volumes_count_too(values: Path, part: str, volume: dict[str, Any], needs: str) -> None:
    more = {
        f"kubernetes.{part}.extra_volumes": [{"name": "own", **volume}],
        f"kubernetes.{part}.extra_volume_mounts": [{"name": "own", "mountPath": "/own"}],
    }
    rendered = render(values, settings=more)
    for pod in rendered.pods:
        ours = pod in pods_of(part, rendered.pods)
        assert level(pod.spec) == (needs if ours else "restricted")


# What users add.


@pytest.mark.parametrize("part", PARTS)
def test_every_part_takes_what_users_add(values: Path, part: str) -> None:
    variable = {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}
    mount = {"name": "own", "mountPath": "/own", "readOnly": True}
    more = {
        "extra_env": [variable],
        "extra_volumes": [{"name": "own", "configMap": {"name": "shoal-service"}}],
        "extra_volume_mounts": [mount],
        "annotations": {"note": "1"},
        "labels": {"team": "vision"},
        "priority_class": "high",
        "runtime_class": "gvisor",
        "scratch_size": "3Gi",
        "node_selector": {"disk": "fast"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
    }
    settings: dict[str, Any] = {f"kubernetes.{part}.{key}": value for key, value in more.items()}
    settings["kubernetes.images.pull_secrets"] = ["registry"]
    rendered = render(values, settings=settings)
    assert faults(rendered) == []
    for pod in rendered.pods:
        ours = pod in pods_of(part, rendered.pods)
        for container in pod.containers:
            assert (variable in container.raw.get("env", [])) is ours, (pod.name, container.name)
            assert (container.mounts.get("/own") == mount) is ours
        assert (pod.annotations.get("note") == "1") is ours
        assert (pod.labels.get("team") == "vision") is ours
        assert (pod.spec.get("priorityClassName") == "high") is ours
        assert (pod.spec.get("runtimeClassName") == "gvisor") is ours
        assert (pod.spec.get("nodeSelector") == {"disk": "fast"}) is ours
        assert (pod.spec.get("tolerations") == [{"operator": "Exists"}]) is ours
        assert ("affinity" in pod.spec) is ours
        scratch = {pod.volumes[name]["emptyDir"]["sizeLimit"] for name in ("tmp", "home") if name in pod.volumes}
        assert (scratch == {"3Gi"}) is ours
        assert pod.spec["imagePullSecrets"] == [{"name": "registry"}]


def test_a_pool_says_otherwise_than_all_workers(values: Path) -> None:
    one, other = [{"name": "A", "value": "1"}], [{"name": "B", "value": "2"}]
    rendered = render(values, settings={"kubernetes.worker.extra_env": one, "kubernetes.pools.b.extra_env": other})
    of_a, of_b = (rendered.pod(f"shoal-worker-{pool}").container("worker").raw["env"] for pool in "ab")
    assert one[0] in of_a
    assert other[0] in of_b
    assert one[0] not in of_b


@pytest.mark.parametrize("part", [*PARTS, "pools.a"])
@pytest.mark.parametrize(
    ("key", "items", "fault"),
    [
        ("extra_env", [{"name": "HOME"}], "HOME is the chart's own"),
        ("extra_env", [{"name": "A"}, {"name": "A"}], "A is there twice"),
        ("extra_volumes", [{"name": "shm"}], "shm is the chart's own"),
        ("extra_volume_mounts", [{"name": "own", "mountPath": "/own"}], "own: extra_volumes has no such volume"),
    ],
)
def test_what_the_api_would_refuse_is_told_first(
    values: Path, part: str, key: str, items: list[dict[str, Any]], fault: str
) -> None:
    done = template(values, settings={f"kubernetes.{part}.{key}": items})
    assert done.returncode != 0
    assert f"kubernetes.{part}.{key}: {fault}" in done.stderr


def test_a_pools_volumes_are_those_that_are_mounted(values: Path) -> None:
    workers = {
        "kubernetes.worker.extra_volumes": [{"name": "own", "emptyDir": {"sizeLimit": "1Gi"}}],
        "kubernetes.worker.extra_volume_mounts": [{"name": "own", "mountPath": "/own"}],
    }
    other = {"kubernetes.pools.a.extra_volumes": [{"name": "other", "emptyDir": {"sizeLimit": "1Gi"}}]}
    done = template(values, settings=workers | other)
    assert "kubernetes.pools.a.extra_volumes: takes the place of the workers'" in done.stderr
    none = {"kubernetes.pools.a.extra_volumes": [], "kubernetes.pools.a.extra_volume_mounts": []}
    rendered = render(values, settings=workers | none)
    assert faults(rendered) == []
    assert "own" not in rendered.pod("shoal-worker-a").volumes
    assert "own" in rendered.pod("shoal-worker-b").volumes


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/tmp", "/tmp is the chart's own"),
        ("/tmp/", "/tmp is the chart's own"),
        ("/etc/shoal/x", "/etc/shoal/x is the chart's own"),
        ("/tmp/own", ""),
        ("/etc/shoals", ""),
    ],
)
def test_mounts_stay_off_the_charts_own(values: Path, path: str, fault: str) -> None:
    more = {
        "kubernetes.worker.extra_volumes": [{"name": "own", "emptyDir": {"sizeLimit": "1Gi"}}],
        "kubernetes.worker.extra_volume_mounts": [{"name": "own", "mountPath": path}],
    }
    done = template(values, settings=more)
    assert (fault in done.stderr) if fault else done.returncode == 0, done.stderr


def test_keys_of_the_environment_are_there_once(values: Path) -> None:
    own = {"kubernetes.worker.extra_env": [{"name": "AWS_ACCESS_KEY_ID", "value": "x"}]}
    assert template(values, settings=own).returncode == 0
    done = template(values, settings={**own, "kubernetes.secrets.object_store_environment": "bucket"})
    assert "AWS_ACCESS_KEY_ID is the chart's own" in done.stderr


def test_the_charts_own_names_are_all_of_them(values: Path) -> None:
    secrets = {f"kubernetes.secrets.{key}": "s" for key in ("tls", "object_store", "model_store")}
    test = {"kubernetes.test.key_secret": "k", "kubernetes.test.model": "m", "kubernetes.test.ca_secret": "c"}
    rendered = render(values, settings={**secrets, **test})
    assert {name for pod in rendered.pods for name in pod.volumes} == OWN_VOLUMES
    mounted = {path for pod in rendered.pods for container in pod.containers for path in container.mounts}
    assert {path for path in mounted if not path.startswith(tuple(OWN_TREES))} == OWN_FOLDERS
    variables = {
        it["name"] for pod in rendered.pods for container in pod.containers for it in container.raw.get("env", [])
    }
    assert variables == OWN_VARIABLES


# GPUs, and parts of one.


@pytest.mark.parametrize(
    "resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "amd.com/gpu"]
)
def test_a_gpu_may_be_a_slice_or_a_turn(values: Path, resource: str) -> None:
    rendered = render(values, settings={"kubernetes.pools.a.gpu_resource": resource})
    limits = rendered.pod("shoal-worker-a").container("triton").raw["resources"]["limits"]
    assert {name: count for name, count in limits.items() if "/" in name} == {resource: 1}
    assert not any(
        "/" in name for name in rendered.pod("shoal-worker-b").container("worker").raw["resources"]["limits"]
    )


@pytest.mark.parametrize("resource", ["gpu", "nvidia.com/", "nvidia.com/a b", "nvidia.com/mig-1g.5gb+me"])
def test_what_is_no_resources_name_is_refused(values: Path, resource: str) -> None:
    assert "does not match pattern" in template(values, settings={"kubernetes.worker.gpu_resource": resource}).stderr


# Images.


def test_an_image_may_be_pinned_by_its_digest(values: Path) -> None:
    digest = "sha256:" + "0a" * 32
    settings = {f"kubernetes.images.{name}.digest": digest for name in ("shoal", "envoy", "triton")}
    images = {container.raw["image"] for pod in render(values, settings=settings).pods for container in pod.containers}
    assert len(images) == 3
    assert all(re.fullmatch(rf"[\w./-]+:[\w.-]+@{digest}", image) for image in images)
    assert "does not match" in template(values, settings={"kubernetes.images.shoal.digest": "sha256:abc"}).stderr


# `helm test`: its containers' own words, against a service of this machine.


def run(container: Container, picture: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a container's command with the environment that it names, and these values for what a cluster fills in."""
    names = {each["name"] for each in container.raw["env"]}
    assert set(environment) <= names
    words = [str(picture) if word == "/etc/shoal/test/picture.jpg" else word for word in container.command]
    return subprocess.run(
        [str(BINARIES / words[0]), *words[1:]],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_asks_for_health_and_has_a_picture_answered(values: Path, stack: Stack) -> None:
    settings = {"kubernetes.test.key_secret": "try", "kubernetes.test.model": "tiny"}
    rendered = render(values, settings=settings)
    pod = rendered.pod("shoal-test")
    assert pod.owner["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert [container.name for container in pod.containers] == ["health", "picture"]
    assert "shoal_" not in str(pod.spec), "the key comes from a Secret alone"
    for container in pod.containers:
        key = {"SHOAL_API_KEY": stack.api_key} if container.name == "picture" else {}
        done = run(container, CHART / "picture.jpg", SHOAL_TARGET=stack.target, **key)
        assert done.returncode == 0, done.stdout + done.stderr
    wrong = run(pod.container("picture"), CHART / "picture.jpg", SHOAL_TARGET=stack.target, SHOAL_API_KEY="wrong")
    assert wrong.returncode == 1


def test_without_a_key_it_asks_for_health_alone(values: Path) -> None:
    rendered = render(values)
    pod = rendered.pod("shoal-test")
    assert [container.name for container in pod.containers] == ["health"]
    settings = {"kubernetes.test.timeout_seconds": 1}
    (health,) = render(values, settings=settings).pod("shoal-test").containers
    assert run(health, CHART / "picture.jpg", SHOAL_TARGET="localhost:1").returncode == 1
    assert not render(values, settings={"kubernetes.test.enabled": False}).of("Pod")


def test_its_target_is_the_routers_service(values: Path) -> None:
    def target(**settings: Any) -> str:
        (health,) = render(values, settings=settings).pod("shoal-test").containers
        return next(each["value"] for each in health.raw["env"] if each["name"] == "SHOAL_TARGET")

    assert target() == "shoal-router.vision.svc:8080"
    assert target(**{"kubernetes.secrets.tls": "t", "kubernetes.router.service.port": 443}) == (
        "https://shoal-router.vision.svc:443"
    )
    assert target(**{"kubernetes.test.target": "https://shoal.example"}) == "https://shoal.example"


def test_its_picture_is_one() -> None:
    picture = cv2.imread(str(CHART / "picture.jpg"))
    assert picture is not None
    assert picture.shape == (160, 160, 3)


@pytest.mark.parametrize("settings", [{"key_secret": "k"}, {"model": "m"}])
def test_a_key_and_a_model_go_together(values: Path, settings: dict[str, str]) -> None:
    done = template(values, settings={f"kubernetes.test.{key}": value for key, value in settings.items()})
    assert "kubernetes.test: key_secret and model go together" in done.stderr
