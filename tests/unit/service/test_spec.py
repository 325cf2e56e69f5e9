from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from shoal.errors import ConfigurationError
from shoal.service.spec import Pool, Service, load, parse

if TYPE_CHECKING:
    from pathlib import Path


def fault(text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        parse(text, "shoal.yaml")
    return str(raised.value)


def test_no_file_and_an_empty_file_are_the_default_service() -> None:
    assert load(None) == parse("", "shoal.yaml") == parse("# nothing\n", "shoal.yaml") == Service()
    assert Service().pools == {"default": Pool()}
    assert Service().object_store.runs_locally


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "shoal.yaml"
    file.write_text("router: {port: 9000}\nmodels: {resnet: {batchers: 2}}\n")
    service = load(file)
    assert service.router.port == 9000
    assert service.override("resnet").batchers == 2
    assert service.override("other").batchers == 0


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml: can't be read"):
        load(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nrouter:\n  prot: 1\n", "shoal.yaml:3: router.prot: unknown key; did you mean 'port'?"),
        ("rooter: {}\n", "shoal.yaml:1: rooter: unknown key; did you mean 'router'?"),
        ("pools:\n  a:\n    replica: 1\n", "shoal.yaml:3: pools.a.replica: unknown key; did you mean 'replicas'?"),
        ("models:\n  m:\n    bachers: 1\n", "shoal.yaml:3: models.m.bachers: unknown key; did you mean 'batchers'?"),
        ("observe: {zzz: 1}\n", "shoal.yaml:1: observe.zzz: unknown key; known here: log_level"),
        ("router:\n  port: 70000\n", "shoal.yaml:2: router.port: Input should be less than or equal to 65535"),
        ("router:\n  port: 1\n  port: 2\n", 'shoal.yaml:3: found duplicate key "port" with value "2"'),
        ("router: [\n", "shoal.yaml:2:"),
        ("- a\n", "shoal.yaml:1: expected a mapping"),
        ("pools: {}\n", "shoal.yaml:1: pools: Dictionary should have at least 1 item"),
        ("pools:\n  Bad_Name_:\n    replicas: 1\n", "shoal.yaml:2: pools.Bad_Name_: String should match pattern"),
        ("object_store:\n  url: ftp://a\n", "shoal.yaml:2: object_store.url: must start with s3://"),
        (
            "object_store:\n  url: file:///a\n  endpoint: http://b\n",
            "shoal.yaml:1: object_store: endpoint goes with an s3:// url only",
        ),
        ("object_store:\n  endpoint: localhost:9000\n", "shoal.yaml:2: object_store.endpoint: must start with http://"),
        (
            "pools:\n  a: {triton_url: 'x:1'}\n",
            "shoal.yaml:2: pools.a: triton_url and triton_server go with",
        ),
        (
            "pools:\n  a: {decode: gpu}\n",
            "shoal.yaml:2: pools.a: decode: gpu goes with engine: triton only; openvino's models run on the CPU",
        ),
        ("pools:\n  a:\n    triton_url: x\n", "shoal.yaml:3: pools.a.triton_url: must be HOST:PORT"),
        (
            "pools:\n  a: {engine: triton, triton_url: 'x:1', triton_server: y}\n",
            "shoal.yaml:2: pools.a: triton_url names a server that is there",
        ),
        ("router:\n  host: localhost\n", "shoal.yaml:2: router.host: must be an IP address"),
        ("router:\n  default_timeout_seconds: .inf\n", "shoal.yaml:2: router.default_timeout_seconds: Input should be"),
        (
            "router:\n  default_timeout_seconds: 400\n",
            "shoal.yaml:1: router: default_timeout_seconds (400) is over max_timeout_seconds (300)",
        ),
        ("router:\n  port: 2026-13-01\n", "shoal.yaml: a value can't be read: month must be in 1..12"),
        (
            "models:\n  m:\n    preferred_batch_size: [0]\n",
            "shoal.yaml:3: models.m.preferred_batch_size.0: Input should",
        ),
        (
            "models:\n  m: {}\n  n: {cache_shared: true}\n",
            "shoal.yaml:3: models.n: cache_shared: nothing is cached without cache_seconds, such as 3600",
        ),
        (
            "models:\n  m:\n    cache_seconds: -1\n",
            "shoal.yaml:3: models.m.cache_seconds: Input should be greater than or equal to 0",
        ),
        (
            "models:\n  m:\n    latency_objective_ms: 0\n",
            "shoal.yaml:3: models.m.latency_objective_ms: Input should be greater than 0",
        ),
        (
            "models:\n  a: {}\n  m: {latency_objective_ms: 100, max_queue_delay_microseconds: 0}\n",
            "shoal.yaml:3: models.m: latency_objective_ms and max_queue_delay_microseconds both say when",
        ),
        (
            "models:\n  m: {max_batch_size: 4, preferred_batch_size: [2, 8]}\n",
            "shoal.yaml:2: models.m: preferred_batch_size [2, 8] goes over max_batch_size (4)",
        ),
        (
            "pools:\n  a: {models: [x]}\n  b: {models: [x]}\n",
            "pools.b.models: 'x' is in pool 'a' already; a model routes to one pool",
        ),
    ],
)
def test_errors_name_file_line_and_key(text: str, expected: str) -> None:
    assert expected in fault(text)


def test_every_fault_is_told_at_once() -> None:
    told = fault("router:\n  port: 0\nobserve:\n  log_level: loud\n").splitlines()
    assert [line.split(": ")[0] for line in told] == ["shoal.yaml:2", "shoal.yaml:4"]


def test_a_loaded_service_never_changes() -> None:
    with pytest.raises(ValidationError):
        Service().router.port = 1


def test_an_exact_name_wins_over_a_pattern_and_a_closer_pattern_over_a_wider_one() -> None:
    service = parse("pools: {any: {models: ['*']}, some: {models: ['res*', exact]}, late: {models: ['e*']}}\n", "s")
    assert service.pool_of("exact") == "some"
    assert service.pool_of("resnet") == "some"
    assert service.pool_of("else") == "late"
    assert service.pool_of("yolo") == "any"
    assert parse("pools: {a: {models: [b]}}", "s").pool_of("c") is None
    assert service.models_of("some", ["exact", "resnet", "yolo"]) == ["exact", "resnet"]


@pytest.mark.parametrize(
    "text",
    [
        "object_store:\n  endpoint: https://someone:hush@s3.example\n",
        "object_store:\n  url: s3://someone:hush@bucket\n",
        "model_store:\n  url: s3://hush@bucket/prod\n",
        "kubernetes:\n  autoscaling: {prometheus_url: 'http://:hush@prometheus:9090'}\n",
        "pools: {a: {engine: triton, triton_url: 'someone:hush@triton:8001'}}\n",
    ],
)
def test_addresses_hold_no_password_and_errors_do_not_quote_it(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must not hold a user or a password|must be HOST:PORT") as raised:
        parse(text, "shoal.yaml")
    assert "hush" not in f"{raised.value} {raised.value.__cause__}"


def test_an_at_sign_further_on_is_no_user() -> None:
    assert parse("object_store: {url: 's3://bucket/a@b'}", "s").object_store.url == "s3://bucket/a@b"


@pytest.mark.parametrize("patterns", [("*", "res*"), ("res*", "*net"), ("r?snet", "res*"), ("[r]esnet", "r*t")])
def test_the_order_of_pools_counts_for_nothing(patterns: tuple[str, str]) -> None:
    """Helm sorts the keys of its values."""
    pools = {name: Pool(models=[pattern]) for name, pattern in zip("ab", patterns, strict=True)}
    turned = dict(reversed(pools.items()))
    assert Service(pools=pools).pool_of("resnet") == Service(pools=turned).pool_of("resnet") is not None


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("{}", True),
        ("{managed: false}", False),
        ("{endpoint: 'http://127.0.0.1:9000'}", False),
        ("{url: 'gs://pictures'}", False),
        ("{url: 's3://other/prefix'}", True),
    ],
)
def test_only_an_s3_store_without_an_endpoint_is_run_here(text: str, local: bool) -> None:
    assert parse(f"object_store: {text}", "s").object_store.runs_locally is local


def test_models_of_a_triton_elsewhere_are_known_by_their_names() -> None:
    service = parse("pools: {a: {engine: triton, triton_url: 'x:1', models: [m, 'n*']}, b: {models: [o]}}", "s")
    assert service.elsewhere == {"m"}
    assert [pool.starts_triton for pool in service.pools.values()] == [False, False]


def test_several_processes_go_with_a_triton_and_the_error_says_what_else_to_do() -> None:
    assert parse("pools: {a: {engine: triton, worker_processes: 4}}", "s").pools["a"].worker_processes == 4
    assert parse("pools: {a: {worker_processes: 1}}", "s").pools["a"].engine == "openvino"
    for engine in ("", "    engine: openvino\n"):
        text = f"pools:\n  a:\n{engine}    worker_processes: 2\n"
        line = len(text.splitlines())
        with pytest.raises(ConfigurationError, match=rf"^s:{line}: pools\.a\.worker_processes: .*triton.*replicas"):
            parse(text, "s")


def test_the_order_of_engine_and_processes_counts_for_nothing() -> None:
    assert parse("pools: {a: {worker_processes: 2, engine: triton}}", "s").pools["a"].worker_processes == 2


def test_a_picture_has_to_fit_into_a_process_s_share_of_the_memory() -> None:
    text = "pools: {{a: {{engine: triton, worker_processes: {}}}}}\nobject_store: {{max_image_bytes: 100_000_000}}"
    assert parse(text.format(1), "s").pools["a"].fetched_bytes_a_process == 256 * 2**20
    assert parse(text.format(2), "s").pools["a"].fetched_bytes_a_process == 128 * 2**20
    with pytest.raises(ConfigurationError, match=r"pools\.a: 3 worker_processes .*set max_fetched_bytes to 300000000"):
        parse(text.format(3), "s")


def test_names_are_exact_ones_and_those_of_overrides_of_the_pool() -> None:
    service = parse(
        """
        pools: {one: {models: [resnet-50, "yolo*"]}, two: {models: ["*"]}}
        models: {yolov8: {batchers: 1}, unet: {}}
        """,
        "s",
    )
    assert service.named_models("one") == {"resnet-50", "yolov8"}
    assert service.named_models("two") == {"unet"}
