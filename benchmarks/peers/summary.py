"""From cells to one row for each way, picture size and decoder. No clock, no I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

from figures import spread
from peers.cells import CEILING, SHOAL, Cell
from shoal.client.tally import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Result = Mapping[str, Any]

BASES = {"ceiling": (CEILING, "shoal"), "own_ceiling": (CEILING, None), "shoal": (SHOAL, "shoal")}
"""What a row's images a second are put in relation to: the ceiling with Shoal's decoder, that with the row's own
decoder, and Shoal."""


def summarise(results: Mapping[Cell, Result]) -> list[dict[str, Any]]:
    """One row each, in the order of the cells."""
    groups: defaultdict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in results:
        groups[cell.size, cell.decoder, cell.way].append(cell)
    return [
        {"size": str(size), "decoder": decoder, "way": way, **_row(cells, results)}
        for (size, decoder, way), cells in groups.items()
    ]


def _row(cells: Sequence[Cell], results: Mapping[Cell, Result]) -> dict[str, Any]:
    found = [results[cell] for cell in cells]
    saturated = [one["saturated"] for one in found]
    return {
        "choice": found[-1].get("choice"),
        "images_per_s": spread([one["images_per_s"] for one in saturated], 2),
        "images": sum(one["images"] for one in saturated),
        "ratio": {name: ratio for name in BASES if (ratio := _ratio(cells, results, name))},
        "cpu_ms_per_image": _medians([one["cpu_ms_per_image"] for one in saturated]),
        "components_ms_per_image": _medians([one.get("components_ms_per_image", {}) for one in saturated]),
        "other_cores": spread([one["other_cores"] for one in saturated]),
        "mean_batch_size": _median([one.get("mean_batch_size") for one in saturated]),
        "errors": _errors(saturated),
        "half": _half([one["half"] for one in found if one["half"]]),
    }


def _ratio(cells: Sequence[Cell], results: Mapping[Cell, Result], name: str) -> dict[str, Any] | None:
    """Within each round: what slows a round slows both."""
    way, decoder = BASES[name]
    ratios = []
    for cell in cells:
        base = results.get(Cell(cell.round, cell.size, decoder or cell.decoder, way))
        if base is not None and base["saturated"]["images_per_s"]:
            ratios.append(results[cell]["saturated"]["images_per_s"] / base["saturated"]["images_per_s"])
    return spread(ratios) if ratios else None


def _half(halves: Sequence[Result]) -> dict[str, Any] | None:
    """Latency over all rounds together; a figure of a few dozen answers says little about its p99, so they are counted."""
    if not halves:
        return None
    ordered = sorted(value for one in halves for value in one["latencies_ms"])
    return {
        "rate_per_s": round(median(one["rate_per_s"] for one in halves), 2),
        "answers": len(ordered),
        "p50_ms": percentile(ordered, 0.5),
        "p99_ms": percentile(ordered, 0.99),
        "p50_ms_rounds": [percentile(one["latencies_ms"], 0.5) for one in halves],
        "p99_ms_rounds": [percentile(one["latencies_ms"], 0.99) for one in halves],
        "cpu_ms_per_image": _medians([one["cpu_ms_per_image"] for one in halves]),
        "mean_batch_size": _median([one["mean_batch_size"] for one in halves]),
        "errors": _errors(halves),
    }


def _medians(of: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(median(one[name] for one in of if name in one), 4) for name in of[0]}


def _median(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return round(median(found), 2) if found else None


def _errors(windows: Sequence[Result]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in windows:
        total.update(one["errors"])
    return dict(total)
