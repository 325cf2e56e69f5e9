"""``shoal bench`` on real parts: a trace is played, and the rate that keeps an objective is found."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from support.stack import Stack


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (64, 48), (250, 0, 0)).save(folder / "red.jpg", quality=95)
    return folder


def test_a_trace_is_played_by_two_processes(stack: Stack, pictures: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    models = ("tiny", "tiny", "no-such-model")
    lines = [f"{number / 100:.2f},{models[number % 3]},amy" for number in range(60)]
    trace.write_text("\n".join(["time,model,owner", *lines]))
    done = stack.shoal(
        "bench", "--trace", trace, "--images", pictures, "--warm-up", "0", "--processes", "2", "--json", check=False
    )
    assert done.returncode == 1
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["errors"] == {"NOT_FOUND": 20}
    assert found["settings"]["trace"] == str(trace)
    assert "60 requests in 0.6 s: tiny 40, no-such-model 20; the owners it names (1) are not used" in done.stderr


def test_the_highest_rate_that_keeps_an_objective(stack: Stack, pictures: Path) -> None:
    """The objective is one that this machine can keep, fast or slow."""
    one = ("bench", "--model", "tiny", "--images", pictures, "--json", "--warm-up", "0")
    alone = json.loads(stack.shoal(*one, "--concurrency", "1", "--duration", "1").stdout)["latency_ms"]["p50"]
    objective = ("--latency-slo-ms", 4 * alone, "--quantile", "0.5")
    done = stack.shoal(*one, "--find-rate", *objective, "--duration", "0.5", "--timeout", "2", check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["rate_per_s"] > 0
    assert found["confirmed"]
    assert found["probes"][-1]["kept"]
    assert {probe["kept"] for probe in found["probes"]} == {True, False}
    assert all(probe["requests"] > 0 for probe in found["probes"])


def test_an_objective_that_a_single_request_misses_is_refused(stack: Stack, pictures: Path) -> None:
    done = stack.shoal(
        "bench", "--find-rate", "--latency-slo-ms", "0.01", "--model", "tiny", "--images", pictures, check=False
    )
    assert done.returncode == 2
    assert re.search(r"objective of 0\.01 ms can't be kept: .*one request alone takes [\d.]+ ms", done.stderr)
