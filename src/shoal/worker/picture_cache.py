"""Pictures that a worker keeps for a while: bytes as they were fetched, and pixels that regions were cut from.

One picture's regions come as many requests, close together. Whether what is kept is still the object's content is asked
of the store each time (``fetch_picture``), unless the caller says how old it may be. Keys begin with their owner's
prefix, so nobody sees another's.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.observe import metrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.pictures.header import PictureHeader

_ENTRY_BYTES: Final = 1024
"""What an entry takes beside its picture, at most: so that very many tiny ones are bounded, too."""
_MOST_SHARE: Final = 2
"""No picture's pixels take more than the cache's bytes over this: one alone would put out all others."""


class Content:
    """One version of an object."""

    __slots__ = ("asked", "data", "e_tag", "header", "kept_bytes", "key", "pixels", "size")

    def __init__(self, key: str, e_tag: str, data: Buffer) -> None:
        """``e_tag``: empty, where the store has none."""
        self.key = key
        self.e_tag = e_tag
        self.data = data
        self.size = memoryview(data).nbytes
        self.asked = -math.inf
        """When the store was asked that last said this is what it has, in seconds of ``time.monotonic``."""
        self.kept_bytes = self.size + _ENTRY_BYTES
        """What keeping it takes, with its pixels. The cache's alone to change, as these are."""
        self.header: PictureHeader | None = None
        """Once a thread has read it."""
        self.pixels: dict[int, NDArray[np.uint8]] = {}
        """As stored, by the scale they were decoded at."""

    def is_same(self, other: Content) -> bool:
        """Whether both are the same bytes, whatever the store calls them."""
        return self.size == other.size and bool(self.data == other.data)


class PictureCache:
    """Bounded in bytes; what wasn't used for longest goes first. Any thread may use it."""

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: 0 keeps nothing."""
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Content] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()
        outcomes = ("recent", "hit", "shared", "miss")
        self.recent, self.hits, self.shared, self.misses = map(metrics.WORKER_PICTURE_CACHE.labels, outcomes)
        """Of fetches, for whoever fetches to count."""

    @property
    def used_bytes(self) -> int:
        """What is kept now; never more than the bound."""
        return self._used

    def get(self, key: str) -> Content | None:
        """The version that was fetched last, if it is kept."""
        with self._lock:
            return self._found(key)

    def put(self, content: Content) -> None:
        """Keeps what was fetched, if it fits at all; in place of an older version."""
        with self._lock:
            self._forget(content.key)
            if content.kept_bytes <= self._max_bytes:
                self._kept[content.key] = content
                self._used += content.kept_bytes
                self._shrink()

    def drop(self, key: str) -> None:
        """There is no such object any more."""
        with self._lock:
            self._forget(key)

    def pixels(self, content: Content, scale: int) -> NDArray[np.uint8] | None:
        """What was decoded of it at this scale, for reading."""
        with self._lock:
            return content.pixels.get(scale) if self._found(content.key) is content else None

    def keep_pixels(self, content: Content, scale: int, pixels: NDArray[np.uint8]) -> None:
        """Keeps what was decoded of it, unless it is no longer kept itself, or takes too much."""
        with self._lock:
            if scale in content.pixels or self._found(content.key) is not content:
                return
            if content.kept_bytes + pixels.nbytes <= self._max_bytes // _MOST_SHARE:
                content.pixels[scale] = pixels
                content.kept_bytes += pixels.nbytes
                self._used += pixels.nbytes
                self._shrink()

    def _found(self, key: str) -> Content | None:
        content = self._kept.get(key)
        if content is not None:
            self._kept.move_to_end(key)
        return content

    def _forget(self, key: str) -> None:
        content = self._kept.pop(key, None)
        if content is not None:
            self._used -= content.kept_bytes
            content.kept_bytes = content.size + _ENTRY_BYTES
            content.pixels.clear()

    def _shrink(self) -> None:
        while self._used > self._max_bytes:
            self._forget(next(iter(self._kept)))
            metrics.WORKER_PICTURE_CACHE_EVICTIONS.inc()


class Shelf(NamedTuple):
    """The place of one version's pixels in the cache; ``shoal.pictures.decode.Shelf``."""

    cache: PictureCache
    content: Content

    @property
    def header(self) -> PictureHeader | None:
        """The picture's, if it was read."""
        return self.content.header

    @header.setter
    def header(self, header: PictureHeader | None) -> None:
        self.content.header = header

    def pixels(self, scale: int) -> NDArray[np.uint8] | None:
        """What was decoded at this scale."""
        return self.cache.pixels(self.content, scale)

    def keep(self, scale: int, pixels: NDArray[np.uint8]) -> None:
        """For the next one."""
        self.cache.keep_pixels(self.content, scale, pixels)


def cache_bytes(cache: PictureCache | None) -> int:
    """What a worker's cache keeps, if it has one."""
    return 0 if cache is None else cache.used_bytes
