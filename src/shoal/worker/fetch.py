"""Fetching: from a key to a picture's bytes, in bounded number, size and time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, Protocol

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from shoal.errors import DeadlineExceeded, Internal, InvalidRequest, NotFound, Unavailable
from shoal.observe import metrics

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from typing_extensions import Buffer

_FIRST_BACKOFF_SECONDS: Final = 0.05
_LONGEST_BACKOFF_SECONDS: Final = 2.0


class Result(Protocol):
    """The part of ``obstore.GetResult`` that is used here."""

    @property
    def meta(self) -> ObjectMeta:
        """Known before the body is read."""
        ...

    async def bytes_async(self) -> Buffer:
        """The body."""
        ...


class Store(Protocol):
    """The part of an ``obstore`` store that is used here."""

    async def get_async(self, path: str) -> Result:
        """Starts a GET and answers when the headers are there."""
        ...


class Fetcher:
    """Fetches pictures from one store for one event loop.

    A fetch that fails because the store is away is tried again, with growing, random pauses, until its time is over.
    """

    def __init__(self, store: Store, *, concurrency: int, max_bytes: int, timeout_seconds: float) -> None:
        """Prepares; nothing is connected yet.

        Args:
            store: Where the pictures are.
            concurrency: How many are fetched at once; more wait in order.
            max_bytes: A larger object is refused before its body is read.
            timeout_seconds: One fetch, retries included but not the wait for its turn, takes no longer.
        """
        self._store = store
        self._turns = asyncio.Semaphore(concurrency)
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def fetch(self, key: str, timeout_seconds: float | None = None) -> Buffer:
        """The bytes of the object ``key``, without a copy. Cancelling it stops the transfer.

        Args:
            key: ``<prefix><uuid>.jpg``; errors name the uuid only.
            timeout_seconds: What the caller's deadline leaves. None: no deadline.

        Raises:
            NotFound: no such object.
            InvalidRequest: it is empty or larger than ``max_bytes``.
            Unavailable: the store is away, or slower than the fetcher's own time-out.
            DeadlineExceeded: the caller's time passed first.
            Internal: the store refuses our credentials.
        """
        now = asyncio.get_running_loop().time
        deadline = None if timeout_seconds is None else now() + timeout_seconds
        try:
            async with asyncio.timeout_at(deadline) as limit, self._turns:
                own = now() + self._timeout_seconds
                limit.reschedule(own if deadline is None else min(own, deadline))
                return await self._keep_trying(key)
        except TimeoutError:
            if deadline is not None and now() >= deadline:
                raise DeadlineExceeded(f"the deadline passed while image {_image(key)} was fetched") from None
            raise Unavailable(
                f"the object store did not deliver image {_image(key)} within {self._timeout_seconds:g} s; try again"
            ) from None

    async def _keep_trying(self, key: str) -> Buffer:
        pause = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                return await self._get(key)
            except FileNotFoundError:
                raise NotFound(f"no image {_image(key)}") from None
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise Internal("the object store refuses the worker's credentials") from error
            except (BaseError, OSError):
                metrics.WORKER_FETCH_RETRIES.inc()
                # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - not a secret
                pause = min(2 * pause, _LONGEST_BACKOFF_SECONDS)

    async def _get(self, key: str) -> Buffer:
        result = await self._store.get_async(key)
        size = result.meta["size"]
        if size == 0:
            raise InvalidRequest(f"image {_image(key)} is empty")
        if size > self._max_bytes:
            raise InvalidRequest(f"image {_image(key)} has {size:,} bytes; the limit is {self._max_bytes:,}")
        return await result.bytes_async()


def _image(key: str) -> str:
    """The part of a key that a caller may see."""
    return key.rpartition("/")[2].removesuffix(".jpg")[-36:]
