"""What a head is, and which one a model's configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shoal.errors import ConfigurationError
from shoal.modelstore import outputs
from shoal.worker.heads.classification import ClassificationHead
from shoal.worker.heads.detection import DetectionHead
from shoal.worker.heads.detection_boxes import BoxesScoresReader, YoloReader
from shoal.worker.heads.detection_queries import EndToEndReader, QueryReader
from shoal.worker.heads.detection_text import TextMapReader
from shoal.worker.heads.segmentation import ArgmaxReader, ClassMapReader, ForegroundReader, SegmentationHead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.header import PictureSize
    from shoal.v1.inference_pb2 import ClassifyReply, DetectReply, ImageRequest, SegmentReply

    Reply = ClassifyReply | DetectReply | SegmentReply


class Head(Protocol):
    """Reads the outputs of one model. Stateless: any number of threads may use it."""

    @property
    def slow(self) -> bool:
        """Whether ``reply`` takes milliseconds, and so belongs in a thread."""
        ...

    def check(self, request: ImageRequest) -> None:
        """Raises InvalidRequest if the request's options make no sense; before anything is fetched for it."""
        ...

    def reply(
        self, outputs: Mapping[str, NDArray[np.generic]], row: int, request: ImageRequest, picture_size: PictureSize
    ) -> Reply:
        """The answer to one checked request, without its uuid, model and timing.

        Args:
            outputs: The whole batch's, name to ``(batch, *shape)``.
            row: The request's own.
            request: Its options.
            picture_size: Of the upright picture: width, height.

        Raises:
            Internal: the outputs make no sense: NaN, infinity, a score outside [0, 1], a class that is none.
            InvalidRequest: the answer would be too large.
        """
        ...

    def replies(
        self,
        outputs: Mapping[str, NDArray[np.generic]],
        requests: Sequence[ImageRequest],
        picture_sizes: Sequence[PictureSize],
    ) -> Sequence[Reply | Exception]:
        """``reply`` for each of the first rows, or what it raises for it."""
        ...


def make_head(config: ModelConfig) -> Head:
    """The head that the model's configuration names.

    Raises:
        ConfigurationError: there is none of this name, or the model lacks what it reads.
    """
    if reason := outputs.misfit(config):
        raise ConfigurationError(f"model {config.name!r}: {reason}")
    return _HEADS[config.head](config)


_HEADS: dict[str, Callable[[ModelConfig], Head]] = {
    "softmax": lambda config: ClassificationHead(config, logits=True),
    "probabilities": lambda config: ClassificationHead(config, logits=False),
    "db": lambda config: DetectionHead(config, TextMapReader(config)),
    "boxes_scores": lambda config: DetectionHead(config, BoxesScoresReader(config)),
    "end_to_end": lambda config: DetectionHead(config, EndToEndReader(config)),
    "detr": lambda config: DetectionHead(config, QueryReader(config)),
    "yolov5": lambda config: DetectionHead(config, YoloReader(config, objectness=True)),
    "yolov8": lambda config: DetectionHead(config, YoloReader(config, objectness=False)),
    "argmax": lambda config: SegmentationHead(config, ArgmaxReader(config)),
    "class_map": lambda config: SegmentationHead(config, ClassMapReader(config)),
    "sigmoid": lambda config: SegmentationHead(config, ForegroundReader(config, logits=True)),
    "foreground": lambda config: SegmentationHead(config, ForegroundReader(config, logits=False)),
}
