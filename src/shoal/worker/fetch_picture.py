"""Fetching: from a key to a picture's bytes, in bounded number, size and time.

A fetch is a future that moves itself on: what one step brings begins the next one, and no task carries it. For the two
steps that there are, head and body, a task and its coroutines would cost more than the store's own futures do.
"""

from __future__ import annotations

import asyncio
import math
import random
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import obstore
from obstore.exceptions import BaseError, NotModifiedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore

from shoal.errors import DeadlineExceeded, Internal, InvalidRequest, NotFound, Unavailable
from shoal.observe import metrics
from shoal.pictures.reference import uuid_in
from shoal.runtime.deadlines import Deadlines
from shoal.worker.budget import Account, Budget, Reservation
from shoal.worker.fetched import Fetched
from shoal.worker.picture_cache import Content, PictureCache
from shoal.worker.shared_fetch import Follower
from shoal.worker.store_faults import FaultLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from obstore import GetOptions, ObjectMeta
    from typing_extensions import Buffer

    Step = asyncio.Future[Any]
    Watch = Deadlines["Fetch | Follower"]

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

    def bytes_async(self) -> Awaitable[Buffer]:
        """The body."""
        ...


class Store(Protocol):
    """The part of an ``obstore`` store that is used here."""

    def get_async(self, path: str, *, options: GetOptions | None = None) -> Awaitable[Result]:
        """Starts a GET and answers when the headers are there."""
        ...


class Fetcher:
    """Fetches pictures from one store for one event loop. Owners take turns; interactive pictures go before bulk ones.

    A fetch that fails because the store is away is tried again, with growing, random pauses, until its time is over.
    A body is read only once the budget has room for it; who waits for room holds neither a turn nor a connection.
    """

    def __init__(
        self,
        store: Store,
        *,
        concurrency: int,
        max_bytes: int,
        budget_bytes: int,
        timeout_seconds: float,
        cache: PictureCache | None = None,
    ) -> None:
        """Prepares; nothing is connected yet.

        Args:
            store: Where the pictures are.
            concurrency: How many are fetched at once; more wait, accounts in turn.
            max_bytes: A larger object is refused before its body is read.
            budget_bytes: Of pictures that are being read or weren't released yet; more wait, accounts in turn.
            timeout_seconds: One fetch, retries included but not the waits for its turn and for room, takes no longer.
            cache: What is kept of pictures; None: nothing, and each request fetches its own.
        """
        self.get = _getter(store)
        self.turns = Budget(concurrency, max_waiting=_MAX_WAITING)
        self.room = Budget(budget_bytes, max_waiting=_MAX_WAITING, leaves_room=True)
        """In bytes."""
        self.faults = FaultLog()
        self.timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self.cache = cache
        self._flying: dict[tuple[str, bool], Fetch] = {}
        """Of interactive and bulk requests, by the object's key."""
        self._deadlines: Watch | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes of the budget that pictures hold."""
        return self.room.used

    def fetch(
        self,
        key: str,
        timeout_seconds: float | None = None,
        account: Account = NOBODY,
        max_age_seconds: float = 0.0,
    ) -> asyncio.Future[Fetched]:
        """The bytes of the object ``key``, without a copy; on their way at once. Cancelling it stops the transfer.

        Whoever stops caring about one that is done lets its bytes go.

        Args:
            key: ``<prefix><uuid>.jpg``; errors name the uuid only.
            timeout_seconds: What the caller's deadline leaves. None: no deadline.
            account: On whose behalf, and how urgent.
            max_age_seconds: What is kept is used unasked, if the store was asked no longer ago. 0: it is asked.

        Raises:
            NotFound: no such object.
            InvalidRequest: it is empty, or larger than ``max_bytes`` or the whole budget.
            Overloaded: too many pictures of this account wait already.
            Unavailable: the store is away, or slower than the fetcher's own time-out.
            DeadlineExceeded: the caller's time passed first.
            Internal: the store refuses our credentials.
        """
        loop = asyncio.get_running_loop()
        if self._deadlines is None:
            self._deadlines = Deadlines(loop, _expire)
        until = math.inf if timeout_seconds is None else loop.time() + timeout_seconds
        if self.cache is None:
            return self._begin(Fetch(self, self._deadlines, key, account, until))
        if max_age_seconds and (recent := self._recent(key, account, max_age_seconds)) is not None:
            return recent
        flight = key, account.bulk  # one that is urgent waits for none that isn't
        if (leader := self._flying.get(flight)) is not None and not leader.done():
            self.cache.shared.inc()
            follower = Follower(key, until, self._deadlines, partial(self._again, key, until, account))
            follower.follow(leader.followers)
            return follower
        fetch = self._flying[flight] = Fetch(self, self._deadlines, key, account, until)
        return self._begin(fetch)

    def _recent(self, key: str, account: Account, max_age_seconds: float) -> asyncio.Future[Fetched] | None:
        """What is kept, if it is so new and there is room for it now."""
        cache = cast("PictureCache", self.cache)
        content = cache.get(key)
        if content is None or monotonic() - content.asked > max_age_seconds:
            return None
        if (room := self.room.take(account, content.size)) is None:
            return None
        cache.recent.inc()
        done = asyncio.get_running_loop().create_future()
        done.set_result(Fetched(content.data, room, content))
        return done

    def landed(self, fetch: Fetch, key: str, account: Account) -> None:
        """It is over: who comes now fetches anew."""
        if self._flying.get((key, account.bulk)) is fetch:
            del self._flying[key, account.bulk]

    def _again(self, key: str, until: float, account: Account) -> asyncio.Future[Fetched]:
        left = None if until == math.inf else until - asyncio.get_running_loop().time()
        return self.fetch(key, left, account)

    def _begin(self, fetch: Fetch) -> Fetch:
        fetch.begin()
        return fetch

    def check_size(self, key: str, size: int) -> None:
        """Raises InvalidRequest where an object's ``size`` in bytes is none of a picture that may be fetched."""
        if size == 0:
            raise InvalidRequest(f"image {uuid_in(key)} is empty")
        if size > self._max_bytes:
            raise InvalidRequest(f"image {uuid_in(key)} has {size:,} bytes; the limit is {self._max_bytes:,}")
        if size > self.room.limit:
            raise InvalidRequest(
                f"image {uuid_in(key)} has {size:,} bytes; a worker holds {self.room.limit:,} in all "
                "(max_fetched_bytes of its pool)"
            )


class Fetch(asyncio.Future[Fetched]):
    """One fetch: turn, head, room, body; without room it waits for that first, and then for another turn."""

    def __init__(self, fetcher: Fetcher, deadlines: Watch, key: str, account: Account, until: float) -> None:
        """Prepares; ``until`` is the caller's deadline, in seconds of the loop's clock."""
        super().__init__(loop=asyncio.get_running_loop())
        self.deadline = math.inf
        """In seconds of the loop's clock: the caller's, or while it has a turn the fetcher's time-out."""
        self._fetcher = fetcher
        self._deadlines = deadlines
        self._key = key
        self._account = account
        self._until = until
        self._turn: Reservation | None = None
        self._room: Reservation | None = None
        self._step: Step | None = None
        """What it waits for."""
        self._pause: asyncio.TimerHandle | None = None
        """Or until it tries again."""
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        self._trouble = ""
        """What kept it from ending."""
        self.followers: dict[Follower, None] = {}
        """They get what it brings, too."""
        self._kept: Content | None = None
        """What the cache has, and the store is asked about."""
        self._e_tag = ""
        self._asked = 0.0
        """When the store was, last: it may have looked right then, however late the answer comes."""

    def begin(self) -> None:
        """Takes the first step."""
        self._go_on(Fetch._take_turn, None)

    def cancel(self, msg: Any | None = None) -> bool:  # as its base has it
        """Stops the transfer, and gives back what it holds."""
        if super().cancel(msg):
            self._give_up()
            self._leave_alone()
            return True
        return False

    def expire(self) -> None:
        """Its deadline has passed."""
        uuid, trouble = uuid_in(self._key), f" ({self._trouble})" if self._trouble else ""
        if self.deadline == self._until:
            self._fail(DeadlineExceeded(f"the deadline passed while image {uuid} was fetched{trouble}"))
        else:
            within = f"within {self._fetcher.timeout_seconds:g} s{trouble}"
            self._fail(Unavailable(f"the object store did not deliver image {uuid} {within}; try again"))

    def _take_turn(self, _: object) -> None:
        turns = self._fetcher.turns
        if (turn := turns.take(self._account, 1)) is not None:
            self._with_turn(turn)
        else:
            self._watch(self._until)
            self._follow(turns.queue(self._account, 1), Fetch._with_turn)

    def _with_turn(self, turn: Reservation) -> None:
        self._turn, self._backoff_seconds = turn, _FIRST_BACKOFF_SECONDS
        self._watch(min(self._until, self.get_loop().time() + self._fetcher.timeout_seconds))
        self._get()

    def _get(self, _: object = None) -> None:
        cache, self._asked = self._fetcher.cache, monotonic()
        self._kept = None if cache is None else cache.get(self._key)
        if self._kept is None or not self._kept.e_tag:
            self._follow(self._fetcher.get(self._key), Fetch._with_head)
        else:
            options: GetOptions = {"if_none_match": self._kept.e_tag}
            self._follow(self._fetcher.get(self._key, options=options), Fetch._with_head)

    def _with_head(self, result: Result) -> None:
        size, self._e_tag = result.meta["size"], _e_tag(result.meta)
        if self._kept is not None and self._e_tag and self._e_tag == self._kept.e_tag:  # a store without conditions
            self._with_kept(None)
        elif self._has_room(size):
            self._follow(result.bytes_async(), Fetch._with_body)

    def _with_kept(self, _: object) -> None:
        """The store says that what is kept is current."""
        kept, cache = cast("Content", self._kept), cast("PictureCache", self._fetcher.cache)
        if self._has_room(kept.size):
            cache.hits.inc()
            kept.asked = self._asked
            self._bring(kept.data, kept)

    def _has_room(self, size: int) -> bool:
        """Whether there is room for so many bytes; else it waits for that, and then for another turn."""
        self._fetcher.check_size(self._key, size)
        if self._room is not None and self._room.amount != size:  # it was replaced meanwhile
            self._room.release()
            self._room = None
        if self._room is None:
            self._room = self._fetcher.room.take(self._account, size)
        if self._room is not None:
            return True
        self._give_back(self._turn)
        self._turn = None
        self._watch(self._until)
        self._follow(self._fetcher.room.queue(self._account, size), Fetch._with_room)
        return False

    def _with_room(self, room: Reservation) -> None:
        self._room = room
        self._take_turn(None)

    def _with_body(self, data: Buffer) -> None:
        content, cache = None, self._fetcher.cache
        if cache is not None:
            cache.misses.inc()
            content = Content(self._key, self._e_tag, data)
            if self._kept is not None and self._kept.is_same(content):
                content = self._kept  # whose pixels may be there
            else:
                cache.put(content)
            content.asked = self._asked
        self._bring(data, content)

    def _bring(self, data: Buffer, content: Content | None) -> None:
        room, self._room = cast("Reservation", self._room), None
        self._give_up()
        fetched = Fetched(data, room, content)
        self.set_result(fetched)
        for follower in list(self.followers):
            follower.bring(fetched.share())

    def _follow(self, step: Awaitable[Any], then: Callable[[Fetch, Any], None]) -> None:
        """Calls ``then`` with what ``step`` brings."""
        self._step = step if isinstance(step, asyncio.Future) else asyncio.ensure_future(step)
        self._step.add_done_callback(partial(self._stepped, then))

    def _stepped(self, then: Callable[[Fetch, Any], None], step: Step) -> None:
        if step is self._step:  # else it was given up
            self._step = None
            self._go_on(then, step)

    def _go_on(self, then: Callable[[Fetch, Any], None], step: Step | None) -> None:
        """Whatever goes wrong in a step ends the fetch, or is tried again: nobody else hears of it."""
        try:
            then(self, None if step is None else step.result())
        except NotModifiedError:
            self._go_on(Fetch._with_kept, None)
        except FileNotFoundError:
            if self._fetcher.cache is not None:
                self._fetcher.cache.drop(self._key)
            self._fail(NotFound(f"no image {uuid_in(self._key)}"))
        except (PermissionDeniedError, UnauthenticatedError) as error:
            refused = Internal("the object store refuses the worker's credentials")
            refused.__cause__ = error
            self._fail(refused)
        except (BaseError, OSError) as error:
            self._try_again(error)
        except asyncio.CancelledError:
            self.cancel()
        except Exception as error:
            self._fail(error)

    def _try_again(self, error: Exception) -> None:
        """After a pause, without room: nobody waits for what isn't used."""
        self._trouble = self._fetcher.faults.add(error)
        metrics.WORKER_FETCH_RETRIES.inc()
        self._give_back(self._room)
        self._room = None
        # Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        pause = random.uniform(0, self._backoff_seconds)  # not a secret
        self._pause = self.get_loop().call_later(pause, self._go_on, Fetch._get, None)
        self._backoff_seconds = min(2 * self._backoff_seconds, _LONGEST_BACKOFF_SECONDS)

    def _watch(self, deadline: float) -> None:
        if self.deadline != math.inf:
            self._deadlines.remove(self)
        self.deadline = deadline
        if deadline != math.inf:
            self._deadlines.add((self,))

    def _fail(self, error: Exception) -> None:
        self._give_up()
        self.set_exception(error)
        if isinstance(error, DeadlineExceeded):  # its own caller's
            self._leave_alone()
        for follower in list(self.followers):
            follower.fail(error)

    def _leave_alone(self) -> None:
        """Its followers go on without it, one of them ahead."""
        followers, self.followers = list(self.followers), {}
        for follower in followers:
            follower.go_on_alone()

    def _give_up(self) -> None:
        """Stops what it does, and gives back what it holds."""
        self._fetcher.landed(self, self._key, self._account)
        self._watch(math.inf)
        if self._pause is not None:
            self._pause.cancel()
        step, self._step = self._step, None
        if step is not None and not step.cancel():
            _let_go(step)
        self._give_back(self._turn)
        self._give_back(self._room)

    @staticmethod
    def _give_back(reservation: Reservation | None) -> None:
        if reservation is not None:
            reservation.release()


def _expire(passed: Iterable[Fetch | Follower]) -> None:
    for fetch in passed:
        fetch.expire()


def _let_go(step: Step) -> None:
    """Of one that was done, but whose result nobody will see."""
    if not step.cancelled() and step.exception() is None and isinstance(step.result(), Reservation):
        step.result().release()


def _e_tag(meta: ObjectMeta) -> str:
    """What names an object's content; empty, where the store has no names, as the one of ``shoal up``."""
    e_tag = meta.get("e_tag") or ""
    return e_tag if e_tag.removeprefix("W/").strip('"') else ""


def _getter(store: Store) -> Callable[..., Awaitable[Result]]:
    """Its ``get_async``: of obstore the function, which answers a future; the method wraps that in a coroutine."""
    return partial(obstore.get_async, cast("Any", store)) if isinstance(store, ObjectStore) else store.get_async
