"""Decoding for all of a worker's models: quick pictures in its threads, all others in processes of their own.

Interactive pictures go before bulk ones, but for bulk's share; owners share both equally, by the time that their
pictures took. A picture whose caller's deadline passed is not begun.
"""

from __future__ import annotations

from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoal.pictures.danger import may_be_quick
from shoal.runtime.timeouts import Timeouts
from shoal.worker.picture import APART, QUEUE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.pictures.decode import Decoder
    from shoal.pictures.header import PictureSize
    from shoal.runtime.threads import Threads
    from shoal.worker.decoders.decoder_pool import DecoderPool
    from shoal.worker.picture import Picture

MAX_LEFT: Final = 256
"""Pictures that wait for threads while their batches are through."""


class Decoding:
    """Belongs to one event loop."""

    def __init__(self, threads: Threads, pool: DecoderPool) -> None:
        self.threads = threads
        """The threads of the worker's own process, for quick JPEGs."""
        self._pool = pool
        self.timeouts = Timeouts()
        """For what is to be decoded by a deadline."""

    @property
    def is_crowded(self) -> bool:
        """Whether so many pictures wait for threads that batches had better wait for theirs, and hold back others."""
        return self.threads.waiting > MAX_LEFT

    def needs_row(self, data: Buffer) -> bool:
        """Whether ``data`` may be decoded into a row of the slot, so that it is worth having one."""
        return may_be_quick(bytes(memoryview(data)[:8]))

    async def decode(self, picture: Picture, decoder: Decoder, data: Buffer) -> None:
        """Decodes ``data`` into the picture's row of the slot; if it isn't quick or was left, into ``picture.pixels``.

        Cancelling it ends the work, unless a thread has begun with it: then it ends when that has.

        Raises:
            InvalidRequest: as ``Decoder.decode`` and ``DecoderPool.decode``.
            DeadlineExceeded: the caller's deadline passed before it was begun.
            Overloaded, Unavailable: as ``DecoderPool.decode``.
        """
        owner, priority = picture.owner, picture.priority
        if self.needs_row(data):
            picture.at = QUEUE
            picture.size, picture.decode_seconds, done = await self.threads.run_for(
                owner, priority, _decode, picture, decoder, data
            )
            if done:
                return
            picture.slot_row.leave()
            picture.at = APART
        else:
            picture.at = APART
            picture.size = await self.threads.run_for(owner, priority, _measure, picture, decoder, data)
        picture.pixels, picture.decode_seconds = await self._pool.decode(owner, decoder, data, priority)


def _decode(picture: Picture, decoder: Decoder, data: Buffer) -> tuple[PictureSize, float, bool]:
    """In a thread. Size, seconds, and whether it was quick enough to be decoded."""
    picture.remaining(monotonic())
    started = perf_counter()

    def row() -> NDArray[Any]:
        row = picture.slot_row.take()
        if row is None:
            row = picture.pixels = np.empty(decoder.input.shape, decoder.input.dtype)
        return row

    size, done = decoder.decode_if_quick(data, row)
    return size, perf_counter() - started, done


def _measure(picture: Picture, decoder: Decoder, data: Buffer) -> PictureSize:
    picture.remaining(monotonic())
    return decoder.read_header(data).upright
