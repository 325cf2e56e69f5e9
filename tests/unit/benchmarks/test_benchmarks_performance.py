from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.common import cpu
from benchmarks.common.ceiling import Feeder, Order, Pattern, Work
from benchmarks.common.cpu import Reading, Snapshot, Spent
from benchmarks.common.figures import Measurement, best, overhead, ratio, spread, summary
from benchmarks.performance.end_to_end import read_pictures
from benchmarks.performance.report import aims, before, cpu_table, latency, markdown, parts, replace_block, speed
from shoal.errors import ConfigurationError
from shoal.threads import make_pool
from support.pictures import encode, quadrants
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path


def measured(images: int, seconds: float = 2.0, **components: float) -> Measurement:
    details = {
        "latency_ms": {"p50": 10.0 * images, "p95": 1.0, "p99": 1.0},
        "stage_mean_us": {"queue": 1000},
        "mean_batch_size": 8.0,
    }
    return Measurement(images, Spent(seconds, dict.fromkeys(cpu.COMPONENTS, 0.0) | components, 0.1), details)


def end_to_end() -> dict[str, Any]:
    ceiling = [measured(400, inference=3.2), measured(200, inference=1.6)]
    shoal = [
        measured(200, inference=1.6, rest=0.1, router=0.02),
        measured(150, inference=1.2, rest=0.075, router=0.015),
    ]
    return {
        "date": "2026-01-02T03:04:05+00:00",
        "command": "python -m benchmarks.performance.end_to_end",
        "machine": {"cpu": "a CPU", "cores_used": 2, "memory_gib": 8.0},
        "settings": {"model": "m", "concurrency": 4},
        "ceiling": summary(ceiling),
        "shoal": summary(shoal),
        "shoal_with_upload": summary(shoal),
        "ratio_to_ceiling": {"shoal": ratio(shoal, ceiling), "shoal_with_upload": ratio(shoal, ceiling)},
        "overhead_cpu_ms_per_image": overhead(shoal),
    }


def footprint() -> dict[str, Any]:
    memory = {"worker": {"rss": 300.0, "pss": 250.0}, "router": {"rss": 100.0, "pss": 80.0}}
    return {
        "start_s": spread([2.0, 6.0, 3.0]),
        "idle_cpu_percent": {"worker": 0.4, "router": 0.1},
        "memory_mib": {"before_requests": memory, "after_load": memory},
    }


def met(result: dict[str, Any]) -> list[str]:
    return [row.split("|")[-2].strip() for row in aims(result, footprint()).splitlines()[2:]]


def test_threads_are_told_apart_by_their_names() -> None:
    before = Reading(
        30.0, {1: ("python", 9.0), 2: ("decode", 5.0), 3: ("infer-some-model", 7.0), 9: ("infer-load", 4.0)}
    )
    after = Reading(
        42.0, {1: ("python", 12.0), 2: ("decode", 7.0), 3: ("infer-model", 11.0), 4: ("tokio-rt-worker", 0.5)}
    )
    assert cpu.split(before, after) == {"fetch": 0.5, "decode": 2.0, "inference": 4.0, "rest": 5.5}


def test_a_process_is_split_by_its_threads() -> None:
    begun, enough = threading.Event(), threading.Event()

    def spin() -> None:
        begun.set()
        while not enough.is_set():
            sum(range(1000))

    with make_pool(1, "decode") as pool:
        before = cpu.of_ceiling()
        pool.submit(spin)
        begun.wait()
        while not cpu.spent(before, cpu.of_ceiling()).components["decode"]:
            pass  # the kernel counts in steps
        enough.set()


def test_what_a_window_took() -> None:
    before = Snapshot(10.0, {"router": 1.0}, {7: Reading(2.0, {}), 8: Reading(1.0, {})}, 100.0)
    after = Snapshot(14.0, {"router": 1.5}, {7: Reading(3.0, {}), 8: Reading(1.5, {})}, 106.0)
    took = cpu.spent(before, after)
    assert (took.seconds, took.other_cores) == (4.0, 1.0)
    assert {name: seconds for name, seconds in took.components.items() if seconds} == {"router": 0.5, "rest": 1.5}


def test_ratios_are_taken_within_a_round() -> None:
    ceiling, shoal = [measured(100), measured(300), measured(200)], [measured(90), measured(240), measured(100)]
    assert ratio(shoal, ceiling) == {"median": 0.8, "min": 0.5, "max": 0.9, "rounds": [0.9, 0.8, 0.5]}


def test_the_summary_has_rates_and_cpu_an_image() -> None:
    found = end_to_end()["shoal"]
    assert found["images_per_s"] == 87.5
    assert found["cpu_ms_per_image"] | {"inference": 8.0, "rest": 0.5, "router": 0.1} == found["cpu_ms_per_image"]
    assert found["cpu_ms_per_image_in_all"]["median"] == 8.6


def test_overhead_is_router_batcher_and_the_workers_rest() -> None:
    assert overhead([measured(1000, rest=0.1, router=0.2, batcher=0.3, fetch=9.0, client=9.0)])["median"] == 0.6


def test_the_best_pattern_has_the_highest_median() -> None:
    assert best({"lucky once": [1.0, 9.0, 1.0], "good": [5.0, 6.0, 5.0]}) == "good"


def test_a_block_is_replaced_between_its_markers() -> None:
    text = "a\n<!-- figures: x -->\nold\n<!-- end -->\nb\n<!-- figures: y -->\n<!-- end -->\n"
    once = replace_block(text, "x", r"new \1")
    assert once == text.replace("old", r"new \1")
    assert replace_block(once, "x", r"new \1") == once
    with pytest.raises(ValueError, match="'z' once; found 0"):
        replace_block(text, "z", "")


def test_a_markdown_table() -> None:
    assert markdown(("what", "figure"), [("a", "1")]) == "| what | figure |\n|---|---:|\n| a | 1 |"


def test_a_busy_machine_is_named() -> None:
    result = end_to_end()
    assert "0.10 cores busy" in speed(result)
    for way in ("ceiling", "shoal", "shoal_with_upload"):
        result[way]["other_cores"]["median"] = 0.05
    assert "not quiet" not in speed(result)


def test_the_chapters_tables() -> None:
    result = end_to_end()
    assert "| Shoal | 88 (75-100) | 0.62 (0.50-0.75) | 8.60 (8.60-8.60) | 0.10 (0.10-0.10) |" in speed(result)
    assert "| *router + batcher + worker: rest* | 0.000 | 0.600 | 0.600 |" in cpu_table(result)
    assert "| latency p50, ms | 2000 | 2000 |" in latency(result)
    assert "| **all** | 0.50 | 400 | 330 | 400 | 330 |" in parts(footprint())


def test_an_earlier_commit_stands_beside_this_one() -> None:
    result = end_to_end()
    assert before(result) == "Not measured in the last run."
    slower = [measured(100, inference=1.6, rest=0.1, router=0.1), measured(100, inference=1.6, rest=0.1, router=0.1)]
    ways = {"before": summary(slower), "before_with_upload": summary(slower)}
    result = {**result, **ways, "before_commit": "abc1234"}
    result["ratio_to_ceiling"] |= dict.fromkeys(ways, spread([0.25, 0.5]))
    text = before(result)
    assert "|  | Shoal: abc1234 | Shoal: now | Shoal, with upload: abc1234 | Shoal, with upload: now |" in text
    assert "| to the ceiling | 0.38 (0.25-0.50) | 0.62 (0.50-0.75) | 0.38 (0.25-0.50) | 0.62 (0.50-0.75) |" in text
    assert "| *router + batcher + worker: rest*, CPU ms/image | 2.000 | 0.600 | 2.000 | 0.600 |" in text


def test_aims_say_what_fell_short() -> None:
    result = end_to_end()
    assert met(result) == ["unknown: the machine was not quiet", "**no**", "yes", "yes"]
    for way in ("ceiling", "shoal", "shoal_with_upload"):
        result[way]["other_cores"]["median"] = 0.05
    assert met(result) == ["**no**", "**no**", "yes", "yes"]


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"b")
    (tmp_path / "a.jpeg").write_bytes(b"a")
    (tmp_path / "readme.md").write_bytes(b"")
    assert read_pictures(tmp_path) == [b"a", b"b"]
    with pytest.raises(ConfigurationError, match="no JPEG"):
        read_pictures(tmp_path / "none")


def test_a_ceiling_feeds_the_engine(tmp_path: Path) -> None:
    async def run() -> list[Measurement]:
        feeder = await Feeder.open(Work(add_tiny_classifier(tmp_path), [encode(quadrants())], tmp_path, threads=1))
        try:
            return [await feeder.run(Order(Pattern(2, spread), 0.0, 0.01)) for spread in (False, True)]
        finally:
            await feeder.close()

    assert all(one.images % 4 == 0 for one in asyncio.run(run()))
