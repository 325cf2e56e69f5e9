"""Classification: the most probable classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from shoal.errors import Internal
from shoal.modelstore.fitting import SLACK
from shoal.v1.inference_pb2 import ClassifyReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.header import PictureSize
    from shoal.v1.inference_pb2 import ImageRequest

DEFAULT_TOP_K: Final = 5


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
        self,
        outputs: Mapping[str, NDArray[np.generic]],
        row: int,
        request: ImageRequest,
        picture_size: PictureSize,  # noqa: ARG002 - see Head
    ) -> ClassifyReply:
        """The ``top_k`` best classes of one picture (default ``DEFAULT_TOP_K``), best first.

        Raises:
            Internal: NaN, infinity, or a probability outside [0, 1].
        """
        values = cast("NDArray[np.floating]", outputs[self._output][row]).ravel()
        best = _best(values, request.top_k or DEFAULT_TOP_K)
        if not math.isfinite(values[best[0]]):  # NaN sorts above all numbers
            raise Internal(f"model {self._model!r} answered NaN or infinity")
        if not self._logits and not -SLACK <= values.min() <= values.max() <= 1 + SLACK:
            raise Internal(f"model {self._model!r} answered a probability outside [0, 1]")
        reply = ClassifyReply()
        for index, probability in zip(best.tolist(), self._probabilities(values, best), strict=True):
            label = self._labels[index] if index < len(self._labels) else ""
            reply.classes.add(index=index, label=label, probability=probability)
        return reply

    def _probabilities(self, values: NDArray[np.floating], best: NDArray[np.intp]) -> list[float]:
        if not self._logits:
            return cast("list[float]", values[best].clip(0, 1).tolist())
        # Relative to the largest logit, so that nothing overflows.
        exponentials = np.exp(values - values[best[0]], dtype=np.float32)
        return cast("list[float]", (exponentials[best] / exponentials.sum()).tolist())


def _best(values: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """The indices of the ``count`` largest values, largest first."""
    if count >= len(values):
        return values.argsort()[::-1]
    top = values.argpartition(-count)[-count:]
    return top[values[top].argsort()[::-1]]
