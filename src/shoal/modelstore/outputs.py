"""What each head reads: the shapes of a model's outputs, and how many classes they tell of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.modelstore.config import ModelConfig

    Shapes = dict[str, tuple[int, ...]]

VARIES: Final = -1
_BOX: Final = 4  # x, y, width, height
_MATRIX: Final = 2
_MAP: Final = 3  # two sides, and channels before or behind them


class _Wanted(NamedTuple):
    text: str
    fits: Callable[[Shapes], bool]


def misfit(model: ModelConfig) -> str:
    """What the model's head reads in place of the outputs that the model has; empty where they fit."""
    wanted = _WANTED[model.head]
    shapes = {output.name: output.shape for output in model.outputs}
    if wanted.fits(shapes):
        return ""
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    return f"head {model.head} reads {wanted.text}; here: {found}"


def classes(model: ModelConfig) -> int:
    """How many labels a model with fitting outputs needs; ``VARIES`` where that can't be told."""
    shapes = {output.name: output.shape for output in model.outputs}
    first = model.outputs[0].shape
    if model.head in {"softmax", "probabilities"}:
        return first[-1]
    if model.head == "boxes_scores":
        return shapes["scores"][1] if len(shapes["scores"]) == _MATRIX else VARIES
    if model.head in {"yolov5", "yolov8"}:
        fields, skipped = (first[1], _BOX + 1) if model.head == "yolov5" else (first[0], _BOX)
        return fields - skipped if fields > 0 else VARIES
    if model.head == "argmax":
        return first[-1 if model.head_parameters.get("channels_last") else 0]
    return 2 if model.head in {"sigmoid", "foreground"} else VARIES  # background, foreground


def _alone(shapes: Shapes, rank: int) -> tuple[int, ...] | None:
    """The shape of the only output, if it has this rank."""
    (first, *others) = shapes.values()
    return first if not others and len(first) == rank else None


def _is_vector(shapes: Shapes) -> bool:
    return _alone(shapes, 1) is not None


def _is_text_map(shapes: Shapes) -> bool:
    shape = _alone(shapes, _MAP)
    return shape is not None and shape[0] == 1


def _is_plane(shapes: Shapes) -> bool:
    shape = _alone(shapes, _MAP)
    return _alone(shapes, _MATRIX) is not None or (shape is not None and 1 in (shape[0], shape[-1]))


def _are_boxes(shapes: Shapes) -> bool:
    boxes, scores = shapes.get("boxes", ()), shapes.get("scores", ())
    given = [shapes[name] for name in ("classes", "labels") if name in shapes]
    if len(scores) == _MATRIX and not given:
        return boxes == (scores[0], _BOX)
    return boxes == (*scores, _BOX) and len(scores) == 1 and all(shape == scores for shape in given)


def _are_candidates(axis: int, least: int) -> Callable[[Shapes], bool]:
    def fits(shapes: Shapes) -> bool:
        shape = _alone(shapes, _MATRIX)
        return shape is not None and (shape[axis] == VARIES or shape[axis] > least)

    return fits


def _is_score_map(shapes: Shapes) -> bool:
    return _alone(shapes, _MAP) is not None


_VECTOR: Final = _Wanted("one output [classes]", _is_vector)
_PLANE: Final = "one output [height, width], [1, height, width] or [height, width, 1]"
_WANTED: Final = {
    "softmax": _VECTOR,
    "probabilities": _VECTOR,
    "db": _Wanted("one output [1, height, width]", _is_text_map),
    "boxes_scores": _Wanted(
        "outputs boxes [n, 4] and scores [n], with or without classes or labels [n], or scores [n, classes]", _are_boxes
    ),
    "yolov5": _Wanted("one output [n, 5 + classes]", _are_candidates(1, _BOX + 1)),
    "yolov8": _Wanted("one output [4 + classes, n]", _are_candidates(0, _BOX)),
    "argmax": _Wanted(
        "one output [classes, height, width], or [height, width, classes] with shoal.head.channels_last 1",
        _is_score_map,
    ),
    "class_map": _Wanted(_PLANE, _is_plane),
    "sigmoid": _Wanted(_PLANE, _is_plane),
    "foreground": _Wanted(_PLANE, _is_plane),
}
