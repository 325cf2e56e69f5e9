from __future__ import annotations

import re
from pathlib import Path

import pytest
from generate_observability import COMPONENTS, declared, exported_name

from shoal.errors import ConfigurationError
from shoal.observe import metrics, operators
from shoal.observe.foreign import FOREIGN, used
from shoal.runtime.endpoint import Endpoint

METRICS = [
    pytest.param(component, metric, id=exported_name(metric))
    for component, registry in COMPONENTS.items()
    for metric in declared(registry)
]


@pytest.mark.parametrize(("component", "metric"), METRICS)
def test_a_name_says_which_part_it_is_of_and_its_unit(component: str, metric: object) -> None:
    name = exported_name(metric)
    assert name.startswith(f"shoal_{component.replace('-', '_')}_")
    if "seconds" in name or "bytes" in name:
        assert re.search(r"_(seconds|bytes)(_total)?$", name)


@pytest.mark.parametrize(("component", "metric"), METRICS)
def test_labels_are_names_of_ours(component: str, metric: object) -> None:
    assert set(metric._labelnames) <= {
        "model",
        "code",
        "reason",
        "state",
        "outcome",
        "priority",
        "way",
        "pipeline",
        "step",
    }


@pytest.mark.parametrize(("component", "metric"), METRICS)
def test_a_measured_time_says_when_it_starts_and_ends(component: str, metric: object) -> None:
    (family,) = metric.describe()
    assert family.documentation.endswith(".")
    if family.type == "histogram" and family.name.endswith("_seconds"):
        assert re.search(r"\bfrom\b.+\bto\b", family.documentation, re.IGNORECASE)


def test_a_part_exports_its_own_metrics_alone() -> None:
    names = {component: {exported_name(it) for it in declared(registry)} for component, registry in COMPONENTS.items()}
    assert names["batcher"].isdisjoint(names["worker"])
    assert all(names.values())


def test_metrics_of_others_are_found_in_expressions() -> None:
    expression = 'rate(envoy_http_downstream_rq_time_bucket{x="nv_gpu_utilization"}[1m]) / nv_inference_count'
    assert used(expression) == {"envoy_http_downstream_rq_time", "nv_inference_count"}
    assert not used("shoal_worker_permit_limit")


def test_every_metric_of_others_is_used_somewhere() -> None:
    sources = Path(metrics.__file__).parent.rglob("*.py")
    text = "".join(path.read_text() for path in sources if path.name != "foreign.py")
    stems = ("nv_inference_", "_duration_us")  # the model's dashboard puts the stages between them
    unused = [name for name in FOREIGN if name not in text and not all(stem in name for stem in stems)]
    assert not unused


def test_a_busy_port_is_named() -> None:
    server = operators.serve_metrics(Endpoint("127.0.0.1", 0), metrics.WORKER)
    try:
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{server.endpoint.port}"):
            operators.serve_metrics(Endpoint("127.0.0.1", server.endpoint.port), metrics.WORKER)
    finally:
        server.close()
