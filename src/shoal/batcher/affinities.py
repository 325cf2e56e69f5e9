"""Which worker got requests of a kind last: it may have at hand what the next ones need, such as their picture."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.batching.fair_queue import Queued

MOST: Final = 4096
"""Kinds that are remembered; of more, those that came last."""
MAX_LENGTH: Final = 64
"""Characters of one; a longer text says nothing."""


def affinity_of(text: str) -> str:
    """``text``, unless it is too long."""
    return text if len(text) <= MAX_LENGTH else ""


class Affinities:
    """Of one policy: without I/O and without a clock. Each owner's words are its own."""

    def __init__(self, most: int = MOST) -> None:
        """Starts empty; remembers ``most``."""
        self._most = most
        self._workers: OrderedDict[tuple[str, str], str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._workers)

    def wanted(self, request: Queued) -> str:
        """The worker that would suit a request best; empty: any."""
        return self._workers.get((request.owner, request.affinity), "") if request.affinity else ""

    def sent(self, requests: Iterable[Queued], worker: str) -> None:
        """They went there."""
        for request in requests:
            if request.affinity:
                kind = request.owner, request.affinity
                self._workers[kind] = worker
                self._workers.move_to_end(kind)
        while len(self._workers) > self._most:
            self._workers.popitem(last=False)
