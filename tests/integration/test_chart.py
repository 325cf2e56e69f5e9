"""The chart, rendered by the real helm for every scenario, read as a cluster and its containers would read it."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
from ruamel.yaml import YAML

from shoal import cli
from shoal.batcher import process as batcher
from shoal.batching import host as worker
from shoal.local.plan import batcher_groups
from shoal.router import config
from shoal.router.drain import HAND_OVER_SECONDS, Departure
from shoal.runtime.endpoint import Endpoint
from shoal.service import spec
from shoal.service.api_keys import Key, KeyRing
from shoal.service.kubernetes_ports import PORTS
from shoal.service.topology import Topology
from shoal.triton.installation import Installation
from shoal.triton.launch import Options, arguments
from support.api_server import OPERATORS
from support.chart import CHART, SCENARIOS, helm, render, template
from support.envoy_check import complaint
from support.rendered import Container, Pod, Rendered, apart, faults, immutable, mounted_files

KUBERNETES = "1.37"
RECORDED = Path(__file__).resolve().parents[1] / "data" / "chart-0.1.0-selectors.json"
RELEASE = "shoal"
KEYS = KeyRing([Key(id="alice-1", key="a-secret-of-some-length", owner="alice")])

# What the scenarios leave out: every option at once, names that are no DNS labels, pools whose names are alike.
EVERYTHING = """\
object_store: {url: "s3://images", managed: false}
model_store: {url: "s3://models/prod", endpoint: "http://s3.example:9000", poll_seconds: 5}
router: {max_timeout_seconds: 60, console: true}
pools:
  a: {engine: triton, models: [resnet_50.v1], replicas: 2, worker_processes: 3}
  a-b: {engine: triton, models: ["resnet*"], triton_url: "triton.elsewhere:8001", worker_processes: 2}
  a.b: {models: ["yolo*"]}
  a_b: {models: ["*"]}
models:
  resnet_50.v1: {batchers: 3, max_batch_size: 16, preferred_batch_size: [8, 16]}
  resnet-50.v1: {batchers: 1}
  tiny: {max_queue_size: 10}
observe: {log_level: debug, recent_requests: 1000000}
kubernetes:
  images:
    shoal:
      registry: registry.example
      tag: "9.9"
      digest: "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
    pull_secrets: [registry]
  secrets: {tls: certificate, object_store: pictures, model_store_environment: models}
  model_store: {sync: {remove: true}}
  image_retention:
    enabled: true
    labels: {team: vision}
    annotations: {note: "2"}
    service_account: {name: cleaner}
    MORE
  router:
    labels: {azure.workload.identity/use: "true"}
    annotations: {note: "1"}
    MORE
    affinity: {nodeAffinity: {}}
    topology_spread: []
  batcher:
    labels: {team: vision}
    replicas: 2
    leave_seconds: 5
    max_unavailable: 25%
    MORE
  worker:
    labels: {team: vision}
    MORE
    gpus: 0
    tolerations: [{operator: Exists}]
    node_selector: {disk: fast}
    topology_spread: [{maxSkew: 2, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]
  pools:
    a: {gpus: 2, gpu_resource: amd.com/gpu, runtime_class: nvidia, rolling_update: {maxSurge: 3}}
    a_b: {gpus: 1}
    a-b: {gpus: 1}
  network_policies:
    clients: [{ipBlock: {cidr: 10.0.0.0/8}}]
    egress: {enabled: true, extra: [{to: [{ipBlock: {cidr: 10.9.9.9/32}}], ports: [{port: 3128}]}]}
  gateway:
    enabled: true
    parent_refs: [{name: public, namespace: gateways, sectionName: https}]
    hostnames: [shoal.example]
  test:
    key_secret: try-it
    model: resnet_50.v1
    ca_secret: certificate-authority
    MORE
"""
# What every pod may have beside the chart's own.
MORE = """\
extra_env:
  - {name: HTTPS_PROXY, value: "http://proxy:3128"}
  - {name: FROM_A_SECRET, valueFrom: {secretKeyRef: {name: shoal-keys, key: keys.json}}}
extra_volumes:
  - {name: authorities, secret: {secretName: shoal-keys}}
  - {name: cache, emptyDir: {sizeLimit: 1Gi}}
extra_volume_mounts:
  - {name: authorities, mountPath: /etc/ssl/own, readOnly: true}
  - {name: cache, mountPath: /tmp/cache}
priority_class: high
runtime_class: gvisor
scratch_size: 64Mi
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(EVERYTHING.replace("MORE\n", MORE.rstrip().replace("\n", "\n    ") + "\n"))
    return file


@pytest.fixture(params=[*SCENARIOS, None], ids=lambda file: file.parent.name if file else "everything", scope="module")
def values(request: pytest.FixtureRequest, everything: Path) -> Path:
    return request.param or everything


@pytest.fixture(scope="module")
def rendered(values: Path) -> Rendered:
    return render(values, release=RELEASE)


@pytest.fixture
def told(rendered: Rendered, tmp_path: Path) -> tuple[spec.Service, Topology]:
    """The ConfigMap, read as a container reads it."""
    for name, text in rendered.data().items():
        (tmp_path / name).write_text(text)
    return spec.load(tmp_path / "service.yaml"), Topology.load(tmp_path / "topology.json")


def shoal_containers(rendered: Rendered) -> list[tuple[Pod, Container]]:
    return [
        (pod, container) for pod in rendered.pods for container in pod.containers if container.command[0] == "shoal"
    ]


def test_helm_lint_has_nothing_to_say(values: Path) -> None:
    done = helm("lint", CHART, "--strict", "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout
    assert "[WARNING]" not in done.stdout


def test_the_values_are_a_service_file(values: Path) -> None:
    assert spec.load(values).pools


def test_objects_fit_the_api(rendered: Rendered) -> None:
    for each in rendered.objects:
        if each["apiVersion"] not in OPERATORS:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_cluster_stumbles_over_nothing(rendered: Rendered) -> None:
    assert faults(rendered) == []
    assert apart(rendered) == []


def test_every_command_line_is_one_of_ours(rendered: Rendered) -> None:
    parts = {parse(container.command) for _, container in shoal_containers(rendered)}
    assert {"router-config", "batcher", "worker"} <= parts


def parse(command: list[str]) -> str:
    """Has the real command line read ``command`` without running it; returns the part that it names."""
    name, words = command[0], command[1:]
    current: Any = typer.main.get_command(cli.app)
    while hasattr(current, "resolve_command"):
        context = current.make_context(name, words)
        name, current, words = current.resolve_command(context, [*context._protected_args, *context.args])
    current.make_context(name, words)
    return name


def test_a_wrong_command_line_is_not_one_of_ours() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse(["shoal", "serve", "worker", "--pool", "a", "--listen", "b", "--metrics", "c", "--bogus"])
    with pytest.raises(Exception, match="Missing parameter: listen"):
        parse(["shoal", "serve", "worker", "--pool", "a"])


def test_triton_is_started_as_shoal_starts_it(rendered: Rendered, told: tuple[spec.Service, Topology]) -> None:
    tritons = [c for pod in rendered.pods for c in pod.containers if c.command[0] == "tritonserver"]
    options = Options(
        Path(told[0].model_store.path or ""), listen=Endpoint("127.0.0.1", 8001), metrics=Endpoint("0.0.0.0", 8002)
    )
    expected = arguments(
        Installation(Path("tritonserver"), None), options, known="--allow-client-shm", shm_prefix="shoal-triton-"
    )
    assert [triton.command for triton in tritons] == [expected] * len(tritons)
    assert len(tritons) == sum(pool.starts_triton for pool in told[0].pools.values())


def test_the_service_file_of_the_pods_is_the_one_that_was_given(
    values: Path, told: tuple[spec.Service, Topology]
) -> None:
    given, (service, _) = spec.load(values), told
    assert service.kubernetes == spec.Kubernetes()
    assert service.models == given.models
    assert service.observe == given.observe
    assert {name: pool.models for name, pool in service.pools.items()} == {n: p.models for n, p in given.pools.items()}
    assert service.object_store.retention_hours == given.object_store.retention_hours
    assert not service.object_store.runs_locally


def test_the_topology_leads_to_the_pods(rendered: Rendered, told: tuple[spec.Service, Topology]) -> None:
    service, topology = told
    groups = batcher_groups(service)
    assert topology.batchers.keys() == groups.keys()
    assert topology.pools.keys() == service.pools.keys()
    for pod in rendered.selected({"app.kubernetes.io/component": "router"}):
        metrics = topology.metrics
        assert metrics is not None
        assert pod.container("envoy").ports["metrics"] == metrics.port
    for pool, endpoints in topology.pools.items():
        (pod,) = pods_at(rendered, endpoints[0])
        workers = [each for each in pod.containers if each.command[:3] == ["shoal", "serve", "worker"]]
        assert len(workers) == service.pools[pool].worker_processes
        assert all(pods_at(rendered, endpoint) == [pod] for endpoint in endpoints)
        assert pod.labels["shoal.dev/pool"] == pool
        assert {each.option("--pool") for each in workers} == {pool}
        assert [each.option("--listen") for each in workers] == [f"0.0.0.0:{endpoint.port}" for endpoint in endpoints]
    for group, endpoints in topology.batchers.items():
        (pod,) = pods_at(rendered, endpoints[0])
        assert pod.labels["shoal.dev/batcher"] == group
        (balancer,) = pods_at(rendered, Endpoint.parse(pod.container("batcher").option("--balancer") or ""))
        assert balancer.labels["app.kubernetes.io/component"] == "router"
        assert topology.balancer.port in balancer.container("envoy").ports.values()
        assert topology.public.port in balancer.container("envoy").ports.values()


def test_the_console_asks_every_process_where_its_metrics_are(
    rendered: Rendered, told: tuple[spec.Service, Topology]
) -> None:
    service, topology = told
    if not service.router.console:
        assert topology.telling == {}
        return
    asked = {(part.role, part.group): set[int]() for part in topology.telling.values()}
    for part in topology.telling.values():
        (pod,) = pods_at(rendered, part.metrics._replace(port=PORTS[part.role]))  # headless: any port is the pod's own
        assert pod.labels[{"worker": "shoal.dev/pool", "batcher": "shoal.dev/batcher"}[part.role]] == part.group
        assert part.metrics.port in {
            port for each in pod.containers for name, port in each.ports.items() if name.startswith("metrics")
        }
        asked[part.role, part.group].add(part.metrics.port)
    assert {group for role, group in asked if role == "batcher"} == topology.batchers.keys()
    workers = {group: len(ports) for (role, group), ports in asked.items() if role == "worker"}
    assert workers == {pool: len(endpoints) for pool, endpoints in topology.pools.items()}


def pods_at(rendered: Rendered, endpoint: Endpoint) -> list[Pod]:
    """Whom the cluster's DNS and Services lead to."""
    name, namespace, _ = endpoint.host.split(".")
    service = rendered.named("Service", name)
    assert namespace == service["metadata"]["namespace"] == "vision"
    assert endpoint.port in {port["port"] for port in service["spec"]["ports"]}
    return rendered.selected(service["spec"]["selector"])


def test_containers_listen_where_their_ports_and_probes_are(
    rendered: Rendered, told: tuple[spec.Service, Topology]
) -> None:
    topology = told[1]
    assert topology.metrics is not None
    for pod in rendered.pods:
        for container in pod.containers:
            match container.command[0]:
                case "shoal":
                    options = (container.option(name) for name in ("--listen", "--metrics"))
                    heard = {Endpoint.parse(option).port for option in options if option}
                case "envoy":
                    heard = {topology.public.port, topology.balancer.port, topology.metrics.port}
                case _:
                    heard = {int(word.partition("=")[2]) for word in container.command if "--metrics-port=" in word}
            assert set(container.ports.values()) == heard, f"{pod.name}: {container.name}"


def test_what_the_service_file_names_is_mounted_where_it_is_read(
    rendered: Rendered, told: tuple[spec.Service, Topology]
) -> None:
    service, _ = told
    tls = [service.router.tls.certificate_file, service.router.tls.key_file] if service.router.tls else []
    wanted = {
        "router-config": [service.auth.keys_file, service.model_store.credentials_file, *tls],
        "worker": [service.auth.keys_file, service.object_store.credentials_file],
        "model-sync": [service.model_store.credentials_file],
        "image-retention": [service.object_store.credentials_file],
    }
    for pod, container in shoal_containers(rendered):
        part = parse(container.command)
        for file in filter(None, wanted.get(part, [])):
            assert file in mounted_files(rendered, pod, container), f"{pod.name}: {part} reads {file}"


def envoy_files(told: tuple[spec.Service, Topology], folder: Path) -> dict[str, str]:
    service, topology = told
    exact = [name for pool in service.pools for name in service.exact_models(pool)]
    return config.render(service, topology, KEYS, ["published", *exact], folder=folder)


def test_envoy_takes_the_configuration(told: tuple[spec.Service, Topology], tmp_path: Path) -> None:
    assert complaint(envoy_files(told, tmp_path), tmp_path) == ""


@pytest.mark.parametrize("name", [config.CLUSTERS, config.LISTENERS, config.PUBLIC_ROUTES, config.BALANCER_ROUTES])
def test_envoy_would_say_what_is_wrong_with_it(name: str, told: tuple[spec.Service, Topology], tmp_path: Path) -> None:
    files = envoy_files(told, tmp_path)
    files[name] = files[name].replace('"name"', '"bogus": 1, "name"', 1)
    assert "bogus" in complaint(files, tmp_path)


def test_grace_is_longer_than_what_the_code_drains(values: Path, rendered: Rendered) -> None:
    for pod in rendered.pods:
        grace = pod.spec.get("terminationGracePeriodSeconds")
        match pod.labels["app.kubernetes.io/component"]:
            case "router":
                departure = Departure()
                leaves = float(pod.container("config").option("--lame-duck-seconds") or "")
                assert leaves == spec.load(values).kubernetes.router.leave_seconds
                assert grace > leaves + departure.drain_seconds + HAND_OVER_SECONDS
                assert pod.container("envoy").option("--drain-time-s") == f"{departure.drain_seconds:g}"
            case "batcher":
                sleep = pod.container("batcher").raw["lifecycle"]["preStop"]["sleep"]["seconds"]
                assert grace > sleep + batcher.DRAIN_SECONDS
            case "worker":
                assert grace > worker.NOTICE_SECONDS + worker.DRAIN_SECONDS + worker.STOP_SECONDS


def test_what_others_need_ends_after_them(rendered: Rendered) -> None:
    for pod in rendered.pods:
        for container in pod.containers:
            along = container.name in {"envoy", "triton", "model-sync"}
            before = container.name == "config-init" or (container.name == "health" and len(pod.containers) > 1)
            assert container.runs == ("along" if along else "before" if before else "main")


# Upgrades.


def test_an_upgrade_changes_nothing_that_may_not_change(values: Path, rendered: Rendered, tmp_path: Path) -> None:
    newer = tmp_path / "shoal"
    shutil.copytree(CHART, newer)
    about = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(about.replace("0.1.0", "0.2.0"))
    settings = {
        "kubernetes.router.replicas": 7,
        "kubernetes.images.triton.tag": "26.09-py3",
        "kubernetes.worker.annotations": {"a": "b"},
        "router.max_connections": 5,
    }
    after = render(values, release=RELEASE, chart=newer, settings=settings)
    assert immutable(after) == immutable(rendered)
    assert after.pod(f"{RELEASE}-router").annotations != rendered.pod(f"{RELEASE}-router").annotations


@pytest.mark.parametrize("scenario", json.loads(RECORDED.read_text()).items(), ids=lambda scenario: scenario[0])
def test_what_a_cluster_has_from_a_release_can_be_upgraded(scenario: tuple[str, dict[str, Any]]) -> None:
    """What is recorded is in clusters: it must stay, under its name, with the selector that nobody can change."""
    name, recorded = scenario
    now = immutable(render(CHART.parents[1] / "scenarios" / name / "values.yaml"))
    assert {title: now.get(title) for title in recorded} == recorded


@pytest.mark.parametrize(
    ("path", "value", "rolled"),
    [
        ("pools.general.replicas", 5, set()),
        ("router.default_timeout_seconds", 7, set()),
        ("models.resnet-152.batchers", 4, set()),
        ("object_store.retention_hours", 4, set()),
        ("kubernetes.batcher.max_unavailable", "50%", set()),
        ("kubernetes.network_policies.enabled", False, set()),
        ("router.max_connections", 7, {"router"}),
        ("pools.yolov8.fetch_concurrency", 7, {"worker-yolov8"}),
        ("pools.yolov8.worker_processes", 2, {"worker-yolov8"}),
        ("pools.yolov8.worker_processes", 1, set()),
        ("kubernetes.pools.yolov8.shared_memory", "8Gi", {"worker-yolov8"}),
        ("models.resnet-152.max_batch_size", 4, {"worker-resnet-152", "worker-yolov8", "worker-general"}),
        ("object_store.region", "eu-central-1", {"worker-resnet-152", "worker-yolov8", "worker-general"}),
        ("observe.recent_requests", 5, {"batcher", "worker"}),
        ("observe.log_level", "debug", {"router", "batcher", "worker"}),
        ("kubernetes.batcher.leave_seconds", 3, {"batcher"}),
        ("kubernetes.router.leave_seconds", 3, {"router"}),
    ],
)
def test_pods_roll_only_for_what_they_read_at_their_start(path: str, value: Any, rolled: set[str]) -> None:
    file = CHART.parents[1] / "scenarios" / "dedicated-pools" / "values.yaml"
    before, after = render(file), render(file, settings={path: value})
    changed = {pod.name.removeprefix("shoal-") for pod in before.pods if pod.template != after.pod(pod.name).template}
    assert {name for name in changed if not any(name.startswith(part) for part in rolled)} == set()
    assert {part for part in rolled if not any(name.startswith(part) for name in changed)} == set()


# Names.


@pytest.mark.parametrize("release", ["s", "shoal.prod", "r" * 53, "a-" * 26 + "b"])
def test_long_and_dotted_names_are_unique_and_allowed(everything: Path, release: str) -> None:
    rendered = render(everything, release=release)
    assert faults(rendered) == []
    assert len(rendered.of("Deployment")) == 1 + 3 + 4
    assert len({each["metadata"]["name"] for each in rendered.of("Service")}) == 2 + 3 + 4


def test_a_longer_release_name_is_helms_to_refuse(everything: Path) -> None:
    assert "53" in template(everything, release="r" * 63).stderr


def test_a_plain_name_stays_as_it_is() -> None:
    (scenario,) = (file for file in SCENARIOS if file.parent.name == "dedicated-pools")
    names = {each["metadata"]["name"] for each in render(scenario).of("Service")}
    assert {"shoal-router", "shoal-balancer", "shoal-batcher-shared", "shoal-worker-resnet-152"} <= names


# What a cluster can't do is said before it is asked to.

S3 = "object_store: {managed: false}\nmodel_store: {url: 's3://models'}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "object_store: only `shoal up` runs a store"),
        ("object_store: {managed: false}", "kubernetes.model_store: say how models come into pods"),
        ("object_store: {url: 'file:///a'}\nmodel_store: {url: 's3://m'}", "pods can't share file:///a"),
        ("object_store: {url: 'gs://a', endpoint: 'http://b'}", "endpoint goes with an s3:// url only"),
        (S3 + "router: {prot: 1}", "additional properties 'prot' not allowed"),
        (S3 + "router: {port: 70000}", "maximum"),
        (S3 + "kubernetes: {worker: {shared_memory: lots}}", "does not match pattern"),
        ("object_store: {url: 'ftp://a'}", "does not match pattern"),
        (S3 + "pools: {Bad_Name_: {}}", "additional properties 'Bad_Name_' not allowed"),
        (S3 + "pools: {a: {models: [x]}, b: {models: [x]}}", '"x" is in pool "a" already; a model routes to one pool'),
        (S3 + "pools: {a: {triton_url: 'x:1'}}", "triton_url and triton_server go with engine: triton only"),
        (S3 + "pools: {a: {engine: triton, triton_url: 'x:1', triton_server: /t}}", "not both"),
        (S3 + "pools: {a: {worker_processes: 2}}", "pools.a.worker_processes: goes with engine: triton only"),
        (S3 + "pools: {a: {engine: triton, worker_processes: 33}}", "maximum"),
        (
            S3 + "pools: {a: {engine: triton, worker_processes: 9}}",
            "max_image_bytes (33554432) doesn't fit into the 29826161 of each: set max_fetched_bytes to 301989888",
        ),
        (S3 + "kubernetes: {pools: {b: {gpus: 1}}}", "kubernetes.pools.b: pools has default"),
        (S3 + "kubernetes: {model_store: {image: true}}", '"*" is a pattern, and with kubernetes.model_store.image'),
        (S3 + "kubernetes: {model_store: {image: true, sync: {}}}", "give one of image, volume and sync"),
        (S3 + "kubernetes: {model_store: {volume: {}}}", "give one of nfs, persistent_volume_claim and host_path"),
        (S3 + "kubernetes: {secrets: {object_store: a, object_store_environment: b}}", "two forms of the same"),
        (S3 + "kubernetes: {batcher: {leave_seconds: 50}}", "must be over 80"),
        (S3 + "kubernetes: {worker: {termination_grace_seconds: 30}}", "must be over 32"),
        (
            S3 + "kubernetes: {router: {leave_seconds: 28}}",
            "kubernetes.router.termination_grace_seconds: must be over 60",
        ),
        (S3 + "models: {shared: {batchers: 1}}", 'models.shared.batchers: "shared" is the name of the common batcher'),
        (S3 + "kubernetes: {worker: {rolling_update: {maxSurge: 0, maxUnavailable: 0%}}}", "can't roll"),
        (
            S3 + "kubernetes: {router: {labels: {app.kubernetes.io/name: x}}}",
            "router.labels: app.kubernetes.io/name: pods",
        ),
        (
            S3 + "pools: {a: {}}\nkubernetes: {pools: {a: {labels: {shoal.dev/pool: x}}}}",
            "pools.a.labels: shoal.dev/pool",
        ),
        (S3 + "kubernetes: {image_retention: {labels: {shoal.dev/pool: x}}}", "image_retention.labels: shoal.dev/pool"),
        (S3 + "observe: null", "missing property 'observe'"),
        (S3 + "router: null", "missing property 'router'"),
        (S3 + "kubernetes: null", "missing property 'kubernetes'"),
        (S3 + "kubernetes: {router: {service: null}}", "missing property 'service'"),
        (S3 + "kubernetes: {image_retention: null}", "missing property 'image_retention'"),
        (S3 + "kubernetes: {images: null}", "missing property 'images'"),
        (S3 + "kubernetes: {images: {envoy: null}}", "missing property 'envoy'"),
        (S3 + "router: {default_timeout_seconds: 400}", "default_timeout_seconds is over max_timeout_seconds"),
        (S3 + "models: {m: {max_batch_size: 4, preferred_batch_size: [2, 8]}}", "goes over max_batch_size (4)"),
    ],
)
def test_contradictions_are_told(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(text)
    done = template(file)
    assert done.returncode != 0
    assert expected in done.stderr


def test_a_release_that_begins_with_a_digit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(S3)
    assert "begin with a letter" in template(tmp_path / "v.yaml", release="1st").stderr


def test_helm_has_a_key_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(S3 + "global: {anything: 1}\n")
    assert "anything" not in template(tmp_path / "v.yaml").stdout


# Ways of models into pods, and other choices.


def test_models_in_tritons_image_are_asked_of_triton(tmp_path: Path) -> None:
    file = tmp_path / "v.yaml"
    file.write_text(
        "object_store: {managed: false}\nkubernetes: {model_store: {image: true}}\n"
        "pools: {a: {engine: triton, models: [m]}, b: {models: [o]}}\n"
    )
    rendered = render(file)
    assert faults(rendered) == []
    service = spec.parse(rendered.data()["service.yaml"], "service.yaml")
    assert service.pools["a"].triton_url == "127.0.0.1:8001"
    assert service.pools["b"].triton_url is None
    assert "--triton" not in rendered.pod("shoal-worker-a").container("worker").command
    assert "models" not in rendered.pod("shoal-worker-a").volumes


@pytest.mark.parametrize(
    ("tag", "told", "allowed"),
    [
        ("26.04-py3", None, True),
        ("25.12-py3", None, False),
        ("mine", None, False),
        ("mine", True, True),
        ("26.05", False, False),
    ],
)
def test_triton_is_told_to_share_memory_where_it_knows_how(
    tag: str, told: bool | None, allowed: bool, tmp_path: Path
) -> None:
    (tmp_path / "v.yaml").write_text(S3 + "pools: {a: {engine: triton}}\n")
    settings = {"kubernetes.images.triton.tag": tag}
    if told is not None:
        settings["kubernetes.worker.allow_client_shared_memory"] = told
    triton = render(tmp_path / "v.yaml", settings=settings).pod("shoal-worker-a").container("triton")
    assert ("--allow-client-shm=true" in triton.command) is allowed


def test_the_processes_of_a_worker_differ_in_where_they_listen_alone(everything: Path) -> None:
    rendered = render(everything)
    first, *others = (each.raw for each in rendered.pod("shoal-worker-a").containers if each.name.startswith("worker"))
    assert [each["name"] for each in others] == ["worker-2", "worker-3"]
    for number, each in enumerate(others, 2):
        text = json.dumps(first)
        for before, now in [
            ('"name": "worker"', f'"name": "worker-{number}"'),
            *((f'"name": "{port}"', f'"name": "{port}-{number}"') for port in ("grpc", "metrics")),
            ("9100", f"930{number}"),
            ('"port": 9000', f'"port": 920{number}'),
            ('"containerPort": 9000', f'"containerPort": 920{number}'),
            ("0.0.0.0:9000", f"0.0.0.0:920{number}"),
        ]:
            assert before in text
            text = text.replace(before, now)
        assert json.loads(text) == each
    assert {container.raw["name"] for container in rendered.pod("shoal-worker-a-b").containers} == {
        *("model-sync", "worker", "worker-2")
    }


def test_what_has_one_process_says_nothing_of_it(everything: Path) -> None:
    """So that its pods needn't roll, and an older image reads its service file."""
    service = spec.parse(render(everything).data()["service.yaml"], "service.yaml")
    assert {name for name, pool in service.pools.items() if "worker_processes" in pool.model_fields_set} == {"a", "a-b"}


def test_all_parts_learn_where_spans_go(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(
        S3 + "pools: {a: {}}\nobserve: {tracing: {otlp_endpoint: 'http://tempo.obs:4317'}}\n"
    )
    traced = render(tmp_path / "v.yaml")
    command = traced.pod("shoal-batcher-shared").container("batcher").command
    assert parse(command) == "batcher"
    assert command[command.index("--otlp-endpoint") + 1] == "http://tempo.obs:4317"
    found = spec.parse(traced.data()["service.yaml"], "service.yaml").observe.tracing
    assert found
    assert found.otlp_endpoint == "http://tempo.obs:4317"
    (tmp_path / "v.yaml").write_text(S3 + "pools: {a: {}}\n")
    assert "--otlp-endpoint" not in render(tmp_path / "v.yaml").pod("shoal-batcher-shared").container("batcher").command


def test_an_issuer_of_tokens_is_told_to_the_router(tmp_path: Path) -> None:
    issuer = "{issuer: 'https://i.example', audiences: [shoal], jwks_url: 'https://i.example/keys'}"
    (tmp_path / "v.yaml").write_text(S3 + f"pools: {{a: {{}}}}\nrouter: {{tokens: {{company: {issuer}}}}}\n")
    service = spec.parse(render(tmp_path / "v.yaml").data()["service.yaml"], "service.yaml")
    assert service.router.tokens["company"].jwks_url == "https://i.example/keys"


def test_gpus_of_a_triton_elsewhere_are_claimed_once_a_pod(everything: Path) -> None:
    workers = [each for each in render(everything).pod("shoal-worker-a-b").containers if each.name != "model-sync"]
    assert [each.raw["resources"]["limits"].get("nvidia.com/gpu") for each in workers] == [1, None]


def test_a_pods_gpus_are_where_the_engine_runs(everything: Path) -> None:
    rendered = render(everything)
    assert rendered.pod("shoal-worker-a").container("triton").raw["resources"]["limits"]["amd.com/gpu"] == 2
    assert "amd.com/gpu" not in rendered.pod("shoal-worker-a").container("worker").raw["resources"]["limits"]
    (openvino,) = (pod for pod in rendered.pods if pod.labels.get("shoal.dev/pool") == "a_b")
    assert openvino.container("worker").raw["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert rendered.pod("shoal-worker-a").owner["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 3}


@pytest.mark.parametrize("component", ["batcher", "worker", "image-retention"])
def test_pods_have_the_labels_that_are_given(component: str, everything: Path) -> None:
    rendered = render(everything)
    assert rendered.pod("shoal-router").labels["azure.workload.identity/use"] == "true"
    assert all(pod.labels["team"] == "vision" for pod in rendered.selected({"app.kubernetes.io/component": component}))


FROM_SECRETS = "auth.keys_file", "object_store.credentials_file", "model_store.credentials_file", "router.tls"
PLAIN = re.compile(
    r"object_store\.(url|endpoint|region)|model_store\.(url|endpoint|region|path)|router\.host|observe\.log_level"
    r"|pools\.[^.]+\.(engine|models|triton_url|decoding|decode|jpeg_strictness|inference_precision)"
)


def test_secrets_stay_out_of_everything_but_secrets(rendered: Rendered) -> None:
    """Every text of the service file is one that may be read by all, or the path of a Secret's file."""
    assert not rendered.of("Secret")
    data = rendered.data()
    for path, text in texts(YAML(typ="safe").load(data["service.yaml"])):
        key = re.sub(r"^pools\.(.+)\.", "pools.x.", path)
        assert PLAIN.fullmatch(key) or (key.startswith(FROM_SECRETS) and text.startswith("/etc/shoal/")), path
    assert all(":" not in text and "@" not in text for _, text in texts(json.loads(data["topology.json"])))


def texts(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """Each text of a document and the keys that lead to it."""
    if isinstance(tree, dict):
        return [found for key, inner in tree.items() for found in texts(inner, f"{path}.{key}".lstrip("."))]
    if isinstance(tree, list):
        return [found for inner in tree for found in texts(inner, path)]
    return [(path, tree)] if isinstance(tree, str) else []


def test_what_a_machines_own_file_names_is_in_no_object(everything: Path) -> None:
    marked = [*FROM_SECRETS[:3], "router.tls.certificate_file", "router.tls.key_file", "pools.a.triton_server"]
    settings = {key: f"/home/marker/{number}" for number, key in enumerate(marked)}
    assert "marker" not in json.dumps(render(everything, settings=settings).objects)


@pytest.mark.parametrize(
    "key",
    [
        "object_store.url",
        "object_store.endpoint",
        "model_store.url",
        "model_store.endpoint",
        "kubernetes.object_store.url",
        "kubernetes.object_store.endpoint",
        "kubernetes.autoscaling.prometheus_url",
    ],
)
def test_addresses_hold_no_password_and_errors_do_not_quote_it(key: str, everything: Path) -> None:
    scheme = "s3" if key.endswith("store.url") else "https"
    done = template(everything, settings={key: f"{scheme}://someone:hush@host"})
    assert done.returncode != 0
    assert f"{key}: must not hold a user or a password" in done.stderr
    assert "hush" not in done.stderr


def test_only_the_router_is_reachable_for_others(rendered: Rendered) -> None:
    policies = rendered.of("NetworkPolicy")
    (everyone,) = (
        each for each in policies if "Ingress" in each["spec"]["policyTypes"] and "ingress" not in each["spec"]
    )
    assert len(rendered.selected(everyone["spec"]["podSelector"]["matchLabels"])) == len(rendered.pods)
    for each in policies:
        for rule in each["spec"].get("ingress", []):
            if rule["ports"] != [{"port": 8080}]:
                assert rule["from"], f"{each['metadata']['name']}: anybody may come to {rule['ports']}"


def test_the_notes_name_the_secrets_that_are_needed() -> None:
    (scenario,) = (file for file in SCENARIOS if file.parent.name == "one-pool-nfs")
    notes = helm("install", "reef", CHART, "--dry-run=client", "--namespace", "vision", "--values", scenario).stdout
    for told in ("reef-router.vision.svc:8080", "shoal-keys", "shoal-images with AWS_ACCESS_KEY_ID", "plaintext"):
        assert told in notes.partition("NOTES:")[2]


def test_the_notes_warn_of_signals_that_nobody_records(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(
        S3 + "kubernetes: {autoscaling: {prometheus_url: 'http://p', router: {max_replicas: 3}}}\n"
    )
    install = ("install", "reef", CHART, "--dry-run=client", "--values", tmp_path / "v.yaml")
    assert "signals that nobody records" in helm(*install).stdout
    assert "signals that nobody records" not in helm(*install, "--set", "kubernetes.monitoring.enabled=true").stdout


def test_the_claimed_bucket_is_the_one_that_the_values_name() -> None:
    (scenario,) = (file for file in SCENARIOS if file.parent.name == "one-pool-nfs")
    claim, service = YAML(typ="safe").load(scenario.parent / "object-bucket-claim.yaml"), spec.load(scenario)
    assert service.object_store.url == f"s3://{claim['spec']['bucketName']}"
    assert service.kubernetes.secrets.object_store_environment == claim["metadata"]["name"]
    assert json.loads(claim["spec"]["additionalConfig"]["bucketLifecycle"])["Rules"][0]["Expiration"] == {"Days": 1}


def test_the_policy_opens_the_buckets_that_the_values_name() -> None:
    (scenario,) = (file for file in SCENARIOS if file.parent.name == "one-pool-s3")
    opened = json.dumps(json.loads((scenario.parent / "iam-policy.json").read_text())["Statement"])
    service = spec.load(scenario)
    assert f'"arn:aws:s3:::{service.object_store.url.removeprefix("s3://")}/*"' in opened
    assert f'"arn:aws:s3:::{(service.model_store.url or "").removeprefix("s3://")}/*"' in opened


def test_a_server_can_be_drained_without_a_spare_gpu() -> None:
    """The pods of one server wait for its return, so the budget must let all of them go."""
    (scenario,) = (file for file in SCENARIOS if file.parent.name == "two-models-twenty-gpus")
    found = re.search(r"(\d+) servers, (\d+) GPUs", scenario.read_text())
    assert found
    servers, gpus = map(int, found.groups())
    rendered = render(scenario)
    worker = rendered.pod("shoal-worker-default")
    assert worker.owner["spec"]["replicas"] == gpus
    budget = rendered.named("PodDisruptionBudget", worker.name)["spec"]
    assert budget["maxUnavailable"] >= gpus // servers
    (spread,) = worker.spec["topologySpreadConstraints"]
    assert spread["nodeTaintsPolicy"] == "Honor"


def test_a_worker_that_is_not_ready_counts_as_away_and_is_not_for_the_taking(rendered: Rendered) -> None:
    """It takes batches for what it serves; a router or batcher that isn't ready gets no call."""
    for each in rendered.of("PodDisruptionBudget"):
        part = each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        expected = "IfHealthyBudget" if part == "worker" else "AlwaysAllow"
        assert each["spec"]["unhealthyPodEvictionPolicy"] == expected, each["metadata"]["name"]


def test_the_chart_has_our_version() -> None:
    about = YAML(typ="safe").load(CHART / "Chart.yaml")
    assert about["version"] == about["appVersion"] == version("shoal")


def test_a_null_is_as_if_nothing_were_said(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text(S3 + "pools: {a: {engine: triton, decode_threads: null, triton_url: null}}\n")
    plain = render(tmp_path / "v.yaml")
    nulls = {f"kubernetes.worker.{key}": None for key in ("gpus", "topology_spread", "rolling_update", "runtime_class")}
    assert render(tmp_path / "v.yaml", settings=nulls).objects == plain.objects
    assert plain.pod("shoal-worker-a").container("triton").raw["resources"]["limits"]["nvidia.com/gpu"] == 1
