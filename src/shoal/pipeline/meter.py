"""A pipeline's metrics, with their labels bound once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe import metrics
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.errors import Code
    from shoal.pipeline.steps import Step


class Meter:
    """Counts pictures, and the parts of them that steps look at."""

    def __init__(self, pipeline: str, steps: Iterable[Step] = ()) -> None:
        self._pipeline = pipeline
        for step in steps:  # a rate has to begin with 0
            metrics.PIPELINE_NOT_ASKED.labels(pipeline, step.name)
        self._seconds = {each: metrics.PIPELINE_SECONDS.labels(pipeline, each) for each in Priority}
        self._boxes = metrics.PIPELINE_BOXES.labels(pipeline)
        self.in_flight = metrics.PIPELINE_IN_FLIGHT.labels(pipeline)

    def answered(self, code: Code, priority: Priority, seconds: float, boxes: int) -> None:
        """One picture has its answer."""
        metrics.PIPELINE_PICTURES.labels(self._pipeline, code.name, priority).inc()
        if not code:
            self._seconds[priority].observe(seconds)
            self._boxes.observe(boxes)

    def called(self, step: Step, code: Code) -> None:
        """A step's model was asked about one part of a picture."""
        metrics.PIPELINE_CALLS.labels(self._pipeline, step.name, code.name).inc()

    def not_asked(self, step: Step) -> None:
        """There was no time to ask it."""
        metrics.PIPELINE_NOT_ASKED.labels(self._pipeline, step.name).inc()

    def stepped(self, step: Step, seconds: float) -> None:
        """A step is through with a picture."""
        metrics.PIPELINE_STEP_SECONDS.labels(self._pipeline, step.name).observe(seconds)
