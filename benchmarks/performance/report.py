"""Tables and the plot of docs/performance.md, from the results.

python -m benchmarks.performance.report

Replaces what stands between ``<!-- figures: NAME -->`` and ``<!-- end -->`` in the chapter, and the plot.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.common.cpu import COMPONENTS
from benchmarks.common.figures import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Result = Mapping[str, Any]

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CHAPTER = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "performance.png"

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
COLOURS = {
    "inference": "#4c6a92",
    "decode": "#8fb0d3",
    "fetch": "#c9d9ea",
    "rest": "#d1495b",
    "batcher": "#edae49",
    "router": "#e07b39",
    "store": "#7a9e7e",
    "client": "#b5b5b5",
    "supervisor": "#555555",
}
AIM_RATIO, AIM_OVERHEAD_MS, AIM_START_SECONDS, AIM_IDLE_PERCENT = 0.80, 0.5, 5, 3

QUIET_CORES = 0.1
"""Other work that still leaves images a second meaningful."""


def main() -> None:
    """Brings the chapter up to date."""
    end_to_end, footprint = _read("end_to_end"), _read("footprint")
    text = CHAPTER.read_text(encoding="utf-8")
    blocks = {
        "aims": aims(end_to_end, footprint),
        "speed": speed(end_to_end),
        "cpu": cpu_table(end_to_end),
        "before": before(end_to_end),
        "before-12mp": before(_read("end_to_end_12mp")),
        "latency": latency(end_to_end),
        "start": start(footprint),
        "parts": parts(footprint),
    }
    for name, block in blocks.items():
        text = replace_block(text, name, block)
    CHAPTER.write_text(text, encoding="utf-8")
    plot(end_to_end, PLOT)


def _read(name: str) -> Result:
    found: Result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def replace_block(text: str, name: str, block: str) -> str:
    """``text`` with another content between the markers of ``name``; they must be there once."""
    marked = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    replaced, found = marked.subn(lambda match: f"{match[1]}{block}\n{match[2]}", text)
    if found != 1:
        raise ValueError(f"expected the markers of {name!r} once; found {found}")
    return replaced


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines)


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
    rows = [(label_of(name), *(_component(way, name) for way in each)) for name in COMPONENTS]
    overhead = ("*router + batcher + worker: rest*", *(_sum(way, OVERHEAD) for way in each))
    return [*rows, overhead, ("**all**", *(_sum(way, COMPONENTS) for way in each))]


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
    rows = [(name, f"{share:.2f}", *_memory(memory, name)) for name, share in idle.items()]
    totals = [sum(of[kind] for of in memory[when].values()) for when, kind in _MEMORY]
    rows.append(("**all**", f"{sum(idle.values()):.2f}", *(f"{total:.0f}" for total in totals)))
    head = ("part", "idle, % of a core", "RSS, MiB", "PSS, MiB", "RSS after load", "PSS after load")
    return markdown(head, rows)


_MEMORY = [(when, kind) for when in ("before_requests", "after_load") for kind in ("rss", "pss")]


def _memory(memory: Mapping[str, Any], part: str) -> list[str]:
    return [f"{memory[when][part][kind]:.0f}" for when, kind in _MEMORY]


def plot(result: Result, path: Path) -> None:
    """CPU time an image by component, stacked, for each way."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - the benchmarks do without

    figure, axes = plt.subplots(figsize=(10, 3.6), layout="constrained")
    left = [0.0] * len(WAYS)
    for name in COMPONENTS:
        widths = [result[way]["cpu_ms_per_image"].get(name, 0.0) for way in WAYS]
        if max(widths) >= 0.005:  # thinner than a line
            axes.barh(list(WAYS.values()), widths, left=left, color=COLOURS[name], label=label_of(name))
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("CPU milliseconds an image, median over the rounds")
    axes.set_title(f"Where the CPU time of a picture goes: {result['settings']['model']}, {result['date'][:10]}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


def console_table(result: Result) -> Table:
    """The end-to-end figures for a terminal."""
    table = Table(title=f"{result['settings']['model']}, {result['machine']['cores_used']} cores")
    table.add_column("median (range)")
    for label in WAYS.values():
        table.add_column(label, justify="right")
    table.add_row("images/s", *(ranged(result[way]["images_per_s_spread"], ".1f") for way in WAYS))
    table.add_row("to the ceiling", "1", *(ranged(result["ratio_to_ceiling"][way], ".3f") for way in list(WAYS)[1:]))
    table.add_row(
        "cores busy with other work", *(ranged(result[way]["other_cores"], ".2f") for way in WAYS), end_section=True
    )
    for name in COMPONENTS:
        table.add_row(f"{label_of(name)}, CPU ms", *(_component(result[way], name) for way in WAYS))
    table.add_row("all, CPU ms", *(_sum(result[way], COMPONENTS) for way in WAYS), end_section=True)
    overhead = ranged(result["overhead_cpu_ms_per_image"], ".3f")
    table.add_row("router + batcher + worker: rest, CPU ms", "", overhead, "")
    table.caption = caution(result).replace("*", "")
    return table


def footprint_console_table(result: Result) -> Table:
    """The footprint for a terminal."""
    table = Table(title=f"ready after {ranged(result['start_s'], '.2f')} s")
    for column in ("part", "idle, % of a core", "RSS, MiB", "PSS, MiB", "RSS after load", "PSS after load"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for name, share in result["idle_cpu_percent"].items():
        table.add_row(name, f"{share:.2f}", *_memory(result["memory_mib"], name))
    return table


def ranged(figure: Mapping[str, float], spec: str) -> str:
    """``median (least-most)``."""
    return f"{figure['median']:{spec}} ({figure['min']:{spec}}-{figure['max']:{spec}})"


def label_of(component: str) -> str:
    """As the tables call it."""
    return LABELS.get(component, component)


def _component(way: Mapping[str, Any], name: str) -> str:
    value = way["cpu_ms_per_image"].get(name)
    return "" if value is None else f"{value:.3f}"


def _sum(way: Mapping[str, Any], names: Iterable[str]) -> str:
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


if __name__ == "__main__":
    main()
