"""How ``shoal simulate`` shows what it calculated."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.runtime.percentile import percentile
from shoal.simulate.judge import errors
from shoal.simulate.sample import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.simulate.sample import Sample
    from shoal.simulate.scenario import ModelOutcome, Outcome, Scenario

_COLUMNS = ("model", "requests", "answers/s", "batch", "p50, ms", "p95, ms", "p99, ms", "refused", "late", "failed")
_SAMPLED = {"throughput": "answers/s", "mean_batch_size": "batch", "p50": "p50", "p95": "p95", "p99": "p99"}


def record(scenario: Scenario, outcome: Outcome) -> dict[str, Any]:
    """All of it, ready for JSON; the same for the same file and seed."""
    return {
        "seed": scenario.seed,
        "seconds": scenario.seconds,
        "warm_up_seconds": scenario.warm_up,
        "balancing": scenario.balancing,
        "models": {name: _figures(model) for name, model in outcome.models.items()},
        "pools": {
            pool: {"utilisation": used, "replica_seconds": outcome.replica_seconds[pool]}
            for pool, used in outcome.utilisation.items()
        },
        "events": outcome.events,
    }


def sampled_record(scenario: Scenario, sample: Sample) -> dict[str, Any]:
    """As ``record``, whose figures are then those of the whole, and how they were found; times in seconds there."""
    told = record(scenario, sample.outcome)
    for name, model in told["models"].items():
        figures = sample.models[name].figures
        model |= {"throughput_per_s": figures.throughput, "mean_batch_size": figures.mean_batch_size}
        model |= {f"{p}_ms": _ms(getattr(figures, p)) for p in ("p50", "p95", "p99")}
    told["sample"] = {
        "parts": sample.parts,
        "share": str(sample.share),
        "confidence": CONFIDENCE,
        "models": {
            name: {
                "half_interval": dict(each.half),
                "sizes": [asdict(of) for of in each.sizes],
            }
            for name, each in sample.models.items()
        },
    }
    return told


def models(outcome: Outcome) -> Table:
    """A row a model."""
    shown = _table(_COLUMNS)
    for name, model in outcome.models.items():
        times = [_milliseconds(model, share) for share in (0.5, 0.95, 0.99)]
        shown.add_row(
            name,
            f"{model.offered:,}",
            f"{model.throughput:,.1f}",
            f"{model.mean_batch_size:.2f}",
            *("-" if time is None else f"{time:,.2f}" for time in times),
            *(f"{count:,}" for count in (model.refused, model.late, model.failed)),
        )
    return shown


def sampled_models(sample: Sample) -> Table:
    """A row a model, each figure with half of its interval."""
    shown = _table(_COLUMNS)
    for name, model in sample.outcome.models.items():
        each = sample.models[name]
        cells = []
        for figure in _SAMPLED:
            value, half, factor = getattr(each.figures, figure), each.half[figure], 1000 if figure[0] == "p" else 1
            told = "-" if value is None or half is None else f"{factor * value:,.2f} ± {factor * half:,.2f}"
            cells.append(told)
        counts = [f"{count:,}" for count in (model.refused, model.late, model.failed)]
        shown.add_row(name, f"{model.offered:,}", *cells, *counts)
    return shown


def how_sampled(scenario: Scenario, sample: Sample) -> str:
    """Of what the figures are, and what was made of size."""
    pools = " and ".join(f"{int(pool.replicas * sample.share)} of {pool.replicas:,}" for pool in scenario.pools)
    what = f"sampled: {sample.parts} parts of {sample.share} of the service were simulated for the whole time"
    told = [f"{what}, each with {pools} replicas"]
    for name, each in sample.models.items():
        if len(each.sizes) == 1:
            told.append(f"{name}: ± is the {CONFIDENCE:.0%} interval of chance; what size does to figures is not known")
        else:
            changed = _told(errors(each.sizes[0], each.figures))
            told.append(f"{name}: extrapolated from three sizes of parts, which changed {changed}")
            told.append(f"{name}: ± is the {CONFIDENCE:.0%} interval of chance, and what extrapolations differ by")
    return "\n".join(told)


def _told(changed: Mapping[str, float | None]) -> str:
    return ", ".join(f"{word} by {changed[name]:+.1%}" for name, word in _SAMPLED.items() if changed[name] is not None)


def pools(outcome: Outcome) -> Table:
    """A row a pool."""
    shown = _table(("pool", "utilisation", "replica hours"))
    for pool, used in outcome.utilisation.items():
        shown.add_row(pool, f"{100 * used:.1f} %", f"{outcome.replica_seconds[pool] / 3600:,.3f}")
    return shown


def _table(columns: tuple[str, ...]) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    return shown


def _figures(model: ModelOutcome) -> dict[str, Any]:
    return {
        "offered": model.offered,
        "answered": model.answered,
        "refused": model.refused,
        "late": model.late,
        "failed": model.failed,
        "throughput_per_s": model.throughput,
        "mean_batch_size": model.mean_batch_size,
        **{f"p{name}_ms": _milliseconds(model, share) for name, share in (("50", 0.5), ("95", 0.95), ("99", 0.99))},
        "owners": {owner: {"offered": each[0], "answered": each[1]} for owner, each in model.owners.items()},
    }


def _milliseconds(model: ModelOutcome, share: float) -> float | None:
    return _ms(percentile(model.latencies, share))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds
