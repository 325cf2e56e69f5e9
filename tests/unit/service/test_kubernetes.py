from __future__ import annotations

import re

import pytest

from shoal.errors import ConfigurationError
from shoal.service.kubernetes import Kubernetes, PoolPods, WorkerPods
from shoal.service.spec import Service, parse


def test_nothing_said_is_a_whole_section() -> None:
    assert Service().kubernetes == Kubernetes() == parse("kubernetes: {}", "s").kubernetes


def test_an_image_keeps_what_is_not_said_of_it() -> None:
    images = parse("kubernetes: {images: {triton: {tag: mine}, shoal: {registry: r.example}}}", "s").kubernetes.images
    assert (images.triton.registry, images.triton.repository, images.triton.tag) == (
        "nvcr.io",
        "nvidia/tritonserver",
        "mine",
    )
    assert (images.shoal.repository, images.shoal.tag) == ("shoal", None)


def test_what_kubernetes_knows_is_passed_on_as_it_is() -> None:
    text = "kubernetes: {worker: {tolerations: [{anything: [1, {a: b}]}], affinity: {x: 1}}}"
    assert parse(text, "s").kubernetes.worker.tolerations == [{"anything": [1, {"a": "b"}]}]


def test_a_pool_says_the_same_keys_as_all_workers() -> None:
    assert WorkerPods.model_fields.keys() - PoolPods.model_fields.keys() == {"service_account"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kubernetes:\n  ruter: {}\n", "s:2: kubernetes.ruter: unknown key; did you mean 'router'?"),
        ("kubernetes:\n  router:\n    replica: 1\n", "s:3: kubernetes.router.replica: unknown key; did you mean 'repl"),
        (
            "kubernetes:\n  pools:\n    default: {gpu: 1}\n",
            "s:3: kubernetes.pools.default.gpu: unknown key; did you mean 'gpus'?",
        ),
        (
            "kubernetes: {model_store: {volume: {nfs: {server: a, paht: /b}}}}\n",
            "kubernetes.model_store.volume.nfs.paht: unknown key; did you mean 'path'?",
        ),
        ("models: {shared: {batchers: 2}}\n", "models.shared.batchers: 'shared' is the name of the common batcher"),
        ("kubernetes: {pools: {b: {gpus: 1}}}\n", "kubernetes.pools: b: pools has default"),
        ("kubernetes: {model_store: {image: true, sync: {}}}\n", "give one of image, volume and sync"),
        ("kubernetes: {model_store: {volume: {}}}\n", "give one of nfs, persistent_volume_claim and host_path"),
        (
            "kubernetes: {model_store: {volume: {host_path: /a, persistent_volume_claim: b}}}\n",
            "give one of nfs, persistent_volume_claim and host_path",
        ),
        (
            "kubernetes: {secrets: {model_store: a, model_store_environment: b}}\n",
            "model_store and model_store_environment are two forms of the same",
        ),
        ("kubernetes: {secrets: {keys: Not_A_Name}}\n", "kubernetes.secrets.keys: String should match pattern"),
        ("kubernetes: {worker: {labels: {shoal.dev/pool: a}}}\n", "kubernetes.worker.labels: shoal.dev/pool: pods are"),
        ("kubernetes: {worker: {shared_memory: much}}\n", "kubernetes.worker.shared_memory: String should match"),
        ("kubernetes: {object_store: {endpoint: minio}}\n", "must start with http:// or https://"),
    ],
)
def test_errors_name_the_key(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "s")
    assert expected in str(raised.value)


OTHER_VOLUMES = "pools: {default: {extra_volumes: [{name: b}]}}"


@pytest.mark.parametrize("part", ["router", "batcher", "worker", "image_retention", "test", "pools"])
@pytest.mark.parametrize(
    ("key", "items", "expected"),
    [
        ("extra_env", "[{name: HOME, value: /}]", "HOME is the chart's own"),
        ("extra_env", "[{value: x}]", "each needs a name"),
        ("extra_env", "[{name: A}, {name: A}]", "A is there twice"),
        ("extra_volumes", "[{name: models}]", "models is the chart's own"),
        ("extra_volume_mounts", "[{name: a, mountPath: /a}]", "a: extra_volumes has no such volume"),
        ("extra_volume_mounts", "[{name: a}]", "each needs a mountPath"),
        ("extra_volume_mounts", "[{name: a, mountPath: relative}]", "each needs a mountPath"),
        ("extra_volume_mounts", "[{name: a, mountPath: /dev/shm/}]", "/dev/shm is the chart's own"),
        ("extra_volume_mounts", "[{name: a, mountPath: /x/../etc/shoal/keys}]", "/etc/shoal/keys is the chart's own"),
        ("extra_volume_mounts", "[{name: a, mountPath: /a}, {name: a, mountPath: /a/}]", "/a is there twice"),
    ],
)
def test_what_pods_have_of_their_own_stays_theirs(part: str, key: str, items: str, expected: str) -> None:
    where = "pools: {default: {%s: %s}}" if part == "pools" else part + ": {%s: %s}"
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        parse(f"kubernetes: {{{where % (key, items)}}}", "s")


def test_what_is_added_is_passed_on() -> None:
    text = (
        "kubernetes: {batcher: {extra_env: [{name: A, value: b}], extra_volumes: [{name: v, emptyDir: {}}], "
        "extra_volume_mounts: [{name: v, mountPath: /tmp/v}]}}"
    )
    batcher = parse(text, "s").kubernetes.batcher
    assert batcher.extra_env == [{"name": "A", "value": "b"}]
    assert batcher.extra_volume_mounts == [{"name": "v", "mountPath": "/tmp/v"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gateway: {enabled: true}", "parent_refs is missing"),
        ("gateway: {kind: TCPRoute}", "'GRPCRoute' or 'HTTPRoute'"),
        ("network_policies: {enabled: false, egress: {enabled: true}}", "egress.enabled goes with enabled: true"),
        ("test: {key_secret: a}", "key_secret and model go together"),
        ("test: {model: a}", "key_secret and model go together"),
        ("images: {envoy: {digest: latest}}", "should match pattern"),
        (
            "worker: {extra_volumes: [{name: a}], extra_volume_mounts: [{name: a, mountPath: /a}]}, " + OTHER_VOLUMES,
            "pools.default.extra_volumes: takes the place of the workers', whose extra_volume_mounts then lacks a",
        ),
        ("worker: {scratch_size: much}", "should match pattern"),
    ],
)
def test_a_cluster_is_told_what_goes_together(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        parse(f"kubernetes: {{{text}}}", "s")
