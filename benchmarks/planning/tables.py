"""What ``scale`` and ``growth`` calculated, and what ``validate`` measured beside, as tables and a plot."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.common.chapter import markdown
from benchmarks.common.files import IMAGES
from shoal.profile.plot import STYLE
from shoal.simulate.judge import AIMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.axes import Axes

Row = dict[str, Any]
_FIGURES: Final = {"throughput": "answers/s", "mean_batch_size": "mean batch", "p50": "p50", "p95": "p95", "p99": "p99"}


def scale(result: Mapping[str, Any]) -> dict[str, str]:
    """A block a step."""
    return {
        f"planning-{step}": f"{_where(result[step])}\n\n{table(result[step]['rows'])}"
        for step, table in (("rate", _rates), ("error", _errors), ("large", _large))
        if step in result
    }


def growth(result: Mapping[str, Any]) -> dict[str, str]:
    """A block a step; draws the plot."""
    blocks = {}
    if "replicas" in result:
        rows = result["replicas"]["rows"]
        _draw(rows)
        plot = "![Mean batch and busy GPUs, from 1 to 1,000 replicas](images/planning-growth.png)"
        tables = "\n\n".join(_replicas([row for row in rows if row["load"] == load]) for load in ("growing", "fixed"))
        blocks["planning-growth"] = f"{_where(result['replicas'])}\n\n{plot}\n\n{tables}"
    if "gpus" in result:
        blocks["planning-gpus"] = f"{_where(result['gpus'])}\n\n{_gpus(result['gpus']['rows'])}"
    return blocks


def validation(result: Mapping[str, Any]) -> dict[str, str]:
    """The largest errors of points with a calm client and of the others, at loads that can be served and above."""
    if "setups" not in result:
        return {}
    rows = [row for setup in result["setups"] for row in setup["rows"]]
    head = ("points", "rows", "within the aim", "answers/s", "mean batch", "p50", "p95", "p99", "refused")
    told = []
    for calm, above in product((True, False), (False, True)):
        of = [
            row
            for row in rows
            if (row["lag_max_ms"] <= result["settings"]["calm_ms"]) == calm and (row["load"] > 1) == above
        ]
        if of:
            name = f"{'calm' if calm else 'disturbed'}, load {'above 1' if above else 'below 1'}"
            within = sum(not row["missed"] for row in of)
            told.append((name, str(len(of)), str(within), *(_largest(of, figure) for figure in AIMS)))
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores: `{result['command']}`"
    return {"planning-validation": f"Measured {result['date'][:10]} on {where}.\n\n{markdown(head, told)}"}


def _largest(rows: Sequence[Row], figure: str) -> str:
    return f"{max(abs(row['errors'][figure] or 0.0) for row in rows):.1%}"


def _where(step: Mapping[str, Any]) -> str:
    machine = step["machine"]
    python = step["versions"]["python"]
    return f"Calculated {step['date'][:10]} on one core of {machine['cpu']}, Python {python}: `{step['command']}`."


def _rates(rows: Sequence[Row]) -> str:
    head = ("requests/CPU s (mean batch)", *(f"{count} GPUs" for count in sorted({row["gpus"] for row in rows})))
    return markdown(head, _rate_rows(rows))


def _rate_rows(rows: Sequence[Row]) -> Iterator[Sequence[str]]:
    for way, load in dict.fromkeys((row["way"], row["load"]) for row in rows):
        of = [row for row in rows if (row["way"], row["load"]) == (way, load)]
        told = [f"{row['requests_per_cpu_s']:,} ({row['mean_batch_size']:g})" for row in of]
        yield (f"{way}, load {load:g}", *told)


def _errors(rows: Sequence[Row]) -> str:
    head = ("of 64 GPUs, parts of", *_FIGURES.values(), "refused", "CPU s: all, sample")
    return markdown(head, [_error_row(row) for row in rows])


def _error_row(row: Row) -> Sequence[str]:
    cells = [
        f"{row['error'][name]:+.1%} ± {row['half'][name]:.1%} ({row['error_of_parts'][name]:+.1%})" for name in _FIGURES
    ]
    seconds = f"{row['cpu_s']['whole']:g}, {row['cpu_s']['sample']:g}"
    refused = f"{row['error']['refused_share']:+.1%}"
    return (f"{row['gpus_of_a_part']}: {row['way']}, load {row['load']:g}", *cells, refused, seconds)


def _large(rows: Sequence[Row]) -> str:
    (row,) = rows
    told = [
        (
            "simulated",
            f"{row['parts']} parts of {row['gpus_of_a_part']} of {row['gpus']:,} GPUs, and of half and a quarter",
        ),
        ("CPU minutes", f"{row['cpu_minutes']:g}"),
        ("wall minutes", f"{row['wall_minutes']:g}"),
        ("largest memory, MiB", f"{row['peak_mib']:,}"),
        *((label, _with_half(row, name)) for name, label in _FIGURES.items()),
        ("busy", f"{row['utilisation']:.1%}"),
    ]
    return markdown(("", f"{row['requests'] // 10**6} million requests in a minute"), told)


def _with_half(row: Row, name: str) -> str:
    factor, unit = (1000, " ms") if name[0] == "p" else (1, "")
    return f"{factor * row['figures'][name]:,.2f} ± {factor * row['half'][name]:,.2f}{unit}"


def _replicas(rows: Sequence[Row]) -> str:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    load = "grows with replicas" if rows[0]["load"] == "growing" else "is fixed"
    head = (f"load {load}: batch (theory), busy GPUs, p99", *ways)
    counts = dict.fromkeys(row["replicas"] for row in rows)
    return markdown(head, [(f"{count:,}", *(_cell(rows, count, way) for way in ways)) for count in counts])


def _cell(rows: Sequence[Row], replicas: int, way: str) -> str:
    row = next(each for each in rows if (each["replicas"], each["way"]) == (replicas, way))
    busy = f"{row['busy_gpus']:.3g}" if row["busy_gpus"] < 999.5 else f"{row['busy_gpus']:,.0f}"
    return f"{row['mean_batch_size']:.1f} ({row['theory']:.1f}), {busy}, {row['p99_ms']:.0f} ms"


def _gpus(rows: Sequence[Row]) -> str:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    head = ("requests/s", "bound", *ways)
    loads = dict.fromkeys((row["per_s"], row["bound"]) for row in rows)
    of = {(row["per_s"], row["way"]): row["gpus"] for row in rows}
    return markdown(
        head,
        [(f"{rate:,.0f}", f"{bound:,}", *(f"{of[rate, way]:,}" for way in ways)) for rate, bound in loads],
    )


def _draw(rows: Sequence[Row]) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7), layout="constrained")
        for axes, load in zip(figure.subplots(2, 2), ("growing", "fixed"), strict=True):
            of = [row for row in rows if row["load"] == load]
            _lines(axes[0], of, "mean_batch_size", f"mean batch, load {load}; dots: theory")
            _lines(axes[1], of, "busy_gpus", f"busy GPUs, load {load}")
            axes[1].set_yscale("log")
            axes[0].set_ylim(0, None)
        figure.axes[0].legend(fontsize="small")
        figure.savefig(IMAGES / "planning-growth.png", dpi=110)


def _lines(axes: Axes, rows: Sequence[Row], figure: str, label: str) -> None:
    for number, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
        of = [row for row in rows if row["way"] == way]
        counts = [row["replicas"] for row in of]
        axes.plot(counts, [row[figure] for row in of], color=f"C{number}", label=way)
        if figure == "mean_batch_size":
            axes.plot(counts, [row["theory"] for row in of], ".", color=f"C{number}")
    axes.set_xscale("log")
    axes.set_xlabel("replicas")
    axes.set_ylabel(label)
