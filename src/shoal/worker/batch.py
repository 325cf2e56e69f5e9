"""A batch of pictures: each is fetched and decoded into the slot while the batch still fills, then all run together.

An item's failure is its own. A picture whose fetch hangs or whose decoding takes long is a straggler: the batch runs
without it, and it runs later, together with other stragglers of its batch that are ready by then.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final

from shoal.batching.messages import bulk_part, most_urgent
from shoal.batching.results import groups
from shoal.engine import BrokenOff
from shoal.errors import Cancelled, Code, DeadlineExceeded, Internal, Unavailable
from shoal.runtime.priority import Priority
from shoal.worker.batch_results import BatchResults
from shoal.worker.decode_choice import DEVICE
from shoal.worker.device_rows import without
from shoal.worker.picture import APART, FETCH, LOOKUP, QUEUE, SLOT
from shoal.worker.preparation import Preparation
from shoal.worker.spans import execution

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from shoal.batching.v1 import batching_pb2
    from shoal.engine import Inference, Slot
    from shoal.worker.batch_results import Answered
    from shoal.worker.picture import Picture
    from shoal.worker.picture_model import PictureModel

log = logging.getLogger(__name__)

STRAGGLER_SECONDS = 0.1
"""How long a closed batch waits for fetches, and for slow decoding, since it last made progress; or in all, once
somebody has all its pictures ready."""
OTHERS_SECONDS: Final = 0.03
"""How long whoever has all its pictures ready waits for those of others that are decoded apart, since they are slow."""
QUEUED_SECONDS: Final = 0.5
"""And for those of others that are to be quick, but whose turn doesn't come."""
_STEP_SECONDS: Final = 0.02
"""A picture passes from one stage to the next, with another patience, without a word."""


class PictureBatch:
    """One batch of one model, as ``shoal.batching.served_stream.Batch`` describes it."""

    def __init__(self, model: PictureModel, priority: Priority = Priority.INTERACTIVE) -> None:
        """Prepares; no picture will be more urgent than ``priority``."""
        self.ready_at = 0.0
        """When the first of it was ready for the engine (monotonic); 0: nothing was yet."""
        self.executed = 0
        """Pictures, and regions of pictures, that the engine was asked to run together then."""
        self.put_off = 0
        """Those that there was no row for then."""
        self._model = model
        self._priority = priority
        self._all_prepared: asyncio.Future[None] | None = None
        """Somebody waits for that; or for the first one, where it is ``_one_prepared``."""
        self._one_prepared: asyncio.Future[None] | None = None
        self._ready: list[Picture] = []
        self._running: Sequence[Picture] = ()
        """Those that were taken from there last."""
        self._results = BatchResults(model)
        self._preparation = Preparation(model, priority, self._results, self._prepared, self._allot, self._wait_for_row)
        self._preparing = self._preparation.pending
        self._slot = self._preparation.slot
        self._items = self._rows = 0
        self._later: deque[Picture] = deque()
        """Those that there is no row for, since requests have many regions: they run once the others have."""
        self._tell: Callable[[Sequence[batching_pb2.BatchItemResult]], None] | None = None
        self._is_telling = False

    def add(self, *items: batching_pb2.BatchItem) -> None:
        """Starts fetching at once."""
        room = self._model.settings.max_batch_size - self._items
        now = monotonic()
        for item in items[room:]:
            self._results.fail(item, Unavailable("the batch is larger than the model takes; try again"))
        for item, admitted in self._model.admission.admit(items[:room], now):
            if isinstance(admitted, Exception):
                self._results.fail(item, admitted)
                continue
            self._items += 1
            self._take_in(admitted, now)
        self._tell_soon()

    def tell_early(self, tell: Callable[[Sequence[batching_pb2.BatchItemResult]], None]) -> None:
        """``tell`` gets what is answered before the batch is executed: from the result cache, or since it failed."""
        self._tell = tell

    def withdraw(self, index: int) -> None:
        """The item's caller has left: ends what is done for it. Does nothing if it is unknown, executed or answered."""
        pending = [each for each in self._preparing if each.item.index == index and not each.is_answered]
        for picture in pending:
            self._results.drop(picture, Cancelled("the caller left"))
        self._preparation.withdraw(pending)
        waiting = [picture for picture in (*self._ready, *self._later) if picture.item.index == index]
        for picture in waiting:
            self._results.drop(picture, Cancelled("the caller left"))
            picture.is_answered = True
        if waiting:
            self._ready = [picture for picture in self._ready if not picture.is_answered]
            self._drop_later([picture for picture in self._later if picture.is_answered])

    async def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        """Runs the pictures that are ready together, and then the stragglers, as they come.

        A batch without anything to run says so by an empty group before all others: what it has are answers from the
        result cache, failures, or pictures that hang. So does one of nothing but requests for more regions than it has
        rows. It holds up nobody, and its time says nothing of the engine's. No later group is empty: the batcher would
        take it for the next batch's.
        """
        self._note_close()
        await self._settle()
        if hangs := bool(self._preparing and not self._ready):
            yield []
            for group in groups(self._results.take()):
                yield group
            while self._preparing and not self._ready and not self._slot.is_asked:
                await self._settle()
        while not self._leave_stragglers():
            await self._settle()
        await self._run_ready()
        self._tell = None  # who waits from here on takes part in what follows
        self._preparation.device.end()
        self._slot.give_back()  # a straggler takes another one, once it is here
        first = list(groups(self._results.take()))
        if not hangs and not (first and self.ready_at):
            yield []
        for group in first:
            yield group
        while self._has_more():
            await self._begin_later()
            await self._wait_for_stragglers()
            if self._ready:
                await self._run_stragglers()
            for group in groups(self._results.take()):
                yield group

    def abandon(self) -> None:
        """Stops what is left and gives the slot back."""
        self._tell = None
        for picture in (*self._preparing, *self._ready, *self._later, *self._running):
            if not picture.stages.ended:
                self._results.note_end(picture, Code.CANCELLED, "the batch's stream ended")
        self._drop_later(list(self._later))
        self._results.take()
        self._preparation.close()

    def _take_in(self, pictures: list[Picture], now: float) -> None:
        """A request's picture, or one for each of its regions: as many as there are rows for.

        Regions whose answers may be known get theirs once it shows that they aren't.
        """
        if pictures[0].parts is None or self._model.cache is None:
            with_row = self._allot(pictures)
            if without := pictures[len(with_row) :]:
                self._wait_for_row(without)
            pictures = with_row
        if pictures:
            self._preparation.begin(pictures, now)

    def _allot(self, pictures: list[Picture]) -> list[Picture]:
        """Gives the first of them rows of the batch's slot, as many as it has."""
        with_row = pictures[: self._model.settings.max_batch_size - self._rows]
        for picture in with_row:
            picture.row = self._rows
            self._rows += 1
        return with_row

    def _wait_for_row(self, pictures: list[Picture]) -> None:
        """Whole pictures wait for no other request's regions."""
        for picture in pictures:
            picture.stages.straggler = picture.stages.put_off = True
            if picture.parts is None:
                self._later.appendleft(picture)
            else:
                self._later.append(picture)
        self._wake_all()

    def _has_more(self) -> bool:
        return bool(self._preparing or self._ready or self._results or self._later)

    async def _begin_later(self) -> None:
        """Prepares as many of those that wait as one execution takes, once nothing else is prepared."""
        if self._preparing or self._ready or not self._later:
            return
        now, room = monotonic(), self._model.settings.max_batch_size
        while self._later and room:
            first = self._later.popleft()
            own = [first]
            while self._later and len(own) < room and first.parts is not None and self._later[0].parts is first.parts:
                own.append(self._later.popleft())
            room -= len(own)
            self._preparation.begin(own, now)
        await self._wait_for_all(OTHERS_SECONDS)

    def _drop_later(self, pictures: list[Picture]) -> None:
        for picture in pictures:
            self._later.remove(picture)
            if picture.parts is not None:
                picture.parts.end()

    def _prepared(self, pictures: list[Picture]) -> None:
        """They are ready, or were dropped."""
        if not pictures[0].is_answered:
            self._ready += pictures
        else:
            self._tell_soon()
        self._wake_all()

    def _wake_all(self) -> None:
        """Whoever waits for one picture, or for all."""
        _wake(self._one_prepared)
        if not self._preparing:
            _wake(self._all_prepared)

    def _tell_soon(self) -> None:
        """At the end of this turn, with what else is answered in it."""
        if self._tell is not None and self._results and not self._is_telling:
            self._is_telling = True
            asyncio.get_running_loop().call_soon(self._tell_now)

    def _tell_now(self) -> None:
        self._is_telling = False
        if self._tell is not None and (results := self._results.take()):
            self._tell(results)

    def _note_close(self) -> None:
        now = monotonic()
        for picture in (*self._preparing, *self._ready, *self._later):
            picture.stages.closed = now

    async def _settle(self) -> None:
        """Waits until each picture is ready, has failed, or may become a straggler; or until nothing moves at all."""
        if not self._preparing:
            return
        closed = progress = monotonic()
        pending = len(self._preparing)
        await self._wait_for_all(min(OTHERS_SECONDS, STRAGGLER_SECONDS))  # nobody is left behind sooner
        while self._preparing:
            now = monotonic()
            if len(self._preparing) < pending:
                pending, progress = len(self._preparing), now
            if not self._is_worth_waiting(now - closed, now - progress):
                return
            await self._wait_for_all(min(_STEP_SECONDS, STRAGGLER_SECONDS))

    async def _wait_for_all(self, seconds: float) -> None:
        """Returns when all pictures are ready, and after ``seconds`` in any case."""
        loop = asyncio.get_running_loop()
        self._all_prepared = loop.create_future()
        timer = loop.call_later(seconds, _wake, self._all_prepared)
        try:
            await self._all_prepared
        finally:
            timer.cancel()

    def _is_worth_waiting(self, since_close: float, since_progress: float) -> bool:
        """Whether there is a picture that should go with the others."""
        owners = {picture.owner for picture in self._ready}
        complete = bool(owners.difference(picture.owner for picture in self._preparing))
        others_apart = complete and since_close >= OTHERS_SECONDS
        others_queued = complete and since_close >= QUEUED_SECONDS and not self._model.decoding.is_crowded
        hang = (since_close if complete else since_progress) >= STRAGGLER_SECONDS
        left = {FETCH: hang, SLOT: False, QUEUE: others_queued, LOOKUP: others_queued, APART: others_apart or hang}
        pictures = (picture for picture in self._preparing if not picture.stages.straggler)
        return any(picture.is_written or not left[picture.at] for picture in pictures)

    def _leave_stragglers(self) -> bool:
        """Makes what isn't ready a straggler: from here on it goes its own way.

        False, if a picture waits for the slot, which it came for while nobody looked, or a thread has just begun to
        write to it.
        """
        if any(picture.at is SLOT for picture in self._preparing):
            return False
        for picture in self._preparing:
            if not picture.stages.straggler:
                picture.stages.straggler = picture.slot_row.leave() or not picture.is_written
        return all(picture.stages.straggler for picture in self._preparing)

    async def _wait_for_stragglers(self) -> None:
        if self._preparing and not self._ready and not self._results:
            self._one_prepared = asyncio.get_running_loop().create_future()
            await self._one_prepared

    async def _run_ready(self) -> None:
        """Runs what is ready in the batch's own slot."""
        if not (pictures := self._take_ready()):
            return
        try:
            slot = await self._slot.wait()
        except Exception as error:
            for picture in pictures:
                self._results.drop(picture, error)
            return
        await self._execute(slot, _compact(slot, pictures))

    async def _run_stragglers(self) -> None:
        """Runs those that are ready, or will be once there is a slot."""
        try:
            slot = await self._model.loaded.acquire(self._priority)
        except Exception as error:
            for picture in self._take_ready():
                self._results.drop(picture, error)
            return
        try:
            if pictures := self._take_ready():
                most = self._model.settings.max_batch_size
                self._ready.extend(pictures[most:])
                for row, picture in enumerate(pictures[:most]):
                    picture.row = row
                await self._execute(slot, _compact(slot, pictures[:most]))
        finally:
            self._model.loaded.release(slot)

    def _take_ready(self) -> list[Picture]:
        """Those that are in time; the others are dropped."""
        now = monotonic()
        ready, self._ready = self._ready, []
        for picture in ready:
            if picture.deadline <= now:
                self._results.drop(picture, DeadlineExceeded("the deadline passed before the batch was ready"))
        self._running = [picture for picture in ready if picture.deadline > now]
        return self._running

    async def _execute(self, slot: Slot, pictures: Sequence[Picture]) -> None:
        """Runs ``pictures``, which fill the slot's first rows, and adds their results.

        A batch that the engine refuses runs one by one.
        """
        try:
            results = await self._run(slot, pictures)
        except BrokenOff:
            log.warning(
                "model %s: the engine went away; the batch's %d pictures run again, decoded here",
                self._model.name,
                len(pictures),
            )
            self._run_again(slot, pictures)
            return
        except Internal as error:
            self._preparation.device.end()
            if len(pictures) > 1:
                log.warning("model %s: a batch of %d failed; running it one by one", self._model.name, len(pictures))
                for row, picture in enumerate(pictures):
                    slot.move(row, 0)
                    await self._execute(slot, [picture])
                return
            (picture,) = pictures
            if picture.way is DEVICE:  # perhaps the device can't, but the model can
                self._preparation.decode_again(picture, self._preparation.device.content(slot, 0))
                return
            results = [self._results.dropped(picture, error)]
        except Exception as error:
            results = [self._results.dropped(picture, error) for picture in pictures]
        # What is there by now: a wait in this very line would extend what went out before.
        self._results.add(results)

    async def _run(self, slot: Slot, pictures: Sequence[Picture]) -> list[Answered]:
        asked = monotonic()
        if not self.executed:
            self.ready_at, self.executed, self.put_off = asked, len(pictures), len(self._later)
        levels = [picture.priority for picture in pictures]
        priority = most_urgent(levels)
        deadline = max(picture.deadline for picture in pictures)
        for picture in pictures:
            picture.stages.ask(asked, len(pictures))
        with execution(pictures, asked):
            async with self._model.turns.turn(priority, deadline, bulk_part(levels)):
                inference = await self._model.loaded.infer(slot, len(pictures), _timeout(deadline))
            started = monotonic() - inference.seconds
        self._model.meter.executed(len(pictures), started - asked, inference.seconds, priority)
        inference, pictures = self._without_refused(slot, inference, pictures)
        if log.isEnabledFor(logging.DEBUG):
            uuids = " ".join(picture.request.image_uuid for picture in pictures)
            log.debug("model %s: executed %s", self._model.name, uuids)
        if not pictures:
            return []
        if self._model.head.slow:
            return await self._model.decoding.threads.run(self._results.replies, inference, started, pictures)
        return self._results.replies(inference, started, pictures)

    def _run_again(self, slot: Slot, pictures: Sequence[Picture]) -> None:
        """Has what is in the slot run once more, all of it as pixels, in another slot."""
        self._preparation.device.end()
        for row, picture in enumerate(pictures):
            if picture.way is DEVICE:
                self._preparation.decode_again(picture, self._preparation.device.content(slot, row))
            else:
                picture.pixels = slot.row(row).copy()
                self._ready.append(picture)

    def _without_refused(
        self, slot: Slot, inference: Inference, pictures: Sequence[Picture]
    ) -> tuple[Inference, Sequence[Picture]]:
        """Has those decoded here that the device couldn't decode; they run again, as stragglers."""
        if inference.reports is None:
            return inference, pictures
        refused = self._preparation.device.ran(slot, pictures, inference.reports)
        if not refused:
            return inference, pictures
        again = {id(picture) for picture, _ in refused}
        rows = [row for row, picture in enumerate(pictures) if id(picture) in again]
        for picture, data in refused:
            self._preparation.decode_again(picture, data)
        return without(inference, rows), [picture for picture in pictures if id(picture) not in again]


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _timeout(deadline: float) -> int:
    """What is left until then, in microseconds; 0: there is no deadline."""
    left = deadline - monotonic()
    if left <= 0:
        raise DeadlineExceeded("the deadline passed before the engine was free")
    return 0 if math.isinf(left) else max(1, int(left * 1e6))


def _compact(slot: Slot, ready: list[Picture]) -> list[Picture]:
    """Puts the pictures into the slot's first rows, without the gaps that failed ones left; returns them in that order.

    Rows only move to the front, so none is written over before it was moved.
    """
    ready.sort(key=lambda picture: picture.row)
    for row, picture in enumerate(ready):
        slot.move(picture.row, row)
        if picture.pixels is not None:
            slot.row(row)[...], picture.pixels = picture.pixels, None
    return ready
