from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore

from shoal.errors import DeadlineExceeded, Internal, InvalidRequest, NotFound, Unavailable
from shoal.worker.budget import Account
from shoal.worker.fetch_picture import Fetch, Fetcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
KEY = f"secret-prefix/{UUID}.jpg"


class Body:
    """What a GET answers: a size, then bytes."""

    def __init__(self, data: bytes, size: int | None = None, error: Exception | None = None) -> None:
        self.meta: Any = {"size": len(data) if size is None else size}
        self.reads = 0
        self._data = data
        self._error = error

    async def bytes_async(self) -> bytes:
        self.reads += 1
        if self._error is not None:
            raise self._error
        return self._data


class ScriptedStore:
    """Answers each GET with the next step of a script; the last one stays."""

    def __init__(self, *steps: Body | Exception | Callable[[], Awaitable[Body]]) -> None:
        self.steps = list(steps)
        self.paths: list[str] = []
        self.asked = asyncio.Event()

    async def get_async(self, path: str) -> Body:
        self.paths.append(path)
        self.asked.set()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Body) else await step()


async def forever() -> Body:
    await asyncio.Event().wait()
    raise AssertionError


async def some_turns() -> None:
    """Of the event loop: each step of a fetch takes one or two."""
    for _ in range(10):
        await asyncio.sleep(0)


def fetcher(
    store: Any, concurrency: int = 4, max_bytes: int = 1000, timeout_seconds: float = 30, budget_bytes: int = 10**6
) -> Fetcher:
    return Fetcher(
        store,
        concurrency=concurrency,
        max_bytes=max_bytes,
        budget_bytes=budget_bytes,
        timeout_seconds=timeout_seconds,
    )


async def test_answers_the_bytes_of_a_real_store() -> None:
    store = MemoryStore()
    store.put(KEY, b"a picture")
    assert bytes((await fetcher(store).fetch(KEY)).data) == b"a picture"
    assert bytes((await fetcher(store).fetch(KEY, 5)).data) == b"a picture"


async def test_a_missing_image_is_named_without_its_prefix() -> None:
    with pytest.raises(NotFound) as caught:
        await fetcher(MemoryStore()).fetch(KEY)
    assert str(caught.value) == f"no image {UUID}"


@pytest.mark.parametrize(("size", "message"), [(1001, "has 1,001 bytes; the limit is 1,000"), (0, "is empty")])
async def test_a_wrong_size_is_refused_before_the_body_is_read(size: int, message: str) -> None:
    body = Body(b"", size)
    with pytest.raises(InvalidRequest, match=message):
        await fetcher(ScriptedStore(body)).fetch(KEY)
    assert body.reads == 0


async def test_tries_again_while_the_store_is_away() -> None:
    broken = Body(b"", 4, GenericError("connection reset"))
    store = ScriptedStore(GenericError("503"), OSError("refused"), broken, Body(b"data"))
    assert (await fetcher(store).fetch(KEY)).data == b"data"
    assert store.paths == [KEY] * 4


async def test_gives_up_after_its_own_time_out() -> None:
    with pytest.raises(Unavailable, match=f"did not deliver image {UUID} within 0.01 s"):
        await fetcher(ScriptedStore(GenericError("503")), timeout_seconds=0.01).fetch(KEY, 30)
    with pytest.raises(Unavailable):
        await fetcher(ScriptedStore(forever), timeout_seconds=0.01).fetch(KEY)


@pytest.mark.parametrize("left", [0.01, 0, -1])
async def test_the_callers_deadline_comes_first(left: float) -> None:
    with pytest.raises(DeadlineExceeded, match=UUID):
        await fetcher(ScriptedStore(forever)).fetch(KEY, left)


async def test_refused_credentials_are_no_fault_of_the_caller() -> None:
    with pytest.raises(Internal):
        await fetcher(ScriptedStore(PermissionDeniedError("no"))).fetch(KEY)


async def test_at_most_so_many_at_once_in_order() -> None:
    gates = [asyncio.Event() for _ in range(5)]
    started: asyncio.Queue[int] = asyncio.Queue()

    def step(number: int) -> Callable[[], Awaitable[Body]]:
        async def answer() -> Body:
            started.put_nowait(number)
            await gates[number].wait()
            return Body(b"x")

        return answer

    two = fetcher(ScriptedStore(*[step(number) for number in range(5)]), concurrency=2)
    tasks = [two.fetch(KEY) for _ in range(5)]
    assert [await started.get(), await started.get()] == [0, 1]
    for number in range(5):
        assert started.empty()
        gates[number].set()
        if number < 3:
            assert await started.get() == number + 2
    await asyncio.gather(*tasks)


async def test_cancelling_frees_the_turn() -> None:
    store = ScriptedStore(forever, Body(b"x"))
    one = fetcher(store, concurrency=1)
    stuck = one.fetch(KEY)
    await store.asked.wait()
    waiting = one.fetch(KEY)
    await some_turns()
    stuck.cancel()
    assert (await waiting).data == b"x"
    with pytest.raises(asyncio.CancelledError):
        await stuck


async def test_waiting_for_a_turn_counts_against_the_caller_only() -> None:
    store = ScriptedStore(forever)
    one = fetcher(store, concurrency=1, timeout_seconds=30)
    stuck = one.fetch(KEY)
    await store.asked.wait()
    with pytest.raises(DeadlineExceeded):
        await one.fetch(KEY, 0.01)
    assert len(store.paths) == 1
    stuck.cancel()


async def test_bytes_stay_within_the_budget_and_who_waits_holds_no_turn() -> None:
    body = Body(bytes(400))
    one = fetcher(ScriptedStore(body), concurrency=1, budget_bytes=1000)
    first = await one.fetch(KEY, account=Account("greedy"))
    second = one.fetch(KEY, account=Account("greedy"))
    third = one.fetch(KEY, account=Account("other"))
    assert (await third).data == bytes(400), "half of it is left for others, and the only turn is free"
    assert not second.done()
    assert (one.held_bytes, body.reads) == (800, 2)
    first.release()
    (await third).release()
    with await second:
        assert one.held_bytes == 400
    assert one.held_bytes == 0


async def test_an_object_larger_than_the_whole_budget_is_refused() -> None:
    body = Body(b"", 500)
    with pytest.raises(InvalidRequest, match="has 500 bytes; a worker holds 400 in all"):
        await fetcher(ScriptedStore(body), budget_bytes=400).fetch(KEY)
    assert body.reads == 0


async def test_an_object_that_is_replaced_while_it_waits_for_room_takes_what_it_is() -> None:
    store = ScriptedStore(Body(bytes(600)), Body(bytes(600)), Body(bytes(300)))
    one = fetcher(store, budget_bytes=1000)
    first = await one.fetch(KEY)
    waiting = one.fetch(KEY)
    await some_turns()
    first.release()
    assert len((await waiting).data) == 300
    assert one.held_bytes == 300


@pytest.mark.parametrize(
    "steps",
    [
        [Body(b"", 500, GenericError("lost"))],
        [Body(bytes(600)), Body(b"", 600, GenericError("lost"))],
        [Body(bytes(600)), FileNotFoundError()],
        [Body(bytes(600)), Body(b"", 5000)],
        [Body(bytes(600)), forever],
    ],
)
async def test_what_fails_gives_its_room_back(steps: list[Any]) -> None:
    one = fetcher(ScriptedStore(Body(bytes(600)), *steps), budget_bytes=1000, timeout_seconds=0.05)
    first = await one.fetch(KEY)
    waiting = one.fetch(KEY)
    await some_turns()
    first.release()
    with pytest.raises((Unavailable, NotFound, InvalidRequest)):
        await waiting
    assert one.held_bytes == 0


async def test_a_deadline_or_a_cancel_while_waiting_for_room_leaves_nothing() -> None:
    one = fetcher(ScriptedStore(Body(bytes(600))), budget_bytes=1000)
    first = await one.fetch(KEY)
    with pytest.raises(DeadlineExceeded):
        await one.fetch(KEY, 0.01)
    cancelled = one.fetch(KEY)
    await some_turns()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    first.release()
    assert one.held_bytes == 0
    assert len((await one.fetch(KEY)).data) == 600


async def test_owners_take_turns() -> None:
    gate = asyncio.Event()

    async def wait() -> Body:
        await gate.wait()
        return Body(b"x")

    one = fetcher(ScriptedStore(wait), concurrency=1)
    order: list[str] = []

    async def get(owner: str) -> None:
        (await one.fetch(KEY, account=Account(owner))).release()
        order.append(owner)

    tasks = [asyncio.create_task(get(owner)) for owner in ("a", "a", "a", "b")]
    await some_turns()
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("Connection refused"), "connection refused"), (GenericError("status code: 503 Busy"), "503 Busy")],
)
@pytest.mark.parametrize(("deadline", "expected"), [(None, Unavailable), (9, DeadlineExceeded)])
async def test_the_kind_of_failure_is_told(
    error: Exception, reason: str, deadline: float | None, expected: type[Exception]
) -> None:
    fetch = fetcher(ScriptedStore(error)).fetch(KEY, deadline)
    await some_turns()
    assert isinstance(fetch, Fetch)
    fetch.expire()  # after the first try, however long that took
    with pytest.raises(expected, match=f"\\({reason}\\)"):
        await fetch


@pytest.mark.parametrize("resource", ["turn", "room"])
async def test_one_that_leaves_in_the_moment_of_its_grant_gives_it_back(resource: str) -> None:
    """The turn or the room is its own by then, and nobody has told it yet."""
    one = fetcher(ScriptedStore(Body(bytes(600))), concurrency=1 if resource == "turn" else 4, budget_bytes=1000)
    holder = one.turns.take(Account("x"), 1) if resource == "turn" else one.room.take(Account("x"), 600)
    assert holder is not None
    leaving, staying = one.fetch(KEY), one.fetch(KEY)
    await some_turns()
    holder.release()
    leaving.cancel()
    (await staying).release()
    assert (one.turns.used, one.held_bytes) == (0, 0)


async def test_a_step_that_fails_in_a_way_that_nobody_knows_ends_the_fetch_and_gives_all_back() -> None:
    class Odd(Body):
        def bytes_async(self) -> Any:
            raise LookupError("a fault of ours")

    one = fetcher(ScriptedStore(Odd(b"data")))
    with pytest.raises(LookupError):
        await one.fetch(KEY)
    assert (one.turns.used, one.held_bytes) == (0, 0)


async def test_a_transfer_that_is_cancelled_under_the_fetch_ends_it() -> None:
    class Lost(Body):
        def bytes_async(self) -> Any:
            lost: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            lost.cancel()
            return lost

    one = fetcher(ScriptedStore(Lost(b"data")))
    with pytest.raises(asyncio.CancelledError):
        await one.fetch(KEY)
    assert (one.turns.used, one.held_bytes) == (0, 0)


async def test_the_own_time_out_begins_with_the_turn_and_the_callers_deadline_before() -> None:
    """Waits for a turn longer than the store may take, and is delivered."""
    gate = asyncio.Event()

    async def wait() -> Body:
        await gate.wait()
        return Body(b"x")

    one = fetcher(ScriptedStore(wait), concurrency=1, timeout_seconds=0.5)
    holder = one.turns.take(Account("x"), 1)
    assert holder is not None
    waiting = one.fetch(KEY, 60)
    await some_turns()
    assert cast("Fetch", waiting).deadline - asyncio.get_running_loop().time() > 50
    holder.release()
    await some_turns()
    assert cast("Fetch", waiting).deadline - asyncio.get_running_loop().time() < 1
    gate.set()
    assert (await waiting).data == b"x"
