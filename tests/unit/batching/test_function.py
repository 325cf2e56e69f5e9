from __future__ import annotations

import asyncio
import logging
import math
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from shoal.batching import wire
from shoal.batching.function import Function, Requests
from shoal.batching.meter import BatchMeter
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, InvalidRequest, NotFound, Overloaded, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.precedence import BULK_SHARE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

METHOD = "/test.Service/Double"
EIGHT = BatchingSettings(max_batch_size=8)


class Doubler:
    """Doubles numbers, and keeps the batches that it was given."""

    def __init__(self, fail: Callable[[list[int]], object] = lambda _: None) -> None:
        self.batches: list[list[int]] = []
        self.calls: list[Any] = []
        self._fail = fail

    async def __call__(self, requests: Requests[Int64Value]) -> Sequence[StringValue | Exception]:
        numbers = [request.value for request in requests]
        self.batches.append(numbers)
        self.calls += requests.calls
        self._fail(numbers)
        return [InvalidRequest("odd") if number % 2 else StringValue(value=str(2 * number)) for number in numbers]


def served(function: Any, settings: BatchingSettings = EIGHT) -> Function[Any, Any]:
    return Function(METHOD, Int64Value, StringValue, function, settings, BatchMeter("test"))


def item(
    index: int, number: int, timeout_us: int = 0, priority: batching_pb2.Priority = batching_pb2.PRIORITY_INTERACTIVE
) -> batching_pb2.BatchItem:
    request = Int64Value(value=number).SerializeToString()
    return batching_pb2.BatchItem(index=index, request=request, timeout_us=timeout_us, owner="o", priority=priority)


async def answers(handler: Function[Any, Any], *items: batching_pb2.BatchItem) -> list[Any]:
    """For each item, in their order, the reply's text, or its code and message."""
    batch = handler.begin(METHOD)
    for each in items:
        batch.add(each)
    found = {result.index: result async for group in batch.finish() for result in group}
    batch.abandon()
    handler.instances.close()
    assert sorted(found) == sorted(each.index for each in items)
    return [
        StringValue.FromString(result.response).value if result.code == Code.OK else (Code(result.code), result.message)
        for result in (found[each.index] for each in items)
    ]


async def test_a_batch_goes_in_and_each_item_gets_its_own_answer() -> None:
    doubler = Doubler()
    assert await answers(served(doubler), item(5, 2), item(6, 3), item(7, 4)) == [
        "4",
        (Code.INVALID_ARGUMENT, "odd"),
        "8",
    ]
    assert doubler.batches == [[2, 3, 4]]


async def test_a_plain_function_does_too() -> None:
    def texts(requests: Requests[Int64Value]) -> list[StringValue | Exception]:
        return [StringValue(value=str(request.value)) for request in requests]

    assert await answers(served(texts), item(0, 2), item(1, 3)) == ["2", "3"]


async def test_a_message_that_cannot_be_read_fails_alone() -> None:
    doubler = Doubler()
    bad = batching_pb2.BatchItem(index=1, request=b"\xff")
    assert await answers(served(doubler), item(0, 2), bad, item(2, 4)) == [
        "4",
        (Code.INVALID_ARGUMENT, "the message is not a google.protobuf.Int64Value"),
        "8",
    ]
    assert doubler.batches == [[2, 4]]


async def test_who_asked_is_told() -> None:
    doubler = Doubler()
    first = item(0, 2, timeout_us=60_000_000)
    first.queued_us, first.traceparent = 1_500_000, "00-1-1-00"
    await answers(served(doubler), first, item(1, 4))
    told, other = doubler.calls
    assert (told.owner, told.queued_seconds, told.traceparent) == ("o", 1.5, "00-1-1-00")
    assert 0 < told.seconds_left <= 60
    assert other.seconds_left == math.inf


async def test_what_has_expired_never_reaches_the_function() -> None:
    doubler = Doubler()
    batch = served(doubler).begin(METHOD)
    batch.add(item(0, 2, timeout_us=1))
    batch.add(item(1, 4))
    await asyncio.to_thread(lambda: None)  # more than a microsecond
    found = {result.index: Code(result.code) async for group in batch.finish() for result in group}
    assert found == {0: Code.DEADLINE_EXCEEDED, 1: Code.OK}
    assert doubler.batches == [[4]]


async def test_a_batch_of_which_everything_has_gone_is_not_run() -> None:
    doubler = Doubler()
    bad = batching_pb2.BatchItem(index=0, request=b"\xff")
    assert await answers(served(doubler), bad) == [
        (Code.INVALID_ARGUMENT, "the message is not a google.protobuf.Int64Value")
    ]
    assert doubler.batches == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidRequest("six"), (Code.INVALID_ARGUMENT, "six")),
        (NotFound("six"), (Code.NOT_FOUND, "six")),
        (ZeroDivisionError("secret"), (Code.INTERNAL, "internal error; the service's log has the details")),
    ],
)
async def test_a_batch_that_raises_runs_one_by_one_and_the_culprit_fails_alone(
    error: Exception, expected: tuple[Code, str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(numbers: list[int]) -> None:
        if 6 in numbers:
            raise error

    doubler = Doubler(fail)
    with caplog.at_level(logging.WARNING):
        assert await answers(served(doubler), item(0, 2), item(1, 6), item(2, 4)) == ["4", expected, "8"]
    assert doubler.batches == [[2, 6, 4], [2], [6], [4]]
    assert "a batch of 3 failed; running it one by one" in caplog.text


@pytest.mark.parametrize("error", [Unavailable("the index is away"), Overloaded("later")])
async def test_what_is_no_items_fault_is_not_tried_one_by_one(error: Any) -> None:
    def fail(_: list[int]) -> None:
        raise error

    doubler = Doubler(fail)
    assert await answers(served(doubler), item(0, 2), item(1, 4)) == [(error.code, str(error))] * 2
    assert doubler.batches == [[2, 4]]


async def test_a_function_that_loses_count_is_at_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def forgetful(requests: Requests[Int64Value]) -> list[StringValue]:
        return [StringValue(value="fine") for request in requests if request.value != 6]

    found = await answers(served(forgetful), item(0, 2), item(1, 6), item(2, 4))
    assert [found[0], found[1][0], found[2]] == ["fine", Code.INTERNAL, "fine"]
    assert "0 results for 1 requests" in caplog.text


async def test_a_reply_of_the_wrong_kind_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def confused(requests: Requests[Int64Value]) -> list[Any]:
        return [None if request.value == 6 else StringValue(value="fine") for request in requests]

    found = await answers(served(confused), item(0, 2), item(1, 6))
    assert [found[0], found[1][0]] == ["fine", Code.INTERNAL]
    assert "expected StringValue or an exception, not NoneType" in caplog.text


async def test_more_than_the_batch_may_have_is_sent_back() -> None:
    handler = served(Doubler(), BatchingSettings(max_batch_size=1))
    found = await answers(handler, item(0, 2), item(1, 4))
    assert [found[0], found[1][0]] == ["4", Code.UNAVAILABLE]


async def test_large_replies_come_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RESULTS_BYTES", 4)
    batch = served(Doubler()).begin(METHOD)
    for index in range(3):
        batch.add(item(index, 2))
    assert [len(group) async for group in batch.finish()] == [1, 1, 1]


def test_another_method_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r"Halve is not served here; there is /test\.Service/Double"):
        served(Doubler()).check("/test.Service/Halve")


async def test_the_function_does_not_see_requests_whose_callers_have_left() -> None:
    function = Doubler()
    handler = served(function)
    batch = handler.begin(METHOD)
    for index, number in enumerate((2, 4, 6)):
        batch.add(item(index, number))
    for index in (1, 1, 99):
        batch.withdraw(index)
    found = {result.index: result for group in [group async for group in batch.finish()] for result in group}
    assert function.batches == [[2, 6]]
    assert {index: Code(result.code) for index, result in found.items()} == {0: Code.OK, 1: Code.CANCELLED, 2: Code.OK}


async def test_the_repr_of_what_waits_holds_no_message() -> None:
    handler = Function(METHOD, bytes, bytes, Doubler(), EIGHT, BatchMeter("test"))
    batch = handler.begin(METHOD)
    batch.add(batching_pb2.BatchItem(index=3, request=b"secret", owner="o"))
    assert "index=3" in repr(batch._items)
    assert "secret" not in repr(batch._items)
    handler.instances.close()


async def test_a_batch_whose_callers_have_all_left_is_not_run() -> None:
    function = Doubler()
    batch = served(function).begin(METHOD)
    batch.add(item(7, 2))
    batch.withdraw(7)
    assert [result.code for group in [group async for group in batch.finish()] for result in group] == [Code.CANCELLED]
    assert function.batches == []


async def test_batches_with_an_interactive_call_go_first_and_calls_say_how_urgent_they_are() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    doubler = Doubler()

    async def slow(requests: Requests[Int64Value]) -> Sequence[StringValue | Exception]:
        begun.set()
        await go_on.wait()
        return await doubler(requests)

    handler = served(slow, BatchingSettings(max_batch_size=8, instance_count=1))
    bulk, interactive = batching_pb2.PRIORITY_BULK, batching_pb2.PRIORITY_INTERACTIVE

    async def run(*given: batching_pb2.BatchItem) -> None:
        batch = handler.begin(METHOD)
        for each in given:
            batch.add(each)
        assert [group async for group in batch.finish()]

    running = asyncio.create_task(run(item(0, 2, priority=bulk)))
    await begun.wait()
    waiting = [
        asyncio.create_task(run(*given))
        for given in (
            [item(0, 4, priority=bulk), item(1, 6, priority=bulk)],
            [item(0, 8, priority=bulk), item(1, 10, priority=interactive)],
        )
    ]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(running, *waiting)
    assert doubler.batches == [[2], [8, 10], [4, 6]]
    assert [call.priority for call in doubler.calls] == ["bulk", "bulk", "interactive", "bulk", "bulk"]
    assert handler.instances.busy is False


async def test_bulk_calls_that_ride_with_interactive_ones_count_to_bulks_share() -> None:
    go_on = asyncio.Event()
    doubler = Doubler()

    async def slow(requests: Requests[Int64Value]) -> Sequence[StringValue | Exception]:
        await go_on.wait()
        return await doubler(requests)

    handler = served(slow, BatchingSettings(max_batch_size=8, instance_count=1))
    bulk = batching_pb2.PRIORITY_BULK

    async def run(*given: batching_pb2.BatchItem) -> None:
        batch = handler.begin(METHOD)
        for each in given:
            batch.add(each)
        assert [group async for group in batch.finish()]

    batches = [[item(0, 2, priority=bulk)], [item(0, 4, priority=bulk)]]
    batches += [[item(0, 6), item(1, 8, priority=bulk)] for _ in range(BULK_SHARE + 1)]
    running = [asyncio.create_task(run(*each)) for each in batches]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*running)
    assert doubler.batches == [[2], *[[6, 8]] * (BULK_SHARE + 1), [4]]


async def test_a_batch_is_ready_for_the_function_when_it_is_closed() -> None:
    batch = served(Doubler()).begin(METHOD)
    batch.add(item(0, 2))
    assert batch.ready_at == 0.0
    closed = monotonic()
    assert [group async for group in batch.finish()]
    assert closed <= batch.ready_at <= monotonic()


@pytest.mark.parametrize(("bad", "executed"), [(0, 3), (2, 1), (3, 0)])
async def test_a_batch_says_how_many_of_its_requests_the_function_got(bad: int, executed: int) -> None:
    batch = served(Doubler()).begin(METHOD)
    for index in range(3):
        batch.add(batching_pb2.BatchItem(index=index, request=b"\xff") if index < bad else item(index, 2))
    assert [group async for group in batch.finish()]
    assert batch.executed == executed


async def test_a_batch_of_which_nothing_ran_says_so_first() -> None:
    """So that its time teaches the batcher nothing."""
    for first, item_ in (([], batching_pb2.BatchItem(index=3, request=b"\xff")), ([3], item(3, 2))):
        handler = served(Doubler())
        batch = handler.begin(METHOD)
        batch.add(item_)
        groups = [[result.index for result in group] async for group in batch.finish()]
        handler.instances.close()
        assert groups[0] == first
        assert groups[-1] == [3]
