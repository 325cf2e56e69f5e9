"""Every fault of a plan file is refused with its line, its key and a way out."""

from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.plan.document import parse

GOOD = """\
models:
  a:
    batch_ms: {1: 2.5, 8: 4}
    memory_gib: 4
    latency_objective_ms: 50
    per_s: 100
hardware: {servers: 10, gpus_per_server: 2, gpu_memory_gib: 80}
"""
DAY = "[" + ", ".join(["5"] * 23)


def test_a_constant_load_is_the_same_in_every_hour_and_gpus_are_those_of_all_servers() -> None:
    found = parse(GOOD, "plan.yaml")
    assert found.rates("a") == (100.0,) * 24
    assert found.hardware.gpus == 20


def test_a_mix_parts_the_total_and_growth_compounds() -> None:
    text = GOOD.replace("    per_s: 100\n", "") + (
        "load: {total_per_s: 200, mix: {a: 1}, growth_per_month: 0.1, months: 2}\n"
    )
    assert parse(text, "plan.yaml").rates("a")[0] == pytest.approx(200 * 1.1 * 1.1)


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("batch_ms: {1: 2.5, 8: 4}", "batch_ms: {1: 0.0025}", 3, "was it meant in seconds? That is 2.5 ms"),
        ("batch_ms: {1: 2.5, 8: 4}", "batch_ms: {1: 70000}", 3, "was it meant in microseconds"),
        ("batch_ms: {1: 2.5, 8: 4}", "batch_ms: {1: -1}", 3, "expected more than 0 ms"),
        ("batch_ms: {1: 2.5, 8: 4}", "batch_ms: {}", 3, "is empty"),
        ("batch_ms: {1: 2.5, 8: 4}", "batch_ms: {1: .nan}", 3, "expected more than 0 ms"),
        ("batch_ms: {1: 2.5, 8: 4}", "speed: {4: 2}", 2, "one of profile and batch_ms"),
        ("batch_ms: {1: 2.5, 8: 4}", "batch_ms: {1: 2.5}\n    speed: {4: 5}", 4, "at most n for n at once"),
        ("latency_objective_ms: 50", "latency_objective_ms: 0.05", 5, "was it meant in seconds? That is 50 ms"),
        ("latency_objective_ms: 50", "latency_objective_ms: -1", 5, "shorter than any way"),
        ("memory_gib: 4", "memory_gib: 90", 4, "a GPU of 90 GiB or more would hold it"),
        ("memory_gib: 4", "memory_gb: 4", 4, "did you mean 'memory_gib'"),
        ("per_s: 100", f"by_hour: {DAY}]", 6, "has 23 numbers; expected 24"),
        ("per_s: 100", f"by_hour: {DAY}, -1]", 6, "greater than or equal to 0"),
        ("per_s: 100", f"by_hour: {DAY}, ~]", 6, "valid number"),
        ("per_s: 100", "by_hour: [" + ", ".join(["0"] * 24) + "]", 6, "no hour with load"),
        ("per_s: 100", "per_s: -1", 6, "greater than or equal to 0"),
        ("    per_s: 100\n", "", 2, "expected one load"),
        ("servers: 10, ", "", 7, "servers: NUMBER and how_many: true"),
        ("servers: 10", "servers: 10, how_many: true", 7, "servers: NUMBER and how_many: true"),
        ("hardware:", "load: {mix: {b: 1}, total_per_s: 1}\nhardware:", 7, "models has a"),
        ("hardware:", "load: {mix: {a: 0.5}, total_per_s: 1}\nhardware:", 7, "0.5 together; expected 1"),
        ("hardware:", "load: {total_per_s: 1}\nhardware:", 7, "go together"),
    ],
)
def test_faults_name_line_key_and_reason(old: str, new: str, line: int, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        parse(GOOD.replace(old, new, 1), "plan.yaml")
    assert f"plan.yaml:{line}:" in str(caught.value)
    assert told in str(caught.value)


def test_a_fault_of_the_whole_names_the_line_of_its_key_though_the_name_has_dots() -> None:
    text = GOOD.replace("  a:\n", "  a.b:\n").replace("memory_gib: 4", "memory_gib: 90")
    with pytest.raises(ConfigurationError, match=r"plan.yaml:4: models.a.b.memory_gib: 90 GiB"):
        parse(text, "plan.yaml")


def test_an_empty_file_lacks_models() -> None:
    with pytest.raises(ConfigurationError, match="models: Field required"):
        parse("", "plan.yaml")
