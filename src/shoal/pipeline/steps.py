"""A pipeline's steps, ready to run, and which parts of a picture go on to which of them. Pure: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.modelconfig.model import Task
from shoal.service.pipelines import MAX_BOXES
from shoal.service.pipelines import Step as Setting
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from shoal.pipeline.check import Known
    from shoal.service.pipelines import Detector, Pipeline

MOST_PARTS: Final = 16
"""Of a picture, in one call: those of one picture spread over batches and workers as others do."""
_UNTOLD_BATCH: Final = 8
"""What is taken for a batch where a worker doesn't say."""


@dataclass(frozen=True, slots=True)
class Step:
    """One model's part."""

    name: str
    model: str
    task: Task
    labels: frozenset[str] = frozenset()
    """Of the boxes that it looks at; empty: all."""
    top_k: int = 0
    score_threshold: float | None = None
    classes: frozenset[str] = frozenset()
    """Of its boxes that are kept; empty: all."""
    max_boxes: int = MAX_BOXES
    padding: float = 0.0
    square: bool = False
    then: tuple[Step, ...] = ()
    most_parts: int = MOST_PARTS
    """Of a picture that it is asked about in one call: no more than it runs together."""

    def chosen(self, boxes: Iterable[pb.Box]) -> list[pb.Box]:
        """Those that are kept, highest score first."""
        fitting = [box for box in boxes if not self.classes or box.label in self.classes]
        return sorted(fitting, key=lambda box: -box.score)[: self.max_boxes]

    def region(self, box: pb.Box) -> pb.PictureRegion:
        """What the next steps see of ``box``."""
        return pb.PictureRegion(
            x=box.x, y=box.y, width=box.width, height=box.height, padding=self.padding, square=self.square
        )

    def request(self, image_uuid: str, mask: Mask, regions: Sequence[pb.PictureRegion] = ()) -> pb.ImageRequest:
        """What its model is asked, without a key: about the whole picture, one part of it, or several."""
        request = pb.ImageRequest(
            image_uuid=image_uuid, model_name=self.model, top_k=self.top_k, score_threshold=self.score_threshold
        )
        if self.task is Task.SEGMENTATION:
            request.mask_form, request.mask_size = mask
        if len(regions) == 1:
            request.region.CopyFrom(regions[0])
        else:
            request.regions.extend(regions)
        return request

    def all(self) -> Iterator[Step]:
        """Itself and those behind it, in the order of the service file."""
        yield self
        for each in self.then:
            yield from each.all()


class Mask(NamedTuple):
    """How the caller wants masks."""

    form: pb.MaskForm = pb.MASK_FORM_PNG
    size: pb.MaskSize = pb.MASK_SIZE_MODEL


class Look(NamedTuple):
    """A part of a picture that a step looks at."""

    region: pb.PictureRegion
    result: pb.StepResult
    """Among those of its box: here goes what the step's model says."""


def looks(step: Step, found: Sequence[pb.Finding]) -> Iterator[tuple[Step, list[Look]]]:
    """What follows from what ``step`` has found: each step behind it that has something to look at, and its parts."""
    for following in step.then:
        fitting = [each for each in found if not following.labels or each.box.label in following.labels]
        if fitting:
            told = {"step": following.name, "model_name": following.model}
            yield following, [Look(step.region(each.box), each.results.add(**told)) for each in fitting]


def first_step(pipeline: Pipeline, models: Mapping[str, Known]) -> Step:
    """The steps of a pipeline of the service file, with all its ``models``."""
    return _step(pipeline.detect, pipeline.then, models)


def _step(setting: Detector | Setting, then: Iterable[Setting], models: Mapping[str, Known]) -> Step:
    model = models[setting.model]
    behind = setting if isinstance(setting, Setting) else None
    return Step(
        name=setting.name or setting.model,
        model=setting.model,
        task=model.task,
        labels=frozenset(behind.labels if behind else ()),
        top_k=(behind and behind.top_k) or 0,
        score_threshold=setting.score_threshold,
        classes=frozenset(setting.classes),
        max_boxes=setting.max_boxes or MAX_BOXES,
        padding=setting.padding or 0.0,
        square=bool(setting.square),
        then=tuple(_step(each, each.then, models) for each in then),
        most_parts=min(MOST_PARTS, model.max_batch_size or _UNTOLD_BATCH),
    )
