"""Pictures that calls bring along: each is held whole, in bounded memory, and stored under a fresh uuid.

Nothing is stored before a picture is complete and its header read, so one that is cut, too large, damaged there or no
picture leaves nothing behind. It is one PUT of known size: parts of a multipart upload would stay in the store if this
process ended.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError

from shoal.errors import Code, InvalidRequest, Overloaded, ShoalError, Unavailable
from shoal.pictures.reference import new_uuid, object_key
from shoal.worker.budget import Account, Budget
from shoal.worker.multipart import FORM, OVERHEAD_BYTES, only_part
from shoal.worker.store_faults import FaultLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from obstore.store import ObjectStore

    from shoal.worker.access import Grant
    from shoal.worker.budget import Reservation

log = logging.getLogger(__name__)

_HELD_BYTES: Final = 64 * 2**20
"""Of all pictures that come in at once; two of the largest, if that is more."""
_AGAIN_SECONDS: Final = 1.0
_STARTS: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
_WEBP: Final = b"WEBP"


class PictureTooLarge(ShoalError):
    """It was cut at the limit."""

    code = Code.RESOURCE_EXHAUSTED


class PictureIntake:
    """Where pictures come in, all of them within one budget of memory."""

    def __init__(self, store: ObjectStore, max_bytes: int, check: Callable[[bytes], object]) -> None:
        """Prepares.

        Args:
            store: Where they are stored.
            max_bytes: Of one picture.
            check: Raises InvalidRequest for one that no model could be asked about.
        """
        self.max_bytes = max_bytes
        self.check = check
        self._store = store
        self._budget = Budget(max(_HELD_BYTES, 2 * max_bytes), max_waiting=0, leaves_room=True)
        self._faults = FaultLog()

    @property
    def held_bytes(self) -> int:
        """Of pictures that come in now."""
        return self._budget.used

    def begin(self, grant: Grant) -> ArrivingPicture:
        """One that ``grant`` lets in. Release it in any case."""
        return ArrivingPicture(self, grant)

    def reserve(self, owner: str, size: int) -> Reservation:
        """Memory for ``size`` bytes more. Raises Overloaded."""
        reservation = self._budget.take(Account(owner), size)
        if reservation is None:
            raise Overloaded("too many pictures come in at once; try again later", _AGAIN_SECONDS)
        return reservation

    async def store(self, prefix: str, content: bytes) -> str:
        """Stores a picture; its uuid. One whose caller leaves meanwhile is deleted.

        Raises:
            Unavailable: the store doesn't take it.
        """
        image_uuid = new_uuid()
        key = object_key(prefix, image_uuid)
        putting = asyncio.ensure_future(obstore.put_async(self._store, key, content, use_multipart=False))
        try:
            await asyncio.shield(putting)
        except asyncio.CancelledError:
            await self._forget(putting, key)
            raise
        except BaseError as error:
            raise Unavailable(f"the object store takes no picture now ({self._faults.add(error)})") from error
        return image_uuid

    async def _forget(self, putting: asyncio.Future[Any], key: str) -> None:
        await asyncio.wait({putting})
        try:
            await obstore.delete_async(self._store, key)
        except BaseError as error:
            log.warning("a picture whose caller left stays in the object store: %s", self._faults.add(error))


class ArrivingPicture:
    """One picture on its way."""

    def __init__(self, intake: PictureIntake, grant: Grant) -> None:
        self._intake = intake
        self._grant = grant
        self._parts: list[bytes] = []
        self._reserved: list[Reservation] = []
        self._size = 0
        self._form = ""
        """The content type, where the picture is in a form."""

    def add(self, part: bytes, content_type: str = "") -> None:
        """The next bytes; the first come with the caller's content type.

        Raises:
            InvalidRequest: it is no picture.
            PictureTooLarge: it is one.
            Overloaded: there is no memory for it.
        """
        if not part:
            return
        first = not self._parts
        if first and content_type.lower().startswith(FORM):
            self._form = content_type
        self._size += len(part)
        if self._size > self._intake.max_bytes + (OVERHEAD_BYTES if self._form else 0):
            raise PictureTooLarge(f"a picture may have {self._intake.max_bytes} bytes (object_store.max_image_bytes)")
        self._reserved.append(self._intake.reserve(self._grant.owner, len(part)))
        self._parts.append(part)
        if first and not self._form:
            self._check(part)

    async def store(self) -> str:
        """Stores it; its uuid.

        Raises:
            InvalidRequest: there is nothing, or no picture, or one of too many pixels.
            Unavailable: the store doesn't take it.
        """
        content = b"".join(self._parts)
        self._parts.clear()
        if self._form:
            content = only_part(content, self._form)
        if not is_picture(content):
            raise _no_picture(content)
        await asyncio.to_thread(self._intake.check, content)  # a progressive JPEG of 10 MB takes 16 ms
        return await self._intake.store(self._grant.prefix, content)

    def release(self) -> None:
        """Gives its memory back; twice is harmless."""
        self._parts.clear()
        for reservation in self._reserved:
            reservation.release()

    def _check(self, start: bytes) -> None:
        """Refuses at once what can't become one."""
        if not any(start[: len(each)] == each[: len(start)] for each in _STARTS):
            raise _no_picture(start)


def is_picture(content: bytes) -> bool:
    """Whether it begins as one of the formats does; what follows is the decoder's to judge."""
    return content.startswith(_STARTS) and (not content.startswith(b"RIFF") or content[8:12] == _WEBP)


def _no_picture(content: bytes) -> InvalidRequest:
    what = f"begins with {content[:8]!r}" if content else "is empty"
    return InvalidRequest(f"the body is no JPEG, PNG or WebP picture: it {what}")
