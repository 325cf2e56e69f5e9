"""What the service's own histograms say of fetching and decoding, from pages that its own metrics wrote."""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from shoal.errors import ConfigurationError, Unavailable
from shoal.observe import metrics
from shoal.simulate import stages
from shoal.simulate.spreads import median
from support.ports import free_port
from support.stage_pages import page

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.simulate.scenario import Spread


def drawn(spread: Spread, number: int = 10_000) -> list[float]:
    source = random.Random(1)
    return [spread.draw(source) for _ in range(number)]


def test_they_are_named_as_the_worker_names_them() -> None:
    written = generate_latest(metrics.WORKER).decode()
    assert f"# TYPE {stages.FETCH} histogram" in written
    assert f"# TYPE {stages.DECODE} histogram" in written


def test_a_page_gives_a_distribution_of_fetch_and_decode_together(tmp_path: Path) -> None:
    file = tmp_path / "metrics.txt"
    file.write_text(page([0.0015] * 90 + [0.006] * 10, [0.0005] * 100))
    [(name, found)] = stages.read([str(file)]).items()
    times = drawn(found)
    assert name == "a"
    assert sum(0.004 < time <= 0.009 for time in times) / len(times) == pytest.approx(0.1, abs=0.02)
    assert min(times) > 0.001
    assert median(found) == pytest.approx(0.002, abs=0.0004)


def test_workers_add_up() -> None:
    quick, slow = page([0.0005] * 30, []), page([0.003] * 10, [])
    found = stages.preparations([*stages.of_page(quick, "f"), *stages.of_page(slow, "g")])
    assert sum(time > 0.002 for time in drawn(found["a"])) / 10_000 == pytest.approx(0.25, abs=0.02)


def test_pictures_that_a_gpu_decodes_are_only_fetched() -> None:
    found = stages.preparations(stages.of_page(page([0.0005] * 100, [0.006] * 20), "f"))
    assert sum(time > 0.004 for time in drawn(found["a"])) / 10_000 == pytest.approx(0.2, abs=0.02)
    only = stages.preparations(stages.of_page(page([0.0005] * 100, []), "f"))
    assert max(drawn(only["a"])) <= 0.001


def answer(*buckets: tuple[str, float]) -> bytes:
    series = [{"metric": {"model": "a", "le": le}, "value": [1.0, str(count)]} for le, count in buckets]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}}).encode()


def test_an_answer_of_prometheus_is_read_though_extrapolation_makes_its_counts_sink() -> None:
    found = stages.preparations(
        stages.of_answer(answer(("0.001", 50.2), ("0.002", 50.1), ("+Inf", 100.0)), "p", stages.FETCH)
    )
    assert sum(time <= 0.001 for time in drawn(found["a"])) / 10_000 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no shoal_worker_fetch_seconds in which anything was counted"),
        ("# TYPE other counter\nother_total 1\n", "no shoal_worker_fetch_seconds in which anything was counted"),
        ("<html>\n", "is no page of metrics"),
        (page([], []), "no shoal_worker_fetch_seconds in which anything was counted"),
    ],
)
def test_a_page_that_does_not_tell_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "metrics.txt"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=told):
        stages.read([str(file)])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--stages .*nowhere: can't be read"):
        stages.read([str(tmp_path / "nowhere")])
    with pytest.raises(Unavailable, match=r"--stages http.*nothing answers"):
        stages.read([f"http://127.0.0.1:{free_port()}/metrics"])
    with pytest.raises(ConfigurationError, match="none of Prometheus' HTTP API"):
        stages.of_answer(b"<html>", "p", stages.FETCH)
    with pytest.raises(ConfigurationError, match="nothing was fetched for b yet; there is a"):
        stages.check_models(
            stages.preparations(stages.of_answer(answer(("+Inf", 1.0), ("1", 1.0)), "p", stages.FETCH)), ["a", "b"]
        )
    assert math.inf in {one.at_most for one in stages.of_answer(answer(("+Inf", 1.0)), "p", stages.FETCH)}
