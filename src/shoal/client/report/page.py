"""The report's page: one HTML file with nothing outside itself."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from shoal.client.load.error_tally import in_words
from shoal.client.report import plots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.client.report.figures import Figures

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --warn: #d97f1d33; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin: 2rem 0 0.2rem; font-size: 1.15rem; }
p { margin: 0.3rem 0; } .how { opacity: 0.75; }
dl { display: flex; flex-wrap: wrap; gap: 0.8rem 2rem; margin: 1rem 0; }
dt { font-size: 0.85rem; opacity: 0.75; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; max-width: 44rem; display: block; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, td.text { text-align: left; }
.warning { background: var(--warn); border-left: 4px solid #d97f1d; padding: 0.5rem 0.8rem; margin: 1rem 0; }
pre { white-space: pre-wrap; border: 1px solid var(--line); padding: 0.5rem; }
@media print { body { margin: 0; max-width: none; } section { break-inside: avoid; } }
"""


def render(figures: Figures, summary: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """The page.

    Args:
        figures: What is drawn.
        summary: ``LoadResult.summary()``.
        about: See ``shoal.client.report.write``.
    """
    settings = about["settings"]
    title = f"{settings['model']} at {settings['target']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="how">{escape(_when(about))}</p>',
        _headline(summary, figures),
        *_warnings(summary, figures),
        *(_sections(figures, summary) if summary["latency_ms"]["max"] is not None else ()),
        _errors(summary),
        section("Settings", "", _settings(about) + f"<pre>{escape(about['command'])}</pre>"),
    ]
    return whole(title, parts)


def whole(title: str, parts: Iterable[str]) -> str:
    """A page of parts, in HTML, with nothing outside itself."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}{view}</head>\n<body>\n{body}\n</body></html>\n'


def _sections(figures: Figures, summary: Mapping[str, Any]) -> Iterable[str]:
    yield section(
        "Latency",
        "From when a request should have been sent to its answer. Two humps are two kinds of request, or two kinds of "
        "wait: compare with the batch sizes and with latency over time.",
        plots.latency_histogram(figures),
    )
    yield section(
        "Latency by share of requests",
        "The height at 99 is what 99 % of the requests stay under. Where fewer than ten are left, the curve ends.",
        plots.latency_curve(figures),
    )
    yield section(
        "Throughput over time",
        f"In stretches of {figures.bin_seconds:g} s. Level is good; a slope means that the warm-up was too short, or "
        "that a queue grows.",
        plots.throughput(figures),
    )
    yield section(
        "Latency over time",
        "Of what was answered in each stretch. In the open loop a rising line means that more comes than is answered.",
        plots.latency_over_time(figures),
    )
    if "pipeline" in summary:
        yield section(
            "Steps",
            "Of each picture that a step was asked about: p50 and p99 from its first call to its last answer; means of "
            "the answer that came last, where compute is the whole batch's. Steps behind the same one run beside each "
            "other.",
            _step_table(summary["pipeline"]["steps"]),
        )
        return
    yield section(
        "Batch sizes",
        f"Each batch counts once; the mean is {summary['mean_batch_size']:g}. Small batches at saturation mean that "
        "the load is spread over too many batchers, or that the delay is too short.",
        plots.batch_sizes(figures),
    )
    yield section(
        "Where the time went",
        "Of the mean request. Compute is the whole batch's. Queue is waiting in the batcher and for the engine; rest "
        "is what no part measures: the network, the router and the load generator's own event loop.",
        plots.stages(figures) + _stage_table(figures),
    )


def section(title: str, how: str, content: str) -> str:
    """A part of a page: its title, how to read it, and what it has, in HTML."""
    told = f'<p class="how">{escape(how)}</p>' if how else ""
    return f"<section><h2>{escape(title)}</h2>{told}\n{content}</section>"


def _when(about: Mapping[str, Any]) -> str:
    settings, machine, versions = about["settings"], about["machine"], about["versions"]
    loop = (
        f"{settings['concurrency']} callers" if settings["rate"] is None else f"{settings['rate']:g} arrivals a second"
    )
    sent = "pictures uploaded with each request" if settings["upload"] else "pictures already in the store"
    return (
        f"{about['date']}: {settings['task']}, {loop}, {sent}; Shoal {versions['shoal']}; load from "
        f"{machine['cores']} cores, load average {machine['load_average']:.1f} before"
    )


def _headline(summary: Mapping[str, Any], figures: Figures) -> str:
    latency = summary["latency_ms"]
    failed = sum(summary["errors"].values())
    offered = {} if figures.offered_per_s is None else {"offered/s": f"{figures.offered_per_s:,.1f}"}
    shown = {
        "images/s": f"{summary['images_per_s']:,.1f}",
        **offered,
        **{name: "-" if value is None else f"{value:,.1f} ms" for name, value in latency.items()},
        **_wholeness(summary),
        **({} if summary["stream_share"] is None else {"calls by stream": f"{summary['stream_share']:.0%}"}),
        "failed": f"{failed:,}",
    }
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items()) + "</dl>"


def _wholeness(summary: Mapping[str, Any]) -> dict[str, str]:
    """What stands for a pipeline in place of its batches."""
    if (pipeline := summary.get("pipeline")) is None:
        return {"mean batch": _cell(summary["mean_batch_size"], "g")}
    return {"lack a part": f"{pipeline['lacking']:,}", "mean objects": _cell(pipeline["mean_objects"], "g")}


def _warnings(summary: Mapping[str, Any], figures: Figures) -> Iterable[str]:
    if figures.busy_generator is not None:
        text = f"This may be the load generator's limit rather than the service's: {figures.busy_generator}."
        yield f'<p class="warning">{escape(text)}</p>'
    if summary["latency_ms"]["max"] is None:
        yield '<p class="warning">No request was answered in the measured window, so there is nothing to draw.</p>'


def _errors(summary: Mapping[str, Any]) -> str:
    if not summary["errors"]:
        return section("Errors", "", "<p>None.</p>")
    rows = [(code, f"{number:,}", summary["reasons"].get(code, "")) for code, number in summary["errors"].items()]
    how = "By gRPC status; the reason is what the first such request was told."
    return section("Errors", how, table(("status", "requests", "reason"), rows, text=(0, 2)))


def _stage_table(figures: Figures) -> str:
    rows = [(one.name, f"{one.mean_ms:,.2f}", f"{one.p50_ms:,.2f}", f"{one.p99_ms:,.2f}") for one in figures.stages]
    return table(("ms", "mean", "p50", "p99"), rows)


def _step_table(steps: Sequence[Mapping[str, Any]]) -> str:
    stages = steps[0]["stage_mean_us"]
    rows = [
        (
            step["step"],
            step["model"],
            f"{step['calls']:,}",
            f"{step['failed']:,}",
            "; ".join(in_words(step["codes"], step["reasons"])),
            *(_cell(value) for value in step["total_ms"].values()),
            *(_cell(mean and mean / 1000) for mean in step["stage_mean_us"].values()),
            _cell(step["mean_batch_size"], "g"),
        )
        for step in steps
    ]
    head = ("ms", "model", "calls", "failed", "without an answer", *steps[0]["total_ms"], *stages, "mean batch")
    return table(head, rows, text=(0, 1, 4))


def _cell(value: float | None, form: str = ",.2f") -> str:
    return "-" if value is None else f"{value:{form}}"


def _settings(about: Mapping[str, Any]) -> str:
    rows = [(name, "-" if value is None else str(value)) for name, value in about["settings"].items()]
    return table(("setting", "value"), rows, text=(0, 1))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """Rows of figures, in HTML; ``text`` says which columns are words."""
    lines = ["<tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr>"]
    for row in rows:
        cells = (f"<td{' class=text' if place in text else ''}>{escape(cell)}</td>" for place, cell in enumerate(row))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"
