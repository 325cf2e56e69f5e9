from __future__ import annotations

from typing import Any

from benchmarks.common.figures import overhead, ratio, spread, summary
from benchmarks.performance.tables import aims, before, cpu_table, latency, parts, speed
from support.measurements import measured


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
