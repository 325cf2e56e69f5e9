"""Tables and the plot of docs/performance.md, from the results.

python -m benchmarks.performance.report

Replaces what stands between ``<!-- figures: NAME -->`` and ``<!-- end -->`` in the chapter, and the plot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.bars import stack
from benchmarks.common.chapter import update
from benchmarks.common.cpu import COMPONENTS
from benchmarks.common.files import DOCS, IMAGES, read_result
from benchmarks.performance.tables import WAYS, aims, before, cpu_table, label_of, latency, parts, speed, start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Result = Mapping[str, Any]

CHAPTER = DOCS / "performance.md"
PLOT = IMAGES / "performance.png"

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
_LINE_MS = 0.005
"""Less is thinner than a line."""


def main() -> None:
    """Brings the chapter up to date."""
    end_to_end, footprint = read_result("end_to_end"), read_result("footprint")
    blocks = {
        "aims": aims(end_to_end, footprint),
        "speed": speed(end_to_end),
        "cpu": cpu_table(end_to_end),
        "before": before(end_to_end),
        "before-12mp": before(read_result("end_to_end_12mp")),
        "before-streams": before(read_result("end_to_end_streams")),
        "latency": latency(end_to_end),
        "start": start(footprint),
        "parts": parts(footprint),
    }
    update(CHAPTER, blocks)
    plot(end_to_end, PLOT)


def plot(result: Result, path: Path) -> None:
    """CPU time an image by component, stacked, for each way."""
    from matplotlib import pyplot as plt  # the benchmarks do without

    figure, axes = plt.subplots(figsize=(10, 3.6), layout="constrained")
    widths = {name: [result[way]["cpu_ms_per_image"].get(name, 0.0) for way in WAYS] for name in COMPONENTS}
    seen = {label_of(name): of for name, of in widths.items() if max(of) >= _LINE_MS}
    stack(axes, list(WAYS.values()), seen, {label_of(name): colour for name, colour in COLOURS.items()})
    axes.set_xlabel("CPU milliseconds an image, median over the rounds")
    axes.set_title(f"Where the CPU time of a picture goes: {result['settings']['model']}, {result['date'][:10]}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=4, fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
