"""Who was sent again alone, and where: one suspect a worker, so that none of them pays for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Quarantine:
    """The suspects that are at workers now. Queues whose streams lead to the same workers share one."""

    def __init__(self, freed: Callable[[], object] = lambda: None) -> None:
        """Starts empty.

        Args:
            freed: Told when a worker has no suspect any more: one of another queue may go there.
        """
        self._freed = freed
        self._worker_of: dict[Hashable, str] = {}

    def is_free(self, worker: str) -> bool:
        """Whether a suspect may go there."""
        return worker not in self._worker_of.values()

    def enter(self, stream: Hashable, worker: str) -> None:
        """A suspect is on its way to ``worker``."""
        self._worker_of[stream] = worker

    def leave(self, stream: Hashable) -> None:
        """What ``stream`` carries is answered, or the stream is over; nothing happens if it carries no suspect."""
        if self._worker_of.pop(stream, None) is not None:
            self._freed()
