"""What a pipeline costs, and saves: the tables and the plot of docs/pipelines.md, from results of ``pipelines.run``.

python -m benchmarks.pipelines.report

Replaces what stands between the markers of both blocks in the chapter, and the plot. The second result is one under
real-time scheduling, which all processes inherit: ``chrt -r 1 python -m benchmarks.pipelines.run --output
benchmarks/results/pipelines_real_time.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.chapter import QUIET_CORES, markdown, ranged, update
from benchmarks.common.files import DOCS, IMAGES, read_result
from benchmarks.pipelines.names import CLIENT, OTHERS, PIPELINES, STORED, TRITON, UPLOADED, WAYS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Result = Mapping[str, Any]

CHAPTER = DOCS / "pipelines.md"
PLOT = IMAGES / "pipelines.png"
BLOCK = "pipelines"
REAL_TIME = "pipelines_real_time"
COLOURS = {UPLOADED: "#d1495b", STORED: "#edae49", CLIENT: "#b5b5b5", TRITON: "#4c6a92"}
TITLES = {TRITON: "Triton alone"}
PARTS = {
    "decode": "decode and cut",
    "inference": "networks",
    "fetch": "fetch",
    "rest": "rest of the worker",
    "batcher": "batcher",
    "router": "router",
    "pipeline": "pipeline",
    "store": "store",
    "client": "client",
}
"""Components, of which the first four are the worker's."""


def main() -> None:
    """Brings the section up to date."""
    result = read_result(BLOCK)
    update(CHAPTER, {BLOCK: block(result), REAL_TIME: real_time(read_result(REAL_TIME))})
    plot(result, PLOT)


def block(result: Result) -> str:
    """Circumstances, plot, what was measured, and who is ahead."""
    image = "![pictures a second and CPU milliseconds a picture](images/pipelines.png)"
    return "\n\n".join((circumstances(result), image, speed(result), lead(result), parts(result)))


def real_time(result: Result) -> str:
    """Who is ahead where nobody waits for a core while another is idle."""
    return "\n\n".join((circumstances(result, "chrt -r 1 "), lead(result)))


def circumstances(result: Result, prefix: str = "") -> str:
    """Where, when and how; ``prefix`` of the command."""
    machine, settings = result["machine"], result["settings"]
    tried = [row for row in result["rows"] if row["way"] == TRITON]
    instances = ", ".join(f"{row['instances']} ({row['objects']})" for row in tried)
    quiet = all(_is_quiet(row) for row in result["rows"])
    busy = "" if quiet else " In italics: other work kept more than a tenth of a core busy, so they mean little."
    return (
        f"Measured {result['date'][:10]} at commit {result['commit']}: {machine['cpu']}, {machine['cores_used']} cores "
        f"for everything, load average {result['load_average']:.1f} before it; `{prefix}{result['command']}`. "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s, all ways in turns, {settings['at_once']} pictures "
        f"at a time; medians (range). Processes of Triton's calling model, the fastest of "
        f"{', '.join(tried[0]['instances_tried'])}, and for how many objects: {instances}.{busy}"
    )


def speed(result: Result) -> str:
    """A row a way and number of boxes."""
    head = (
        *("objects a picture", "way", "pictures/s", "p50, ms", "p99, ms", "CPU ms a picture"),
        *("KiB from the client", "KiB between processes", "mean batch of the classifier"),
    )
    rows = [
        (
            str(row["objects"]),
            TITLES.get(row["way"], row["way"]),
            _quiet(row, ranged(row["images_per_s_spread"], ".1f")),
            *(_quiet(row, f"{row[name]['median']:,.0f}") for name in ("p50_ms", "p99_ms")),
            ranged(row["cpu_ms_per_image_in_all"], ".1f"),
            *(f"{row[name]['median']:,.1f}" for name in ("sent_kib", "moved_kib", "mean_batch")),
        )
        for row in result["rows"]
    ]
    return markdown(head, rows)


def parts(result: Result) -> str:
    """Where the CPU time of the pipeline's pictures goes."""
    rows = [
        (
            f"{_objects(row['objects'])}, {row['way']}",
            *(f"{row['cpu_ms_per_image'][name]:.1f}" for name in PARTS),
        )
        for row in result["rows"]
        if row["way"] in PIPELINES
    ]
    return markdown(("CPU ms a picture", *PARTS.values()), rows)


def lead(result: Result) -> str:
    """How many pictures the pipeline does for each of the others', within a round; bold where it is behind."""
    head = ("pictures/s, of", *(f"{way} / {TITLES.get(other, other)}" for way in PIPELINES for other in OTHERS))
    found = {(row["objects"], row["way"]): row["lead"] for row in result["rows"]}
    rows = [
        (_objects(count), *(_ahead(found[count, way][other]) for way in PIPELINES for other in OTHERS))
        for count in dict.fromkeys(row["objects"] for row in result["rows"])
    ]
    return markdown(head, rows)


def plot(result: Result, path: Path) -> None:
    """Pictures a second with their range, and CPU time a picture."""
    from matplotlib import pyplot as plt  # the benchmarks do without

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    names = {"images_per_s_spread": "pictures/s", "cpu_ms_per_image_in_all": "CPU milliseconds a picture"}
    counts = list(dict.fromkeys(row["objects"] for row in result["rows"]))
    width = 0.8 / len(WAYS)
    for axes, (name, title) in zip(panels, names.items(), strict=True):
        for place, way in enumerate(WAYS):
            of = [row[name] for row in result["rows"] if row["way"] == way]
            at = [number + (place - (len(WAYS) - 1) / 2) * width for number in range(len(counts))]
            ends = [[each["median"] - each["min"] for each in of], [each["max"] - each["median"] for each in of]]
            heights = [each["median"] for each in of]
            label = TITLES.get(way, way)
            axes.bar(at, heights, width, yerr=ends, color=COLOURS[way], ecolor="#555555", label=label)
        axes.set_xticks(range(len(counts)), [_objects(count) for count in counts])
        axes.set_ylabel(title)
    panels[0].legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _ahead(ratio: Mapping[str, float]) -> str:
    text = ranged(ratio, ".2f")
    return text if ratio["median"] >= 1 else f"**{text}**"


def _quiet(row: Mapping[str, Any], text: str) -> str:
    return text if _is_quiet(row) else f"*{text}*"


def _is_quiet(row: Mapping[str, Any]) -> bool:
    return bool(row["other_cores"]["median"] < QUIET_CORES)


if __name__ == "__main__":
    main()
