"""Each experiment's result as tables, for the terminal and for the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.batching.options import read_result
from benchmarks.common.chapter import markdown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Result = Mapping[str, Any]

AIM_GOODPUT, AIM_P99_RATIO, AIM_BARE_MS = 0.95, 2.0, 5.0
AIM_PRIORITY_P99, AIM_BULK = 1.5, 0.9
AIM_ENGINE = 1.2
AIM_CALLS = {"unary": 8_000, "stream": 20_000}


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """For the documentation."""
        return markdown(self.head, self.rows)

    def rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title)
        for number, name in enumerate(self.head):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def curve(result: Result) -> list[Sheet]:
    """The embedded engine and the GPU."""
    gpu = read_result("curve_gpu")
    rows = [
        (size, *(f"{of[key][size]:{spec}}" for of in (result, gpu) for key, spec in _COST))
        for size in result["batch_ms"]
    ]
    head = ("batch", "embedded engine, ms", "images/s", f"{gpu['machine']['gpu']}, ms", "images/s")
    return [Sheet("What a batch costs", head, rows)]


_COST = (("batch_ms", ".2f"), ("images_per_s", ".0f"))


def low_load(result: Result) -> list[Sheet]:
    """Batching on, off, and the bare path."""
    names = {
        "on": "batching on",
        "off": "batching off",
        "bare": "one caller, a worker that answers at once",
    }
    rows = [
        (
            names[row["batching"]],
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            f"{row['mean_batch_size']:.2f}",
            f"{row['answers']:,}",
        )
        for row in result["rows"]
    ]
    return [Sheet("Little load", ("", "p50, ms", "p99, ms", "mean batch", "answers"), rows)]


def overload(result: Result) -> list[Sheet]:
    """One row a load."""
    rows = [
        (
            f"{row['load']:g}",
            f"{row['offered_per_s']:.0f}",
            f"{row['goodput_per_s']:.0f}",
            f"{row['mean_batch_size']:.1f}",
            f"{row['p50_ms']:.0f}",
            f"{row['p99_ms']:.0f}",
            f"{100 * row['refused_share']:.1f} %",
            str(sum(count for code, count in row["errors"].items() if code != "RESOURCE_EXHAUSTED")),
        )
        for row in result["rows"]
    ]
    head = ("load", "offered/s", "goodput/s", "mean batch", "p50, ms", "p99, ms", "refused", "failed otherwise")
    return [Sheet("From little to too much", head, rows)]


def spread(result: Result) -> list[Sheet]:
    """One table a figure: replicas down, ways across."""
    by_place = {(row["batchers"], row["replicas"]): row for row in result["rows"]}
    ways = list(dict.fromkeys(row["batchers"] for row in result["rows"]))
    replicas = list(dict.fromkeys(row["replicas"] for row in result["rows"]))
    head = ("replicas", *(way_label(way) for way in ways))
    sheets = []
    for figure, title, spec in _SPREAD:
        rows = [(str(count), *(f"{by_place[way, count][figure]:{spec}}" for way in ways)) for count in replicas]
        if figure == "mean_batch_size":
            rows.append(("**kept**", *(f"**{100 * result['kept'][str(way)]:.0f} %**" for way in ways)))
        sheets.append(Sheet(title, (f"{title}: {head[0]}", *head[1:]), rows))
    return sheets


_SPREAD = (
    ("mean_batch_size", "mean batch size", ".1f"),
    ("engine_ms_per_image", "engine ms a picture", ".1f"),
    ("goodput_per_s", "answers a second", ".0f"),
    ("p99_ms", "p99, ms", ".0f"),
)


def way_label(batchers: int) -> str:
    """Where batches are made."""
    if not batchers:
        return "inside each replica"
    return f"{batchers} batcher{'s' if batchers > 1 else ''} in front"


def objective(result: Result) -> list[Sheet]:
    """What was measured, then what was calculated under virtual time."""
    return [
        Sheet(
            "Measured",
            (*_OBJECTIVE, "p50, ms", "p99, ms", "client late, ms", "failed"),
            [_measured(row) for row in result["measured"]],
        ),
        Sheet(
            "Calculated under virtual time, not measured",
            (*_OBJECTIVE, "p99, ms", "replicas used"),
            [
                _calculated(row)
                for row in result["calculated"]
                if row["load"] in _SHOWN_LOADS and row["replicas"] in _SHOWN
            ],
        ),
    ]


_OBJECTIVE = ("replicas, load", "closes by", "engine time, to full batches'", "mean batch")
_SHOWN_LOADS, _SHOWN = (0.1, 0.3, 0.5, 0.8, 0.9), (1, 4, 16)


def _way(row: Result) -> tuple[str, ...]:
    kind, _, milliseconds = row["way"].partition("-")
    return (
        f"{row['replicas']}, {row['load']:g}",
        f"{kind} {milliseconds} ms",
        f"{row['to_full']:.2f}",
        f"{row['mean_batch_size']:.1f}",
    )


def _measured(row: Result) -> tuple[str, ...]:
    figures = (f"{row[key]:.0f}" for key in ("p50_ms", "p99_ms", "send_lag_max_ms"))
    return (*_way(row), *figures, str(sum(row["errors"].values())))


def _calculated(row: Result) -> tuple[str, ...]:
    return (*_way(row), f"{row['p99_ms']:.0f}", str(row["used_replicas"]))


def priority(result: Result) -> list[Sheet]:
    """One row a window."""
    names = {
        "alone": "interactive alone",
        "bulk_alone": "bulk alone",
        "beside": "interactive beside bulk",
        "no_priority": "the same, nobody bulk",
    }
    rows = [
        (names[row["window"]], *(f"{row[key]:{spec}}" if key in row else "" for key, spec in _PRIORITY.values()))
        for row in result["rows"]
    ]
    return [Sheet("Interactive callers beside bulk", ("", *_PRIORITY), rows)]


_PRIORITY = {
    "interactive/s": ("interactive_per_s", ".0f"),
    "p50, ms": ("p50_ms", ".0f"),
    "p99, ms": ("p99_ms", ".0f"),
    "mean batch": ("interactive_batch", ".1f"),
    "bulk/s": ("much_per_s", ".0f"),
    "bulk p99, ms": ("much_p99_ms", ".0f"),
    "bulk mean batch": ("much_batch", ".1f"),
}


def neighbours(result: Result) -> list[Sheet]:
    """Broken pictures in a closed loop, hanging ones in an open one."""
    return [
        Sheet("Broken pictures", _STREAM_HEAD, [_stream(row) for row in result["broken"]]),
        Sheet("GETs that never end", _STREAM_HEAD, [_stream(row) for row in result["hanging"]]),
    ]


_STREAM_HEAD = ("stream", "good/s", "p50 of good, ms", "p99 of good, ms", "good that failed", "bad, by status")


def _stream(row: Result) -> tuple[str, ...]:
    good, bad = row["became"]["good"], row["became"]["bad"]
    return (
        row["stream"],
        f"{row['good_per_s']:.1f}",
        f"{row['p50_ms']:.0f}",
        f"{row['p99_ms']:.0f}",
        f"{sum(good.values()) - good['OK']} of {sum(good.values()):,}",
        ", ".join(f"{count} {code}" for code, count in bad.items()) or "none sent",
    )


def direct(result: Result) -> list[Sheet]:
    """One row a door, way and batch size."""
    rows = [
        (
            f"{row['front']}, {row['way']}, batches of {row['size']}",
            f"{row['calls_per_cpu_s']:,}",
            f"{row['calls_per_s']:,}",
            f"{row['batcher_cores']:.2f}",
            f"{row['mean_batch_size']:.1f}",
        )
        for row in result["rows"]
    ]
    head = ("door and way", "calls a CPU-second", "calls/s", "batcher's cores", "mean batch")
    return [Sheet("A CPU-second of batcher", head, rows)]


SHEETS: dict[str, Callable[[Result], list[Sheet]]] = {
    "curve": curve,
    "low_load": low_load,
    "overload": overload,
    "spread": spread,
    "objective": objective,
    "priority": priority,
    "neighbours": neighbours,
    "direct": direct,
}


def aims(results: Mapping[str, Result]) -> Sheet:
    """What was aimed at, what was measured."""
    low, over, beside = results["low_load"], results["overload"], results["priority"]
    delay = low["settings"]["max_queue_delay_ms"]
    bare = next(row["p50_ms"] for row in low["rows"] if row["batching"] == "bare")
    failed = sum(
        sum(row["became"]["good"].values()) - row["became"]["good"]["OK"] for row in results["neighbours"]["broken"]
    )
    calls = {
        way: max(row["calls_per_cpu_s"] for row in results["direct"]["rows"] if row["way"] == way) for way in AIM_CALLS
    }
    rise = low["rise_ms"]
    promised, worst, engine = kept_promise(results["objective"])
    rows: list[tuple[str, str, str, bool]] = [
        ("rise of p50 by batching at low load", f"{delay:g} ms", f"{rise['p50_ms']:.1f} ms", rise["p50_ms"] <= delay),
        ("rise of p99 by batching at low load", f"{delay:g} ms", f"{rise['p99_ms']:.1f} ms", rise["p99_ms"] <= delay),
        ("p50 of the bare path", f"{AIM_BARE_MS:g} ms", f"{bare:.1f} ms", bare < AIM_BARE_MS),
        (
            "goodput at twice the capacity, to the peak",
            f"{AIM_GOODPUT}",
            f"{over['goodput_kept']:.2f}",
            over["goodput_kept"] >= AIM_GOODPUT,
        ),
        (
            "p99 at twice the capacity, to that at 0.9",
            f"{AIM_P99_RATIO:g}",
            f"{over['p99_ratio']:.2f}",
            over["p99_ratio"] <= AIM_P99_RATIO,
        ),
        (
            "interactive p99 beside bulk, to that alone",
            f"{AIM_PRIORITY_P99:g}",
            f"{beside['p99_ratio']:.2f}",
            beside["p99_ratio"] <= AIM_PRIORITY_P99,
        ),
        (
            "bulk's share of what interactive calls leave",
            f"{AIM_BULK:g}",
            f"{beside['bulk_of_the_rest']:.2f}",
            beside["bulk_of_the_rest"] >= AIM_BULK,
        ),
        (
            f"p99 by an objective of {promised} ms, at the worst load below 0.9",
            f"{promised} ms",
            f"{worst:.0f} ms",
            worst <= promised,
        ),
        (
            "engine time by it at 0.3 of the capacity, to full batches'",
            f"{AIM_ENGINE:g}",
            f"{engine:.2f}",
            engine <= AIM_ENGINE,
        ),
        ("good pictures that failed among broken ones", "0", str(failed), not failed),
        *(
            (f"calls a CPU-second of batcher, {way}", f"{aim:,}", f"{calls[way]:,}", calls[way] >= aim)
            for way, aim in AIM_CALLS.items()
        ),
    ]
    table = [(what, aim, got, "yes" if met else "**no**") for what, aim, got, met in rows]
    return Sheet("Aims", ("", "aim", "measured", "met"), table)


def kept_promise(result: Result) -> tuple[int, float, float]:
    """The objective in ms, the worst measured p99 at a load below 0.9, and the most engine time at 0.3, to full."""
    objective = result["settings"]["objective_ms"]
    rows = [row for row in result["measured"] if row["way"] == f"objective-{objective}"]
    worst = max(row["p99_ms"] for row in rows if row["load"] < 0.9)
    return objective, worst, max(row["to_full"] for row in rows if row["load"] == 0.3)
