"""One picture on its way through a pipeline: the detector, then each box, then what was found in it.

A call costs client, router, batcher and worker half a millisecond of CPU, whatever it asks. So parts that go to the
same model at the same time are asked about in one call; they have their own answers all the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import DeadlineExceeded, Internal, ShoalError, Unavailable, from_status, to_status
from shoal.modelconfig.model import Task
from shoal.pipeline.steps import looks
from shoal.pipeline.tally import Tallies
from shoal.runtime.together import together
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from shoal.pipeline.calls import Caller, Calls
    from shoal.pipeline.meter import Meter
    from shoal.pipeline.steps import Look, Mask, Step
    from shoal.pipeline.times import Times

log = logging.getLogger(__name__)

AFFINITY_LENGTH: Final = 64
"""Characters that a batcher takes; whoever sends no uuid is told so by the first step."""
_WITHDRAWN_SECONDS: Final = 0.05
"""A picture that is withdrawn so shortly before its deadline, or later, has run out of time; else its caller left."""

_OLDEST_US: Final = 2**64 - 1
"""More than that, its field doesn't take."""

_WAY_BACK_SHARE: Final = 0.05
_WAY_BACK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller wants to know."""

    image_uuid: str
    caller: Caller
    deadline: float
    """Seconds of ``time.monotonic``."""
    mask: Mask
    region: pb.PictureRegion | None = None
    """The first step looks at this part alone."""
    max_age_us: int = 0
    """``ImageRequest.max_age_us``, now."""


@dataclass(frozen=True, slots=True)
class Running:
    """What all pictures of a pipeline share."""

    name: str
    first: Step
    calls: Calls
    times: Times
    meter: Meter
    clock: Callable[[], float] = monotonic


class Analysis:
    """Of one picture, once."""

    def __init__(self, running: Running, asked: Asked) -> None:
        self._running = running
        self._asked = asked
        self._times = running.times.of(asked.caller.owner, asked.caller.priority)
        self._probe = False
        self._was_left = False
        self._begun = running.clock()
        self._pictures = 0
        """In flight with this one, at the most."""
        self._tallies = Tallies(running.first, running.meter, running.clock)

    @property
    def tells(self) -> bool:
        """Whether the time that it took says anything: models were asked, and its caller did not leave before."""
        return bool(self._tallies.of(self._running.first).calls) and not self._was_left

    async def run(self) -> pb.AnalyzeReply:
        """The whole answer. Cancelled, it withdraws all its calls.

        Raises:
            ShoalError: what the first step's model answered, or that there is no time for the steps behind it.
        """
        asked, running, times = self._asked, self._running, self._times
        deadline = self._first_deadline()
        answer = pb.AnalyzeReply(image_uuid=asked.image_uuid, model_name=running.name)
        times.in_flight += 1
        self._pictures = times.in_flight
        try:
            reply = await self._find(deadline)
            await self._follow(running.first, _kept(running.first, reply, answer))
        finally:
            self._learn()
            times.in_flight -= 1
        answer.steps.extend(tally.told() for tally in self._tallies)
        return answer

    def _first_deadline(self) -> float:
        """So early that the steps behind have the time that they take of late.

        The detector's batcher goes by it, and refuses at once what it can't answer so soon.
        """
        now, deadline = self._running.clock(), self._asked.deadline
        needed = self._times.reserve(now, deadline - now)
        self._probe = needed.probe
        seconds = needed.first + needed.behind
        if deadline - seconds <= now:
            text = f"the steps of {self._running.name!r} need {seconds:.2f} s, as they went lately"
            raise DeadlineExceeded(f"{text}; {max(0.0, deadline - now):.2f} s are left, and nothing was asked")
        return deadline - needed.behind

    async def _find(self, deadline: float) -> pb.DetectReply:
        """The first step. Raises what its model answers, which is the whole picture's answer."""
        asked, first = self._asked, self._running.first
        self._tallies.begin(first, 1)
        try:
            reply: pb.DetectReply = await self._call(first, [] if asked.region is None else [asked.region], deadline)
        except Exception as error:
            self._tallies.fail(first, error, 1)
            raise
        self._tallies.succeed(first, reply, 1)
        return reply

    async def _follow(self, step: Step, found: Sequence[pb.Finding]) -> None:
        """What the steps behind ``step`` say of what it has found goes there."""
        calls = []
        for following, parts in looks(step, found):
            try:
                deadline = self._deadline(following, len(parts))
            except DeadlineExceeded as error:
                _tell(following, error, parts)
                continue
            self._tallies.begin(following, len(parts))
            calls += [self._look(following, some, deadline) for some in _shares(parts, following.most_parts)]
        await _all_of(calls)

    async def _look(self, step: Step, parts: Sequence[Look], deadline: float) -> None:
        """One call. What ``step`` says of each part goes into its result; where it says nothing, why.

        A part that is UNAVAILABLE is asked about again, alone, as any call would be.
        """
        try:
            reply = await self._call(step, [part.region for part in parts], deadline)
        except Exception as error:
            self._tallies.fail(step, error, len(parts))
            _tell(step, error, parts)
            return
        found: list[pb.Finding] = []
        again: list[Look] = []
        answered, last = 0, None
        for part, answer in zip(parts, _answers(reply, len(parts)), strict=True):
            if isinstance(answer, Unavailable):
                again.append(part)
            elif isinstance(answer, ShoalError):
                self._tallies.fail(step, answer, 1)
                _tell(step, answer, [part])
            else:
                found += _read(step, answer, part.result)
                answered, last = answered + 1, answer
        if last is not None:
            self._tallies.succeed(step, last, answered)
        await _all_of([self._follow(step, found), *(self._look(step, [part], deadline) for part in again)])

    def _deadline(self, step: Step, parts: int) -> float:
        """Raises DeadlineExceeded where there is no time for it, nor for what is behind it."""
        now = self._running.clock()
        deadline = self._asked.deadline - _way_back(self._asked.deadline - now)
        behind = self._times.behind(step)
        if deadline - behind > now:
            return deadline - behind
        self._running.meter.not_asked(step, parts)
        if deadline <= now:
            raise DeadlineExceeded("the deadline passed before this part of the picture was looked at")
        text = (
            f"the steps behind {step.name!r} need {behind:.2f} s, as they went lately; {deadline - now:.2f} s are left"
        )
        raise DeadlineExceeded(f"{text}: this part of the picture was not looked at")

    async def _call(self, step: Step, regions: Sequence[pb.PictureRegion], deadline: float) -> Any:  # the task's reply
        asked, running = self._asked, self._running
        request = step.request(asked.image_uuid, asked.mask, regions)
        # What a worker keeps since this began is the picture in which the boxes were found: nobody asks for it again.
        age_us = asked.max_age_us + int(1e6 * (running.clock() - self._begun))
        request.max_age_us = min(age_us, _OLDEST_US)
        try:
            return await running.calls(step, request, asked.caller, deadline, asked.image_uuid[:AFFINITY_LENGTH])
        except asyncio.CancelledError:
            self._was_left = running.clock() < asked.deadline - _WITHDRAWN_SECONDS
            self._tallies.withdraw(step, max(1, len(regions)), late=not self._was_left)
            raise

    def _learn(self) -> None:
        """Of steps that every part has been through, and of those that took too long."""
        now, pictures = self._running.clock(), max(self._pictures, self._times.in_flight)
        self._times.ended(late=any(tally.late for tally in self._tallies))
        for tally in self._tallies:
            if not tally.ended:
                continue
            self._running.meter.stepped(tally.step, tally.seconds)
            if tally.late or not tally.failed:
                seconds = max(tally.seconds, tally.ahead)
                self._times.observe(tally.step, now, seconds, pictures, probe=self._probe)


async def _all_of(work: Sequence[Coroutine[object, object, None]]) -> None:
    """One alone needs no task."""
    if len(work) > 1:
        await together(work)
        return
    for each in work:
        await each


def _way_back(left: float) -> float:
    """Seconds that the whole answer has to reach its caller: else a part that nobody answers takes the others along."""
    return min(_WAY_BACK_SHARE * max(0.0, left), _WAY_BACK_SECONDS)


def _shares(parts: Sequence[Look], most: int) -> Iterator[Sequence[Look]]:
    """Of each call, ``most`` at most; alike in number."""
    count = math.ceil(len(parts) / most)
    return (parts[number::count] for number in range(count))


def _answers(reply: Any, parts: int) -> list[Any]:  # the task's reply
    """Of each part, the reply or the error."""
    if parts == 1:
        return [reply]
    return [from_status(told.code, told.message) if told.code else told.reply for told in reply.region_replies]


def _read(step: Step, reply: Any, result: pb.StepResult) -> list[pb.Finding]:  # the task's reply
    """Puts what a step's model says of a part into ``result``; what it has found there."""
    result.model_version = reply.model_version
    if step.task is Task.DETECTION:
        return _kept(step, reply, result)
    if step.task is Task.CLASSIFICATION:
        result.classes.extend(reply.classes)
    else:
        result.mask.CopyFrom(reply)
    return []


def _kept(step: Step, reply: pb.DetectReply, into: pb.AnalyzeReply | pb.StepResult) -> list[pb.Finding]:
    """Puts the boxes that ``step`` keeps there; what it has put."""
    return [into.findings.add(box=box) for box in step.chosen(reply.boxes)]


def _tell(step: Step, error: Exception, parts: Sequence[Look]) -> None:
    """Why parts of the picture have no answer. What nobody expected goes to the log."""
    if not isinstance(error, ShoalError) or isinstance(error, Internal):
        log.error("step %s failed for a part of a picture", step.name, exc_info=error)
    code, message = to_status(error)
    for part in parts:
        part.result.code, part.result.message = code, message
