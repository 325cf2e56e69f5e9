"""Writes what is generated from src/shoal/observe, or with --check says whether it is current.

The chart's dashboards and rules, and the tables of docs/reference/metrics.md and docs/reference/alerts.md.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from generated import ROOT, checking, keep
from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from shoal.local import scrape
from shoal.observe import dashboards, foreign, metrics, ruleset
from shoal.service.kubernetes_monitoring import BatcherScale, PipelineScale, PoolScale, RouterScale, Scale

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from shoal.observe.rules import Alert

CHART = ROOT / "deploy" / "helm" / "shoal"
COMPONENTS = {
    "batcher": metrics.BATCHER,
    "worker": metrics.WORKER,
    "pipeline": metrics.PIPELINE,
    "model-sync": metrics.MODEL_SYNC,
}
_UNITS = ("seconds", "bytes")


def files() -> dict[Path, str]:
    """Path to text, of all that is generated."""
    charted = {CHART / "dashboards" / name: text for name, text in dashboards.render().items()}
    return {
        **charted,
        CHART / "monitoring" / "rules.yaml": ruleset.render(),
        CHART / "monitoring" / "router-metrics.txt": scrape.ROUTER_METRICS + "\n",
        CHART / "monitoring" / "scaling.json": json.dumps(_scaling(), indent=1) + "\n",
        **_page("metrics.md", {**{name: _ours(it) for name, it in COMPONENTS.items()}, "foreign": _foreign()}),
        **_page("alerts.md", {"alerts": _alerts(ruleset.ALERTS), "signals": _signals()}),
    }


def _scaling() -> dict[str, dict[str, object]]:
    """What an entry of ``kubernetes.autoscaling`` has where it says nothing."""
    kinds: dict[str, type[Scale]] = {
        "pool": PoolScale,
        "batcher": BatcherScale,
        "pipeline": PipelineScale,
        "router": RouterScale,
    }
    return {
        name: {key: field.default for key, field in kind.model_fields.items() if not field.is_required()}
        for name, kind in kinds.items()
    }


def declared(registry: CollectorRegistry) -> list[MetricWrapperBase]:
    """The metrics that Shoal declares in a registry, in the order of declaration."""
    found = registry._collector_to_names  # noqa: SLF001 - the registry has no public way to list what it holds
    return [collector for collector in found if isinstance(collector, MetricWrapperBase)]


def exported_name(metric: MetricWrapperBase) -> str:
    """A metric's name in ``/metrics`` and PromQL; of a histogram without ``_bucket``, ``_sum`` and ``_count``."""
    (family,) = metric.describe()
    return f"{family.name}_total" if family.type == "counter" else family.name


def _ours(registry: CollectorRegistry) -> str:
    return _table(("metric", "type", "labels", "unit", "what, and from when to when"), map(_row, declared(registry)))


def _row(metric: MetricWrapperBase) -> tuple[str, ...]:
    (family,) = metric.describe()
    name = exported_name(metric)
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - no public name
    kind = f"{family.type}, up to {metric._upper_bounds[-2]:.15g}" if isinstance(metric, Histogram) else family.type  # noqa: SLF001
    unit = next((unit for unit in _UNITS if unit in name.split("_")), "1")
    return f"`{name}`", kind, labels, unit, family.documentation


def _foreign() -> str:
    rows = (
        (f"`{name}`", it.origin.value, it.kind, ", ".join(f"`{label}`" for label in it.labels), it.text)
        for name, it in foreign.FOREIGN.items()
    )
    return _table(("metric", "comes from", "type", "labels", "what"), rows)


def _alerts(alerts: Iterable[Alert]) -> str:
    rows = (
        (f"[{it.name}](../alerts.md#{it.name.lower()})", it.severity, f"`{it.expr}`", it.lasts, it.action)
        for it in alerts
    )
    return _table(("alert", "severity", "fires when", "for", "first thing to do"), rows)


def _signals() -> str:
    return _table(("series", "is"), ((f"`{it.record}`", f"`{it.expr}`") for it in ruleset.RECORDINGS))


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _page(name: str, tables: dict[str, str]) -> dict[Path, str]:
    """The reference page with its tables as they should be."""
    path = ROOT / "docs" / "reference" / name
    text = path.read_text(encoding="utf-8")
    for key, table in tables.items():
        begin = f"<!-- table: {key} -->\n"
        pattern = rf"{begin}.*?<!-- end -->"
        text, count = re.subn(pattern, lambda _, it=begin + table: f"{it}\n<!-- end -->", text, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"{path}: expected one '<!-- table: {key} -->' with its '<!-- end -->'")
    return {path: text}


def main() -> None:
    """The command line."""
    wanted = files()
    unwanted = [path for path in (CHART / "dashboards").glob("*") if path not in wanted]
    keep(wanted, "observability", check=checking(__doc__), unwanted=unwanted)


if __name__ == "__main__":
    main()
