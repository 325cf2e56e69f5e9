"""One picture on its way through a batch, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.errors import DeadlineExceeded
from shoal.v1 import inference_pb2
from shoal.worker.header import ImageSize

if TYPE_CHECKING:
    from shoal.batching.v1 import batching_pb2
    from shoal.worker.stages import Stages


@dataclass(eq=False, slots=True)
class Picture:
    """Times are seconds of ``time.monotonic``: uvloop's own clock has steps of a millisecond."""

    item: batching_pb2.BatchItem
    arrived: float
    deadline: float
    request: inference_pb2.ImageRequest
    key: str
    """The object's key."""
    stages: Stages
    row: int = 0
    """Its row of the slot."""
    size: ImageSize = field(default_factory=lambda: ImageSize(0, 0))
    """Of the upright picture, once decoded."""
    fetch_seconds: float = 0.0
    decode_seconds: float = 0.0

    def remaining(self, now: float) -> float:
        """Seconds left of the caller's deadline.

        Raises:
            DeadlineExceeded: none.
        """
        if now >= self.deadline:
            raise DeadlineExceeded("the deadline passed in the worker")
        return self.deadline - now

    def timing(self, started: float, compute_us: int, batch_size: int) -> inference_pb2.Timing:
        """What the reply says; whatever is neither fetch, decode nor compute was waiting."""
        waited = (started - self.arrived) - self.fetch_seconds - self.decode_seconds
        return inference_pb2.Timing(
            queue_us=self.item.queued_us + int(max(0.0, waited) * 1e6),
            fetch_us=int(self.fetch_seconds * 1e6),
            decode_us=int(self.decode_seconds * 1e6),
            compute_us=compute_us,
            batch_size=batch_size,
        )
