"""The results of one batch's items: made from what the engine and the head gave, and kept until they are sent."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from shoal.batching.messages import priority_of
from shoal.batching.results import failure
from shoal.batching.v1 import batching_pb2
from shoal.engine.triton.encoded_rows import REPORT_FIELDS
from shoal.errors import Code
from shoal.runtime.priority import BULK, INTERACTIVE
from shoal.v1 import inference_pb2
from shoal.worker import spans
from shoal.worker.heads.asked_region import tell_region
from shoal.worker.result_cache import completed, lasting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.engine import Inference
    from shoal.runtime.priority import Priority
    from shoal.worker.heads.head import Reply
    from shoal.worker.picture import Picture
    from shoal.worker.picture_model import PictureModel
    from shoal.worker.stages import Stages

    Answered = tuple[Picture, batching_pb2.BatchItemResult]

_OK: Final = Code.OK
_COMPUTE: Final = REPORT_FIELDS.index("compute_us")


class BatchResults:
    """Results that nobody has taken yet. An item's failure is its own."""

    def __init__(self, model: PictureModel) -> None:
        self._model = model
        self._waiting: list[batching_pb2.BatchItemResult] = []
        self._reply: type[Reply] = getattr(inference_pb2, f"{model.loaded.config.task.method}Reply")
        self._to_keep: list[tuple[bytes, bytes]] = []
        """Keys and answers for the result cache."""
        self._ended: list[Stages] = []
        """The stages of pictures whose results were not taken yet."""

    def __bool__(self) -> bool:
        """Whether a result waits to be taken."""
        return bool(self._waiting)

    def add(self, results: Iterable[Answered]) -> None:
        """Keeps ``results`` until they are taken; of a request's regions, once all of them have theirs."""
        for picture, result in results:
            if picture.parts is None:
                self._waiting.append(result)
            elif (joined := picture.parts.add(picture.part, result)) is not None:
                self._model.meter.answered(Code(joined.code), picture.priority)
                self._waiting.append(joined)
        to_keep, self._to_keep = self._to_keep, []
        for key, answer in to_keep:
            if self._model.cache is not None:
                self._model.cache.put(key, answer)

    def answer_again(self, picture: Picture, answer: bytes) -> None:
        """With what the model's result cache has for it."""
        now = monotonic()
        own = self._reply(image_uuid=picture.request.image_uuid)
        picture.tell_lookup(own.timing, now)
        self._note_answers([picture])
        result = batching_pb2.BatchItemResult(index=picture.item.index, response=completed(answer, own))
        self.add([(picture, result)])

    def drop(self, picture: Picture, error: BaseException) -> None:
        """Answers with ``error``, unless there is an answer."""
        if not picture.is_answered:
            self.add([self.dropped(picture, error)])

    def fail(self, item: batching_pb2.BatchItem, error: BaseException) -> None:
        """Answers with ``error`` an item that never became a picture."""
        self._waiting.append(self._failure(item.index, priority_of(item), error))

    def take(self) -> list[batching_pb2.BatchItemResult]:
        """All that wait, which are sent now."""
        now = monotonic()
        ended, self._ended = self._ended, []
        for stages in ended:
            stages.left = now
            if stages.span is not None:
                spans.end(stages)
        self._model.meter.settle()
        results, self._waiting = self._waiting, []
        return results

    def replies(self, inference: Inference, started: float, pictures: Sequence[Picture]) -> list[Answered]:
        """The results of ``pictures``, the first rows of ``inference``; not kept. Any thread may call it.

        Args:
            inference: What the engine gave.
            started: When it began, in seconds of ``time.monotonic``.
            pictures: In the order of their rows.
        """
        try:
            replies: Sequence[Reply | Exception] = self._model.head.replies(
                inference.outputs, [picture.request for picture in pictures], [picture.size for picture in pictures]
            )
        except Exception as error:
            replies = [error] * len(pictures)
        version = inference.version or self._model.loaded.config.version
        executed_us, computed = int(inference.seconds * 1e6), started + inference.seconds
        own = _compute_us(inference, executed_us, len(pictures))
        results: list[Answered] = []
        answered: list[Picture] = []
        for picture, reply, compute_us in zip(pictures, replies, own, strict=True):
            picture.stages.started, picture.stages.computed = started, computed
            if isinstance(reply, Exception):
                results.append(self.dropped(picture, reply))
                continue
            picture.tell_times(reply.timing, started, executed_us, compute_us)
            try:
                results.append((picture, self._result(picture, reply, version)))
                answered.append(picture)
            except Exception as error:  # too large for a message
                results.append(self.dropped(picture, error))
        self._note_answers(answered)
        return results

    def dropped(self, picture: Picture, error: BaseException) -> Answered:
        """The result that says ``error``; not kept."""
        result = self._failure(picture.item.index, picture.priority, error, counts=picture.parts is None)
        self.note_end(picture, Code(result.code), result.message)
        return picture, result

    def note_end(self, picture: Picture, code: Code, text: str = "") -> None:
        """Remembers how ``picture`` ended, for ``shoal explain``."""
        picture.stages.end(code, text, monotonic())
        self._ended.append(picture.stages)

    def _note_answers(self, pictures: Sequence[Picture]) -> None:
        """They were answered, all now."""
        now = monotonic()
        for picture in pictures:
            picture.stages.end(_OK, "", now)
        self._ended.extend(picture.stages for picture in pictures)
        items = [picture for picture in pictures if picture.parts is None]  # regions count once all are answered
        bulk = sum(picture.priority is BULK for picture in items)
        self._model.meter.answered(_OK, BULK, bulk)
        self._model.meter.answered(_OK, INTERACTIVE, len(items) - bulk)

    def _result(self, picture: Picture, reply: Reply, version: int) -> batching_pb2.BatchItemResult:
        reply.image_uuid = picture.request.image_uuid
        reply.model_name = self._model.name
        reply.model_version = version
        if picture.region is not None:
            tell_region(reply.region, picture.region, picture.size)
        result = batching_pb2.BatchItemResult(index=picture.item.index, response=reply.SerializeToString())
        if picture.cache_key is not None and version == picture.stages.version:
            self._to_keep.append((picture.cache_key, lasting(reply)))
        return result

    def _failure(
        self, index: int, priority: Priority, error: BaseException, *, counts: bool = True
    ) -> batching_pb2.BatchItemResult:
        result = failure(index, error, f"model {self._model.name}")
        if counts:
            self._model.meter.answered(Code(result.code), priority)
        return result


def _compute_us(inference: Inference, executed_us: int, count: int) -> Sequence[int | None]:
    """The model's part of an execution, for each row, where the engine tells."""
    if inference.reports is None:
        return [None] * count
    own: list[int | None] = [min(max(0, told), executed_us) for told in inference.reports[:, _COMPUTE].tolist()]
    return own
