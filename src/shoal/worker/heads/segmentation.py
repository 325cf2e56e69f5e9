"""Segmentation: a class for each pixel of the model's frame becomes a mask of the upright picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol, cast

import numpy as np

from shoal.errors import Internal, InvalidRequest
from shoal.modelstore.fitting import SLACK
from shoal.pictures.geometry import place
from shoal.pictures.header import PictureSize
from shoal.pictures.mask import MAX_PIXELS, unseen
from shoal.v1.inference_pb2 import MaskForm, MaskSize, SegmentReply
from shoal.worker.heads.asked_region import region_of
from shoal.worker.heads.detection import check_score_threshold
from shoal.worker.heads.mask_reply import Mask, fill
from shoal.worker.heads.one_by_one import OneByOne

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.geometry import Placement
    from shoal.v1.inference_pb2 import ImageRequest

    Outputs = Mapping[str, NDArray[np.generic]]
    Floats = NDArray[np.floating]
    Indices = NDArray[np.uint8] | NDArray[np.uint16]

_PLANE: Final = 2


class MapReader(Protocol):
    """Reads one picture's classes from the outputs of a batch."""

    def read(self, outputs: Outputs, row: int, threshold: float | None) -> Indices:
        """``(h, w)``: a class index for each cell of the model's frame.

        Args:
            outputs: The whole batch's.
            row: The picture's own.
            threshold: For a model with one class; None: the model's own.

        Raises:
            Internal: the outputs make no sense.
        """
        ...


class SegmentationHead(OneByOne[SegmentReply]):
    """Replies with the mask that a reader finds, in the form and size that the request asks for."""

    slow = True

    def __init__(self, config: ModelConfig, reader: MapReader) -> None:
        """Prepares for a model whose outputs ``reader`` understands."""
        self._config = config
        self._reader = reader

    def check(self, request: ImageRequest) -> None:
        """Raises InvalidRequest if ``score_threshold`` is not in [0, 1], or form or size of the mask is unknown."""
        check_score_threshold(request)
        for name, value, kind in (("form", request.mask_form, MaskForm), ("size", request.mask_size, MaskSize)):
            if value not in kind.values():
                raise InvalidRequest(f"mask_{name} {value} is unknown; there are {', '.join(kind.keys())}")

    def reply(self, outputs: Outputs, row: int, request: ImageRequest, picture_size: PictureSize) -> SegmentReply:
        """The mask of one picture, and how many pixels each class has.

        Raises:
            Internal: the outputs make no sense.
            InvalidRequest: the mask is larger than an answer may be.
        """
        placement = place(self._config, picture_size, region_of(request))
        threshold = request.score_threshold if request.HasField("score_threshold") else None
        mask = _lay(self._reader.read(outputs, row, threshold), placement, request.mask_size)
        reply = SegmentReply(labels=self._config.labels)
        fill(reply, mask, self._config.labels, request.mask_form)
        return reply


class ArgmaxReader:
    """Reads the model's only output, a score for each class: ``(classes, h, w)``, or ``(h, w, classes)``.

    The best class of each cell counts, so logits and probabilities will do. Parameters: ``channels_last`` (default 0);
    1 where the classes are the last dimension.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit."""
        self._model = config.name
        self._output = config.outputs[0].name
        self._axis = -1 if config.head_parameters.get("channels_last") else 0

    def read(self, outputs: Outputs, row: int, threshold: float | None) -> Indices:  # noqa: ARG002 - of one class
        """The best class of each cell, ``(h, w)``: uint8, or uint16 if there are many classes. NaN is refused."""
        scores = _finite(outputs[self._output][row], self._model)
        small = scores.shape[self._axis] <= unseen(1)
        return cast("Indices", scores.argmax(axis=self._axis).astype(np.uint8 if small else np.uint16))


class ClassMapReader:
    """Reads the model's only output, class indices ``(h, w)``, ``(1, h, w)`` or ``(h, w, 1)`` of any dtype."""

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit."""
        self._model = config.name
        self._output = config.outputs[0].name

    def read(self, outputs: Outputs, row: int, threshold: float | None) -> Indices:  # noqa: ARG002 - no scores
        """The classes as they stand in the output, ``(h, w)``; what is no index of a class is refused."""
        values = _finite(_flat(outputs[self._output][row]), self._model)
        least, most = values.min(), values.max()
        if values.dtype.kind == "f" and (values != np.floor(values)).any():
            raise Internal(f"model {self._model!r} answered a number that isn't whole: no index of a class")
        if not 0 <= least <= most < unseen(2):
            raise Internal(f"model {self._model!r} answered class {least if least < 0 else most}: no index of a class")
        return cast("Indices", values.astype(np.uint8 if most < unseen(1) else np.uint16))


class ForegroundReader:
    """Reads the model's only output, ``(h, w)``, ``(1, h, w)`` or ``(h, w, 1)``: class 1 where it is high, 0 elsewhere.

    Parameters: ``threshold`` (default 0.5), the least probability of class 1.
    """

    def __init__(self, config: ModelConfig, *, logits: bool) -> None:
        """Prepares for a model.

        Args:
            config: With one output, a plane.
            logits: Whether a sigmoid makes probabilities of the output, or it holds them already.
        """
        self._model = config.name
        self._output = config.outputs[0].name
        self._logits = logits
        self._threshold = config.head_parameters.get("threshold", 0.5)

    def read(self, outputs: Outputs, row: int, threshold: float | None) -> Indices:
        """``(h, w)``, uint8: 1 where the probability of class 1 is at least ``threshold``; NaN is refused."""
        values = _finite(_flat(outputs[self._output][row]), self._model)
        if not self._logits and not -SLACK <= values.min() <= values.max() <= 1 + SLACK:
            raise Internal(f"model {self._model!r} answered a probability outside [0, 1]")
        least = self._threshold if threshold is None else threshold
        return (values >= (_logit(least) if self._logits else least)).astype(np.uint8)


def _logit(probability: float) -> float:
    """The sigmoid's inverse: one number, in place of a sigmoid for each pixel."""
    if not 0 < probability < 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))


def _lay(classes: Indices, placement: Placement, size: MaskSize) -> Mask:
    """The mask of the whole upright picture, of the size that was asked for."""
    height, width = classes.shape
    wanted = (
        placement.picture if size == MaskSize.MASK_SIZE_PICTURE else placement.mask_size(PictureSize(width, height))
    )
    if wanted.width * wanted.height > MAX_PIXELS:
        raise InvalidRequest(
            f"the mask would have {wanted.width} x {wanted.height} pixels; the limit is {MAX_PIXELS:,} in all: "
            "ask for mask_size MASK_SIZE_MODEL, or send a smaller picture"
        )
    return Mask(classes, placement.cells(1, height, wanted.height), placement.cells(0, width, wanted.width))


def _flat(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Without the dimension of 1."""
    if values.ndim == _PLANE:
        return values
    return values[0] if values.shape[0] == 1 else values[..., 0]


def _finite(values: NDArray[np.generic], model: str) -> Floats:
    numbers = cast("Floats", values)
    if not np.isfinite(numbers).all():
        raise Internal(f"model {model!r} answered NaN or infinity")
    return numbers
