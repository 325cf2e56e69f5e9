"""Two ways of a picture to the object store: presigned URLs, or the client's own credentials."""

from __future__ import annotations

import asyncio
import io
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import aiohttp
import obstore
from obstore.exceptions import BaseError, GenericError
from yarl import URL

from shoal.errors import Cancelled, Internal, InvalidRequest, NotFound, ShoalError, Unavailable
from shoal.pictures.reference import new_uuid, object_key
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from obstore.store import ObjectStore

    from shoal.client.caller import Caller
    from shoal.client.channel import Method
    from shoal.client.retry import Retry

CONTENT_TYPE = "image/jpeg"
_MAX_TICKETS = 64
_RETRIED = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_SUCCESS = range(200, 300)


class Uploader(Protocol):
    """Brings pictures to where workers read them."""

    async def upload(self, image: Path | bytes, deadline: float) -> str:
        """Uploads one picture; answers its new uuid.

        No attempt starts after ``deadline`` (on the retry's clock); the caller ends one that takes longer.
        """
        ...

    async def close(self) -> None:
        """Frees connections; uploads in flight fail."""
        ...


class Ticket(NamedTuple):
    """The right to upload one picture."""

    image_uuid: str
    put_url: str
    max_bytes: int
    expires: float
    """On the retry's clock."""


class Tickets:
    """Presigned URLs in stock: asked for several at a time, used up before they expire.

    A first upload asks for one URL and each later question for twice as many, so that one picture costs one
    signature and thousands of pictures cost one question in 64.
    """

    def __init__(
        self, create: Method[pb.CreateUploadsRequest, pb.CreateUploadsReply], caller: Caller, retry: Retry
    ) -> None:
        self._create = create
        self._caller = caller
        self._retry = retry
        self._stock: deque[Ticket] = deque()
        self._count = 1
        self._asking = asyncio.Lock()

    async def take(self, deadline: float) -> Ticket:
        """A ticket with at least half of its life ahead."""
        async with self._asking:
            now = self._retry.clock()
            while self._stock and self._stock[0].expires <= now:
                self._stock.popleft()
                self._count = 1
            if not self._stock:
                await self._refill(deadline)
            return self._stock.popleft()

    def give_back(self, ticket: Ticket) -> None:
        """Returns a ticket that was not used."""
        self._stock.appendleft(ticket)

    async def _refill(self, deadline: float) -> None:
        asked = self._retry.clock()
        reply = await self._retry.call(partial(self._caller.attempt, self._ask), deadline)
        if not reply.uploads:
            raise Internal("the service answered no upload URLs")
        # Half of the lifetime stays in hand for the upload itself, its retries and clocks that differ.
        expires = asked + reply.expires_in_seconds / 2
        self._stock.extend(Ticket(one.image_uuid, one.put_url, reply.max_bytes, expires) for one in reply.uploads)
        self._count = min(self._count * 2, _MAX_TICKETS)

    async def _ask(self, left: float) -> pb.CreateUploadsReply:
        request = pb.CreateUploadsRequest(api_key=self._caller.api_key, count=self._count)
        return await self._create(request, left, self._caller.metadata)


class PresignedUploader:
    """Uploads with nothing but what calls need, too."""

    def __init__(self, tickets: Tickets, retry: Retry, connections: int) -> None:
        self._tickets = tickets
        self._retry = retry
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=None),  # the caller's deadline is the only one
            headers={"Content-Type": CONTENT_TYPE},
        )

    async def upload(self, image: Path | bytes, deadline: float) -> str:
        """Asks for a ticket if none is in stock, and PUTs the picture to its URL."""
        ticket = await self._tickets.take(deadline)
        try:
            content = await read(image, ticket.max_bytes)
        except ShoalError:
            self._tickets.give_back(ticket)
            raise
        await self._retry.call(lambda _left: self._put(ticket.put_url, content), deadline)
        return ticket.image_uuid

    async def _put(self, url: str, content: bytes) -> None:
        if self._session.closed:
            raise Cancelled("the client is closed")
        # Encoding it again would break its signature; so would following a redirect.
        address = URL(url, encoded=True)
        try:
            # As a file, or aiohttp would write what is over a megabyte in one go, and warn of it.
            async with self._session.put(address, data=io.BytesIO(content), allow_redirects=False) as reply:
                status = reply.status
        except aiohttp.ClientError as error:
            # Its text may hold the URL, and so the signature: only its kind is told.
            raise Unavailable(f"the object store can't be reached ({type(error).__name__})") from None
        if status not in _SUCCESS:
            raise _refused(status)

    async def close(self) -> None:
        """Closes the HTTP session; uploads in flight fail."""
        await self._session.close()


class StoreUploader:
    """Writes to the bucket itself, with the caller's own credentials."""

    def __init__(self, store: ObjectStore, key_prefix: str, retry: Retry) -> None:
        self._store = store
        self._prefix = key_prefix
        self._retry = retry

    async def upload(self, image: Path | bytes, deadline: float) -> str:
        """PUTs the picture under a uuid of our own."""
        content = await read(image)
        image_uuid = new_uuid()
        await self._retry.call(lambda _left: self._put(image_uuid, content), deadline)
        return image_uuid

    async def _put(self, image_uuid: str, content: bytes) -> None:
        key = object_key(self._prefix, image_uuid)
        try:
            await obstore.put_async(self._store, key, content, use_multipart=False)
        except GenericError:
            raise Unavailable("the object store can't be reached") from None
        except BaseError as error:
            kind = type(error).__name__
            raise Internal(f"the object store refused the upload ({kind})") from None

    async def close(self) -> None:
        """Does nothing: the store is its owner's to close."""


async def read(image: Path | bytes, max_bytes: int = 0) -> bytes:
    """The bytes of ``image``; a file is read in a thread.

    Raises:
        NotFound: no such file.
        InvalidRequest: it can't be read, or has more than ``max_bytes`` (0: any number) bytes.
    """
    if isinstance(image, bytes):
        _check_size(len(image), max_bytes, "the picture")
        return image
    return await asyncio.to_thread(_read_file, image, max_bytes)


def _read_file(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, max_bytes, str(path))
            content = file.read(max_bytes + 1 if max_bytes else -1)  # a pipe tells no size
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except OSError as error:
        raise InvalidRequest(f"{path}: can't be read: {error.strerror}") from None
    _check_size(len(content), max_bytes, str(path))
    return content


def _check_size(size: int, max_bytes: int, name: str) -> None:
    if max_bytes and size > max_bytes:
        raise InvalidRequest(f"{name} has {size:,} bytes; the service takes {max_bytes:,} at most")


def _refused(status: int) -> ShoalError:
    if status >= _SERVER_ERROR or status in _RETRIED:
        return Unavailable(f"the object store answered HTTP {status} to an upload")
    return Internal(f"the object store refused the upload with HTTP {status}")
