"""A picture's bytes, between the object store and its decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.runtime.release import Releasable

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from shoal.worker.budget import Reservation
    from shoal.worker.picture_cache import Content


class Fetched(Releasable):
    """A picture's bytes, which count against the fetcher's budget until they are released; a context manager."""

    __slots__ = ("_room", "content", "data", "size")

    def __init__(
        self, data: Buffer, reservation: Reservation | None, content: Content | None = None, room: _Room | None = None
    ) -> None:
        """Takes them over.

        Args:
            data: The bytes.
            reservation: None, where they came back from a slot, and aren't counted twice.
            content: What the picture cache may keep of them.
            room: In place of the reservation: it is shared.
        """
        self.data = data
        self.size = memoryview(data).nbytes
        self.content = content
        self._room = room or (_Room(reservation) if reservation is not None else None)

    def share(self) -> Fetched:
        """The same bytes for somebody else; they count once, until both have let them go."""
        if self._room is not None:
            self._room.users += 1
        return Fetched(self.data, None, self.content, self._room)

    def release(self) -> None:
        """Lets the bytes go."""
        self.data, self.content = b"", None
        room, self._room = self._room, None
        if room is not None:
            room.users -= 1
            if not room.users:
                room.reservation.release()


@dataclass(slots=True)
class _Room:
    """A reservation that several hold."""

    reservation: Reservation
    users: int = 1
