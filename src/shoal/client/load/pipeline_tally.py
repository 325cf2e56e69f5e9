"""What a load test counts of a pipeline's answers beside their latency. No clock, no I/O."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.client.load.error_tally import ErrorTally
from shoal.client.load.record import SERVICE_STAGES
from shoal.client.load.timings import Timings
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from shoal.client.findings import Analysis, StepTiming

_QUANTILES = {"p50": 0.50, "p99": 0.99}
_MICROSECONDS_A_MILLISECOND = 1000


@dataclass(slots=True)
class StepTally:
    """One step, over all pictures; 8 bytes for each that it was asked about."""

    model: str
    calls: int = 0
    failed: int = 0
    """How many of them have no answer."""
    unanswered: ErrorTally = field(default_factory=ErrorTally)
    """Parts of pictures without an answer, those among them that there was no time to ask about."""
    total_us: array[int] = field(default_factory=partial(array, "Q"))
    """From the first call to the last answer, of each picture that it was asked about."""
    timings: Timings = field(default_factory=Timings)
    """Of each picture's last answer."""

    def add(self, told: StepTiming) -> None:
        """Counts one picture."""
        self.calls += told.calls
        self.failed += told.failed
        if told.calls:
            self.total_us.append(told.total_us)
        if told.failed < told.calls:
            self.timings.add(told.timing)

    def extend(self, other: StepTally) -> None:
        """Takes in what another process counted."""
        self.calls += other.calls
        self.failed += other.failed
        self.unanswered.extend(other.unanswered)
        self.total_us.extend(other.total_us)
        self.timings.extend(other.timings)

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON; a figure that nothing was measured for is null."""
        ordered = sorted(self.total_us)
        return {
            "model": self.model,
            "calls": self.calls,
            "failed": self.failed,
            **self.unanswered.summary("codes"),
            "total_ms": {name: _milliseconds(percentile(ordered, q)) for name, q in _QUANTILES.items()},
            "mean_batch_size": round(self.timings.mean_batch_size, 2) if self.timings.in_batches else None,
            "stage_mean_us": {stage: self.timings.mean_us(stage) for stage in SERVICE_STAGES},
        }


@dataclass(slots=True)
class PipelineTally:
    """Of the answers that count towards latency."""

    is_whole: array[int] = field(default_factory=partial(array, "b"))
    """Whether nothing lacks in it: one for each of ``LoadResult.latencies``, in the same order."""
    objects: int = 0
    """What the first step found, in all pictures."""
    upload_us: int = 0
    """The sum."""
    steps: dict[str, StepTally] = field(default_factory=dict)
    """In the order of the service file."""

    def add(self, found: Analysis) -> None:
        """Counts one answer."""
        for told in found.steps:
            self._step(told.step, told.model_name).add(told)
        unanswered = list(found.unanswered())
        for result in unanswered:
            assert result.error is not None
            self._step(result.step, result.model_name).unanswered.add(result.error)
        self.is_whole.append(not unanswered)
        self.objects += len(found.findings)
        self.upload_us += found.upload_us

    def extend(self, other: PipelineTally) -> None:
        """Takes in what another process counted."""
        self.is_whole.extend(other.is_whole)
        self.objects += other.objects
        self.upload_us += other.upload_us
        for name, step in other.steps.items():
            self._step(name, step.model).extend(step)

    @property
    def lacking(self) -> int:
        """Answers that lack a part."""
        return len(self.is_whole) - sum(self.is_whole)

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON; the mean is null, and there are no steps, where nothing was answered."""
        answers = len(self.is_whole)
        return {
            "whole": answers - self.lacking,
            "lacking": self.lacking,
            "mean_objects": round(self.objects / answers, 2) if answers else None,
            "steps": [{"step": name, **step.summary()} for name, step in self.steps.items()],
        }

    def _step(self, name: str, model: str) -> StepTally:
        return self.steps.setdefault(name, StepTally(model))


def _milliseconds(microseconds: float | None) -> float | None:
    return None if microseconds is None else round(microseconds / _MICROSECONDS_A_MILLISECOND, 3)
