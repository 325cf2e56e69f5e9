"""A fetch that somebody else's serves as well: requests for one picture that come together fetch it once."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from shoal.errors import DeadlineExceeded
from shoal.pictures.reference import uuid_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.runtime.deadlines import Deadlines
    from shoal.worker.fetched import Fetched


class Follower(asyncio.Future["Fetched"]):
    """Gets what another fetch brings, by a deadline of its own; where that one is given up, it fetches by itself."""

    def __init__(
        self,
        key: str,
        until: float,
        watch: Deadlines[Any],  # of fetches, too
        again: Callable[[], asyncio.Future[Fetched]],
    ) -> None:
        """Prepares.

        Args:
            key: The object's.
            until: The caller's deadline, in seconds of the loop's clock.
            watch: Tells it when that has passed.
            again: Fetches, in case the other is given up.
        """
        super().__init__(loop=asyncio.get_running_loop())
        self.deadline = until
        self._key = key
        self._watch = watch
        self._again = again
        self._own: asyncio.Future[Fetched] | None = None
        self._among: dict[Follower, None] = {}
        if until != math.inf:
            watch.add((self,))

    def follow(self, among: dict[Follower, None]) -> None:
        """Waits for the one that tells these."""
        self._among = among
        among[self] = None

    def cancel(self, msg: Any | None = None) -> bool:  # as its base has it
        """Waits no longer; nobody else hears of it."""
        if super().cancel(msg):
            self._leave()
            return True
        return False

    def expire(self) -> None:
        """Its deadline has passed."""
        self.deadline = math.inf  # it is out already
        self._leave()
        self.set_exception(DeadlineExceeded(f"the deadline passed while image {uuid_in(self._key)} was fetched"))

    def bring(self, fetched: Fetched) -> None:
        """The other one's picture, as its own."""
        self._leave()
        self.set_result(fetched)

    def fail(self, error: Exception) -> None:
        """Of what the other one failed, and would fail here."""
        self._leave()
        self.set_exception(error)

    def go_on_alone(self) -> None:
        """The other one was given up by its caller."""
        self._among = {}
        self._own = self._again()
        self._own.add_done_callback(self._take_over)

    def _take_over(self, own: asyncio.Future[Fetched]) -> None:
        if self.done():
            if not own.cancelled() and own.exception() is None:
                own.result().release()
        elif own.cancelled():
            self.cancel()
        elif (error := own.exception()) is not None:
            self._own = None
            self._leave()
            self.set_exception(error)
        else:
            self.bring(own.result())

    def _leave(self) -> None:
        if self.deadline != math.inf:
            self._watch.remove(self)
            self.deadline = math.inf
        self._among.pop(self, None)
        own, self._own = self._own, None
        if own is not None and not own.done():
            own.cancel()
