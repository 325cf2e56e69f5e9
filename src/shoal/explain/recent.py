"""The last requests of a part, in bounded memory."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.explain.views import Memory

MAX_TEXT = 300
"""Characters of an error that are kept."""
KEPT_BYTES = 16 * 2**20
"""Texts whose length callers choose, together: messages, owners, trace contexts, methods. What a part keeps beside them
is 0.5 to 0.7 kB a request, with an error's text up to 1 kB."""


class Arrived(Protocol):
    """Anything that came at some time."""

    @property
    def arrived(self) -> float:
        """Seconds of ``time.monotonic``."""
        ...


Record = TypeVar("Record", bound=Arrived)


class Recent(Generic[Record]):
    """Keeps the newest records; one thread adds, any thread looks.

    Args:
        limit: Records kept at most. 0: none.
        max_bytes: What the records may hold together, as ``add`` is told.
    """

    def __init__(self, limit: int, max_bytes: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._records: deque[Record] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0

    def add(self, record: Record, size: int = 0) -> None:
        """Keeps a record, which may still change, and forgets as many of the oldest as that takes."""
        self._records.append(record)
        self._sizes.append(size)
        self._bytes += size
        self._trim()

    def extend(self, records: Sequence[Record], sizes: Sequence[int]) -> None:
        """``add`` for several, in their order."""
        self._records.extend(records)
        self._sizes.extend(sizes)
        self._bytes += sum(sizes)
        self._trim()

    def newest_first(self) -> list[Record]:
        """The records of this moment."""
        return list(reversed(self._records.copy()))  # the copy is one step: nothing is added meanwhile

    def memory(self, now: float) -> Memory:
        """How far back it goes."""
        from shoal.explain.views import Memory  # only who is asked pays for pydantic

        records = self._records.copy()
        return Memory(requests=len(records), limit=self._limit, seconds=now - records[0].arrived if records else None)

    def _trim(self) -> None:
        while len(self._sizes) > self._limit or self._bytes > self._max_bytes:
            self._records.popleft()
            self._bytes -= self._sizes.popleft()
