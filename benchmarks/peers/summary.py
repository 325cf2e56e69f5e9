"""From cells to one row for each way, picture size and decoder. No clock, no I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from benchmarks.common.figures import spread
from benchmarks.peers.cells import CEILING, CEILING_AFTER, SHOAL, SHOAL_WITH_UPLOAD, Cell
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Result = Mapping[str, Any]

_CEILING = (CEILING, CEILING_AFTER)
CEILINGS = {"ceiling": (_CEILING, "shoal"), "own_ceiling": (_CEILING, None)}
"""What a row's images a second are put in relation to: the ceiling with Shoal's decoder, and that with its own;
each is the mean of before and after."""
LEADS = {"shoal": ((SHOAL,), "shoal"), "shoal_with_upload": ((SHOAL_WITH_UPLOAD,), "shoal")}
"""What is put in relation to a row's images a second."""


def summarise(results: Mapping[Cell, Result]) -> list[dict[str, Any]]:
    """One row each, in the order of the cells."""
    groups: defaultdict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in results:
        way = CEILING if cell.way == CEILING_AFTER else cell.way
        groups[cell.size, cell.decoder, way].append(cell)
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
        "ratio": {name: spread(of) for name, base in CEILINGS.items() if (of := _ratios(cells, results, *base))},
        "lead": {
            name: spread([1 / ratio for ratio in of])
            for name, base in LEADS.items()
            if (of := _ratios(cells, results, *base)) and all(of)
        },
        "cpu_ms_per_image": _medians([one["cpu_ms_per_image"] for one in saturated]),
        "components_ms_per_image": _medians([one.get("components_ms_per_image", {}) for one in saturated]),
        "other_cores": spread([one["other_cores"] for one in saturated]),
        "mean_batch_size": _median([one.get("mean_batch_size") for one in saturated]),
        "errors": _errors(saturated),
        "half": _half([one["half"] for one in found if one["half"]]),
    }


def _ratios(
    cells: Sequence[Cell], results: Mapping[Cell, Result], ways: Sequence[str], decoder: str | None
) -> list[float]:
    """To the mean of other ways' images a second in the same round: what slows a round slows both."""
    ratios = []
    for cell in cells:
        places = [Cell(cell.round, cell.size, decoder or cell.decoder, way) for way in ways]
        rates = [results[place]["saturated"]["images_per_s"] for place in places if place in results]
        if any(rates):
            ratios.append(results[cell]["saturated"]["images_per_s"] / mean(rates))
    return ratios


def _half(halves: Sequence[Result]) -> dict[str, Any] | None:
    """Latency over all rounds together, with the number of answers: a few dozen say little about a p99."""
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
