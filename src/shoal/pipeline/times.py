"""What steps took lately, and so what must be left of a deadline when the first one is asked. Pure: no I/O, no clock.

Each owner has its own times, of each priority, as each has its own place in the batchers' queues: whoever asks too much
waits for itself, and shuts nobody else out.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from shoal.pipeline.steps import Step
    from shoal.runtime.priority import Priority

QUANTILE: Final = 0.95
MARGIN: Final = 1.25
"""Under too much load the first step uses all the time that it is left, so what is kept for the others has to be
enough nearly always: whoever fails after the first step has cost its work for nothing."""
KEPT: Final = 64
"""Times of one step that are looked at, the latest."""
FORGOTTEN_SECONDS: Final = 10.0
"""A time counts for so long: what was slow once shuts nobody out for good."""
PROBE_SECONDS: Final = 0.25
"""Where no picture came through its steps for so long, one that is expected to be late is tried all the same: only
answers tell that it isn't so any more."""
MOST_CALLERS: Final = 1_000
"""Whose times are kept; of more, those who called last."""


class Lately:
    """Seconds that one step took for a picture, all of its boxes together."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._expected: float | None = 0.0

    def observe(self, now: float, seconds: float) -> None:
        """It took so long, or longer: it was given up."""
        self._seen.append((now, seconds))
        self._expected = None

    def expected(self, now: float) -> float:
        """What 19 of 20 took, no longer than ``FORGOTTEN_SECONDS`` ago; 0 where there is none."""
        while self._seen and now - self._seen[0][0] > FORGOTTEN_SECONDS:
            self._seen.popleft()
            self._expected = None
        if self._expected is None:
            self._expected = percentile(sorted(seconds for _, seconds in self._seen), QUANTILE) or 0.0
        return self._expected

    def forget(self) -> None:
        """Nothing is known."""
        self._seen.clear()
        self._expected = 0.0


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
        self._first = first
        self._lately = {step.name: Lately() for step in first.all()}
        self._heard = -math.inf
        """When a picture last came through, or a probe was sent."""

    def observe(self, step: Step, now: float, seconds: float, *, probe: bool = False) -> None:
        """``step`` took so long for a picture that had boxes for it; ``probe``: it was tried in spite of its time."""
        lately = self._lately[step.name]
        if probe and seconds < lately.expected(now) / 2:
            lately.forget()  # what was slow is so no more
        lately.observe(now, seconds)
        if not step.then:
            self._heard = now

    def behind(self, step: Step, now: float) -> float:
        """Seconds that the steps behind ``step`` should have: along the slowest way."""
        return max(
            (MARGIN * self._lately[each.name].expected(now) + self.behind(each, now) for each in step.then),
            default=0.0,
        )

    def reserve(self, now: float, left: float) -> Reserve:
        """What the steps should have of the ``left`` seconds; more than those: hopeless.

        Where that is most of them, and nothing was heard for ``PROBE_SECONDS``, one picture is tried all the same.
        """
        needed = Reserve(self._lately[self._first.name].expected(now), self.behind(self._first, now))
        if needed.first + needed.behind > left / 2 and now - self._heard >= PROBE_SECONDS:
            self._heard = now
            return Reserve(0.0, 0.0, probe=True)
        return needed


class Times:
    """Of a pipeline's callers."""

    def __init__(self, first: Step) -> None:
        self._first = first
        self._of: OrderedDict[tuple[str, Priority], StepTimes] = OrderedDict()

    def of(self, owner: str, priority: Priority) -> StepTimes:
        """Those of one owner's calls of one priority."""
        found = self._of.setdefault((owner, priority), StepTimes(self._first))
        self._of.move_to_end((owner, priority))
        if len(self._of) > MOST_CALLERS:
            self._of.popitem(last=False)
        return found
