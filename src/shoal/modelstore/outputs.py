"""What each head reads: shapes and data types of a model's outputs, and how many classes they tell of.

``output_names`` tells which outputs those are, and ``fitting`` looks at what is in them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.modelconfig import keys
from shoal.modelstore.output_names import box_outputs, query_outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.modelconfig.model import ModelConfig

    Shape = tuple[int, ...]
    Fits = Callable[[ModelConfig], bool]

VARIES: Final = -1
BOX: Final = 4
"""Numbers that say where a box is."""
END_TO_END: Final = 6
"""And its score and class."""
_MATRIX: Final = 2
_MAP: Final = 3  # two sides, and channels before or behind them
_MANY_FIELDS: Final = 1000
"""So many, and more of them than candidates: the one is the other."""


class _Wanted(NamedTuple):
    text: str
    fits: Fits


def misfit(model: ModelConfig) -> str:
    """What the model's head reads in place of the outputs that the model has; empty where they fit."""
    wanted = _WANTED.get(model.head)
    if wanted is None:
        return f"no head {model.head!r}; {keys.suggestion(model.head, [*_WANTED])}"
    if wanted.fits(model):
        return _ambiguity(model)
    found = ", ".join(f"{output.name} {output.dtype} {list(output.shape)}" for output in model.outputs)
    return f"head {model.head} reads {wanted.text}; here: {found}{_way_out(model)}"


def classes(model: ModelConfig) -> int:
    """How many labels a model with fitting outputs needs; ``VARIES`` where that can't be told."""
    shapes = _shapes(model)
    first = model.outputs[0].shape
    if model.head in {"softmax", "probabilities"}:
        return VARIES if VARIES in first else math.prod(first)
    if model.head == "boxes_scores":
        names = box_outputs(shapes)
        scores = shapes[names.scores] if names else ()
        return scores[1] if names and names.classes is None and len(scores) == _MATRIX else VARIES
    if model.head == "detr":
        return _query_classes(model)
    if model.head in {"yolov5", "yolov8"}:
        fields, skipped = (first[1], BOX + 1) if model.head == "yolov5" else (first[0], BOX)
        return fields - skipped if fields > 0 else VARIES
    if model.head == "argmax":
        return first[_class_axis(model)]
    return 2 if model.head in {"sigmoid", "foreground"} else VARIES  # background, foreground


def has_no_object(model: ModelConfig) -> bool | None:
    """Whether the last class of a ``detr`` model stands for no object, and a softmax is to be taken.

    None: nothing tells. DETR, YOLOS and Table Transformer have it; Conditional and Deformable DETR, RT-DETR and what
    came after answer a sigmoid a class. The labels tell: there is one for each class that is one.
    """
    if "no_object" in model.head_parameters:
        return bool(model.head_parameters["no_object"])
    given = _query_logits(model)
    if not model.labels or given == VARIES or given - len(model.labels) not in {0, 1}:
        return None
    return given > len(model.labels)


def _query_logits(model: ModelConfig) -> int:
    """The last dimension of a ``detr`` model's logits."""
    shapes = _shapes(model)
    names = query_outputs(shapes)
    return shapes[names[0]][-1] if names and shapes[names[0]] else VARIES


def _query_classes(model: ModelConfig) -> int:
    given = _query_logits(model)
    return VARIES if given == VARIES else given - bool(has_no_object(model))


def _class_axis(model: ModelConfig) -> int:
    return -1 if model.head_parameters.get("channels_last") else 0


def _shapes(model: ModelConfig) -> dict[str, Shape]:
    return {output.name: output.shape for output in model.outputs}


def _alone(model: ModelConfig, *ranks: int) -> Shape | None:
    """The shape of the only output, if it has one of these ranks."""
    (first, *others) = model.outputs
    return first.shape if not others and len(first.shape) in ranks else None


def _is_vector(model: ModelConfig) -> bool:
    """One score a class; dimensions of 1 say nothing."""
    (first, *others) = model.outputs
    return not others and first.dtype.startswith("float") and sum(size != 1 for size in first.shape) <= 1


def _are_logits(model: ModelConfig) -> bool:
    return _is_vector(model) and math.prod(model.outputs[0].shape) != 1


def _is_text_map(model: ModelConfig) -> bool:
    shape = _alone(model, _MAP)
    return shape is not None and shape[0] == 1 and _floats(model)


def _is_plane(model: ModelConfig) -> bool:
    shape = _alone(model, _MATRIX, _MAP)
    return shape is not None and (len(shape) == _MATRIX or 1 in {shape[0], shape[-1]})


def _is_float_plane(model: ModelConfig) -> bool:
    return _is_plane(model) and _floats(model)


def _floats(model: ModelConfig) -> bool:
    return model.outputs[0].dtype.startswith("float")


def _are_boxes(model: ModelConfig) -> bool:
    shapes = _shapes(model)
    names = box_outputs(shapes)
    if names is None:
        return False
    boxes, scores = shapes[names.boxes], shapes[names.scores]
    if len(scores) == _MATRIX and names.classes is None:
        return _same(boxes, (scores[0], BOX))
    per_box = [scores] if names.classes is None else [scores, shapes[names.classes]]
    return all(len(_row(shape)) == 1 and _same(boxes, (*_row(shape), BOX)) for shape in per_box)


def _row(shape: Shape) -> Shape:
    """Without a last dimension of 1."""
    return shape[:1] if len(shape) == _MATRIX and shape[1] == 1 else shape


def _are_queries(model: ModelConfig) -> bool:
    shapes = _shapes(model)
    names = query_outputs(shapes)
    if names is None or len(shapes[names[0]]) != _MATRIX:
        return False
    return _same(shapes[names[1]], (shapes[names[0]][0], BOX))


def _are_ends(model: ModelConfig) -> bool:
    shape = _alone(model, _MATRIX)
    return shape is not None and _same(shape, (VARIES, END_TO_END)) and _floats(model)


def _are_candidates(axis: int, least: int) -> Fits:
    def fits(model: ModelConfig) -> bool:
        shape = _alone(model, _MATRIX)
        if shape is None or not _floats(model):
            return False
        fields, count = shape[axis], shape[1 - axis]
        return fields == VARIES or (fields > least and (fields < _MANY_FIELDS or count == VARIES or fields <= count))

    return fits


def _is_score_map(model: ModelConfig) -> bool:
    shape = _alone(model, _MAP)
    if shape is None or shape[_class_axis(model)] == 1:
        return False
    sides, others = (shape[:2], shape[1:]) if _class_axis(model) else (shape[1:], shape[:2])
    return _like_input(sides, model) or not _like_input(others, model)


def _like_input(sides: Shape, model: ModelConfig) -> bool:
    """Whether two dimensions have the aspect of the model's input."""
    return VARIES in sides or sides[0] * model.width == sides[1] * model.height


def _same(one: Shape, other: Shape) -> bool:
    return len(one) == len(other) and all(VARIES in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _ambiguity(model: ModelConfig) -> str:
    """What a head has to be told of outputs that fit; empty: nothing."""
    if model.head == "detr" and has_no_object(model) is None:
        return (
            f"head detr reads {_query_logits(model)} logits a box, and can't tell whether the last one stands for no "
            "object: give the labels, or say no_object=1 (DETR, YOLOS) or no_object=0 (RT-DETR, Deformable DETR) with "
            f"--head-parameter, which is {keys.HEAD}.no_object in config.pbtxt"
        )
    return ""


def _way_out(model: ModelConfig) -> str:
    """The head that reads such outputs, or what they are that none reads."""
    task = keys.HEADS[model.head]
    if task is keys.HEADS["argmax"] and (text := _map_way_out(model)):
        return text
    others = [
        head
        for head, wanted in _WANTED.items()
        if head != model.head and keys.HEADS[head] is task and wanted.fits(model) and not _loose(head, model)
    ]
    if others:
        return f". Such outputs are read by {' or '.join(others)}"
    if len(model.outputs) > 1 and any(len(output.shape) == _MAP for output in model.outputs):
        return ". Masks of single objects are not supported; export a model that answers boxes alone"
    if not any(output.dtype.startswith("float") for output in model.outputs):
        return ". Indices are no scores; export the model without its last ArgMax"
    return ""


def _map_way_out(model: ModelConfig) -> str:
    if model.head != "argmax" or (shape := _alone(model, _MAP)) is None:
        return ""
    if shape[_class_axis(model)] == 1:
        return ". One class is read by sigmoid (logits) or foreground (probabilities), indices by class_map"
    return f". It takes --head-parameter channels_last={0 if _class_axis(model) else 1}"


def _loose(head: str, model: ModelConfig) -> bool:
    """Whether a head takes nearly any shape of this rank, so that it is no hint."""
    return head in {"yolov5", "yolov8"} and _are_ends(model)


_VECTOR: Final = "one output [classes] of floats"
_PLANE: Final = "one output [height, width], [1, height, width] or [height, width, 1]"
_WANTED: Final = {
    "softmax": _Wanted(f"{_VECTOR}, two classes or more", _are_logits),
    "probabilities": _Wanted(_VECTOR, _is_vector),
    "db": _Wanted("one output [1, height, width] of floats", _is_text_map),
    "boxes_scores": _Wanted(
        "outputs boxes [n, 4] and scores [n], with or without classes or labels [n], or scores [n, classes]", _are_boxes
    ),
    "end_to_end": _Wanted("one output [n, 6] of floats", _are_ends),
    "detr": _Wanted("outputs logits [n, classes] and pred_boxes [n, 4]", _are_queries),
    "yolov5": _Wanted("one output [n, 5 + classes] of floats", _are_candidates(1, BOX + 1)),
    "yolov8": _Wanted("one output [4 + classes, n] of floats", _are_candidates(0, BOX)),
    "argmax": _Wanted(
        "one output [classes, height, width], or [height, width, classes] with shoal.head.channels_last 1, of two "
        "classes or more",
        _is_score_map,
    ),
    "class_map": _Wanted(_PLANE, _is_plane),
    "sigmoid": _Wanted(f"{_PLANE} of floats", _is_float_plane),
    "foreground": _Wanted(f"{_PLANE} of floats", _is_float_plane),
}
