"""Parts of one picture that go to the same model at the same time, asked about in one call.

A call costs client, router, batcher and worker half a millisecond of CPU, whatever it asks; the parts have their own
answers all the same. Not all in one call: those of a picture spread over batches and workers as others do.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import Code, from_status
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Hashable

    from shoal.pipeline.calls import Caller, Calls
    from shoal.pipeline.steps import Step

MOST_PARTS: Final = 8
"""Of a picture, in one call."""


@dataclass(eq=False, slots=True)
class _Part:
    request: pb.ImageRequest
    deadline: float
    answer: asyncio.Future[Any]
    """A part's reply of the step's task, with its own code; or what became of the call."""


@dataclass(slots=True)
class _Same:
    """Parts that may go together, and with what."""

    step: Step
    caller: Caller
    affinity: str
    parts: list[_Part] = field(default_factory=list)


class TogetherCalls:
    """Implements ``Calls`` over others. Belongs to one event loop."""

    def __init__(self, calls: Calls) -> None:
        """``calls`` are made."""
        self._calls = calls
        self._waiting: dict[Hashable, _Same] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> Any:  # the task's reply
        """What is asked about a part waits until the event loop has heard of its others."""
        if not request.HasField("region"):
            return await self._calls(step, request, caller, deadline, affinity)
        loop = asyncio.get_running_loop()
        part = _Part(request, deadline, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._begin)
        whose = caller.identity, caller.priority, caller.traceparent
        key = step, request.image_uuid, request.mask_form, request.mask_size, *whose, round(deadline, 2)
        self._waiting.setdefault(key, _Same(step, caller, affinity)).parts.append(part)
        told = await part.answer
        if told is None:
            return await self._calls(step, request, caller, deadline, affinity)
        if told.code:
            raise from_status(Code(told.code), told.message)
        return told.reply

    def _begin(self) -> None:
        """Parts are alike in number from call to call."""
        waiting, self._waiting = self._waiting, {}
        for same in waiting.values():
            parts = [part for part in same.parts if not part.answer.done()]
            count = math.ceil(len(parts) / MOST_PARTS)
            for number in range(count):
                self._ask(same, parts[number::count])

    def _ask(self, same: _Same, parts: list[_Part]) -> None:
        if len(parts) == 1:
            parts[0].answer.set_result(None)
            return
        task = asyncio.create_task(self._asked(same, parts))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

        def left(_: asyncio.Future[Any]) -> None:
            if all(part.answer.done() for part in parts):
                task.cancel()

        for part in parts:
            part.answer.add_done_callback(left)

    async def _asked(self, same: _Same, parts: list[_Part]) -> None:
        request = pb.ImageRequest()
        request.CopyFrom(parts[0].request)
        request.ClearField("region")
        request.regions.extend(part.request.region for part in parts)
        try:
            reply = await self._calls(
                same.step, request, same.caller, min(part.deadline for part in parts), same.affinity
            )
        except Exception as error:
            for part in parts:
                if not part.answer.done():
                    part.answer.set_exception(error)
            return
        for part, told in zip(parts, reply.region_replies, strict=True):
            if not part.answer.done():  # what is UNAVAILABLE is asked for again, alone, as any call would be
                part.answer.set_result(None if told.code == Code.UNAVAILABLE else told)
