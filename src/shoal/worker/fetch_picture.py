"""Fetching: from a key to a picture's bytes, in bounded number, size and time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from shoal.errors import DeadlineExceeded, Internal, InvalidRequest, NotFound, Unavailable
from shoal.observe import metrics
from shoal.pictures.reference import uuid_in
from shoal.runtime.release import Releasable
from shoal.runtime.timeouts import Timeouts
from shoal.worker.budget import Account, Budget
from shoal.worker.store_faults import FaultLog

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from typing_extensions import Buffer

    from shoal.worker.budget import Reservation

_FIRST_BACKOFF_SECONDS: Final = 0.05
_LONGEST_BACKOFF_SECONDS: Final = 2.0
_MAX_WAITING: Final = 1000
"""Pictures of one account that wait to be fetched."""
NOBODY: Final = Account("")


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


class Fetched(Releasable):
    """A picture's bytes, which count against the fetcher's budget until they are released; a context manager."""

    def __init__(self, data: Buffer, reservation: Reservation) -> None:
        self.data = data
        self.size = reservation.amount
        """In bytes."""
        self._reservation = reservation

    def release(self) -> None:
        """Lets the bytes go."""
        self.data = b""
        self._reservation.release()


@dataclass(slots=True)
class _Trouble:
    """What kept a fetch from ending."""

    reason: str = ""

    def __str__(self) -> str:
        return f" ({self.reason})" if self.reason else ""


class Fetcher:
    """Fetches pictures from one store for one event loop. Owners take turns; interactive pictures go before bulk ones.

    A fetch that fails because the store is away is tried again, with growing, random pauses, until its time is over.
    A body is read only once the budget has room for it; who waits for room holds neither a turn nor a connection.
    """

    def __init__(
        self, store: Store, *, concurrency: int, max_bytes: int, budget_bytes: int, timeout_seconds: float
    ) -> None:
        """Prepares; nothing is connected yet.

        Args:
            store: Where the pictures are.
            concurrency: How many are fetched at once; more wait, accounts in turn.
            max_bytes: A larger object is refused before its body is read.
            budget_bytes: Of pictures that are being read or weren't released yet; more wait, accounts in turn.
            timeout_seconds: One fetch, retries included but not the waits for its turn and for room, takes no longer.
        """
        self._store = store
        self._turns = Budget(concurrency, max_waiting=_MAX_WAITING)
        self._max_bytes = max_bytes
        self._budget = Budget(budget_bytes, max_waiting=_MAX_WAITING, leaves_room=True)
        self._timeout_seconds = timeout_seconds
        self._timeouts = Timeouts()
        self._faults = FaultLog()

    @property
    def held_bytes(self) -> int:
        """Bytes of the budget that pictures hold."""
        return self._budget.used

    async def fetch(self, key: str, timeout_seconds: float | None = None, account: Account = NOBODY) -> Fetched:
        """The bytes of the object ``key``, without a copy. Cancelling it stops the transfer.

        Args:
            key: ``<prefix><uuid>.jpg``; errors name the uuid only.
            timeout_seconds: What the caller's deadline leaves. None: no deadline.
            account: On whose behalf, and how urgent.

        Raises:
            NotFound: no such object.
            InvalidRequest: it is empty, or larger than ``max_bytes`` or the whole budget.
            Overloaded: too many pictures of this account wait already.
            Unavailable: the store is away, or slower than the fetcher's own time-out.
            DeadlineExceeded: the caller's time passed first.
            Internal: the store refuses our credentials.
        """
        trouble = _Trouble()
        try:
            with self._timeouts.within(timeout_seconds):
                found: Fetched | int = await self._take_turn(key, account, None, trouble)
                while isinstance(found, int):
                    reservation = await self._budget.acquire(account, found)
                    found = await self._take_turn(key, account, reservation, trouble)
                return found
        except TimeoutError:
            raise DeadlineExceeded(f"the deadline passed while image {uuid_in(key)} was fetched{trouble}") from None

    async def _take_turn(
        self, key: str, account: Account, reservation: Reservation | None, trouble: _Trouble
    ) -> Fetched | int:
        """The picture, which takes ``reservation`` over; or its size in bytes, for which there is no room now."""
        try:
            turn = self._turns.take(account, 1) or await self._turns.acquire(account, 1)
            with turn, self._timeouts.within(self._timeout_seconds):
                found = await self._keep_trying(key, account, reservation, trouble)
        except BaseException as error:
            if reservation is not None:
                reservation.release()
            if isinstance(error, TimeoutError):
                within = f"within {self._timeout_seconds:g} s{trouble}"
                raise Unavailable(
                    f"the object store did not deliver image {uuid_in(key)} {within}; try again"
                ) from None
            raise
        return found

    async def _keep_trying(
        self, key: str, account: Account, reservation: Reservation | None, trouble: _Trouble
    ) -> Fetched | int:
        pause = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                return await self._get(key, account, reservation)
            except FileNotFoundError:
                raise NotFound(f"no image {uuid_in(key)}") from None
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise Internal("the object store refuses the worker's credentials") from error
            except (BaseError, OSError) as error:
                trouble.reason = self._faults.add(error)
                metrics.WORKER_FETCH_RETRIES.inc()
                # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
                await asyncio.sleep(random.uniform(0, pause))  # not a secret
                pause = min(2 * pause, _LONGEST_BACKOFF_SECONDS)

    async def _get(self, key: str, account: Account, reservation: Reservation | None) -> Fetched | int:
        result = await self._store.get_async(key)
        size = result.meta["size"]
        self._check_size(key, size)
        if reservation is not None and reservation.amount != size:  # it was replaced meanwhile
            reservation.release()
        if reservation is None or not reservation.held:
            reservation = self._budget.take(account, size)
        if reservation is None:
            return size
        try:
            return Fetched(await result.bytes_async(), reservation)
        except BaseException:
            reservation.release()
            raise

    def _check_size(self, key: str, size: int) -> None:
        if size == 0:
            raise InvalidRequest(f"image {uuid_in(key)} is empty")
        if size > self._max_bytes:
            raise InvalidRequest(f"image {uuid_in(key)} has {size:,} bytes; the limit is {self._max_bytes:,}")
        if size > self._budget.limit:
            raise InvalidRequest(
                f"image {uuid_in(key)} has {size:,} bytes; a worker holds {self._budget.limit:,} in all "
                "(max_fetched_bytes of its pool)"
            )
