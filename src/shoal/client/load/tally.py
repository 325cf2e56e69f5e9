"""What a load test counts, and what follows from it. No clock, no I/O."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.client.findings import Analysis
from shoal.client.load.error_tally import ErrorTally
from shoal.client.load.pipeline_tally import PipelineTally
from shoal.client.load.record import STAGES, Record
from shoal.client.load.timings import Timings
from shoal.runtime.percentile import milliseconds, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.client.results import Timing
    from shoal.errors import ShoalError

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(slots=True)
class LoadResult:
    """One load test, or one process's share of it; 8 bytes a request, and 34 more where each is recorded.

    A request counts towards latency if its intended send time is in the measured window, however late it ends, and
    towards throughput if its answer arrives in the window, whenever it was sent: neither end of the window is biased.
    """

    duration_seconds: float = 0.0
    """The measured window."""
    answered: int = 0
    """Good answers that arrived in the window."""
    latencies: array[float] = field(default_factory=lambda: array("d"))
    """Seconds from the intended send time to the good answer, unsorted."""
    failed: ErrorTally = field(default_factory=ErrorTally)
    """Requests without an answer."""
    timings: Timings = field(default_factory=Timings)
    """Of the requests of ``latencies``, if models are asked."""
    pipeline: PipelineTally | None = None
    """Of the requests of ``latencies``, if a pipeline is asked."""
    lag_seconds: float = 0.0
    lag_max_seconds: float = 0.0
    """How late requests left, against their intended time: a load generator at its limit shows here."""
    cpu_seconds: float = 0.0
    """The load generator's own CPU time in the window."""
    sent: Counter[str] = field(default_factory=Counter)
    """Attempts from the warm-up on: ``alone``, as unary calls, and ``by_stream``."""
    interrupted: bool = False
    """Whether it was ended early: what was in flight then counts nowhere."""
    record: Record | None = None
    """Each request by itself, where somebody wants to look at them."""

    def arrived(self, at_seconds: float) -> None:
        """Counts a good answer towards throughput; ``at_seconds`` is since the window's begin."""
        self.answered += 1
        if self.record is not None:
            self.record.arrived.append(at_seconds)

    def add(self, latency_seconds: float, lag_seconds: float, told: Timing | Analysis, at_seconds: float = 0.0) -> None:
        """Counts a good answer towards latency.

        Args:
            latency_seconds: From the intended send time.
            lag_seconds: By how much later it was sent.
            told: Of a model's answer its timing; the whole answer of a pipeline.
            at_seconds: Since the window's begin.
        """
        self.latencies.append(latency_seconds)
        self.lag_seconds += lag_seconds
        self.lag_max_seconds = max(self.lag_max_seconds, lag_seconds)
        timing = None
        if isinstance(told, Analysis):
            assert self.pipeline is not None, "the load asks a pipeline"
            self.pipeline.add(told)
        else:
            timing = told
            self.timings.add(timing)
        if self.record is not None:
            self.record.add(at_seconds, timing)

    def add_error(self, error: ShoalError, at_seconds: float = 0.0) -> None:
        """Counts a request that failed; ``at_seconds`` is since the window's begin."""
        self.failed.add(error)
        if self.record is not None:
            self.record.failed[error.code.name].append(at_seconds)

    @property
    def images_per_s(self) -> float:
        """Good answers a second of the window."""
        return self.answered / self.duration_seconds if self.duration_seconds else 0.0

    @property
    def mean_batch_size(self) -> float:
        """See ``Timings``."""
        return self.timings.mean_batch_size

    def whole_latencies(self) -> list[float]:
        """Of answers that lack nothing, unsorted: all of a model's."""
        if self.pipeline is None:
            return list(self.latencies)
        return [each for each, whole in zip(self.latencies, self.pipeline.is_whole, strict=True) if whole]

    @property
    def stream_share(self) -> float | None:
        """The share of all attempts that went over a stream; None where nobody counted."""
        attempts = self.sent.total()
        return self.sent["by_stream"] / attempts if attempts else None

    def summary(self) -> dict[str, Any]:
        """The figures, ready for JSON; a figure that nothing was measured for is null."""
        count = len(self.latencies)
        ordered = sorted(self.latencies)
        return {
            "images_per_s": round(self.images_per_s, 2),
            "latency_ms": {name: milliseconds(percentile(ordered, q)) for name, q in QUANTILES.items()},
            "answered": self.answered,
            **self.failed.summary("errors"),
            "mean_batch_size": round(self.mean_batch_size, 2) if self.timings.number else None,
            "stage_mean_us": {stage: self.timings.mean_us(stage) for stage in STAGES} | self._uploads(),
            "send_lag_ms": {
                "mean": milliseconds(self.lag_seconds / count if count else None),
                "max": milliseconds(self.lag_max_seconds if count else None),
            },
            "stream_share": None if self.stream_share is None else round(self.stream_share, 4),
            "duration_s": round(self.duration_seconds, 3),
            "client_cpu_s": round(self.cpu_seconds, 3),
            **({} if self.pipeline is None else {"pipeline": self.pipeline.summary()}),
        }

    def _uploads(self) -> dict[str, int]:
        """The mean of a pipeline's pictures, in microseconds: of their other stages each step has its own."""
        if self.pipeline is None or not self.latencies:
            return {}
        return {"upload": round(self.pipeline.upload_us / len(self.latencies))}


def merge(shares: Sequence[LoadResult]) -> LoadResult:
    """One result of what several processes measured at the same time."""
    whole = LoadResult(duration_seconds=max((share.duration_seconds for share in shares), default=0.0))
    for share in shares:
        whole.answered += share.answered
        whole.latencies.extend(share.latencies)
        whole.failed.extend(share.failed)
        whole.timings.extend(share.timings)
        whole.lag_seconds += share.lag_seconds
        whole.lag_max_seconds = max(whole.lag_max_seconds, share.lag_max_seconds)
        whole.cpu_seconds += share.cpu_seconds
        whole.sent.update(share.sent)
        whole.interrupted |= share.interrupted
        if share.pipeline is not None:
            whole.pipeline = whole.pipeline or PipelineTally()
            whole.pipeline.extend(share.pipeline)
        if share.record is not None:
            whole.record = whole.record or Record()
            whole.record.extend(share.record)
    return whole
