from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.exceptions import GenericError
from obstore.store import MemoryStore

from shoal.errors import DeadlineExceeded, NotFound
from shoal.observe.metrics import WORKER
from shoal.worker import fetch_picture
from shoal.worker.budget import Account
from shoal.worker.fetch_picture import Fetcher
from shoal.worker.picture_cache import PictureCache
from support.until import until

if TYPE_CHECKING:
    from obstore import GetResult

    from shoal.worker.fetched import Fetched

KEY = "me/6ba7b810-9dad-41d1-80b4-00c04fd430c8.jpg"
OTHERS = "you/6ba7b810-9dad-41d1-80b4-00c04fd430c8.jpg"


class Store:
    """A real store behind a gate; counts questions, and bodies that were read."""

    def __init__(self, *, conditions: bool = True, e_tags: bool = True) -> None:
        self.objects = MemoryStore()
        self.asked: list[str] = []
        self.bodies = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self._conditions = conditions
        self._e_tags = e_tags

    async def get_async(self, path: str, *, options: Any = None) -> Any:
        self.asked.append(path)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        found = await obstore.get_async(self.objects, path, options=options if self._conditions else None)
        return _Found(self, found, {} if self._e_tags else {"e_tag": '""'})


class _Found:
    def __init__(self, store: Store, found: GetResult, told: dict[str, Any]) -> None:
        self.meta = found.meta | told
        self._store = store
        self._found = found

    async def bytes_async(self) -> Any:
        self._store.bodies += 1
        return await self._found.bytes_async()


def fetcher(store: Store, cache_bytes: int = 10**6, budget_bytes: int = 10**6) -> Fetcher:
    return Fetcher(
        store,
        concurrency=4,
        max_bytes=10**6,
        budget_bytes=budget_bytes,
        timeout_seconds=30,
        cache=PictureCache(cache_bytes),
    )


async def read(fetch: asyncio.Future[Fetched]) -> bytes:
    with await fetch as fetched:
        return bytes(fetched.data)


def counted(outcome: str) -> float:
    return WORKER.get_sample_value("shoal_worker_picture_cache_fetches_total", {"outcome": outcome}) or 0.0


async def test_requests_that_come_together_fetch_once_and_hold_the_bytes_together() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    fetching, before = fetcher(store), counted("shared")
    found = [await fetch for fetch in [fetching.fetch(KEY) for _ in range(5)]]
    assert {bytes(each.data) for each in found} == {b"a picture"}
    assert (len(store.asked), store.bodies, counted("shared") - before) == (1, 1, 4)
    for each in found:
        assert fetching.held_bytes == 9  # once
        each.release()
        each.release()
    assert fetching.held_bytes == 0


async def test_one_that_comes_later_asks_whether_it_is_current() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    fetching, before = fetcher(store), counted("hit")
    assert [await read(fetching.fetch(KEY)) for _ in range(3)] == [b"a picture"] * 3
    assert (len(store.asked), store.bodies, counted("hit") - before) == (3, 1, 2)
    assert fetching.held_bytes == 0


@pytest.mark.parametrize("e_tags", [True, False])
async def test_what_is_new_enough_for_its_caller_is_not_asked_about(e_tags: bool) -> None:
    store = Store(e_tags=e_tags)
    store.objects.put(KEY, b"one")
    fetching, before = fetcher(store), counted("recent")
    assert await read(fetching.fetch(KEY, max_age_seconds=60)) == b"one"
    store.objects.put(KEY, b"another")
    assert await read(fetching.fetch(KEY, max_age_seconds=60)) == b"one"
    assert (len(store.asked), counted("recent") - before) == (1, 1)
    make_older(fetching, 61)
    assert await read(fetching.fetch(KEY, max_age_seconds=60)) == b"another"
    assert await read(fetching.fetch(KEY)) == b"another"
    make_older(fetching, 30)
    assert await read(fetching.fetch(KEY, max_age_seconds=60)) == b"another"
    assert (len(store.asked), counted("recent") - before) == (3, 2)
    assert fetching.held_bytes == 0


async def test_a_picture_that_is_still_current_is_new_again() -> None:
    store = Store()
    store.objects.put(KEY, b"one")
    fetching = fetcher(store)
    await read(fetching.fetch(KEY))
    make_older(fetching, 61)
    await read(fetching.fetch(KEY))
    assert await read(fetching.fetch(KEY, max_age_seconds=60)) == b"one"
    assert len(store.asked) == 2


async def test_a_picture_is_as_old_as_the_question_that_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(fetch_picture, "monotonic", lambda: now)
    store = Store()
    store.objects.put(KEY, b"one")
    fetching = fetcher(store)
    store.gate.clear()
    slow = fetching.fetch(KEY)
    await until(lambda: len(store.asked) == 1)
    now += 5
    store.gate.set()
    assert await read(slow) == b"one"
    store.objects.put(KEY, b"another")
    assert await read(fetching.fetch(KEY, max_age_seconds=6)) == b"one"
    assert await read(fetching.fetch(KEY, max_age_seconds=4)) == b"another"


async def test_a_new_one_waits_for_room_as_all_do() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    fetching = fetcher(store, budget_bytes=9)
    held = await fetching.fetch(KEY)
    waits = fetching.fetch(KEY, max_age_seconds=60)
    await until(lambda: len(store.asked) == 2)
    await asyncio.sleep(0)
    assert not waits.done()
    held.release()
    assert await read(waits) == b"a picture"
    assert fetching.held_bytes == 0


def make_older(fetching: Fetcher, seconds: float) -> None:
    kept = fetching.cache and fetching.cache.get(KEY)
    assert kept
    kept.asked -= seconds


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_replaced_picture_and_a_deleted_one_are_noticed(conditions: bool) -> None:
    store = Store(conditions=conditions)
    store.objects.put(KEY, b"one")
    fetching = fetcher(store)
    assert await read(fetching.fetch(KEY)) == b"one"
    store.objects.put(KEY, b"another")
    assert await read(fetching.fetch(KEY)) == b"another"
    assert await read(fetching.fetch(KEY)) == b"another"
    assert store.bodies == 2  # the third time the store's word was enough, whether it knows conditions or not
    store.objects.delete(KEY)
    with pytest.raises(NotFound):
        await fetching.fetch(KEY)
    assert fetching.cache is not None
    assert fetching.cache.used_bytes == 0


async def test_of_a_store_without_etags_each_is_fetched_and_its_pixels_stay_as_long_as_it_is_the_same() -> None:
    """That of ``shoal up`` is such a one."""
    store = Store(e_tags=False)
    store.objects.put(KEY, b"one")
    fetching = fetcher(store)
    first, second = [await fetching.fetch(KEY) for _ in range(2)]
    assert first.content is second.content is not None
    store.objects.put(KEY, b"two")
    other = await fetching.fetch(KEY)
    assert bytes(other.data) == b"two"
    assert other.content is not first.content
    assert store.bodies == 3


async def test_nobody_gets_another_owners_picture_of_the_same_uuid() -> None:
    store = Store()
    store.objects.put(KEY, b"mine")
    store.objects.put(OTHERS, b"yours")
    fetching = fetcher(store)
    for _ in range(2):
        mine, yours = fetching.fetch(KEY), fetching.fetch(OTHERS)
        assert (await read(mine), await read(yours)) == (b"mine", b"yours")


async def test_one_that_is_urgent_waits_for_none_that_is_not() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    fetching = fetcher(store)
    bulk = fetching.fetch(KEY, None, Account("me", bulk=True))
    urgent = fetching.fetch(KEY, None, Account("me"))
    await asyncio.gather(read(bulk), read(urgent))
    assert len(store.asked) == 2


async def test_a_caller_that_leaves_takes_nobody_along() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    store.gate.clear()
    fetching = fetcher(store)
    first, second, third = (fetching.fetch(KEY) for _ in range(3))
    await until(lambda: bool(store.asked))
    first.cancel()
    third.cancel()
    store.gate.set()
    assert await read(second) == b"a picture"
    assert (len(store.asked), fetching.held_bytes) == (2, 0)


async def test_the_deadline_of_the_first_is_not_that_of_the_others() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    store.gate.clear()
    fetching = fetcher(store)
    first, patient, hurried = fetching.fetch(KEY, 0.01), fetching.fetch(KEY, 60), fetching.fetch(KEY, 0.01)
    for each in (first, hurried):
        with pytest.raises(DeadlineExceeded, match="6ba7b810"):
            await each
    store.gate.set()
    assert await read(patient) == b"a picture"
    assert fetching.held_bytes == 0


async def test_what_one_fails_of_the_others_fail_of() -> None:
    store = Store()
    fetching = fetcher(store)
    fetches = [fetching.fetch(KEY) for _ in range(3)]
    for each in fetches:
        with pytest.raises(NotFound):
            await each
    assert len(store.asked) == 1


async def test_a_store_that_is_away_while_it_is_asked_whether_something_is_current() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    fetching = fetcher(store)
    await read(fetching.fetch(KEY))
    store.failures.append(GenericError("away"))
    assert await read(fetching.fetch(KEY)) == b"a picture"
    assert (len(store.asked), store.bodies) == (3, 1)


async def test_what_is_kept_counts_against_the_budget_while_it_is_used() -> None:
    store = Store()
    store.objects.put(KEY, b"a picture")
    store.objects.put(OTHERS, bytes(15))
    fetching = fetcher(store, budget_bytes=20)
    await read(fetching.fetch(KEY))
    large = await fetching.fetch(OTHERS)
    waits = fetching.fetch(KEY, None, Account("another"))
    await asyncio.wait([waits], timeout=0.05)
    assert not waits.done()
    large.release()
    assert await read(waits) == b"a picture"
    assert store.bodies == 2


async def test_without_room_every_fetch_is_a_miss() -> None:
    store = Store()
    store.objects.put(KEY, bytes(5000))
    fetching = fetcher(store, cache_bytes=4000)
    for _ in range(2):
        await read(fetching.fetch(KEY))
    assert store.bodies == 2
