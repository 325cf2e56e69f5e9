"""The pictures of one batch on their way into its slot: fetched, then decoded, each as soon as it can be.

Each is carried from step to step by callbacks of what it waits for: a fetch, a thread, a process. Nothing of it is a
task, and pictures that come together are taken in one turn of the event loop. The regions of one picture that are
prepared at a time take each step as one: they are fetched once and decoded once, and have one caller and one deadline.
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
    from collections.abc import Callable, Sequence

    from shoal.runtime.priority import Priority
    from shoal.worker.batch_results import BatchResults
    from shoal.worker.decoding import Decoded
    from shoal.worker.picture import Picture
    from shoal.worker.picture_model import PictureModel
    from shoal.worker.result_cache import ResultCache

    Step = asyncio.Future[Any]
    Then = Callable[[list[Picture], Any], None]

_CLOCK_STEP_SECONDS: Final = 0.001
"""uvloop's timers have it: one that is set for a deadline may ring before it."""


class Preparation:
    """Has what isn't ready in ``pending``; calls ``ended`` for each that is ready or was answered."""

    def __init__(
        self,
        model: PictureModel,
        priority: Priority,
        results: BatchResults,
        ended: Callable[[list[Picture]], object],
        allot: Callable[[list[Picture]], list[Picture]],
        put_off: Callable[[list[Picture]], object],
    ) -> None:
        """Prepares.

        Args:
            model: Whose pictures they are.
            priority: The batch's.
            results: Has the answers of those that fail.
            ended: Told of pictures that are no longer pending; they are ready if they have no answer.
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
        self._for_slot: list[list[Picture]] = []
        """They wait for the slot."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """The first deadline of those that were fetched, in seconds of ``time.monotonic``."""
        self._closed = self._is_over = False

    def begin(self, pictures: list[Picture], now: float) -> None:
        """Starts to fetch one picture, or what several regions of one are cut from."""
        first = pictures[0]
        self.pending.update(dict.fromkeys(pictures))
        if first.parts is None:
            fetch = self._fetch(first, now)
        elif (earlier := first.parts.fetch) is None:
            fetch = first.parts.fetch = self._fetch(first, now)
        else:
            fetch = earlier
        self._follow(pictures, fetch, self._fetched)

    def _fetch(self, picture: Picture, now: float) -> Step:
        return self._model.fetcher.fetch(
            picture.key, picture.seconds_left(now), picture.account, picture.max_age_seconds
        )

    def withdraw(self, pictures: Sequence[Picture]) -> None:
        """Ends what is done for those of a request that are pending, and have their answers."""
        for picture in pictures:
            picture.is_answered = True
        for picture in pictures:
            self._stop(picture)

    def close(self) -> None:
        """Ends what is done for all; the slot is given back once nobody writes to it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.device.end()
        for picture in list(self.pending):
            self._stop(picture)
        self._end_if_idle()

    def _follow(self, pictures: list[Picture], step: Step, then: Then) -> None:
        """Calls ``then`` with what ``step`` brings."""
        for picture in pictures:
            picture.step = step
        step.add_done_callback(partial(self._stepped, pictures, then))

    def _stepped(self, pictures: list[Picture], then: Then, step: Step) -> None:
        for picture in pictures:
            picture.step = None
        if self._closed or pictures[0].is_answered:  # and so all of them: they have one caller
            _let_go(step)
            self._end(pictures)
        else:
            self._go_on(pictures, then, step)

    def _go_on(self, pictures: list[Picture], then: Then, step: Step) -> None:
        """Whatever goes wrong in a step is these pictures' alone."""
        first = pictures[0]
        try:
            then(pictures, step.result())
        except asyncio.CancelledError as error:
            late = first.deadline <= monotonic()
            self._fail(pictures, DeadlineExceeded("the deadline passed before it was decoded") if late else error)
        except Exception as error:
            if first.at is FETCH and isinstance(error, ShoalError) and not first.part:
                self._model.meter.not_fetched(error.code)
            self._fail(pictures, error)

    def _fetched(self, pictures: list[Picture], fetched: Fetched) -> None:
        first, now = pictures[0], monotonic()
        if first.parts is not None:
            now = first.parts.fetched = first.parts.fetched or now
        for picture in pictures:
            picture.fetched, picture.stages.fetched = fetched, now
            picture.fetch_seconds = now - picture.arrived
        if not first.part:
            self._model.meter.fetched(first.fetch_seconds, fetched.size)
        self._watch(first.deadline, now)
        if (cache := self._model.cache) is None or first.cache_key is not None:
            self._go_to_slot(pictures)
            return
        for picture in pictures:
            picture.at, picture.stages.result_cache = LOOKUP, ASKED
        job = self._model.decoding.look_up(pictures, cache, fetched.data)
        self._follow(pictures, job, partial(self._looked_up, cache))

    def _looked_up(self, cache: ResultCache, pictures: list[Picture], keys: dict[Picture, bytes]) -> None:
        """One whose answer is known leaves: it needs neither a slot nor the engine."""
        now, unknown = monotonic(), []
        for picture in pictures:
            picture.cache_key = keys[picture]
            answer = cache.get(picture.cache_key)
            picture.stages.look_up(now, found=answer is not None)
            if answer is None:
                unknown.append(picture)
                continue
            self._results.answer_again(picture, answer)
            picture.is_answered = True
            self._end([picture])
        if unknown and unknown[0].parts is not None:
            unknown = self._with_row(unknown)
        if unknown:
            self._go_to_slot(unknown)

    def _with_row(self, pictures: list[Picture]) -> list[Picture]:
        """Those of several regions that have a row from now on; the others are put off."""
        with_row = self._allot(pictures)
        if without := pictures[len(with_row) :]:
            for picture in without:
                del self.pending[picture]
            self._put_off(without)
        return with_row

    def _go_to_slot(self, pictures: list[Picture]) -> None:
        first = pictures[0]
        if not self._model.decoding.may_be_quick(_fetched_of(first).data):
            self._decode_apart(pictures)
            return
        if first.stages.straggler:
            self._decode(pictures)
            return
        for picture in pictures:
            picture.at = SLOT
        self._for_slot.append(pictures)
        if self.slot.is_here:
            self._slot_came()
        else:
            self.slot.ask(self._slot_came)

    def _slot_came(self) -> None:
        """For all that wait for it; or it never will, and then each of them hears why."""
        waiting, self._for_slot = self._for_slot, []
        for pictures in waiting:
            try:
                if self._placed(pictures):
                    self._decode(pictures)
            except Exception as error:
                self._fail(pictures, error)

    def _placed(self, pictures: list[Picture]) -> bool:
        """Gives them their rows; whether they are to be decoded."""
        first = pictures[0]
        if first.stages.straggler:
            return True
        slot = self.slot.result()
        if self.device.put(first, slot):
            self._put_there(first)
            return False
        for picture in pictures:
            picture.slot_row = SlotRow(slot.row(picture.row))
        return True

    def _put_there(self, picture: Picture) -> None:
        """It is ready, but for what the device does."""
        picture.stages.decoded = picture.stages.decoding = monotonic()
        picture.stages.on_device = True
        self._end([picture])

    def decode_again(self, picture: Picture, data: bytes) -> None:
        """Of one that was ready, but that the device couldn't decode: from here on it is a straggler."""
        picture.way, picture.decode_seconds = CPU, 0.0
        stages = picture.stages
        stages.straggler = stages.refused = True
        stages.on_device, stages.decoded = False, 0.0
        picture.fetched = Fetched(data, None)
        self.pending[picture] = None
        self._watch(picture.deadline, monotonic())
        self._decode([picture])

    def _decode(self, pictures: list[Picture]) -> None:
        """Into the batch's slot, or into memory of their own if it takes long or the batch went without them."""
        for picture in pictures:
            picture.at = QUEUE
        fetched = _fetched_of(pictures[0])
        job = self._model.decoding.decode(pictures, self._model.decoder, fetched.data, fetched.content)
        self._follow(pictures, job, self._left_thread)

    def _left_thread(self, pictures: list[Picture], decoded: Decoded) -> None:
        size, seconds, was_quick = decoded
        for picture in pictures:
            picture.size, picture.decode_seconds = size, seconds
        if was_quick:
            self._decoded(pictures, None)
            return
        for picture in pictures:
            picture.slot_row.leave()
        self._decode_apart(pictures)

    def _decode_apart(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            picture.at = APART
        data = _fetched_of(pictures[0]).data
        work = self._model.decoding.decode_apart(pictures, self._model.decoder, data)
        task = asyncio.get_running_loop().create_task(work)
        self._model.own(task)
        self._follow(pictures, task, self._decoded)

    def _decoded(self, pictures: list[Picture], _: object) -> None:
        now, seconds = monotonic(), pictures[0].decode_seconds
        for picture in pictures:
            picture.stages.decoded, picture.stages.decoding = now, now - seconds
        self._model.meter.decoded(seconds, len(pictures) * self._model.row_bytes)
        self._end(pictures)

    def _fail(self, pictures: list[Picture], error: BaseException) -> None:
        """All of them that are pending."""
        if not (failed := [picture for picture in pictures if picture in self.pending]):
            return
        for picture in failed:
            self._results.drop(picture, error)
            picture.is_answered = True
        self._end(failed)

    def _end(self, pictures: list[Picture]) -> None:
        """They are ready, or have their answers."""
        first = pictures[0]
        self.device.decoded_here(first)
        if first.parts is not None:
            first.parts.end(len(pictures))
        elif first.fetched is not None:
            first.fetched.release()
        for picture in pictures:
            del self.pending[picture]
            picture.fetched = None
        self._ended(pictures)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        """A picture that was being decoded was written to its end: only now the slot is free."""
        if self._closed and not self.pending and not self._is_over:
            self._is_over = True
            self.slot.give_back()
            del self._ended, self._allot, self._put_off  # the batch's, which holds this: no garbage of a cycle is left

    def _stop(self, picture: Picture) -> None:
        """Of one that a thread writes to, the end comes when that is done."""
        if waiting := self._taken_back(picture):
            self._end(waiting)
        elif picture.step is not None:
            picture.step.cancel()

    def _taken_back(self, picture: Picture) -> list[Picture]:
        """A picture that waits for the slot, with those that go with it: they wait no longer. Else nothing."""
        for pictures in self._for_slot:
            if picture in pictures:
                self._for_slot.remove(pictures)
                return pictures
        return []

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
            elif waiting := self._taken_back(picture):
                self._fail(waiting, DeadlineExceeded("the deadline passed before there was room in a slot"))
            else:
                self._stop(picture)


def _let_go(step: Step) -> None:
    """Of a fetch that nobody waits for any more, but that had ended."""
    if not step.cancelled() and step.exception() is None and isinstance(step.result(), Fetched):
        step.result().release()


def _fetched_of(picture: Picture) -> Fetched:
    assert picture.fetched is not None, "it was fetched"
    return picture.fetched
