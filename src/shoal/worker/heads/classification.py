"""Classification: the most probable classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np

from shoal.errors import Internal
from shoal.modelstore.fitting import SLACK
from shoal.v1.inference_pb2 import ClassifyReply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.header import PictureSize
    from shoal.v1.inference_pb2 import ImageRequest

DEFAULT_TOP_K: Final = 5
_FEW: Final = 10
"""Classes that are found sooner one by one than by a partition of all."""


class ClassificationHead:
    """Reads the model's only output, ``(classes,)``; dimensions of 1 around it say nothing."""

    slow = False

    def __init__(self, config: ModelConfig, *, logits: bool) -> None:
        """Prepares for a model.

        Args:
            config: With one output; ``labels`` may be shorter than it, the rest have none.
            logits: Whether a softmax makes probabilities of the output, or it holds them already.
        """
        self._model = config.name
        self._output = config.outputs[0].name
        self._labels = config.labels
        self._logits = logits

    def check(self, request: ImageRequest) -> None:
        """Any ``top_k`` will do: more than there are classes gives all of them."""

    def reply(
        self, outputs: Mapping[str, NDArray[np.generic]], row: int, request: ImageRequest, picture_size: PictureSize
    ) -> ClassifyReply:
        """The ``top_k`` best classes of one picture (default ``DEFAULT_TOP_K``), best first.

        Raises:
            Internal: NaN, infinity, or a probability outside [0, 1].
        """
        (reply,) = self.replies({self._output: outputs[self._output][row : row + 1]}, [request], [picture_size])
        if isinstance(reply, Exception):
            raise reply
        return reply

    def replies(
        self,
        outputs: Mapping[str, NDArray[np.generic]],
        requests: Sequence[ImageRequest],
        picture_sizes: Sequence[PictureSize],  # noqa: ARG002 - see Head
    ) -> list[ClassifyReply | Exception]:
        """``reply`` for each of a batch, computed at once for those that ask for as many classes."""
        rows = len(requests)
        values = cast("NDArray[np.floating]", outputs[self._output])[:rows].reshape(rows, -1)
        replies: dict[int, ClassifyReply | Exception] = {}
        counts = [request.top_k or DEFAULT_TOP_K for request in requests]
        for count in set(counts):
            chosen = [row for row, each in enumerate(counts) if each == count]
            of_count = values if len(chosen) == rows else values[chosen]
            replies.update(zip(chosen, self._of(of_count, count), strict=True))
        return [replies[row] for row in range(rows)]

    def _of(self, values: NDArray[np.floating], count: int) -> Iterator[ClassifyReply | Exception]:
        """Answers, of values of shape ``(rows, classes)``."""
        best = _best(values, count)
        chosen = _at(values, best)
        faults = self._faults(values, chosen[:, 0])
        rows = zip(best.tolist(), self._probabilities(values, best, chosen), faults, strict=True)
        for indices, probabilities, fault in rows:
            yield Internal(f"model {self._model!r} answered {fault}") if fault else self._built(indices, probabilities)

    def _faults(self, values: NDArray[np.floating], largest: NDArray[np.floating]) -> list[str]:
        """What is wrong with each row; empty: nothing."""
        finite = np.isfinite(largest)  # NaN sorts above all numbers
        inside = finite if self._logits else (values.min(axis=1) >= -SLACK) & (values.max(axis=1) <= 1 + SLACK)
        if finite.all() and inside.all():
            return [""] * len(values)
        return [
            "NaN or infinity" if not is_finite else "" if is_inside else "a probability outside [0, 1]"
            for is_finite, is_inside in zip(finite.tolist(), inside.tolist(), strict=True)
        ]

    def _built(self, indices: list[int], probabilities: list[float]) -> ClassifyReply:
        reply, labels = ClassifyReply(), self._labels
        add, known = reply.classes.add, len(labels)
        for index, probability in zip(indices, probabilities, strict=True):
            add(index=index, label=labels[index] if index < known else "", probability=probability)
        return reply

    def _probabilities(
        self, values: NDArray[np.floating], best: NDArray[np.intp], chosen: NDArray[np.floating]
    ) -> list[list[float]]:
        if not self._logits:
            return cast("list[list[float]]", chosen.clip(0, 1).tolist())
        # Invalid: of rows with NaN or infinity, which get no reply.
        with np.errstate(invalid="ignore", over="ignore"):
            # Relative to the largest logit, so that only what is too far below it overflows: its share is 0.
            exponentials = np.exp(values - chosen[:, :1], dtype=np.float32)
            shares = _at(exponentials, best) / exponentials.sum(axis=1, keepdims=True)
        return cast("list[list[float]]", shares.tolist())


def _best(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """In each row of ``(rows, classes)`` the indices of the ``count`` largest values, largest first.

    Of few, and equal, the first class comes first.
    """
    if count >= values.shape[1]:
        return values.argsort(axis=1)[:, ::-1]
    if count > _FEW:
        return _partitioned(values, count)
    best = _maxima(values, count)
    broken = ~np.isfinite(_at(values, best[:, -1:])[:, 0])
    if broken.any():
        best[broken] = _partitioned(values[broken], count)
    return best


def _partitioned(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    top = values.argpartition(-count, axis=1)[:, -count:]
    order = np.take_along_axis(values, top, 1).argsort(axis=1)[:, ::-1]
    return np.take_along_axis(top, order, 1)


def _maxima(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """``_best``, one column after another: right as long as the values are finite, and quick for few."""
    left = values.copy()
    flat, starts = left.reshape(-1), np.arange(0, values.size, values.shape[1])
    best = np.empty((count, len(values)), np.intp)
    for found in best:
        left.argmax(axis=1, out=found)
        flat[found + starts] = -np.inf
    return best.T


def _at(values: NDArray[np.floating], columns: NDArray[np.intp]) -> NDArray[np.floating]:
    """``np.take_along_axis(values, columns, 1)``, in a fraction of the time."""
    return values.reshape(-1).take(columns + np.arange(0, values.size, values.shape[1])[:, None])
