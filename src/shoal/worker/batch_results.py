"""The results of one batch's items: made from what the engine and the head gave, and kept until they are sent."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from shoal.batching.messages import priority_of
from shoal.batching.results import failure
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.engine import Inference
    from shoal.runtime.priority import Priority
    from shoal.v1 import inference_pb2
    from shoal.worker.picture import Picture
    from shoal.worker.picture_model import PictureModel
    from shoal.worker.stages import Stages


class BatchResults:
    """Results that nobody has taken yet. An item's failure is its own."""

    def __init__(self, model: PictureModel) -> None:
        self._model = model
        self._waiting: list[batching_pb2.BatchItemResult] = []
        self._ended: list[Stages] = []
        """The stages of pictures whose results were not taken yet."""

    def __bool__(self) -> bool:
        """Whether a result waits to be taken."""
        return bool(self._waiting)

    def add(self, results: Iterable[batching_pb2.BatchItemResult]) -> None:
        """Keeps ``results`` until they are taken."""
        self._waiting.extend(results)

    def drop(self, picture: Picture, error: BaseException) -> None:
        """Answers with ``error``, unless there is an answer."""
        if not picture.withdrawn:
            self._waiting.append(self.dropped(picture, error))

    def fail(self, item: batching_pb2.BatchItem, error: BaseException) -> None:
        """Answers with ``error`` an item that never became a picture."""
        self._waiting.append(self._failure(item.index, priority_of(item), error))

    def take(self) -> list[batching_pb2.BatchItemResult]:
        """All that wait, which are sent now."""
        now = monotonic()
        ended, self._ended = self._ended, []
        for stages in ended:
            stages.left = now
        results, self._waiting = self._waiting, []
        return results

    def replies(
        self, inference: Inference, started: float, pictures: Sequence[Picture]
    ) -> list[batching_pb2.BatchItemResult]:
        """The results of ``pictures``, the first rows of ``inference``; not kept. Any thread may call it.

        Args:
            inference: What the engine gave.
            started: When it began, in seconds of ``time.monotonic``.
            pictures: In the order of their rows.
        """
        compute_us = int(inference.seconds * 1e6)
        results = []
        for row, picture in enumerate(pictures):
            timing = picture.timing(started, compute_us, len(pictures))
            picture.stages.started, picture.stages.computed = started, started + inference.seconds
            results.append(self._reply(inference, row, picture, timing))
        return results

    def dropped(self, picture: Picture, error: BaseException) -> batching_pb2.BatchItemResult:
        """The result that says ``error``; not kept."""
        result = self._failure(picture.item.index, picture.priority, error)
        self.note_end(picture, Code(result.code), result.message)
        return result

    def note_end(self, picture: Picture, code: Code, text: str = "") -> None:
        """Remembers how ``picture`` ended, for ``shoal explain``."""
        picture.stages.end(code, text)
        self._ended.append(picture.stages)

    def _reply(
        self, inference: Inference, row: int, picture: Picture, timing: inference_pb2.Timing
    ) -> batching_pb2.BatchItemResult:
        try:
            reply = self._model.head.reply(inference.outputs, row, picture.request, picture.size)
            reply.image_uuid = picture.request.image_uuid
            reply.model_name = self._model.name
            reply.model_version = inference.version or self._model.loaded.config.version
            reply.timing.CopyFrom(timing)
            self._model.meter.answered(Code.OK, picture.priority)
            self.note_end(picture, Code.OK)
            return batching_pb2.BatchItemResult(index=picture.item.index, response=reply.SerializeToString())
        except Exception as error:
            return self.dropped(picture, error)

    def _failure(self, index: int, priority: Priority, error: BaseException) -> batching_pb2.BatchItemResult:
        result = failure(index, error, f"model {self._model.name}")
        self._model.meter.answered(Code(result.code), priority)
        return result
