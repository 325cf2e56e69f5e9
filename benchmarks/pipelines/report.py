"""What a pipeline costs, and saves: the tables and the plot of docs/pipelines.md, from results of ``pipelines.run``.

python -m benchmarks.pipelines.report

Replaces what stands between the markers of both blocks in the chapter, and the plot. The second result is one of a
larger machine: ``run --cores 16 --output benchmarks/results/pipelines_16_cores.json``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.common.chapter import markdown, ranged, update
from benchmarks.common.files import DOCS, IMAGES, read_result
from benchmarks.pipelines.names import CLIENT, OTHERS, PIPELINES, STORED, TRITON, UPLOADED, WAYS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Result = Mapping[str, Any]

CHAPTER = DOCS / "pipelines.md"
PLOT = IMAGES / "pipelines.png"
BLOCK = "pipelines"
LARGER = "pipelines_16_cores"
QUIET_SHARE = 0.05
"""Of the cores: other work than this leaves the figures be."""
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
    update(CHAPTER, {BLOCK: block(result), LARGER: larger(read_result(LARGER))})
    plot(result, PLOT)


def block(result: Result) -> str:
    """Circumstances, plot, what was measured, and who is ahead."""
    image = "![pictures a second and CPU milliseconds a picture](images/pipelines.png)"
    return "\n\n".join((circumstances(result), image, speed(result), lead(result), parts(result)))


def larger(result: Result) -> str:
    """The same without the plot, and without the costs by part."""
    return "\n\n".join((circumstances(result), speed(result), lead(result)))


def circumstances(result: Result) -> str:
    """Where, when and how."""
    machine, settings = result["machine"], result["settings"]
    tried = [row for row in result["rows"] if row["way"] == TRITON]
    instances = ", ".join(str(row["instances"]) for row in tried)
    quiet = all(_is_quiet(row, machine["cores_used"]) for row in result["rows"])
    busy = "" if quiet else " In italics: other work kept more than a twentieth of the cores busy, so they mean little."
    return (
        f"Measured {result['date'][:10]} at commit {result['commit']}: {machine['cpu']}, {machine['cores_used']} cores "
        f"for everything, load average {result['load_average']:.1f} before it; `{result['command']}`. "
        f"{settings['rounds']} rounds of {settings['seconds']:g} s, all ways in turns; medians (range). Processes "
        f"of Triton's calling model, the fastest of {', '.join(tried[0]['instances_tried'])} in each row: "
        f"{instances}.{busy}"
    )


def speed(result: Result) -> str:
    """A row a way and number of boxes."""
    head = (
        *("objects a picture", "pictures at a time", "way", "pictures/s", "p50, ms", "p99, ms", "CPU ms a picture"),
        *("KiB from the client", "KiB between processes", "mean batch of the classifier"),
    )
    cores = result["machine"]["cores_used"]
    rows = [
        (
            str(row["objects"]),
            str(row["at_once"]),
            TITLES.get(row["way"], row["way"]),
            _quiet(row, cores, ranged(row["images_per_s_spread"], ".1f")),
            *(_quiet(row, cores, f"{row[name]['median']:,.0f}") for name in ("p50_ms", "p99_ms")),
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
            f"{_objects(row['objects'])}, {row['at_once']} at a time, {row['way']}",
            *(f"{row['cpu_ms_per_image'][name]:.1f}" for name in PARTS),
        )
        for row in result["rows"]
        if row["way"] in PIPELINES
    ]
    return markdown(("CPU ms a picture", *PARTS.values()), rows)


def lead(result: Result) -> str:
    """How many pictures the pipeline does for each of the others', within a round; bold where it is behind."""
    head = ("pictures/s, of", *(f"{way} / {TITLES.get(other, other)}" for way in PIPELINES for other in OTHERS))
    found = {(row["objects"], row["at_once"], row["way"]): row["lead"] for row in result["rows"]}
    rows = [
        (
            f"{_objects(count)}, {at_once} at a time",
            *(_ahead(found[count, at_once, way][other]) for way in PIPELINES for other in OTHERS),
        )
        for count, at_once in dict.fromkeys((row["objects"], row["at_once"]) for row in result["rows"])
    ]
    return markdown(head, rows)


def plot(result: Result, path: Path) -> None:
    """Pictures a second with their range, few and many at a time, and CPU time a picture of the many."""
    from matplotlib import pyplot as plt  # the benchmarks do without

    counts = list(dict.fromkeys(row["objects"] for row in result["rows"]))
    times = [row["at_once"] for row in result["rows"]]
    few, many = min(times), max(times)
    shown = (
        (few, "images_per_s_spread", "pictures/s"),
        (many, "images_per_s_spread", "pictures/s"),
        (many, "cpu_ms_per_image_in_all", "CPU milliseconds a picture"),
    )
    figure, panels = plt.subplots(1, len(shown), figsize=(12, 3.6), layout="constrained")
    width = 0.8 / len(WAYS)
    for axes, (at_once, name, title) in zip(panels, shown, strict=True):
        for place, way in enumerate(WAYS):
            of = [row[name] for row in result["rows"] if (row["at_once"], row["way"]) == (at_once, way)]
            at = [number + (place - (len(WAYS) - 1) / 2) * width for number in range(len(counts))]
            ends = [[each["median"] - each["min"] for each in of], [each["max"] - each["median"] for each in of]]
            heights = [each["median"] for each in of]
            label = TITLES.get(way, way)
            axes.bar(at, heights, width, yerr=ends, color=COLOURS[way], ecolor="#555555", label=label)
        axes.set_xticks(range(len(counts)), [_objects(count) for count in counts])
        axes.set_title(f"{at_once} pictures at a time", fontsize="medium")
        axes.set_ylabel(title)
    panels[0].legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _ahead(ratio: Mapping[str, float]) -> str:
    text = ranged(ratio, ".2f")
    return text if ratio["median"] >= 1 else f"**{text}**"


def _quiet(row: Mapping[str, Any], cores: int, text: str) -> str:
    return text if _is_quiet(row, cores) else f"*{text}*"


def _is_quiet(row: Mapping[str, Any], cores: int) -> bool:
    return bool(row["other_cores"]["median"] < cores * QUIET_SHARE)


if __name__ == "__main__":
    main()
