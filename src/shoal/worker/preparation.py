"""The pictures of one batch on their way into its slot: fetched, then decoded, each as soon as it can be.

Each is carried from step to step by callbacks of what it waits for: a fetch, a thread, a process. Nothing of it is a
task, and pictures that come together are taken in one turn of the event loop.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import DeadlineExceeded, ShoalError
from shoal.worker.batch_slot import BatchSlot
from shoal.worker.decode_choice import CPU
from shoal.worker.device_rows import DeviceRows
from shoal.worker.fetched import Fetched
from shoal.worker.picture import APART, FETCH, LOOKUP, QUEUE, SLOT, SlotRow
from shoal.worker.stages import ASKED

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from shoal.pictures.header import PictureSize
    from shoal.runtime.priority import Priority
    from shoal.worker.batch_results import BatchResults
    from shoal.worker.picture import Picture
    from shoal.worker.picture_model import PictureModel
    from shoal.worker.result_cache import ResultCache

    Step = asyncio.Future[Any]
    Then = Callable[[Picture, Any], None]

_CLOCK_STEP_SECONDS: Final = 0.001
"""uvloop's timers have it: one that is set for a deadline may ring before it."""


class Preparation:
    """Has what isn't ready in ``pending``; calls ``ended`` for each that is ready or was answered."""

    def __init__(
        self,
        model: PictureModel,
        priority: Priority,
        results: BatchResults,
        ended: Callable[[Picture], object],
        allot: Callable[[list[Picture]], list[Picture]],
        put_off: Callable[[list[Picture]], object],
    ) -> None:
        """Prepares.

        Args:
            model: Whose pictures they are.
            priority: The batch's.
            results: Has the answers of those that fail.
            ended: Told of each picture that is no longer pending; it is ready if it has no answer.
            allot: Gives rows to regions whose answers aren't known; says which of them, the first ones, have one.
            put_off: Told of the others, which are no longer pending, either, and may begin again.
        """
        self.pending: dict[Picture, None] = {}
        """In the order of their coming."""
        self.slot = BatchSlot(model.loaded, priority)
        self.device = DeviceRows(model)
        self._model = model
        self._results = results
        self._ended = ended
        self._allot = allot
        self._put_off = put_off
        self._for_slot: list[Picture] = []
        """They wait for the slot."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """The first deadline of those that were fetched, in seconds of ``time.monotonic``."""
        self._closed = False

    def begin(self, pictures: list[Picture], now: float) -> None:
        """Starts to fetch one picture, or what several regions of one are cut from."""
        for picture in pictures:
            self.pending[picture] = None
            if picture.parts is None:
                self._follow(picture, self._fetch(picture, now), self._fetched)
                continue
            picture.together, picture.parts.jobs, picture.parts.decoded = pictures, {}, 0.0
            if picture.parts.fetch is None:
                picture.parts.fetch = self._fetch(picture, now)
            self._follow(picture, picture.parts.fetch, self._fetched)

    def _fetch(self, picture: Picture, now: float) -> Step:
        return self._model.fetcher.fetch(
            picture.key, picture.seconds_left(now), picture.account, picture.max_age_seconds
        )

    def withdraw(self, picture: Picture) -> None:
        """Ends what is done for one that is pending, and has its answer."""
        picture.is_answered = True
        self._stop(picture)

    def close(self) -> None:
        """Ends what is done for all; the slot is given back once nobody writes to it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.device.end()
        for picture in list(self.pending):
            self._stop(picture)
        if not self.pending:
            self.slot.give_back()

    def _follow(self, picture: Picture, step: Step, then: Then) -> None:
        """Calls ``then`` with what ``step`` brings."""
        picture.step = step
        step.add_done_callback(partial(self._stepped, picture, then))

    def _stepped(self, picture: Picture, then: Then, step: Step) -> None:
        picture.step = None
        if self._closed or picture.is_answered:
            _let_go(step)
            self._end(picture)
        else:
            self._go_on(picture, then, step)

    def _go_on(self, picture: Picture, then: Then, step: Step) -> None:
        """Whatever goes wrong in a step is the picture's alone."""
        try:
            then(picture, step.result())
        except asyncio.CancelledError as error:
            late = picture.deadline <= monotonic()
            self._fail(picture, DeadlineExceeded("the deadline passed before it was decoded") if late else error)
        except Exception as error:
            if picture.at is FETCH and isinstance(error, ShoalError) and not picture.part:
                self._model.meter.not_fetched(error.code)
            self._fail(picture, error)

    def _fetched(self, picture: Picture, fetched: Fetched) -> None:
        now = monotonic()
        if picture.parts is not None:
            now = picture.parts.fetched = picture.parts.fetched or now
        picture.fetched = fetched
        picture.stages.fetched = now
        picture.fetch_seconds = now - picture.arrived
        if not picture.part:
            self._model.meter.fetched(picture.fetch_seconds, fetched.size)
        self._watch(picture.deadline, now)
        if (cache := self._model.cache) is None or picture.cache_key is not None:
            self._go_to_slot(picture)
            return
        picture.at, picture.stages.result_cache = LOOKUP, ASKED
        job = self._job(picture, lambda own: self._model.decoding.look_up(own, cache, fetched.data))
        self._follow(picture, job, partial(self._looked_up, cache))

    def _looked_up(self, cache: ResultCache, picture: Picture, keys: dict[Picture, bytes]) -> None:
        """One whose answer is known leaves: it needs neither a slot nor the engine."""
        if picture.cache_key is None:  # the first of those that are looked up together
            self._ask(cache, keys)
        if picture.known is not None:
            self._results.answer_again(picture, picture.known)
            picture.is_answered = True
            self._end(picture)
        elif picture in self.pending:
            self._go_to_slot(picture)

    def _ask(self, cache: ResultCache, keys: dict[Picture, bytes]) -> None:
        """The cache, for all of them; of several regions only those that it doesn't know take a row."""
        now = monotonic()
        for picture, key in keys.items():
            picture.cache_key, picture.known = key, cache.get(key)
            picture.stages.look_up(now, found=picture.known is not None)
        missed = [picture for picture in keys if picture.known is None and picture.parts is not None]
        with_row = self._allot(missed)
        for picture in with_row:
            picture.together = with_row
        if without := missed[len(with_row) :]:
            for picture in without:
                del self.pending[picture]
            self._put_off(without)

    def _go_to_slot(self, picture: Picture) -> None:
        assert picture.fetched is not None, "it was fetched"
        if picture.stages.straggler or not self._model.decoding.may_be_quick(picture.fetched.data):
            self._decode(picture)
            return
        picture.at = SLOT
        self._for_slot.append(picture)
        if self.slot.is_here:
            self._slot_came()
        else:
            self.slot.ask(self._slot_came)

    def _slot_came(self) -> None:
        """For all that wait for it; or it never will, and then each of them hears why."""
        waiting, self._for_slot = self._for_slot, []
        for picture in [each for each in waiting if self._placed(each)]:
            try:
                self._decode(picture)
            except Exception as error:
                self._fail(picture, error)

    def _placed(self, picture: Picture) -> bool:
        """Gives it its row; whether it is to be decoded. Regions that are decoded together all have theirs before."""
        try:
            if picture.stages.straggler:
                return True
            if self.device.put(picture, self.slot.result()):
                self._put_there(picture)
                return False
            picture.slot_row = SlotRow(self.slot.result().row(picture.row))
        except Exception as error:
            self._fail(picture, error)
            return False
        return True

    def _put_there(self, picture: Picture) -> None:
        """It is ready, but for what the device does."""
        picture.stages.decoded = picture.stages.decoding = monotonic()
        picture.stages.on_device = True
        self._end(picture)

    def decode_again(self, picture: Picture, data: bytes) -> None:
        """Of one that was ready, but that the device couldn't decode: from here on it is a straggler."""
        picture.way, picture.decode_seconds = CPU, 0.0
        stages = picture.stages
        stages.straggler = stages.refused = True
        stages.on_device, stages.decoded = False, 0.0
        picture.fetched = Fetched(data, None)
        self.pending[picture] = None
        self._watch(picture.deadline, monotonic())
        self._decode(picture)

    def _decode(self, picture: Picture) -> None:
        """Into the batch's slot, or into memory of its own if it takes long or the batch went without it."""
        assert picture.fetched is not None, "it was fetched"
        data, content = picture.fetched.data, picture.fetched.content
        if not self._model.decoding.may_be_quick(data):
            self._decode_apart(picture)
            return
        picture.at = QUEUE
        job = self._job(picture, lambda own: self._model.decoding.decode(own, self._model.decoder, data, content))
        self._follow(picture, job, self._left_thread)

    def _together(self, picture: Picture) -> list[Picture]:
        """What is decoded with a picture, in one go: the regions of it that are prepared now, or itself alone."""
        return picture.together or [picture]

    def _job(self, picture: Picture, start: Callable[[list[Picture]], Step]) -> Step:
        """What ``start`` starts, for all that are decoded together; the first of them to come here starts it."""
        if (parts := picture.parts) is None:
            return start([picture])
        if (job := parts.jobs.get(picture.at)) is None:
            job = parts.jobs[picture.at] = start(picture.together)
        return job

    def _left_thread(self, picture: Picture, decoded: tuple[PictureSize, float, bool]) -> None:
        picture.size, picture.decode_seconds, was_quick = decoded
        if was_quick:
            self._decoded(picture, None)
        else:
            picture.slot_row.leave()
            self._decode_apart(picture)

    def _decode_apart(self, picture: Picture) -> None:
        picture.at = APART
        assert picture.fetched is not None, "it was fetched"
        data = picture.fetched.data
        self._follow(picture, self._job(picture, lambda own: self._start_apart(own, data)), self._decoded)

    def _start_apart(self, pictures: list[Picture], data: Buffer) -> Step:
        work = self._model.decoding.decode_apart(pictures, self._model.decoder, data)
        task = asyncio.get_running_loop().create_task(work)
        self._model.own(task)
        return task

    def _decoded(self, picture: Picture, _: object) -> None:
        stages = picture.stages
        now = monotonic()
        if picture.parts is not None:
            now = picture.parts.decoded = picture.parts.decoded or now
        stages.decoded = now
        stages.decoding = now - picture.decode_seconds
        together = self._together(picture)
        if picture is together[0]:
            self._model.meter.decoded(picture.decode_seconds, len(together) * self._model.row_bytes)
        self._end(picture)

    def _fail(self, picture: Picture, error: BaseException) -> None:
        self._results.drop(picture, error)
        picture.is_answered = True
        self._end(picture)

    def _end(self, picture: Picture) -> None:
        """It is ready, or has its answer."""
        del self.pending[picture]
        self.device.decoded_here(picture)
        if picture.parts is not None:
            picture.parts.end()
        elif picture.fetched is not None:
            picture.fetched.release()
        picture.fetched = None
        self._ended(picture)
        if self._closed and not self.pending:
            # A picture that was being decoded was written to its end: only now the slot is free.
            self.slot.give_back()

    def _stop(self, picture: Picture) -> None:
        """Of one that a thread writes to, the end comes when that is done."""
        if picture in self._for_slot:
            self._for_slot.remove(picture)
            self._end(picture)
        elif picture.step is not None:
            picture.step.cancel()

    def _watch(self, deadline: float, now: float) -> None:
        """One timer for all pictures: it rings at the first deadline. A fetch has its own."""
        if deadline < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._rings_at = deadline
            wait = max(0.0, deadline - now) + _CLOCK_STEP_SECONDS
            self._timer = asyncio.get_running_loop().call_later(wait, self._ring)

    def _ring(self) -> None:
        self._rings_at, now = math.inf, monotonic()
        fetched = [picture for picture in self.pending if picture.at is not FETCH]
        for picture in fetched:
            if picture.deadline > now:
                self._watch(picture.deadline, now)
            elif picture in self._for_slot:
                self._for_slot.remove(picture)
                self._fail(picture, DeadlineExceeded("the deadline passed before there was room in a slot"))
            else:
                self._stop(picture)


def _let_go(step: Step) -> None:
    """Of a fetch that nobody waits for any more, but that had ended."""
    if not step.cancelled() and step.exception() is None and isinstance(step.result(), Fetched):
        step.result().release()
