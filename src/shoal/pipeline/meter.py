"""A pipeline's metrics, with their labels bound once."""

from __future__ import annotations

from functools import cache
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
        self._pictures = cache(lambda code, priority: metrics.PIPELINE_PICTURES.labels(pipeline, code.name, priority))
        self._calls = cache(lambda step, code: metrics.PIPELINE_CALLS.labels(pipeline, step, code.name))
        self._not_asked = cache(lambda step: metrics.PIPELINE_NOT_ASKED.labels(pipeline, step))
        self._step_seconds = cache(lambda step: metrics.PIPELINE_STEP_SECONDS.labels(pipeline, step))
        for step in steps:  # a rate has to begin with 0
            self._not_asked(step.name)
        self._seconds = {each: metrics.PIPELINE_SECONDS.labels(pipeline, each) for each in Priority}
        self._boxes = metrics.PIPELINE_BOXES.labels(pipeline)
        self.in_flight = metrics.PIPELINE_IN_FLIGHT.labels(pipeline)

    def answered(self, code: Code, priority: Priority, seconds: float, boxes: int) -> None:
        """One picture has its answer."""
        self._pictures(code, priority).inc()
        if not code:
            self._seconds[priority].observe(seconds)
            self._boxes.observe(boxes)

    def called(self, step: Step, code: Code, parts: int) -> None:
        """A step's model was asked about so many parts of a picture."""
        self._calls(step.name, code).inc(parts)

    def not_asked(self, step: Step, parts: int) -> None:
        """There was no time to ask it about so many."""
        self._not_asked(step.name).inc(parts)

    def stepped(self, step: Step, seconds: float) -> None:
        """A step is through with a picture."""
        self._step_seconds(step.name).observe(seconds)
