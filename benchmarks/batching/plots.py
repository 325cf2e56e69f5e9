"""A plot an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt

from benchmarks.batching.options import read_result
from benchmarks.batching.tables import way_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    Result = Mapping[str, Any]

BLUE, RED, YELLOW, GREEN, GREY = "#4c6a92", "#d1495b", "#edae49", "#7a9e7e", "#b5b5b5"
_WAYS = {0: (RED, "s--"), 1: (BLUE, "o-"), 2: (GREEN, "o-"), 4: (YELLOW, "o-")}


def curve(result: Result, path: Path) -> None:
    """Time a picture by batch size, to that of a batch of one."""
    figure, axes = _axes(1)
    gpu = read_result("curve_gpu")
    series = {f"{gpu['machine']['gpu']}, {gpu['settings']['model']}": gpu, "the embedded engine on a CPU": result}
    for (label, of), colour in zip(series.items(), (BLUE, GREY), strict=True):
        sizes = [int(size) for size in of["batch_ms"]]
        alone = of["batch_ms"]["1"]
        axes[0].plot(
            sizes, [of["batch_ms"][str(size)] / size / alone for size in sizes], "o-", color=colour, label=label
        )
    axes[0].set(xscale="log", xlabel="batch size", ylabel="time a picture, to that alone", ylim=(0, None))
    axes[0].set_xticks(sizes, [str(size) for size in sizes])
    axes[0].minorticks_off()
    axes[0].legend(fontsize="small", frameon=False)
    _save(figure, path)


def low_load(result: Result, path: Path) -> None:
    """p50 and p99."""
    figure, axes = _axes(1)
    rows = result["rows"]
    places = range(len(rows))
    for shift, (key, colour) in zip((-0.2, 0.2), (("p50_ms", BLUE), ("p99_ms", YELLOW)), strict=True):
        bars = axes[0].bar(
            [place + shift for place in places], [row[key] for row in rows], 0.38, color=colour, label=key[:3]
        )
        axes[0].bar_label(bars, fmt="%.1f", fontsize="small")
    axes[0].set_xticks(
        places, [f"batching {row['batching']}" if row["batching"] != "bare" else "bare path" for row in rows]
    )
    axes[0].set_ylabel("milliseconds")
    axes[0].margins(y=0.15)
    axes[0].legend(fontsize="small", frameon=False)
    _save(figure, path)


def overload(result: Result, path: Path) -> None:
    """Goodput, latency and batch size over the load."""
    figure, axes = _axes(3)
    rows, capacity = result["rows"], result["settings"]["capacity_per_s"]
    loads = [row["load"] for row in rows]
    _lines(axes[0], loads, {"offered": ("offered_per_s", GREY), "goodput": ("goodput_per_s", BLUE)}, rows)
    axes[0].axhline(capacity, color=GREY, linestyle=":", linewidth=1)
    axes[0].set(ylabel="a second")
    _lines(axes[1], loads, {"p99": ("p99_ms", YELLOW), "p50": ("p50_ms", BLUE)}, rows)
    axes[1].set(ylabel="milliseconds, of what was accepted")
    _lines(axes[2], loads, {"mean batch size": ("mean_batch_size", BLUE)}, rows)
    axes[2].axhline(result["settings"]["max_batch_size"], color=GREY, linestyle=":", linewidth=1)
    for one in axes:
        one.set(xlabel="load, to the capacity", ylim=(0, None))
    _save(figure, path)


def spread(result: Result, path: Path) -> None:
    """Batch size and engine time over replicas."""
    figure, axes = _axes(3)
    counts = sorted({row["replicas"] for row in result["rows"]})
    labels = {
        "mean_batch_size": "mean batch size",
        "engine_ms_per_image": "engine time a picture, ms",
        "p99_ms": "p99, ms",
    }
    for one, (figure_name, label) in zip(axes, labels.items(), strict=True):
        for way in dict.fromkeys(row["batchers"] for row in result["rows"]):
            of = {row["replicas"]: row[figure_name] for row in result["rows"] if row["batchers"] == way}
            colour, style = _WAYS[way]
            one.plot(counts, [of[count] for count in counts], style, color=colour, label=way_label(way))
        one.set(xscale="log", xlabel="replicas, at the same load in all", ylabel=label, ylim=(0, None))
        one.set_xticks(counts, [str(count) for count in counts])
        one.minorticks_off()
    axes[0].legend(fontsize="small", frameon=False)
    _save(figure, path)


def objective(result: Result, path: Path) -> None:
    """Engine time and p99 over the load, for one replica, as calculated; crosses are measured."""
    figure, axes = _axes(2)
    shown = (("to_full", "engine time a picture, to full batches'"), ("p99_ms", "p99, ms"))
    ways = {"objective-100": BLUE, "delay-0": RED, "delay-20": YELLOW, "delay-100": GREEN}
    for one, (key, label) in zip(axes, shown, strict=True):
        for way, colour in ways.items():
            for rows, style in ((result["calculated"], "-"), (result["measured"], "x")):
                of = {row["load"]: row[key] for row in rows if row["way"] == way and row["replicas"] == 1}
                name = way.replace("-", " ") + " ms" if style == "-" else None
                one.plot(list(of), list(of.values()), style, color=colour, label=name)
        one.set(xlabel="load of one replica", ylabel=label, ylim=(0, None))
        one.legend(fontsize="small", frameon=False)
    axes[1].axhline(result["settings"]["objective_ms"], color=GREY, linestyle=":", linewidth=1)
    axes[1].set(ylim=(0, 300))
    _save(figure, path)


def priority(result: Result, path: Path) -> None:
    """Latency of interactive calls, and the rates."""
    figure, axes = _axes(2)
    labels = {"alone": "alone", "beside": "beside\nbulk", "no_priority": "nobody\nbulk", "bulk_alone": "bulk\nalone"}
    by_window = {row["window"]: row for row in result["rows"]}
    for shift, (key, colour) in zip((-0.2, 0.2), (("p50_ms", BLUE), ("p99_ms", YELLOW)), strict=True):
        shown = [name for name in labels if key in by_window[name]]
        places = [place + shift for place in range(len(shown))]
        bars = axes[0].bar(places, [by_window[name][key] for name in shown], 0.38, color=colour, label=key[:3])
        axes[0].bar_label(bars, fmt="%.0f", fontsize="small")
    axes[0].set_xticks(range(len(shown)), [labels[name] for name in shown])
    axes[0].set_ylabel("milliseconds, interactive")
    few = [by_window[name].get("interactive_per_s", 0) for name in labels]
    many = [by_window[name].get("much_per_s", 0) for name in labels]
    axes[1].bar(list(labels.values()), few, 0.5, color=BLUE, label="interactive")
    axes[1].bar(list(labels.values()), many, 0.5, bottom=few, color=GREY, label="who asks much")
    axes[1].set_ylabel("answers a second")
    for one in axes:
        one.margins(y=0.25)
        one.legend(fontsize="small", frameon=False)
    _save(figure, path)


def neighbours(result: Result, path: Path) -> None:
    """Good answers a second among broken pictures; p99 of the good ones among hanging ones."""
    figure, axes = _axes(2)
    shown = (("broken", "good_per_s", "good answers a second"), ("hanging", "p99_ms", "p99 of good answers, ms"))
    for one, (name, key, label) in zip(axes, shown, strict=True):
        rows = result[name]
        bars = one.bar([row["stream"] for row in rows], [row[key] for row in rows], 0.5, color=(BLUE, RED))
        one.bar_label(bars, fmt="%.0f")
        one.set_ylabel(label)
        one.margins(y=0.15)
    _save(figure, path)


def direct(result: Result, path: Path) -> None:
    """Calls a CPU-second."""
    figure, axes = _axes(1)
    rows = result["rows"]
    colours = {"envoy": BLUE, "grpcio": GREY}
    bars = axes[0].barh(
        [f"{row['front']}, {row['way']}, batches of {row['size']}" for row in rows],
        [row["calls_per_cpu_s"] for row in rows],
        color=[colours[row["front"]] for row in rows],
    )
    axes[0].bar_label(bars, fmt="{:,.0f}")
    axes[0].margins(x=0.15)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("calls a CPU-second of batcher")
    _save(figure, path)


PLOTS: dict[str, Callable[[Result, Path], None]] = {
    "curve": curve,
    "low_load": low_load,
    "overload": overload,
    "spread": spread,
    "objective": objective,
    "priority": priority,
    "neighbours": neighbours,
    "direct": direct,
}


def _axes(count: int) -> tuple[Any, Sequence[Axes]]:
    figure, axes = plt.subplots(1, count, figsize=(max(6.0, 3.8 * count), 3.2), layout="constrained", squeeze=False)
    return figure, list(axes[0])


def _lines(axes: Axes, xs: Sequence[float], lines: Mapping[str, tuple[str, str]], rows: Sequence[Result]) -> None:
    for label, (key, colour) in lines.items():
        axes.plot(xs, [row[key] for row in rows], "o-", color=colour, label=label)
    axes.legend(fontsize="small", frameon=False)


def _save(figure: Any, path: Path) -> None:  # matplotlib's Figure, which needs no import here
    figure.savefig(path, dpi=110)
    plt.close(figure)
