"""A pipeline held against the models that it names: their tasks and labels. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shoal.modelconfig.model import Task
from shoal.service.pipelines import Fault, Placed, Step, placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from shoal.service.pipelines import Pipeline

_SHOWN = 12
"""Labels that a message names."""


class Known(NamedTuple):
    """What is known of a model."""

    task: Task
    labels: Sequence[str] = ()
    max_batch_size: int = 0
    """0: nobody says."""


def faults(name: str, pipeline: Pipeline, models: Mapping[str, Known]) -> Iterator[Fault]:
    """What can't be right; a model that isn't in ``models`` is passed over."""
    for each in placed(name, pipeline):
        if (known := models.get(each.step.model)) is None:
            continue
        yield from _of_task(each, known)
        yield from _unknown(f"{each.key}.classes", each.step.classes, each.step.model, known)
        if isinstance(each.step, Step) and each.before and (before := models.get(each.before.step.model)):
            yield from _unknown(f"{each.key}.for", each.step.labels, each.before.step.model, before)


def _of_task(each: Placed, known: Known) -> Iterator[Fault]:
    step, task = each.step, known.task
    if each.before is None and task is not Task.DETECTION:
        yield Fault(f"{each.key}.model", f"{step.model!r} is for {task}; the first step has to be for detection")
    if not isinstance(step, Step):
        return
    if task is not Task.DETECTION and step.detects:
        keys = ("classes", "max_boxes", "padding", "square", "then")
        told = next(key for key in keys if getattr(step, key) not in (None, []))
        yield Fault(f"{each.key}.{told}", f"goes with detection, and {step.model!r} is for {task}")
    if task is not Task.CLASSIFICATION and step.top_k is not None:
        yield Fault(f"{each.key}.top_k", f"goes with classification, and {step.model!r} is for {task}")
    if task is Task.CLASSIFICATION and step.score_threshold is not None:
        yield Fault(
            f"{each.key}.score_threshold", f"goes with detection and segmentation, and {step.model!r} is for {task}"
        )


def _unknown(key: str, labels: Iterable[str], model: str, known: Known) -> Iterator[Fault]:
    there = frozenset(known.labels)
    if not (wrong := [label for label in labels if label not in there]):
        return
    shown = ", ".join(known.labels[:_SHOWN]) + (", …" if len(known.labels) > _SHOWN else "")
    has = f"its labels are {shown}" if there else "it has no labels"
    yield Fault(key, f"{', '.join(map(repr, wrong))}: no label of model {model!r}; {has}")
