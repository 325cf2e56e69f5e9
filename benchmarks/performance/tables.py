"""The results as tables for the chapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.chapter import QUIET_CORES, markdown, ranged
from benchmarks.common.cpu import COMPONENTS
from benchmarks.common.figures import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Result = Mapping[str, Any]

WAYS = {"ceiling": "ceiling", "shoal": "Shoal", "shoal_with_upload": "Shoal, with upload"}
EARLIER = {"shoal": "before", "shoal_with_upload": "before_with_upload"}
"""A way, to that of the earlier commit."""
LABELS = {
    "inference": "worker: inference",
    "decode": "worker: decode",
    "fetch": "worker: fetch",
    "rest": "worker: rest",
    "client": "client (load generator)",
}
AIM_RATIO, AIM_OVERHEAD_MS, AIM_START_SECONDS, AIM_IDLE_PERCENT = 0.80, 0.5, 5, 3


def aims(end_to_end: Result, footprint: Result) -> str:
    """What was aimed at, what was measured."""
    shoal = end_to_end["ratio_to_ceiling"]["shoal"]
    overhead = end_to_end["overhead_cpu_ms_per_image"]
    starts = footprint["start_s"]
    idle = sum(footprint["idle_cpu_percent"].values())
    rows = [
        ("Shoal's images/s to the ceiling's", f"{AIM_RATIO:.2f}", ranged(shoal, ".2f"), shoal["median"] >= AIM_RATIO),
        (
            "CPU of router + batcher + worker outside fetch, decode, inference",
            f"{AIM_OVERHEAD_MS} ms/image",
            ranged(overhead, ".2f"),
            overhead["median"] < AIM_OVERHEAD_MS,
        ),
        (
            "`shoal up` to ready",
            f"{AIM_START_SECONDS:.0f} s",
            ranged(starts, ".1f"),
            starts["median"] < AIM_START_SECONDS,
        ),
        ("CPU while idle, all parts", f"{AIM_IDLE_PERCENT} % of a core", f"{idle:.1f} %", idle < AIM_IDLE_PERCENT),
    ]
    table = [[what, aim, got, "yes" if met else "**no**"] for what, aim, got, met in rows]
    if caution(end_to_end):
        table[0][-1] = "unknown: the machine was not quiet"
    return markdown(("", "aim", "measured: median (range)", "met"), table)


def speed(result: Result) -> str:
    """Images a second."""
    rows = [
        (
            label,
            ranged(result[way]["images_per_s_spread"], ".0f"),
            ranged(result["ratio_to_ceiling"][way], ".2f") if way != "ceiling" else "1",
            ranged(result[way]["cpu_ms_per_image_in_all"], ".2f"),
            ranged(result[way]["other_cores"], ".2f"),
        )
        for way, label in WAYS.items()
    ]
    head = ("median (range)", "images/s", "to the ceiling", "CPU ms/image, all parts", "cores busy with other work")
    return "\n\n".join(filter(None, (_circumstances(result), markdown(head, rows), caution(result))))


def caution(result: Result) -> str:
    """What to say where something else used the cores, too; nothing where they were ours."""
    others = max(result[way]["other_cores"]["median"] for way in WAYS)
    if others < QUIET_CORES:
        return ""
    return f"**The machine was not quiet**: other work kept {others:.2f} cores busy, so images/s mean little here."


def cpu_table(result: Result) -> str:
    """CPU time of each component."""
    return markdown(("CPU ms an image (median)", *WAYS.values()), _cpu_rows(result, WAYS))


def _cpu_rows(result: Result, ways: Iterable[str]) -> list[Sequence[str]]:
    each = [result[way] for way in ways]
    rows = [(label_of(name), *(component(way, name) for way in each)) for name in COMPONENTS]
    overhead = ("*router + batcher + worker: rest*", *(total(way, OVERHEAD) for way in each))
    return [*rows, overhead, ("**all**", *(total(way, COMPONENTS) for way in each))]


def before(result: Result) -> str:
    """An earlier commit's service beside this one's, in the same run."""
    if "before" not in result:
        return "Not measured in the last run."
    commit, ways = result["before_commit"], [way for way in WAYS if way != "ceiling"]
    pairs = [name for way in ways for name in (EARLIER[way], way)]
    head = ("", *(f"{WAYS[way]}: {when}" for way in ways for when in (commit, "now")))
    rows = [
        ("images/s", *(ranged(result[way]["images_per_s_spread"], ".0f") for way in pairs)),
        ("to the ceiling", *(ranged(result["ratio_to_ceiling"][way], ".2f") for way in pairs)),
        *((f"{what}, CPU ms/image", *values) for what, *values in _cpu_rows(result, pairs)),
    ]
    return markdown(head, rows)


def latency(result: Result) -> str:
    """Latency, batch size and stages, of the round in the middle."""
    ways = [way for way in WAYS if way != "ceiling"]
    details = [_middle(result[way]) for way in ways]
    rows = [
        (f"latency {name}, ms", *(f"{one['latency_ms'][name]:.0f}" for one in details))
        for name in ("p50", "p95", "p99")
    ]
    rows += [
        (f"mean {stage}, ms", *(f"{one['stage_mean_us'][stage] / 1000:.1f}" for one in details))
        for stage in details[0]["stage_mean_us"]
    ]
    rows.append(("mean batch size", *(f"{one['mean_batch_size']:.2f}" for one in details)))
    return markdown((f"{result['settings']['concurrency']} callers", *(WAYS[way] for way in ways)), rows)


def start(result: Result) -> str:
    """Time from the command to ready."""
    rows = [("from the command to ready, s", ranged(result["start_s"], ".2f"), f"{result['first_start_s']:.2f}")]
    return f"{_circumstances(result)}\n\n{markdown(('', 'median (range)', 'first start: compiles the model'), rows)}"


def parts(result: Result) -> str:
    """CPU while idle and memory of each part."""
    idle, memory = result["idle_cpu_percent"], result["memory_mib"]
    rows = [(name, f"{share:.2f}", *memory_cells(memory, name)) for name, share in idle.items()]
    totals = [sum(of[kind] for of in memory[when].values()) for when, kind in _MEMORY]
    rows.append(("**all**", f"{sum(idle.values()):.2f}", *(f"{whole:.0f}" for whole in totals)))
    head = ("part", "idle, % of a core", "RSS, MiB", "PSS, MiB", "RSS after load", "PSS after load")
    return markdown(head, rows)


_MEMORY = [(when, kind) for when in ("before_requests", "after_load") for kind in ("rss", "pss")]


def memory_cells(memory: Mapping[str, Any], part: str) -> list[str]:
    """MiB of a part: RSS and PSS before requests, and after a load."""
    return [f"{memory[when][part][kind]:.0f}" for when, kind in _MEMORY]


def label_of(component: str) -> str:
    """As the tables call it."""
    return LABELS.get(component, component)


def component(way: Mapping[str, Any], name: str) -> str:
    """CPU milliseconds an image of one component; empty where it wasn't there."""
    value = way["cpu_ms_per_image"].get(name)
    return "" if value is None else f"{value:.3f}"


def total(way: Mapping[str, Any], names: Iterable[str]) -> str:
    """CPU milliseconds an image of these components together."""
    return f"{sum(way['cpu_ms_per_image'].get(name, 0.0) for name in names):.3f}"


def _middle(way: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details of the round with the median rate."""
    rates: list[float] = way["images_per_s_spread"]["rounds"]
    chosen: Mapping[str, Any] = way["details"][rates.index(sorted(rates)[len(rates) // 2])]
    return chosen


def _circumstances(result: Result) -> str:
    machine = result["machine"]
    return (
        f"Measured {result['date'][:10]}: {machine['cpu']}, {machine['cores_used']} cores, "
        f"{machine['memory_gib']:.0f} GiB; `{result['command']}`."
    )
