"""Tables and plots of docs/concurrency.md, from the results.

python -m benchmarks.concurrency.report [--gpu FOLDER] [--embedded FOLDER]

Takes new results from the folder that ``concurrency.run`` wrote, and from that of a ``shoal profile`` on the embedded
engine, into benchmarks/results; then replaces what stands between ``<!-- figures: concurrency-NAME -->`` and
``<!-- end -->`` in the chapter. A block without results stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.common.chapter import markdown, ranged, update
from benchmarks.common.files import DOCS, IMAGES, RESULTS, read_json, write_json
from shoal.profile.plot import STYLE, draw, in_flight_axis
from shoal.profile.records import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Result = Mapping[str, Any]

CHAPTER = DOCS / "concurrency.md"
AIM = 0.90
"""Images a second to the ceiling's."""

SOURCES = {
    "raw": Path("raw.json"),
    "lanes": Path("lanes/profile.json"),
    "processes": Path("processes/profile.json"),
    "together": Path("together.json"),
}
"""What an experiment wrote, in its folder; ``gpu_NAME.json`` in benchmarks/results."""
SERVERS = {"one-process": "one process", "a-process-each": "a process each"}


def main() -> None:
    """Brings the chapter up to date."""
    options = parser().parse_args()
    if options.gpu:
        take(options.gpu)
    if options.embedded:
        keep(options.embedded / "profile.json", "profile_embedded")
    results = {name: [read_json(RESULTS / f"{one}.json") for one in needed] for name, (needed, _) in BLOCKS.items()}
    there = {name: found for name, found in results.items() if None not in found}
    update(CHAPTER, {f"concurrency-{name}": BLOCKS[name][1](*found) for name, found in there.items()})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--gpu", type=Path)
    made.add_argument("--embedded", type=Path)
    return made


def take(folder: Path) -> None:
    """Copies an experiment's results to their place."""
    for name, source in SOURCES.items():
        if (folder / source).is_file():
            keep(folder / source, f"gpu_{name}")


def keep(source: Path, name: str) -> None:
    """Puts a result into its place, without the folders of the one who ran it."""
    result = json.loads(source.read_text(encoding="utf-8"))
    if "command" in result:
        result["command"] = _command(result["command"])
    write_json(RESULTS / f"{name}.json", result)


def in_flight(raw: Result, lanes: Result, processes: Result) -> str:
    """Each number of batches in flight through Triton, beside the ceiling; all three as lines."""
    ceiling = by_concurrency(raw)
    rows = []
    for in_flight, cell in by_concurrency(lanes).items():
        top = ceiling[in_flight]
        ratio = cell["images_per_s"]["median"] / top["images_per_s"]["median"]
        rows.append(
            (
                str(in_flight),
                ranged(cell["images_per_s"], ",.0f"),
                *_latency(cell),
                ranged(top["images_per_s"], ",.0f"),
                f"{top['p50_ms']['median']:.2f}",
                f"{ratio:.2f}" if ratio >= AIM else f"**{ratio:.2f}**",
            )
        )
    head = ("in flight", "images/s, median (range)", "p50, ms", "p99, ms", "ceiling, images/s", "its p50, ms", "ratio")
    missed = f"The aim is {AIM:.2f} of the ceiling; what misses it is in bold."
    lines = {"ceiling, no server": raw, "Triton, lanes": lanes, "Triton, a process each": processes}
    compare(lines, IMAGES / "concurrency-gpu.png")
    plot = "![images/s and latency against batches in flight](images/concurrency-gpu.png)"
    return "\n\n".join([_circumstances(lanes), markdown(head, rows), missed, plot])


def compare(lines: Mapping[str, Result], path: Path) -> None:
    """Images a second, with the rounds' range, and the median latency of a batch, against batches in flight."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        rate, latency = figure.subplots(1, 2)
        for label, result in lines.items():
            cells = by_concurrency(result)
            rates = [cell["images_per_s"] for cell in cells.values()]
            middle = [each["median"] for each in rates]
            below = [each["median"] - each["min"] for each in rates]
            above = [each["max"] - each["median"] for each in rates]
            rate.errorbar(list(cells), middle, (below, above), label=label, marker="o", markersize=4, capsize=3)
            latency.plot(list(cells), [cell["p50_ms"]["median"] for cell in cells.values()], marker="o", markersize=4)
        for axes, name in ((rate, "images/s"), (latency, "p50 of a batch, ms")):
            in_flight_axis(axes, sorted({n for result in lines.values() for n in by_concurrency(result)}))
            axes.set_ylabel(name)
        figure.legend(loc="outside lower center", ncols=len(lines))
        figure.savefig(path, dpi=110)


def instances(lanes: Result, processes: Result) -> str:
    """Lanes in one process against a process each, with as many batches in flight."""
    one, each = by_concurrency(lanes), by_concurrency(processes)
    rows = [(str(n), *_figures(one[n]), *_figures(each[n])) for n in sorted(one.keys() & each.keys())]
    head = ("in flight", "lanes: images/s", "p50, ms", "p99, ms", "processes: images/s", "p50, ms", "p99, ms")
    return markdown(head, rows)


def together(result: Result) -> str:
    """Two networks at once, in one process and in two."""
    rows = []
    for server, label in SERVERS.items():
        for in_flight in sorted({row["in_flight"] for row in result["rows"]}):
            chosen = [row for row in result["rows"] if (row["server"], row["in_flight"]) == (server, in_flight)]
            names = list(max(chosen, key=lambda row: len(row["networks"]))["networks"])
            alone = [_rounds(chosen, [name], name) for name in names]
            both = [_rounds(chosen, names, name) for name in names]
            share = sum(_rate(at_once) / _rate(by_itself) for at_once, by_itself in zip(both, alone, strict=True))
            cells = [f"{_rate(rounds):,.0f}" for rounds in (*alone, *both)]
            p99 = [f"{median(one['p99_ms'] for one in rounds):.1f}" for rounds in both]
            rows.append((label, str(in_flight), *cells, *p99, f"{share:.2f}"))
    names = list(max(result["rows"], key=lambda row: len(row["networks"]))["networks"])
    draw_together(names, rows, IMAGES / "concurrency-together.png")
    head = (
        "server",
        "in flight, each",
        *(f"{name} alone, images/s" for name in names),
        *(f"{name}, both at once" for name in names),
        *(f"{name}, both: p99, ms" for name in names),
        "sum of the shares",
    )
    return f"{markdown(head, rows)}\n\n![images/s of each network, both at once](images/concurrency-together.png)"


def draw_together(names: Sequence[str], rows: Sequence[Sequence[str]], path: Path) -> None:
    """Both networks' images a second at once, side by side for each server and load."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 1 + 0.5 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for number, name in enumerate(names):
            rates = [float(row[2 + len(names) + number].replace(",", "")) for row in rows]
            places = [place + (number - 0.5) * 0.36 for place in range(len(rows))]
            axes.bar_label(axes.barh(places, rates, 0.36, label=name), fmt="{:,.0f}", padding=3)
        axes.set_yticks(range(len(rows)), [f"{row[0]}, {row[1]} in flight each" for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("images/s, both at once")
        figure.legend(loc="outside lower center", ncols=len(names))
        figure.savefig(path, dpi=110)


def embedded(result: Result) -> str:
    """The embedded engine's profile."""
    rows = [
        (str(cell["instances"]), str(cell["batch"]), str(cell["concurrency"]), *_figures(cell))
        for cell in result["cells"]
    ]
    head = ("instances", "batch", "in flight", "images/s, median (range)", "p50, ms", "p99, ms")
    plot = _plot(result, "concurrency-embedded")
    return "\n\n".join([_circumstances(result), markdown(head, rows), plot])


BLOCKS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "in-flight": (("gpu_raw", "gpu_lanes", "gpu_processes"), in_flight),
    "instances": (("gpu_lanes", "gpu_processes"), instances),
    "together": (("gpu_together",), together),
    "embedded": (("profile_embedded",), embedded),
}


def by_concurrency(result: Result) -> dict[int, Mapping[str, Any]]:
    """The cells, of which no two have the same."""
    return {cell["concurrency"]: cell for cell in result["cells"]}


def _figures(cell: Mapping[str, Any]) -> tuple[str, ...]:
    return (ranged(cell["images_per_s"], ",.0f"), *_latency(cell))


def _latency(cell: Mapping[str, Any]) -> tuple[str, str]:
    return f"{cell['p50_ms']['median']:.2f}", f"{cell['p99_ms']['median']:.2f}"


def _rounds(rows: Iterable[Mapping[str, Any]], names: Sequence[str], name: str) -> list[Mapping[str, Any]]:
    """One network's rounds under the load of ``names``."""
    return [row["networks"][name] for row in rows if list(row["networks"]) == list(names)]


def _rate(rounds: Iterable[Mapping[str, Any]]) -> float:
    return float(median(one["images_per_s"] for one in rounds))


def _circumstances(result: Result) -> str:
    machine, subject = result["machine"], result["subject"]
    where = ", ".join(machine["gpus"]) or machine["cpu"]
    return (
        f"Measured {result['date'][:10]}: {where}, {machine['cores']} cores, load average {result['load_average']:.1f} "
        f"before it; {subject['engine']} {subject['engine_version']}, batches by {_by(subject['transport'])}; "
        f"`{result['command']}`."
    )


def _by(transport: str) -> str:
    return {"in process": "reference"}.get(transport, transport)


def _command(text: str) -> str:
    """Without the folder of the one who ran it, and the port that was free."""
    words = text.split()
    for option, value in (("--output", "DIR"), ("--images", "DIR"), ("--triton", "HOST:PORT")):
        if option in words:
            words[words.index(option) + 1] = value
    return " ".join(words)


def _plot(result: Result, name: str) -> str:
    subject, machine = result["subject"], result["machine"]
    title = f"{subject['model']}, {', '.join(machine['gpus']) or machine['cpu']}"
    cells = [
        Cell(**{key: value for key, value in cell.items() if key in Cell.model_fields}) for cell in result["cells"]
    ]
    draw(cells, title, IMAGES, names=(f"{name}.png",))
    return f"![images/s and latency against batches in flight](images/{name}.png)"


if __name__ == "__main__":
    main()
