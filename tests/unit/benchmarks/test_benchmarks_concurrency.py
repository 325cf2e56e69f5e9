from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.concurrency import report as report_concurrency
from benchmarks.concurrency.report import embedded, in_flight, instances, keep, together
from support.profiles import cell, empty, measured

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(report_concurrency, "IMAGES", tmp_path)
    return tmp_path


def profile(*rates: float) -> dict[str, Any]:
    """Of 1, 2, 4, … in flight."""
    made = empty()
    for place, rate in enumerate(rates):
        made = made.with_round(cell(concurrency=2**place), measured(rate), None)
    found: dict[str, Any] = json.loads(made.to_json())
    return found


def test_the_seeds_table_stands_beside_the_ceiling_and_marks_what_misses(images: Path) -> None:
    text = in_flight(profile(1000.0, 2000.0), profile(800.0, 1900.0), profile(700.0, 900.0))
    assert "| 1 | 800 (800-800) | 10.00 | 20.00 | 1,000 (1,000-1,000) | 10.00 | **0.80** |" in text
    assert text.count("**") == 2
    assert (images / "concurrency-gpu.png").is_file()


def test_only_what_both_have_is_compared() -> None:
    text = instances(profile(800.0, 1900.0, 2000.0), profile(700.0, 900.0))
    assert "| 2 | 1,900 (1,900-1,900) | 10.00 | 20.00 | 900 (900-900) | 10.00 | 20.00 |" in text
    assert "| 4 |" not in text


def test_two_networks_share_a_gpu(images: Path) -> None:
    def row(server: str, **rates: float) -> dict[str, Any]:
        networks = {name: {"images_per_s": rate, "p99_ms": 10.0} for name, rate in rates.items()}
        return {"server": server, "in_flight": 4, "round": 0, "networks": networks}

    rows = [
        row(server, **rates)
        for server, half in (("one-process", 0.6), ("a-process-each", 0.5))
        for rates in ({"a": 1000.0}, {"b": 3000.0}, {"a": 1000.0 * half, "b": 3000.0 * half})
    ]
    text = together({"rows": rows})
    assert "| one process | 4 | 1,000 | 3,000 | 600 | 1,800 | 10.0 | 10.0 | 1.20 |" in text
    assert "| a process each | 4 | 1,000 | 3,000 | 500 | 1,500 | 10.0 | 10.0 | 1.00 |" in text
    assert (images / "concurrency-together.png").is_file()


def test_a_kept_result_tells_no_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report_concurrency, "RESULTS", tmp_path)
    found = profile(100.0) | {"command": "shoal profile m --images /home/me/pictures --batch 8"}
    (tmp_path / "profile.json").write_text(json.dumps(found))
    keep(tmp_path / "profile.json", "kept")
    assert "`shoal profile m --images DIR --batch 8`" in embedded(json.loads((tmp_path / "kept.json").read_text()))


def test_every_block_has_its_place() -> None:
    text = report_concurrency.CHAPTER.read_text()
    for name in report_concurrency.BLOCKS:
        assert text.count(f"<!-- figures: concurrency-{name} -->") == 1
