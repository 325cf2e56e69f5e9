"""A batch of pictures: each is fetched and decoded into the slot while the batch still fills, then all run together.

An item's failure is its own. A picture whose fetch hangs is left behind when the others are ready, and runs alone
later.
"""

from __future__ import annotations

import asyncio
import logging
import math
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from shoal.batching.results import failure
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, DeadlineExceeded, Internal, ShoalError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.engine import Inference, Slot
    from shoal.v1 import inference_pb2
    from shoal.worker.header import ImageSize
    from shoal.worker.model import PictureModel
    from shoal.worker.picture import Picture
    from shoal.worker.stages import Stages

log = logging.getLogger(__name__)

STRAGGLER_SECONDS = 0.1
"""How long a closed batch with at least one ready picture waits for fetches that are still under way."""

MAX_GROUP_BYTES = 32 * 2**20
"""Of the answers in one message; masks can take several. Batchers take messages of 64 MiB, and one answer is of 16 at
most."""


class PictureBatch:
    """One batch of one model; see ``shoal.batching.service.Batch``."""

    def __init__(self, model: PictureModel) -> None:
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._slot: asyncio.Task[Slot] | None = None
        self._preparing: dict[asyncio.Task[None], Picture] = {}
        self._fetching: set[Picture] = set()
        self._left_behind: set[Picture] = set()
        self._ready: list[Picture] = []
        self._results: list[batching_pb2.BatchItemResult] = []
        self._answered: list[Stages] = []
        """Of what is in ``_results``."""
        self._rows = 0

    def add(self, item: batching_pb2.BatchItem) -> None:
        """Starts fetching at once."""
        if self._rows == self._model.settings.max_batch_size:
            self._fail(item.index, Unavailable("the batch is larger than the model takes; try again"))
            return
        try:
            picture = self._model.admit(item, monotonic())
        except Exception as error:
            self._fail(item.index, error)
            return
        picture.row = self._rows
        self._rows += 1
        self._preparing[self._loop.create_task(self._prepare(picture))] = picture

    async def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        """Runs the pictures that are ready together, then each straggler alone.

        A batch whose fetches all hang answers at once that it has nothing: it holds up nobody.
        """
        self._note_close()
        await self._wait()
        if self._all_hang():
            yield self._take_results()
        await self._settle()
        if pictures := self._in_time(self._ready):
            slot = await self._own_slot()
            self._results += await self._execute(slot, _compact(slot, pictures))
        self._give_back()  # what is left behind takes a slot of its own, once it is here
        for group in _messages(self._take_results()):
            yield group
        while self._preparing:
            await asyncio.wait(self._preparing, return_when=asyncio.FIRST_COMPLETED)
            self._forget_done()
            if self._results:
                for group in _messages(self._take_results()):
                    yield group

    def abandon(self) -> None:
        """Stops what is left and gives the slot back."""
        for picture in (*self._preparing.values(), *self._ready):
            if not picture.stages.ended:
                self._note_end(picture, Code.CANCELLED, "the batch's stream ended")
        self._take_results()
        for task in self._preparing:
            task.cancel()
        if self._preparing:  # a picture that is being decoded is written to its end
            asyncio.ensure_future(asyncio.wait(self._preparing)).add_done_callback(lambda _: self._give_back())
        else:
            self._give_back()

    def _own_slot(self) -> asyncio.Task[Slot]:
        """Asked for when the first picture is here, so that a batch without any holds none."""
        if self._slot is None:
            self._slot = self._loop.create_task(self._model.loaded.acquire())
        return self._slot

    def _give_back(self) -> None:
        """Does nothing if there is no slot any more."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        slot.cancel()
        if slot.done() and not slot.cancelled() and slot.exception() is None:
            self._model.loaded.release(slot.result())

    def _note_close(self) -> None:
        now = monotonic()
        for picture in (*self._preparing.values(), *self._ready):
            picture.stages.closed = now

    async def _settle(self) -> None:
        """Waits until each picture is ready, has failed, or is left behind."""
        while self._preparing and not self._may_leave():
            await asyncio.wait(self._preparing, return_when=asyncio.FIRST_COMPLETED)
            await self._wait()
        self._left_behind = set(self._fetching)
        for picture in self._left_behind:
            picture.stages.left_behind = True

    async def _wait(self) -> None:
        """Gives what isn't ready a little more time."""
        if self._preparing:
            await asyncio.wait(self._preparing, timeout=STRAGGLER_SECONDS)
            self._forget_done()

    def _all_hang(self) -> bool:
        return bool(self._preparing) and not self._ready and len(self._fetching) == len(self._preparing)

    def _may_leave(self) -> bool:
        """Something is ready, and what isn't is still being fetched: nobody writes into the slot."""
        return bool(self._ready) and len(self._fetching) == len(self._preparing)

    def _forget_done(self) -> None:
        self._preparing = {task: picture for task, picture in self._preparing.items() if not task.done()}

    def _in_time(self, pictures: Sequence[Picture]) -> list[Picture]:
        now = monotonic()
        for picture in pictures:
            if picture.deadline <= now:
                self._drop(picture, DeadlineExceeded("the deadline passed before the batch was ready"))
        return [picture for picture in pictures if picture.deadline > now]

    async def _prepare(self, picture: Picture) -> None:
        try:
            data = await self._fetch(picture)
            if picture in self._left_behind:
                await self._run_alone(picture, data)
            else:
                await self._decode(picture, data, await asyncio.shield(self._own_slot()))
                self._ready.append(picture)
        except Exception as error:
            self._drop(picture, error)

    async def _fetch(self, picture: Picture) -> Buffer:
        self._fetching.add(picture)
        started = monotonic()
        try:
            data = await self._model.fetcher.fetch(picture.key, picture.remaining(started))
        except ShoalError as error:
            self._model.meter.not_fetched(error.code)
            raise
        finally:
            self._fetching.discard(picture)
        picture.stages.fetched = monotonic()
        picture.fetch_seconds = picture.stages.fetched - started
        self._model.meter.fetched(picture.fetch_seconds, len(memoryview(data)))
        return data

    async def _decode(self, picture: Picture, data: Buffer, slot: Slot) -> None:
        picture.remaining(monotonic())
        row = slot.input[picture.row]
        picture.size, picture.decode_seconds = await self._model.threads.run(_timed_decode, self._model, data, row)
        picture.stages.decoded = monotonic()
        picture.stages.decoding = picture.stages.decoded - picture.decode_seconds
        self._model.meter.decoded(picture.decode_seconds, row.nbytes)

    async def _run_alone(self, picture: Picture, data: Buffer) -> None:
        slot = await self._model.loaded.acquire()
        try:
            picture.row = 0
            await self._decode(picture, data, slot)
            self._results += await self._execute(slot, [picture])
        finally:
            self._model.loaded.release(slot)

    async def _execute(self, slot: Slot, pictures: Sequence[Picture]) -> list[batching_pb2.BatchItemResult]:
        """Runs ``pictures``, which fill the slot's first rows; a batch that the engine refuses runs one by one."""
        try:
            return await self._run(slot, pictures)
        except Internal as error:
            if len(pictures) == 1:
                return [self._dropped(pictures[0], error)]
            log.warning("model %s: a batch of %d failed; running it one by one", self._model.name, len(pictures))
        except ShoalError as error:
            return [self._dropped(picture, error) for picture in pictures]
        results = []
        for row, picture in enumerate(pictures):
            slot.input[0] = slot.input[row]
            results += await self._execute(slot, [picture])
        return results

    async def _run(self, slot: Slot, pictures: Sequence[Picture]) -> list[batching_pb2.BatchItemResult]:
        asked = monotonic()
        left = max(picture.deadline for picture in pictures) - asked
        if left <= 0:
            raise DeadlineExceeded("the deadline passed before the engine was free")
        timeout = 0 if math.isinf(left) else max(1, int(left * 1e6))
        for picture in pictures:
            picture.stages.ask(asked, len(pictures))
        inference = await self._model.loaded.infer(slot, len(pictures), timeout)
        started = monotonic() - inference.seconds
        self._model.meter.executed(len(pictures), started - asked, inference.seconds)
        if log.isEnabledFor(logging.DEBUG):
            uuids = " ".join(picture.request.image_uuid for picture in pictures)
            log.debug("model %s: executed %s", self._model.name, uuids)
        if self._model.head.slow:
            return await self._model.threads.run(self._replies, inference, started, pictures)
        return self._replies(inference, started, pictures)

    def _replies(
        self, inference: Inference, started: float, pictures: Sequence[Picture]
    ) -> list[batching_pb2.BatchItemResult]:
        compute_us = int(inference.seconds * 1e6)
        results = []
        for row, picture in enumerate(pictures):
            timing = picture.timing(started, compute_us, len(pictures))
            picture.stages.started, picture.stages.computed = started, started + inference.seconds
            results.append(self._reply(inference, row, picture, timing))
        return results

    def _reply(
        self, inference: Inference, row: int, picture: Picture, timing: inference_pb2.Timing
    ) -> batching_pb2.BatchItemResult:
        try:
            reply = self._model.head.reply(inference.outputs, row, picture.request, picture.size)
            reply.image_uuid = picture.request.image_uuid
            reply.model_name = self._model.name
            reply.model_version = inference.version or self._model.loaded.config.version
            reply.timing.CopyFrom(timing)
            self._model.meter.answered(Code.OK)
            self._note_end(picture, Code.OK)
            return batching_pb2.BatchItemResult(index=picture.item.index, response=reply.SerializeToString())
        except Exception as error:
            return self._dropped(picture, error)

    def _drop(self, picture: Picture, error: BaseException) -> None:
        self._results.append(self._dropped(picture, error))

    def _dropped(self, picture: Picture, error: BaseException) -> batching_pb2.BatchItemResult:
        result = self._failure(picture.item.index, error)
        self._note_end(picture, Code(result.code), result.message)
        return result

    def _note_end(self, picture: Picture, code: Code, text: str = "") -> None:
        picture.stages.end(code, text)
        self._answered.append(picture.stages)

    def _fail(self, index: int, error: BaseException) -> None:
        self._results.append(self._failure(index, error))

    def _failure(self, index: int, error: BaseException) -> batching_pb2.BatchItemResult:
        result = failure(index, error, f"model {self._model.name}")
        self._model.meter.answered(Code(result.code))
        return result

    def _take_results(self) -> list[batching_pb2.BatchItemResult]:
        now = monotonic()
        answered, self._answered = self._answered, []
        for stages in answered:
            stages.left = now
        results, self._results = self._results, []
        return results


def _messages(results: Sequence[batching_pb2.BatchItemResult]) -> Iterator[Sequence[batching_pb2.BatchItemResult]]:
    """Results in the groups that go out as a message each; at least one, if only an empty one."""
    first, size = 0, 0
    for number, result in enumerate(results):
        size += len(result.response)
        if number > first and size > MAX_GROUP_BYTES:
            yield results[first:number]
            first, size = number, len(result.response)
    yield results[first:]


def _compact(slot: Slot, ready: list[Picture]) -> list[Picture]:
    """Closes the gaps that failed pictures left, and returns the pictures in the order of their rows."""
    ready.sort(key=lambda picture: picture.row)
    for row, picture in enumerate(ready):
        if picture.row != row:
            slot.input[row] = slot.input[picture.row]
    return ready


def _timed_decode(model: PictureModel, data: Buffer, out: NDArray[np.generic]) -> tuple[ImageSize, float]:
    started = perf_counter()
    size = model.decoder.decode(data, out)
    return size, perf_counter() - started
