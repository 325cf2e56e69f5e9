"""What steps take, and so whether a picture can be answered within its deadline. Pure: no I/O, no clock.

More pictures in flight than the models can do at once make each of them slower and none sooner, until they are late
after their first steps, whose work is then lost. So the times are learned as a line over the number in flight (Little's
law: where the engines are the bottleneck, time goes with the number): it says at once what one more would take, while
what the latest ones took says so only when they are through.

Each owner has its own times, of each priority, as each has its own place in the batchers' queues: whoever asks too much
waits for itself, and shuts nobody else out. Several processes see the same times, each over the number that it has:
so they share what there is time for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.batcher.learning import BatchTimes, Mean

if TYPE_CHECKING:
    from shoal.pipeline.steps import Step
    from shoal.runtime.priority import Priority

MARGIN: Final = 1.25
"""Of what a step mostly takes at most. Under too much load pictures use all the time that they are left, so that has to
be enough nearly always: whoever fails after the first step has cost its work for nothing."""
DOUBT: Final = 2.0
"""Of the share of late answers among the latest: what comes to the margin, as where an engine halts now and then."""
MOST_MARGIN: Final = 2.0
FORGOTTEN_SECONDS: Final = 10.0
"""Without news for so long nothing is known any more: what was slow once shuts nobody out for good."""
PROBE_SECONDS: Final = 0.25
"""Where no picture came through its steps for so long, one that is expected to be late is tried all the same: only
answers tell that it isn't so any more."""
_KEPT: Final = 32
"""Answers that a number of pictures in flight is remembered for."""
MOST_CALLERS: Final = 1_000
"""Whose times are kept; of more, those who called last."""


class Reserve(NamedTuple):
    """Time that a picture's steps should have."""

    first: float
    """Seconds of the first."""
    behind: float
    """Seconds of those behind it."""
    probe: bool = False
    """It is tried in spite of what is expected."""


class StepTimes:
    """Of all steps of a pipeline, for one caller."""

    def __init__(self, first: Step) -> None:
        self.in_flight = 0
        """Pictures."""
        self._first = first
        self._heard = -math.inf
        """When a picture last came through, or a probe was sent."""
        self._learned = -math.inf
        self._forget()

    def observe(self, step: Step, now: float, seconds: float, pictures: int, *, probe: bool = False) -> None:
        """``step`` took so long for a picture that had boxes for it, while so many were in flight.

        ``probe``: it was tried in spite of its time.
        """
        if probe and seconds < self._lines[step.name].cautious(pictures) / 2:
            self._forget()  # what was slow is so no more
        self._lines[step.name].observe(pictures, seconds)
        self._most += max(pictures - self._most, (pictures - self._most) / _KEPT)
        self._learned = now
        if not step.then:
            self._heard = now

    def ended(self, *, late: bool) -> None:
        """A picture that was let in has its answer, or has run out of time."""
        self._late.observe(late)

    def behind(self, step: Step, more: int = 0) -> float:
        """Seconds that the steps behind ``step`` should have, along the slowest way, with so many more pictures."""
        return max((self._needs(each, more) + self.behind(each, more) for each in step.then), default=0.0)

    def reserve(self, now: float, left: float) -> Reserve:
        """What the steps of one picture more should have of the ``left`` seconds; more than those: hopeless.

        Where that is most of them, and nothing was heard for ``PROBE_SECONDS``, one picture is tried all the same.
        """
        if now - self._learned > FORGOTTEN_SECONDS:
            self._forget()
        needed = Reserve(self._needs(self._first, 1), self.behind(self._first, 1))
        if needed.first + needed.behind > left / 2 and now - self._heard >= PROBE_SECONDS:
            self._heard = now
            return Reserve(0.0, 0.0, probe=True)
        return needed

    def _needs(self, step: Step, more: int) -> float:
        line = self._lines[step.name]
        margin = min(MOST_MARGIN, MARGIN + DOUBT * self._late.mean)
        return margin * line.cautious(min(self.in_flight + more, self._most)) if line.known else 0.0

    def _forget(self) -> None:
        """Nothing is known."""
        self._late = Mean()
        for _ in range(_KEPT):  # a single one that is late is no tenth of all
            self._late.observe(0.0)
        self._most = 0.0
        """Pictures in flight, of late: of more than that nothing is known, and nobody is refused for it."""
        self._lines = {step.name: BatchTimes() for step in self._first.all()}


class Times:
    """Of a pipeline's callers."""

    def __init__(self, first: Step) -> None:
        self._first = first
        self._of: OrderedDict[tuple[str, Priority], StepTimes] = OrderedDict()

    def of(self, owner: str, priority: Priority) -> StepTimes:
        """Those of one owner's calls of one priority."""
        whose = owner, priority
        found = self._of.get(whose)
        if found is None:
            found = self._of[whose] = StepTimes(self._first)
            if len(self._of) > MOST_CALLERS:
                self._of.popitem(last=False)
        self._of.move_to_end(whose)
        return found
