"""A model without an engine: batches take as long as a cost curve says, one after the other, in a worker's order."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.batching.messages import bulk_part, most_urgent, priority_of
from shoal.batching.turns import Turns
from shoal.batching.v1 import batching_pb2
from shoal.engine.slots import PREFETCHED
from shoal.errors import Code
from shoal.runtime.priority import Priority
from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shoal.modelconfig.batching import BatchingSettings
    from shoal.simulate.curve import CostCurve


class SerialEngine:
    """One instance. A batch starts when the one before it has ended; a late timer delays its answer, not the next.

    Batches are handed over in a worker's turns: interactive ones first, and one of them ahead of the engine's need.
    """

    def __init__(self, curve: CostCurve) -> None:
        self._curve = curve
        self._free_at = 0.0
        self._turns = Turns(1, ahead=PREFETCHED)

    async def run(
        self, size: int, priority: Priority = Priority.INTERACTIVE, riding: float = 0.0
    ) -> tuple[float, float]:
        """When the batch began (monotonic) and how long it took, in seconds; returns when it has ended."""
        asked = time.monotonic()  # an uvloop's own time has steps of a millisecond
        async with self._turns.turn(priority, riding=riding):
            seconds = self._curve.seconds(size)
            began = max(asked, self._free_at)
            self._free_at = began + seconds
            await asyncio.sleep(self._free_at - time.monotonic())
        return began, seconds


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """See ``shoal.batching.service.Handler``."""

    settings: BatchingSettings
    engine: SerialEngine
    echo: bool
    """Answers each request with its own bytes."""

    def check(self, method: str) -> None:
        """Any will do."""

    def begin(self, method: str, priority: Priority = Priority.INTERACTIVE) -> ScriptedBatch:  # noqa: ARG002
        """A batch."""
        return ScriptedBatch(self)


class ScriptedBatch:
    """See ``shoal.batching.service.Batch``."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model
        self._items: list[tuple[batching_pb2.BatchItem, float]] = []
        self._now = time.monotonic
        self.ready_at = 0.0

    def add(self, *items: batching_pb2.BatchItem) -> None:
        """Nothing is fetched or decoded."""
        now = self._now()
        self._items.extend((item, now) for item in items)

    async def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        """Runs what has time left, as a worker does."""
        now = self.ready_at = self._now()
        live = [(item, came) for item, came in self._items if now - came < item.timeout_us / 1e6]
        levels = [priority_of(item) for item, _ in live]
        began, seconds = now, 0.0
        if live:
            began, seconds = await self._model.engine.run(len(live), most_urgent(levels), bulk_part(levels))
        timing = inference_pb2.Timing(compute_us=int(seconds * 1e6), batch_size=len(live))
        late = [_late(item) for item, came in self._items if now - came >= item.timeout_us / 1e6]
        yield late + [self._reply(item, began - came, timing) for item, came in live]

    def abandon(self) -> None:
        """Nothing is held."""

    def _reply(
        self, item: batching_pb2.BatchItem, waited: float, timing: inference_pb2.Timing
    ) -> batching_pb2.BatchItemResult:
        if self._model.echo:
            return batching_pb2.BatchItemResult(index=item.index, response=item.request)
        request = inference_pb2.ImageRequest.FromString(item.request)
        timing.queue_us = item.queued_us + int(waited * 1e6)
        reply = inference_pb2.ClassifyReply(
            image_uuid=request.image_uuid, model_name=request.model_name, model_version=1, timing=timing
        )
        return batching_pb2.BatchItemResult(index=item.index, response=reply.SerializeToString())


def _late(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
    return batching_pb2.BatchItemResult(index=item.index, code=Code.DEADLINE_EXCEEDED, message="too late")
