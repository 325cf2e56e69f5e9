"""What the steps of one picture were asked, what failed, and how long they took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shoal.errors import Code, DeadlineExceeded, Overloaded, to_status
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.pipeline.meter import Meter
    from shoal.pipeline.steps import Step


@dataclass(slots=True)
class Tally:
    """Of one step. Times are seconds of the pipeline's clock."""

    step: Step
    calls: int = 0
    """Parts of the picture that it was asked about."""
    failed: int = 0
    begun: float = 0.0
    ended: float = 0.0
    """When the last part so far had its answer; 0: none has."""
    late: bool = False
    """Some part ran out of time, or found too much work ahead of it."""
    ahead: float = 0.0
    """Seconds of work that its batcher said were ahead."""
    timing: pb.Timing = field(default_factory=pb.Timing)

    @property
    def seconds(self) -> float:
        """From the first part that was asked about to the last answer."""
        return max(0.0, self.ended - self.begun)

    def told(self) -> pb.StepTiming:
        """As the caller is told."""
        return pb.StepTiming(
            step=self.step.name,
            model_name=self.step.model,
            calls=self.calls,
            failed=self.failed,
            total_us=round(self.seconds * 1e6),
            timing=self.timing,
        )


class Tallies:
    """Of all steps of a picture; counts for the metrics, too."""

    def __init__(self, first: Step, meter: Meter, clock: Callable[[], float]) -> None:
        self._of = {step.name: Tally(step) for step in first.all()}
        self._meter = meter
        self._clock = clock

    def __iter__(self) -> Iterator[Tally]:
        """In the order of the service file."""
        return iter(self._of.values())

    def of(self, step: Step) -> Tally:
        """That of ``step``."""
        return self._of[step.name]

    def begin(self, step: Step, parts: int) -> None:
        """``step`` is asked about so many parts."""
        tally = self._of[step.name]
        tally.calls += parts
        tally.begun = tally.begun or self._clock()

    def succeed(self, step: Step, reply: Any, parts: int) -> None:  # the task's reply
        """So many have their answers, of which ``reply`` is the last."""
        self._of[step.name].timing = reply.timing
        self._end(step, Code.OK, parts)

    def fail(self, step: Step, error: Exception, parts: int) -> None:
        """So many have none."""
        tally = self._of[step.name]
        tally.failed += parts
        tally.late = tally.late or isinstance(error, DeadlineExceeded | Overloaded)
        if isinstance(error, Overloaded) and error.retry_after_seconds:
            tally.ahead = max(tally.ahead, error.retry_after_seconds)
        self._end(step, to_status(error)[0], parts)

    def withdraw(self, step: Step, parts: int, *, late: bool) -> None:
        """Nobody waits for so many any more; ``late``: since there was no time left."""
        tally = self._of[step.name]
        tally.failed += parts
        tally.late = tally.late or late
        self._end(step, Code.CANCELLED, parts)

    def _end(self, step: Step, code: Code, parts: int) -> None:
        self._of[step.name].ended = self._clock()
        self._meter.called(step, code, parts)
