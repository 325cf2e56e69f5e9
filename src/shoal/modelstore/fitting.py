"""Whether what a model answers is what its head takes it for, by what it answered to a few pictures.

Only what can't be otherwise is a misfit: a model that answers the same to every picture, or nothing, proves little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoal.modelstore import output_names, outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig

    Array = NDArray[Any]
    Answers = Sequence[Mapping[str, Array]]
    """Output name to array ``(1, *shape)``, for each picture by itself."""

SLACK: Final = 0.005
"""By so much a score may miss [0, 1]: what float16 and bfloat16 make of 1."""
PADDING: Final = -1
"""The score, or class, of a box that some models have for none."""
_SUM_SLACK: Final = 0.01
_END_TO_END: Final = "Rows of x1, y1, x2, y2, score, class are read by head end_to_end"
_PIXELS: Final = 4.0
"""No box of a picture is so many times as wide as it: such numbers are pixels."""
_MANY: Final = 16
"""Boxes that can't all be as they are by chance."""


def misfit(model: ModelConfig, answers: Answers) -> str:
    """Why the model's head can't read its answers, and which can; empty: it can, as far as they tell."""
    look = _LOOKS.get(model.head)
    if look is None or not answers:
        return ""
    missing = [output.name for output in model.outputs if any(output.name not in each for each in answers)]
    reason = f"the engine gives no {missing[0]!r}" if missing else next(look(model, answers), "")
    return f"head {model.head} doesn't fit: {reason}" if reason else ""


def _softmax(model: ModelConfig, answers: Answers) -> Iterator[str]:
    values = _all(answers, model.outputs[0].name)
    inside = values.min() >= 0 and values.max() <= 1
    if inside and _varies(values) and (np.abs(values.sum(axis=1) - 1) < _SUM_SLACK).all():
        yield "the model answers probabilities already, which add up to 1; use head probabilities"


def _probabilities(model: ModelConfig, answers: Answers) -> Iterator[str]:
    values = _all(answers, model.outputs[0].name)
    if reason := _outside(values):
        yield f"{reason}, so these are no probabilities; head softmax reads logits"


def _boxes_scores(model: ModelConfig, answers: Answers) -> Iterator[str]:
    names = output_names.box_outputs(output.name for output in model.outputs)
    if names is None:
        return
    scores = _all(answers, names.scores)
    if reason := _outside(scores[scores != PADDING]):
        yield f"output {names.scores!r}: {reason}; export the model with its sigmoid or softmax"
    if names.classes is not None and (_all(answers, names.classes) % 1).any():
        yield f"output {names.classes!r} has numbers that aren't whole: no classes"
    given = {**names.layout, **model.head_parameters}
    boxes = _all(answers, names.boxes).reshape(-1, outputs.BOX)
    yield from _units(model, boxes, pixels=bool(given.get("pixels")))
    yield from _written(boxes, corners=bool(given.get("corners")), side=model.width if given.get("pixels") else 1)


def _units(model: ModelConfig, boxes: Array, *, pixels: bool) -> Iterator[str]:
    """What is wrong with ``shoal.head.pixels``, which says what the boxes are measured in."""
    most = np.abs(boxes).max(initial=0)
    if not pixels and most > _PIXELS:
        yield f"boxes reach {most:g}, so they are in pixels: --head-parameter pixels=1"
    real = boxes[boxes.any(axis=1)]
    if pixels and len(real) >= _MANY and most <= 1 + SLACK and min(model.width, model.height) > _PIXELS:
        yield "no box reaches 1, so they are not in pixels: --head-parameter pixels=0"


def _written(boxes: Array, *, corners: bool, side: float) -> Iterator[str]:
    """Whether the last two numbers are a corner or a size."""
    real = boxes[boxes.any(axis=1)]
    if len(real) < _MANY:
        return
    ordered = (real[:, 2:] >= real[:, :2]).all(axis=1)
    if corners and ordered.mean() < 0.5:  # most boxes would be inside out
        yield "boxes are x, y, width, height: --head-parameter corners=0"
    if not corners and ordered.all() and (real[:, 0] + real[:, 2]).max() > 1.5 * side:
        yield "boxes are x1, y1, x2, y2: --head-parameter corners=1"


def _end_to_end(model: ModelConfig, answers: Answers) -> Iterator[str]:
    rows = _all(answers, model.outputs[0].name).reshape(-1, outputs.END_TO_END)
    scores, classes = rows[:, 4], rows[:, 5]
    if reason := _outside(scores[scores != PADDING]):
        yield f"it takes the fifth number for a score, and there {reason}"
    if (classes % 1).any():
        yield "it takes the sixth number for a class, and there it isn't whole: yolov5 reads candidates of one class"
    corners = rows[:, :4][scores > 0]
    if len(corners) >= _MANY and (corners[:, 2:] >= corners[:, :2]).all(axis=1).mean() < 0.5:
        yield "it takes the first four numbers for x1, y1, x2, y2, and most boxes would be inside out"
    yield from _units(model, corners, pixels=bool(model.head_parameters.get("pixels", 1)))


def _detr(model: ModelConfig, answers: Answers) -> Iterator[str]:
    names = output_names.query_outputs(output.name for output in model.outputs)
    if names and (reason := _outside(_all(answers, names[1]))):
        yield f"output {names[1]!r}: {reason}, and it takes it for centre, width and height in [0, 1]"


def _yolo(objectness: bool) -> Callable[[ModelConfig, Answers], Iterator[str]]:
    def look(model: ModelConfig, answers: Answers) -> Iterator[str]:
        values = np.concatenate([each[model.outputs[0].name] for each in answers])
        fields = values.transpose(0, 2, 1) if objectness else values  # (pictures, fields, candidates)
        if reason := _outside(fields[:, outputs.BOX :]):
            yield f"it takes every number behind the box for a score, and there {reason}{_instead(fields)}"
        if objectness and _is_end_to_end(fields):
            yield _END_TO_END
        boxes = fields[:, : outputs.BOX].transpose(0, 2, 1).reshape(-1, outputs.BOX)
        yield from _units(model, boxes, pixels=bool(model.head_parameters.get("pixels", 1)))

    return look


def _instead(fields: Array) -> str:
    """What the outputs are that a YOLO head can't read."""
    count = fields.shape[1]
    if count == outputs.END_TO_END and not (fields[:, 5] % 1).any() and not _outside(fields[:, outputs.BOX]):
        return f". {_END_TO_END}"
    rest = fields[:, outputs.BOX + 1 :]
    if rest.size and not _outside(fields[:, outputs.BOX]) and np.abs(rest).max() > _PIXELS:
        return ". Key points of poses are not supported; export a model that answers boxes alone"
    if count > outputs.BOX + 1 and not _outside(fields[:, outputs.BOX : -1]):
        return ". Oriented boxes, whose last number is an angle, are not supported"
    return "; export the model with its sigmoid"


def _is_end_to_end(fields: Array) -> bool:
    """Whether these are the best boxes, best first, each with one class: candidates are in no order."""
    if fields.shape[1] != outputs.END_TO_END or fields.shape[2] < _MANY:
        return False
    boxes, scores, classes = fields[:, : outputs.BOX], fields[:, outputs.BOX], fields[:, outputs.BOX + 1]
    real = np.any(boxes != 0, axis=1)
    ordered = np.all(boxes[:, 2:] >= boxes[:, :2], axis=1)
    sorted_ = (np.diff(scores, axis=1) <= 0).all()
    return bool(real.sum() >= _MANY and ordered[real].all() and sorted_ and not (classes % 1).any())


def _text(model: ModelConfig, answers: Answers) -> Iterator[str]:
    if reason := _outside(_all(answers, model.outputs[0].name)):
        yield f"{reason}, so these are no probabilities; export the model with its sigmoid"


def _class_map(model: ModelConfig, answers: Answers) -> Iterator[str]:
    values = _all(answers, model.outputs[0].name)
    if (values % 1).any():
        inside = not _outside(values)
        yield f"its numbers aren't whole, so they are no classes; use head {'foreground' if inside else 'sigmoid'}"
    elif values.min() < 0:
        yield f"it answers {values.min():g}, which is no class"


def _sigmoid(model: ModelConfig, answers: Answers) -> Iterator[str]:
    values = _all(answers, model.outputs[0].name)
    if values.min() >= 0 and values.max() <= 1 and _varies(values):
        yield "every value is in [0, 1], so the model answers probabilities already; use head foreground"


def _foreground(model: ModelConfig, answers: Answers) -> Iterator[str]:
    if reason := _outside(_all(answers, model.outputs[0].name)):
        yield f"{reason}, so these are no probabilities; head sigmoid reads logits"


def _all(answers: Answers, name: str) -> Array:
    """One output: ``(pictures, values)``, or flat where pictures have different numbers of them; 0 for no number."""
    flat = [each[name].astype(np.float64).ravel() for each in answers]
    values = np.stack(flat) if len({len(each) for each in flat}) == 1 else np.concatenate(flat)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _varies(values: Array) -> bool:
    """Whether pictures differ in their answers at all."""
    return values.ndim > 1 and bool((values != values[0]).any())


def _outside(values: Array) -> str:
    """How far values leave [0, 1]; empty: they don't."""
    least, most = values.min(initial=0), values.max(initial=0)
    if least < -SLACK or most > 1 + SLACK:
        return f"it answers {least if least < -SLACK else most:.4g}, outside [0, 1]"
    return ""


_LOOKS: Final[dict[str, Callable[[ModelConfig, Answers], Iterator[str]]]] = {
    "softmax": _softmax,
    "probabilities": _probabilities,
    "boxes_scores": _boxes_scores,
    "end_to_end": _end_to_end,
    "detr": _detr,
    "yolov5": _yolo(objectness=True),
    "yolov8": _yolo(objectness=False),
    "db": _text,
    "class_map": _class_map,
    "sigmoid": _sigmoid,
    "foreground": _foreground,
}
