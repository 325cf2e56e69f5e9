"""What every experiment is told, and the model that the scripted ones share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.batching.replicas import Model
from benchmarks.common import files
from shoal.modelconfig.batching import BatchingSettings
from shoal.simulate.curve import CostCurve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CAPACITY = 400.0
"""Pictures a second of one scripted replica with full batches: so few that two cores carry twice that, client
included, and what is measured is batching."""
MAX_BATCH_SIZE = 16
QUEUE_DELAY_SECONDS = 0.02
DEADLINE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    seconds: float | None = None
    """Of each window, in place of the experiment's own."""
    quick: bool = False
    """Short windows, few points: to see that it works."""
    say: Callable[[str], None] = print
    """Told of each step."""

    def window(self, seconds: float) -> float:
        """The length of a window that is ``seconds`` by default."""
        return self.seconds or (min(seconds, 3.0) if self.quick else seconds)

    def windows(self) -> dict[str, Any]:
        """What a result is comparable by, ready for JSON."""
        return {"seconds": self.seconds, "quick": self.quick}

    @property
    def warm_up(self) -> float:
        """Seconds before each window."""
        return 1.0 if self.quick else 3.0


def result_file(name: str) -> Path:
    """Where an experiment's result lies."""
    return files.RESULTS / f"batching_{name}.json"


def read_result(name: str) -> dict[str, Any]:
    """An earlier result."""
    return files.read_result(result_file(name).stem)


def measured_curve() -> CostCurve:
    """That of the GPU: on a CPU a batch costs what its pictures cost alone, and nobody would need a batcher."""
    return CostCurve.fit({int(size): one / 1000 for size, one in read_result("curve_gpu")["batch_ms"].items()})


def scripted_model(max_queue_size: int = 0) -> tuple[Model, dict[str, Any]]:
    """The model of the scripted experiments, and its settings for the result."""
    curve = measured_curve().scaled(MAX_BATCH_SIZE, CAPACITY)
    settings = BatchingSettings(
        max_batch_size=MAX_BATCH_SIZE,
        max_queue_delay_microseconds=int(QUEUE_DELAY_SECONDS * 1e6),
        max_queue_size=max_queue_size,
    )
    told = {
        "max_batch_size": MAX_BATCH_SIZE,
        "max_queue_delay_ms": 1000 * QUEUE_DELAY_SECONDS,
        "max_queue_size": max_queue_size or None,
        "instance_count": settings.instance_count,
        "deadline_s": DEADLINE_SECONDS,
        "curve": curve.figures(),
        "capacity_per_s": CAPACITY,
    }
    return Model(settings, curve), told
