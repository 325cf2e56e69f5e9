"""How large a batch grows, when it closes, and what fills it then.

The words are Triton's (model_config.proto, ``ModelDynamicBatching``): the largest preferred size that fits goes at
once; otherwise a batch goes when its oldest request has waited ``max_queue_delay_microseconds``. Where the model has a
latency objective, it goes as late as that allows instead. That is deferred batching: an idle engine is no reason to
send a small batch (Symphony, arXiv 2308.07470, and Nexus, SOSP 2019).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final, Literal

from shoal.batcher.learning import Arrivals
from shoal.batcher.workload import MOSTLY, TIMER_SECONDS
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.batcher.level import OpenBatch
    from shoal.batcher.workload import Workload
    from shoal.batching.fair_queue import Queued
    from shoal.modelconfig.batching import BatchingSettings

CloseReason = Literal["preferred", "delay", "objective", "enough", "bulk", "deadline", "drain", "alone"]

FILL: Final = 1.25
"""Bulk requests that fill a batch of interactive ones add at most so many times what the smallest batch costs."""
_LEAD = 2 / 3
"""Of the time of a full batch: what fetch and decode get while a worker is busy that doesn't say how long they take;
where it does, and they mostly take less, it is the most that they get."""
_ENOUGH = 1.05
"""A batch whose requests cost at most so many times as much as in a full one needs no more company."""
_WORTH_IT = 1.25
"""A batch is kept small for its promise's sake where a request of it costs at most so many times as much."""
_RESERVE = 0.05
"""Of the objective: for the way between caller and batcher, of which nothing is known here."""
_MOST_MARGIN = 1 / 5
"""Of the objective: what is kept for answers that come later than expected at most. Where one in a hundred comes later
still, small batches all the time would cost more than they are worth."""
_OVERDUE = 1 / 8
"""Of a batch's time: what one that is late anyway waits for company at most. Closed small it would still be late, fill
the engine as a full one does, and so make the next ones late, too."""
_SAVES = 4 / 3
"""Where two batches of one cost less than so many times one of two, company is nothing to be late for."""
_ROUNDING = 1e-6
_SEVERAL = 17 / 16
"""Rows a request, from which on they count: a batch is no smaller for what is nearly forgotten."""


class Closing:
    """By a model's settings, and by the times learned of it. ``bulk`` is how many bulk requests could fill a batch."""

    def __init__(self, work: Workload[Any], settings: BatchingSettings) -> None:
        """Starts with ``settings``; ``work`` is what the workers have to do."""
        self.draining = False
        """Whether nothing waits for company any more."""
        self._work = work
        self._arrivals = {priority: Arrivals() for priority in Priority}
        self.configure(settings)

    def configure(self, settings: BatchingSettings) -> None:
        """Takes new settings."""
        sizes = {size for size in settings.preferred_batch_size if 0 < size <= settings.max_batch_size}
        self._rows = sorted(sizes) or [max(1, settings.max_batch_size)]
        self._share = 0.0
        self.learned()
        self._delay = settings.max_queue_delay_microseconds / 1e6
        self.objective = settings.latency_objective_microseconds / 1e6
        """Seconds; 0: the delay holds."""

    def learned(self) -> None:
        """A batch was executed. Of requests that need several rows each, as those about regions do, fewer fill one."""
        share = self._work.times.share
        share = share if share > _SEVERAL else 1.0
        if share != self._share:
            self._share = share
            self._sizes = sorted({max(1, int(rows / share + _ROUNDING)) for rows in self._rows})
            self._largest = self._work.largest = self._sizes[-1]

    def arrived(self, now: float, requests: Iterable[Queued]) -> None:
        """These have come."""
        if self.objective:  # a delay doesn't ask how many come
            for request in requests:
                self._arrivals[request.priority].observe(now)

    def latest_start(self, arrived: float) -> float:
        """When a full batch has to start at a worker, at last, to keep the promise to a request.

        Where times scatter, as on a device that others use too, a batch had better not wait behind another one.
        """
        return self._promise(arrived) - self._work.times.cautious(self._largest)

    def size(self, now: float, batch: OpenBatch[Any], waiting: int, oldest: float, bulk: int) -> tuple[int, bool]:
        """The size to which a batch grows, and whether it has to close with it.

        That is the largest preferred size that is reached, or all; or as many as its promise allows, where the others
        cost hardly more in a batch of their own.

        Args:
            now: The time.
            batch: Which.
            waiting: Requests that could join it.
            oldest: When the first of these arrived.
            bulk: As everywhere.
        """
        available = batch.size + waiting
        size = self._reached(available) or available
        times = self._work.times
        if not self.objective or not times.known or bulk:
            return size, False
        start = self._work.free_at(now, batch.worker, batch.priority)
        promised = times.largest(self._promise(min(batch.oldest, oldest)) - start) + _ROUNDING
        if promised < batch.size and self._saves:  # late anyway: it gains nothing by being small
            return size, False
        kept = max(int(min(promised, size)), batch.size)
        if 0 < kept < size and self._dearer(kept, size) <= _WORTH_IT:
            return kept, True
        return size, False

    def due(self, now: float, batch: OpenBatch[Any], bulk: int) -> tuple[float, CloseReason]:
        """When the batch closes, and why; that may be past.

        At once where it is full, or nothing is gained by waiting. Else when its oldest request has waited long enough,
        or its tightest deadline needs the rest. Where bulk requests wait, its worker is never idle: then it goes before
        it can start, so early that fetch and decode are through. If it waited longer, a bulk batch would go first, and
        until then others may join.
        """
        if batch.size in self._sizes or batch.size >= self._largest:
            return now, "preferred"
        if self.draining:
            return now, "drain"
        if self.objective and self._is_enough(now, batch):
            return now, "enough"
        if bulk:
            return self._work.free_at(now, batch.worker, batch.priority) - self._lead, "bulk"
        patience = self._patience(batch)
        needed = batch.tightest - self._work.times.cautious(batch.size)
        if needed < patience:
            return needed, "deadline"
        return patience, "objective" if self.objective else "delay"

    def room(self, now: float, batch: OpenBatch[Any], bulk: int) -> int:
        """How many bulk requests a closing batch of interactive ones takes along.

        What a batch costs at least, however small it is, they have for nothing; so they may cost about as much. Where
        requests cost hardly less together than alone that is none. All deadlines have to hold.
        """
        times = self._work.times
        if not bulk or not times.known or batch.size >= self._largest:
            return 0
        start = self._work.free_at(now, batch.worker, batch.priority)
        spare = batch.tightest - start - times.cautious(batch.size)
        more = times.more(min(FILL * times.base, spare)) + _ROUNDING
        size = int(min(batch.size + min(more, bulk), self._largest))
        reached = self._reached(size)
        if reached > batch.size or batch.size in self._sizes:
            size = reached
        return max(0, size - batch.size)

    def _reached(self, available: int) -> int:
        """The largest preferred size that so many requests fill; 0 if they fill none."""
        number = bisect_right(self._sizes, available)
        return self._sizes[number - 1] if number else 0

    def _is_enough(self, now: float, batch: OpenBatch[Any]) -> bool:
        """Whether its worker is idle and company would make it hardly cheaper: an idle engine's time is lost."""
        return (
            self._work.times.known
            and self._dearer(batch.size, self._largest) <= _ENOUGH
            and self._work.free_at(now, batch.worker, batch.priority) <= now
        )

    def _dearer(self, size: int, larger: int) -> float:
        """How many times as much a request costs in a batch of ``size`` as in a larger one."""
        expected = self._work.times.expected
        return expected(size) * larger / max(expected(larger) * size, 1e-12)

    @property
    def _lead(self) -> float:
        """How long before its worker is free a batch closes, so that it is ready when one before it ends early.

        Now and then a picture hangs; that many others closed early for it would be worse than one batch that is late.
        """
        preparation, times = self._work.preparation, self._work.times
        share = _LEAD * times.expected(self._largest)
        if not preparation:
            return share
        most = max(share, 2 * preparation.most(0.5))
        return min(preparation.most(MOSTLY), most) + times.scatter + TIMER_SECONDS

    def _patience(self, batch: OpenBatch[Any]) -> float:
        """Until when its oldest request waits for company: all its delay, or as long as the objective allows.

        Before any time is known, that is half of the objective.
        """
        if not self.objective:
            return batch.oldest + self._delay
        if not self._work.times.known:
            return batch.oldest + self.objective / 2
        promised = self._promise(batch.oldest) - self._work.times.expected(batch.size)
        return max(promised, batch.opened + self._for_company(batch))

    def _for_company(self, batch: OpenBatch[Any]) -> float:
        """Seconds that a batch waits for company even where it is late then: none where none is expected meanwhile."""
        seconds = _OVERDUE * self._work.times.expected(batch.size)
        return seconds if self._saves and self._arrivals[batch.priority].expected(seconds) >= 1 else 0.0

    @property
    def _saves(self) -> bool:
        """Whether company saves much: two at once, and not one after the other. Fetch and decode save nothing."""
        prepared = self._work.preparation.most(0.5)
        one, two = (self._work.times.expected(size) - prepared for size in (1, 2))
        return 2 * one > _SAVES * two

    def _promise(self, arrived: float) -> float:
        """By when the answer to a request has to be expected, so that it mostly comes within the objective."""
        margin = min(self._work.margin, _MOST_MARGIN * self.objective)
        return arrived + (1 - _RESERVE) * self.objective - margin
