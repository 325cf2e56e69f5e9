"""One picture on its way through a batch, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import isinf
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import DeadlineExceeded
from shoal.pictures.header import PictureSize
from shoal.runtime.priority import BULK, Priority
from shoal.worker.asked import max_age_us_of
from shoal.worker.budget import Account
from shoal.worker.decode_choice import CPU

if TYPE_CHECKING:
    import asyncio

    from numpy.typing import NDArray

    from shoal.batching.v1 import batching_pb2
    from shoal.pictures.region import PictureRegion
    from shoal.v1 import inference_pb2
    from shoal.worker.decode_choice import Way
    from shoal.worker.fetched import Fetched
    from shoal.worker.parts import Parts
    from shoal.worker.stages import Stages


class At(Enum):
    """Where a picture is that isn't ready."""

    FETCH = 0
    SLOT = 1
    """It is here, and waits for the batch's slot."""
    QUEUE = 2
    """For a thread, unless its row was taken: then one decodes it."""
    APART = 3
    """In a process of its own, or waits for one."""
    LOOKUP = 4
    """Its content is looked up in the model's result cache, or waits for a thread for that."""


# Python 3.11 takes 0.7 us to find a member by its class.
FETCH: Final = At.FETCH
SLOT: Final = At.SLOT
QUEUE: Final = At.QUEUE
APART: Final = At.APART
LOOKUP: Final = At.LOOKUP


class SlotRow:
    """The row of its batch's slot that a picture is decoded into, for as long as the batch waits for it.

    A thread that begins and a batch that leaves without the picture may come at once: one of them gets the row.
    """

    __slots__ = ("_rows",)

    def __init__(self, *rows: NDArray[Any]) -> None:
        """Takes one row, of ``config.input.shape``; without a row it counts as left from the beginning."""
        self._rows = list(rows)  # taking from a list is atomic

    @property
    def is_open(self) -> bool:
        """Whether it was neither taken nor left."""
        return bool(self._rows)

    def take(self) -> NDArray[Any] | None:
        """The row, to be written to from now on; None if it was left. Once."""
        try:
            return self._rows.pop()
        except IndexError:
            return None

    def leave(self) -> bool:
        """Nobody will write to the row; False if somebody has it."""
        return self.take() is not None


_NO_ROW: Final = SlotRow()
NO_SIZE: Final = PictureSize(0, 0)
"""Of a picture whose header wasn't read."""


@dataclass(eq=False, slots=True)
class Picture:
    """Times are seconds of ``time.monotonic``: uvloop's own clock has steps of a millisecond.

    Its ``repr`` goes without what holds a key or an identity.
    """

    item: batching_pb2.BatchItem = field(repr=False)
    owner: str
    """Whose share of the worker it takes: one of all keys of an owner."""
    arrived: float
    deadline: float
    request: inference_pb2.ImageRequest = field(repr=False)
    key: str
    """The object's key."""
    priority: Priority
    stages: Stages
    region: PictureRegion | None = None
    """What the model sees of it; None: all."""
    is_pipelines: bool = False
    """A pipeline asks: its parts will be asked about right behind it."""
    parts: Parts | None = None
    """It is one of several regions that a request asks about."""
    part: int = 0
    """Its number among these."""
    row: int = 0
    """Its row of the slot."""
    at: At = FETCH
    slot_row: SlotRow = _NO_ROW
    pixels: NDArray[Any] | None = field(default=None, repr=False)
    """A row of its own, where its batch went without it."""
    is_answered: bool = False
    """It failed, or its caller has left: no further answer is due."""
    step: asyncio.Future[Any] | None = field(default=None, repr=False)
    """What it waits for now: a fetch, or its decoding."""
    fetched: Fetched | None = field(default=None, repr=False)
    """Its bytes, until they are decoded."""
    cache_key: bytes | None = None
    """Under which its answer is kept, once it was looked up there."""
    way: Way = CPU
    """Where it is decoded."""
    charge: tuple[int, float] | None = None
    """Its pixels, and the seconds that decoding it here is expected to take, where there was a choice."""
    size: PictureSize = NO_SIZE
    """The upright picture's size, once it is decoded."""
    fetch_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def account(self) -> Account:
        """On whose behalf it is fetched."""
        return Account(self.owner, self.priority is BULK)

    @property
    def max_age_seconds(self) -> float:
        """As ``max_age_us_of`` has it."""
        return max_age_us_of(self.item, self.request) / 1e6

    @property
    def is_written(self) -> bool:
        """Whether a thread may be writing to its batch's slot: only to be asked of one that isn't ready or left."""
        return self.at is QUEUE and not self.slot_row.is_open

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the deadline, negative after it; None without one, as ``asyncio.timeout`` takes it."""
        return None if isinf(self.deadline) else self.deadline - now

    def remaining(self, now: float) -> float:
        """Seconds left of the caller's deadline.

        Raises:
            DeadlineExceeded: none.
        """
        if now >= self.deadline:
            raise DeadlineExceeded("the deadline passed in the worker")
        return self.deadline - now

    def tell_times(
        self, timing: inference_pb2.Timing, started: float, executed_us: int, compute_us: int | None
    ) -> None:
        """Fills in what the reply says; whatever is neither fetch, decode nor compute was waiting.

        Args:
            timing: To be filled in.
            started: When the engine began with the batch.
            executed_us: That the engine took.
            compute_us: Of that the model's own part, where the engine also decodes and tells; None: all of it.
        """
        waited = (started - self.arrived) - self.fetch_seconds - self.decode_seconds
        if compute_us is None:
            compute_us = executed_us
        else:  # the rest of it is the decoder's, or a wait for that or for the model
            waited += (executed_us - compute_us) / 1e6
        timing.queue_us = self.item.queued_us + int(max(0.0, waited) * 1e6)
        timing.fetch_us = int(self.fetch_seconds * 1e6)
        timing.decode_us = int(self.decode_seconds * 1e6)
        timing.compute_us = compute_us
        timing.batch_size = self.stages.size

    def tell_lookup(self, timing: inference_pb2.Timing, now: float) -> None:
        """Fills in what the reply says of one that was answered from the result cache, ``now``."""
        timing.queue_us = self.item.queued_us + int(max(0.0, now - self.arrived - self.fetch_seconds) * 1e6)
        timing.fetch_us = int(self.fetch_seconds * 1e6)
        timing.cached = True
