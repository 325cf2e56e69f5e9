"""The regions of one request: each is a picture of its own on its way, all of them are one item with one result.

They are fetched once. Those that a batch takes in together are decoded once, too, and then cut one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import REPLY_BYTES
from shoal.errors import Code
from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from shoal.modelconfig.model import Task
    from shoal.worker.fetched import Fetched

_FRAME_BYTES: Final = 64
"""What a region's reply takes beside itself, at most; and its message is short."""


class Parts:
    """Of one item. Belongs to one event loop."""

    def __init__(self, task: Task, count: int) -> None:
        self.fetch: asyncio.Future[Fetched] | None = None
        """Of the picture, for all of them."""
        self.fetched = 0.0
        """When it was there, in seconds of ``time.monotonic``: some of them wait for a row until long after."""
        self._reply = getattr(inference_pb2, f"{task.method}Reply")
        self._results: dict[int, batching_pb2.BatchItemResult] = {}
        self._count = count
        self._preparing = count

    def end(self, count: int = 1) -> None:
        """So many need the picture's bytes no longer."""
        self._preparing -= count
        fetch = self.fetch
        if self._preparing or fetch is None or not fetch.done() or fetch.cancelled():
            return
        if fetch.exception() is None:
            fetch.result().release()

    def add(self, part: int, result: batching_pb2.BatchItemResult) -> batching_pb2.BatchItemResult | None:
        """What became of a region; the item's result, once all have one.

        What befell all of them alike, such as that there is no picture, is the item's own failure.
        """
        self._results[part] = result
        if len(self._results) < self._count:
            return None
        if result.code and len({(each.code, each.message) for each in self._results.values()}) == 1:
            return result
        reply, room = self._reply(), REPLY_BYTES - self._count * _FRAME_BYTES
        for number in range(self._count):
            room = _tell(reply, self._results[number], room)
        if answered := [told.reply for told in reply.region_replies if not told.code]:
            last = max(answered, key=lambda each: _total(each.timing))
            reply.image_uuid, reply.model_name = last.image_uuid, last.model_name
            reply.model_version = last.model_version
            reply.timing.CopyFrom(last.timing)
        reply.timing.cached = all(told.reply.timing.cached for told in reply.region_replies)
        return batching_pb2.BatchItemResult(index=result.index, response=reply.SerializeToString())


def _tell(reply: Any, result: batching_pb2.BatchItemResult, room: int) -> int:
    """Adds a region's answer, if there is room for so many bytes; what is left of that."""
    response = result.response
    left = room - len(response) - len(result.message)
    if result.code:
        reply.region_replies.add(code=result.code, message=result.message)
    elif left < 0:
        message = f"the answers to all regions are larger than {REPLY_BYTES:,} bytes: ask for fewer at a time"
        reply.region_replies.add(code=Code.INVALID_ARGUMENT, message=message)
        return room
    else:
        reply.region_replies.add().reply.MergeFromString(response)
    return left


def _total(timing: inference_pb2.Timing) -> int:
    return int(timing.queue_us + timing.fetch_us + timing.decode_us + timing.compute_us)
