"""Decoding for all of a worker's models: quick pictures in its threads, all others in processes of their own.

Interactive pictures go before bulk ones, but for bulk's share; owners share both equally, by the time that their
pictures took. A picture whose caller's deadline passed is not begun.
"""

from __future__ import annotations

from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from shoal.pictures.danger import may_be_quick
from shoal.worker.picture import NO_SIZE
from shoal.worker.picture_cache import Shelf
from shoal.worker.result_cache import content_digest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.pictures.decode import Decoder
    from shoal.pictures.header import PictureSize
    from shoal.runtime.threads import Threads
    from shoal.worker.decoders.decoder_pool import DecoderPool
    from shoal.worker.picture import Picture
    from shoal.worker.picture_cache import Content, PictureCache
    from shoal.worker.result_cache import ResultCache

Decoded: TypeAlias = "tuple[PictureSize, float, bool]"
MAX_LEFT: Final = 256
"""Pictures that wait for threads while their batches are through."""


class Decoding:
    """Belongs to one event loop."""

    def __init__(self, threads: Threads, pool: DecoderPool, cache: PictureCache | None = None) -> None:
        """``cache``: where pixels are kept that other regions of a picture may be cut from."""
        self._cache = cache
        self.threads = threads
        """The threads of the worker's own process, for quick JPEGs."""
        self._pool = pool

    @property
    def is_crowded(self) -> bool:
        """Whether so many pictures wait for threads that batches had better wait for theirs, and hold back others."""
        return self.threads.waiting > MAX_LEFT

    def may_be_quick(self, data: Buffer) -> bool:
        """Whether ``data`` may be decoded in a thread, so that it is worth having a row of the slot."""
        return may_be_quick(bytes(memoryview(data)[:8]))

    def decode(
        self, pictures: Sequence[Picture], decoder: Decoder, data: Buffer, content: Content | None = None
    ) -> asyncio.Future[Decoded]:
        """Decodes ``data`` in a thread, into the picture's row of the slot; if that was left, into ``picture.pixels``.

        Several pictures are regions of one, which is decoded once.

        Cancelling it ends the work, unless a thread has begun with it: then it ends when that has.

        Returns:
            The future of the upright picture's size, of the seconds, and of whether it was decoded, rather than being
            one for ``decode_apart``.

        Raises:
            InvalidRequest: as ``Decoder.decode``.
            DeadlineExceeded: the caller's deadline passed before it was begun.
        """
        first = pictures[0]
        shelf = None
        if self._cache is not None and content is not None and (first.region is not None or first.is_pipelines):
            shelf = Shelf(self._cache, content)
        return self.threads.submit(first.owner, first.priority, partial(_decode, pictures, decoder, data, shelf))

    def look_up(
        self, pictures: Sequence[Picture], cache: ResultCache, data: Buffer
    ) -> asyncio.Future[dict[Picture, bytes]]:
        """The keys of their answers in ``cache``, made in a thread; several, cancelled and refused as ``decode``."""
        first = pictures[0]
        return self.threads.submit(first.owner, first.priority, partial(_keys, pictures, cache, data))

    async def decode_apart(self, pictures: Sequence[Picture], decoder: Decoder, data: Buffer) -> None:
        """Decodes ``data`` in a process of its own, into ``picture.pixels`` of each. Cancelling it ends that.

        Raises:
            InvalidRequest: as ``Decoder.read_header`` and ``DecoderPool.decode``.
            DeadlineExceeded: the caller's deadline passed before it was begun.
            Overloaded, Unavailable: as ``DecoderPool.decode``.
        """
        first = pictures[0]
        owner, priority, size = first.owner, first.priority, first.size
        if size is NO_SIZE:
            size = await self.threads.run_for(owner, priority, _measure, first, decoder, data)
        regions = [picture.region for picture in pictures]
        rows, seconds = await self._pool.decode(owner, decoder, data, priority, regions)
        for picture, row in zip(pictures, rows, strict=True):
            picture.size, picture.pixels, picture.decode_seconds = size, row, seconds


def _decode(pictures: Sequence[Picture], decoder: Decoder, data: Buffer, shelf: Shelf | None) -> Decoded:
    """In a thread. Size, seconds, and whether it was quick enough to be decoded."""
    pictures[0].remaining(monotonic())
    started = perf_counter()
    rows = [partial(_row, picture, decoder) for picture in pictures]
    size, done = decoder.decode_if_quick(data, rows, [picture.region for picture in pictures], shelf)
    return size, perf_counter() - started, done


def _row(picture: Picture, decoder: Decoder) -> NDArray[Any]:
    row = picture.slot_row.take()
    if row is None:
        row = picture.pixels = np.empty(decoder.input.shape, decoder.input.dtype)
    return row


def _keys(pictures: Sequence[Picture], cache: ResultCache, data: Buffer) -> dict[Picture, bytes]:
    pictures[0].remaining(monotonic())
    content = content_digest(data)
    return {each: cache.scope(each.request, each.stages.version, each.owner).key(content) for each in pictures}


def _measure(picture: Picture, decoder: Decoder, data: Buffer) -> PictureSize:
    picture.remaining(monotonic())
    return decoder.read_header(data).upright
