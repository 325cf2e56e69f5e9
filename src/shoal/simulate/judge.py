"""How far what was calculated is from what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.simulate.scenario import ModelOutcome

AIMS = {
    "throughput": 0.05,
    "mean_batch_size": 0.05,
    "p50": 0.05,
    "p95": 0.05,
    "p99": 0.10,
    "refused_share": 0.05,
}
"""The largest errors that are good enough: relative ones, but for the share, whose error is a difference."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one model, measured or calculated. Latencies are seconds of good answers; None where there are none."""

    throughput: float
    """Good answers a second."""
    mean_batch_size: float
    """Over batches."""
    p50: float | None
    p95: float | None
    p99: float | None
    refused_share: float
    """Of all requests: refused, or not answered before their deadlines."""

    @classmethod
    def of(cls, latencies: Sequence[float], offered: int, throughput: float, mean_batch_size: float) -> Figures:
        """``latencies`` in order of size, one for each good answer to the ``offered`` requests."""
        p50, p95, p99 = (percentile(latencies, quantile) for quantile in (0.50, 0.95, 0.99))
        share = 1 - len(latencies) / offered if offered else 0.0
        return cls(throughput, mean_batch_size, p50, p95, p99, share)

    @classmethod
    def calculated(cls, outcome: ModelOutcome) -> Figures:
        """Of a simulation."""
        return cls.of(outcome.latencies, outcome.offered, outcome.throughput, outcome.mean_batch_size)


def errors(measured: Figures, calculated: Figures) -> dict[str, float | None]:
    """By figure: relative ones, that of the share a difference; None where there is nothing to compare."""
    real, said = asdict(measured), asdict(calculated)
    return {
        name: said[name] - real[name] if name == "refused_share" else _relative(real[name], said[name]) for name in AIMS
    }


def missed(found: dict[str, float | None]) -> list[str]:
    """The figures whose errors are larger than the aim."""
    return [name for name, error in found.items() if error is not None and abs(error) > AIMS[name]]


def _relative(real: float | None, said: float | None) -> float | None:
    return said / real - 1 if real and said is not None else None
