"""What a pipeline answers: boxes, and what its steps say of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.client.replies import Elapsed, box, classes, segmentation, timing
from shoal.errors import from_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoal.client.results import Box, Class, Segmentation, Timing
    from shoal.errors import ShoalError
    from shoal.v1 import inference_pb2 as pb


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step says of one box: classes, findings or a mask, as its model is, or why nothing."""

    step: str
    model_name: str
    model_version: int
    """0 where there is an error."""
    error: ShoalError | None
    """Of this box alone."""
    classes: tuple[Class, ...]
    """Of a classifier, most probable first."""
    findings: tuple[Finding, ...]
    """Of a detector, in the whole picture; highest score first."""
    mask: Segmentation | None
    """Of a segmenter; it covers the whole picture, and is unseen but for the box."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One box, and what was found in it."""

    box: Box
    """In the whole picture."""
    results: tuple[StepResult, ...]
    """Of the steps that its class leads to, in the order of the service file."""

    def of(self, step: str) -> StepResult:
        """The result of the step ``step``; KeyError if the box's class didn't lead to it."""
        for result in self.results:
            if result.step == step:
                return result
        raise KeyError(step)


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Where the time of one step went."""

    step: str
    model_name: str
    calls: int
    """Boxes that its model was asked about."""
    failed: int
    """How many of them have no answer."""
    total_us: int
    """From the first call to the last answer, in microseconds."""
    timing: Timing
    """Of the answer that came last."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a pipeline found in one picture."""

    image_uuid: str
    model_name: str
    """The pipeline's."""
    findings: tuple[Finding, ...]
    """Highest score first."""
    steps: tuple[StepTiming, ...]
    """Of the pipeline, in the order of the service file."""
    upload_us: int
    """Reading and uploading the picture; 0 for a reference."""
    total_us: int
    """From the call of the client's method to its answer: upload, network and retries included."""

    def unanswered(self) -> Iterator[StepResult]:
        """What steps couldn't tell of boxes, or of boxes within them: each has an ``error``."""
        return _unanswered(self.findings)


_NOTHING_ELSE = Elapsed(0, 0)


def analysis(reply: pb.AnalyzeReply, elapsed: Elapsed) -> Analysis:
    """The value of an ``AnalyzeReply``."""
    return Analysis(
        reply.image_uuid,
        reply.model_name,
        tuple(map(_finding, reply.findings)),
        tuple(map(_step_timing, reply.steps)),
        elapsed.upload_us,
        elapsed.total_us,
    )


def _unanswered(findings: Iterable[Finding]) -> Iterator[StepResult]:
    for finding in findings:
        for result in finding.results:
            if result.error is not None:
                yield result
            yield from _unanswered(result.findings)


def _finding(told: pb.Finding) -> Finding:
    return Finding(box(told.box), tuple(map(_result, told.results)))


def _result(told: pb.StepResult) -> StepResult:
    return StepResult(
        told.step,
        told.model_name,
        told.model_version,
        from_status(told.code, told.message) if told.code else None,
        classes(told.classes),
        tuple(map(_finding, told.findings)),
        segmentation(told.mask, _NOTHING_ELSE) if told.HasField("mask") else None,
    )


def _step_timing(told: pb.StepTiming) -> StepTiming:
    return StepTiming(
        told.step, told.model_name, told.calls, told.failed, told.total_us, timing(told.timing, _NOTHING_ELSE)
    )
