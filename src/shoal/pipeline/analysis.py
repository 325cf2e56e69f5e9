"""One picture on its way through a pipeline: the detector, then each box, then what was found in it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import Code, DeadlineExceeded, Internal, Overloaded, ShoalError, to_status
from shoal.modelconfig.model import Task
from shoal.pipeline.steps import looks
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.pipeline.calls import Caller, Calls
    from shoal.pipeline.meter import Meter
    from shoal.pipeline.steps import Look, Mask, Step
    from shoal.pipeline.times import Times

log = logging.getLogger(__name__)

AFFINITY_LENGTH: Final = 64
"""Characters that a batcher takes; whoever sends no uuid is told so by the first step."""
_WITHDRAWN_SECONDS: Final = 0.05
"""A picture that is withdrawn so shortly before its deadline, or later, has run out of time; else its caller left."""

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


@dataclass(frozen=True, slots=True)
class Running:
    """What all pictures of a pipeline share."""

    name: str
    first: Step
    calls: Calls
    times: Times
    meter: Meter
    clock: Callable[[], float] = monotonic


@dataclass(slots=True)
class _Tally:
    """Of one step, for one picture."""

    calls: int = 0
    failed: int = 0
    begun: float = 0.0
    ended: float = 0.0
    late: bool = False
    """Some part ran out of time, or found too much work ahead of it."""
    ahead: float = 0.0
    """Seconds of work that its batcher said were ahead."""
    timing: pb.Timing = field(default_factory=pb.Timing)

    def fail(self, error: Exception) -> None:
        """One part has no answer."""
        self.failed += 1
        self.late = self.late or isinstance(error, DeadlineExceeded | Overloaded)
        if isinstance(error, Overloaded) and error.retry_after_seconds:
            self.ahead = max(self.ahead, error.retry_after_seconds)


class Analysis:
    """Of one picture, once."""

    def __init__(self, running: Running, asked: Asked) -> None:
        self._running = running
        self._asked = asked
        self._times = running.times.of(asked.caller.owner, asked.caller.priority)
        self._probe = False
        self._was_left = False
        self._pictures = 0
        """In flight with this one, at the most."""
        self._tallies = {step.name: _Tally() for step in running.first.all()}

    @property
    def tells(self) -> bool:
        """Whether the time that it took says anything: models were asked, and its caller did not leave before."""
        return bool(self._tallies[self._running.first.name].calls) and not self._was_left

    async def run(self) -> pb.AnalyzeReply:
        """The whole answer. Cancelled, it withdraws all its calls.

        Raises:
            ShoalError: what the first step's model answered, or that there is no time for the steps behind it.
        """
        asked, first, times = self._asked, self._running.first, self._times
        deadline = self._first_deadline()
        times.in_flight += 1
        self._pictures = times.in_flight
        try:
            reply = await self._ask(first, asked.region, deadline)
            findings = await self._findings(first, reply)
        finally:
            self._learn()
            times.in_flight -= 1
        return pb.AnalyzeReply(
            image_uuid=asked.image_uuid, model_name=self._running.name, findings=findings, steps=self._timings()
        )

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

    async def _findings(self, step: Step, reply: pb.DetectReply) -> list[pb.Finding]:
        boxes = step.chosen(reply.boxes)
        findings = [pb.Finding(box=box) for box in boxes]
        following = looks(step, boxes)
        results = await asyncio.gather(*(self._look(look) for look in following))
        for look, result in zip(following, results, strict=True):
            findings[look.place].results.append(result)
        return findings

    async def _look(self, look: Look) -> pb.StepResult:
        """What one step says of one part of the picture; where it says nothing, why."""
        step = look.step
        result = pb.StepResult(step=step.name, model_name=step.model)
        try:
            reply = await self._ask(step, look.region, self._deadline(step))
            result.model_version = reply.model_version
            if step.task is Task.CLASSIFICATION:
                result.classes.extend(reply.classes)
            elif step.task is Task.DETECTION:
                result.findings.extend(await self._findings(step, reply))
            else:
                result.mask.CopyFrom(reply)
        except Exception as error:
            result.code, result.message = _status(step, error)
        return result

    def _deadline(self, step: Step) -> float:
        """Raises DeadlineExceeded where there is no time for it, nor for what is behind it."""
        now = self._running.clock()
        deadline = self._asked.deadline - _way_back(self._asked.deadline - now)
        behind = self._times.behind(step)
        if deadline - behind > now:
            return deadline - behind
        self._running.meter.not_asked(step)
        if deadline <= now:
            raise DeadlineExceeded("the deadline passed before this part of the picture was looked at")
        text = (
            f"the steps behind {step.name!r} need {behind:.2f} s, as they went lately; {deadline - now:.2f} s are left"
        )
        raise DeadlineExceeded(f"{text}: this part of the picture was not looked at")

    async def _ask(self, step: Step, region: pb.PictureRegion | None, deadline: float) -> Any:  # the task's reply
        asked, running, tally = self._asked, self._running, self._tallies[step.name]
        request = step.request(asked.image_uuid, asked.mask, region)
        tally.calls += 1
        tally.begun = tally.begun or running.clock()
        code = Code.CANCELLED
        try:
            reply = await running.calls(step, request, asked.caller, deadline, asked.image_uuid[:AFFINITY_LENGTH])
            code = Code.OK
            tally.timing = reply.timing
        except asyncio.CancelledError:
            self._was_left = running.clock() < asked.deadline - _WITHDRAWN_SECONDS
            tally.failed += 1
            tally.late = tally.late or not self._was_left
            raise
        except Exception as error:
            code, _ = to_status(error)
            tally.fail(error)
            raise
        finally:
            tally.ended = running.clock()
            running.meter.called(step, code)
        return reply

    def _learn(self) -> None:
        """Of steps that every part has been through, and of those that took too long."""
        now, pictures = self._running.clock(), max(self._pictures, self._times.in_flight)
        self._times.ended(late=any(tally.late for tally in self._tallies.values()))
        for step in self._running.first.all():
            tally = self._tallies[step.name]
            if not tally.calls:
                continue
            seconds = tally.ended - tally.begun
            self._running.meter.stepped(step, seconds)
            if tally.late or not tally.failed:
                self._times.observe(step, now, max(seconds, tally.ahead), pictures, probe=self._probe)

    def _timings(self) -> list[pb.StepTiming]:
        told = []
        for step in self._running.first.all():
            tally = self._tallies[step.name]
            told.append(
                pb.StepTiming(
                    step=step.name,
                    model_name=step.model,
                    calls=tally.calls,
                    failed=tally.failed,
                    total_us=max(0, round((tally.ended - tally.begun) * 1e6)),
                    timing=tally.timing,
                )
            )
        return told


def _way_back(left: float) -> float:
    """Seconds that the whole answer has to reach its caller: else a part that nobody answers takes the others along."""
    return min(_WAY_BACK_SHARE * max(0.0, left), _WAY_BACK_SECONDS)


def _status(step: Step, error: Exception) -> tuple[int, str]:
    """What is told of a part of the picture that has no answer. What nobody expected goes to the log."""
    if not isinstance(error, ShoalError) or isinstance(error, Internal):
        log.error("step %s failed for a part of a picture", step.name, exc_info=error)
    return to_status(error)
