from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shoal.batching import wire
from shoal.batching.v1 import stream_pb2
from shoal.client import sender as sender_module
from shoal.client.calls import Deadlines
from shoal.client.channel import InferenceMethod, open_channel
from shoal.client.sender import Sender
from shoal.client.stream_limits import StreamLimits
from shoal.errors import Cancelled, Code, DeadlineExceeded, NotFound, Overloaded, Unauthenticated, Unavailable
from shoal.runtime.logs import Seldom
from shoal.v1 import inference_pb2 as pb
from support.stream_service import ServedStream, StreamService, serving_streams
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONG = 60.0
LIMITS = StreamLimits()


@pytest.fixture
async def service() -> AsyncIterator[StreamService]:
    async with serving_streams() as running:
        yield running


@asynccontextmanager
async def sending(
    service: StreamService, limits: StreamLimits = LIMITS, *, streams: bool | None = None
) -> AsyncIterator[Sender]:
    channel = open_channel(service.target, None)
    deadlines = Deadlines(time.monotonic)
    method = InferenceMethod(channel, "Classify", pb.ClassifyReply)
    metadata = ((wire.MODEL, "cats"),)
    sender = Sender(method, lambda: metadata, deadlines, time.monotonic, streams=streams, limits=limits)
    try:
        yield sender
    finally:
        await sender.close()
        deadlines.close()
        await channel.close()


def start(sender: Sender, number: int, first: int = 0, seconds: float = LONG) -> list[asyncio.Task[bytes]]:
    """Calls made in one turn of the loop; each asks for its own number."""
    return [asyncio.create_task(sender(b"%d" % n, seconds)) for n in range(first, first + number)]


def numbers(first: int, number: int) -> list[bytes]:
    return [b"%d" % n for n in range(first, first + number)]


async def next_stream(sender: Sender, service: StreamService) -> ServedStream:
    """The next stream that is opened, once calls go over it."""
    stream = await service.stream()
    await until(lambda: sender._opening is None)
    return stream


async def open_stream(sender: Sender, service: StreamService) -> ServedStream:
    """A stream that carries nothing."""
    service.gate.clear()
    pair = start(sender, 2, first=1_000_000)
    stream = await next_stream(sender, service)
    service.gate.set()
    await asyncio.gather(*pair)
    service.unary.clear()
    return stream


async def test_one_call_at_a_time_goes_alone(service: StreamService) -> None:
    async with sending(service) as sender:
        for n in range(5):
            assert await sender(b"%d" % n, LONG) == b"%d" % n
    assert (len(service.unary), service.asked) == (5, 0)


async def test_calls_of_one_turn_travel_in_one_message(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 500)
        calls = await stream.take(500)
        assert [call.request for call in calls] == numbers(0, 500)
        await stream.answer(calls)
        assert await asyncio.gather(*tasks) == numbers(0, 500)
        assert stream.messages == [[*range(500)]]
        assert stream.metadata["x-model-name"] == "cats"
        assert all(0 < call.timeout_us <= LONG * 1e6 for call in calls)
    assert (service.unary, service.asked) == ([], 1)


async def test_calls_that_do_best_at_one_worker_say_so_on_a_stream(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = [asyncio.ensure_future(sender(b"1", LONG, text)) for text in ("cat", "")]
        calls = await stream.take(2)
        assert [call.affinity for call in calls] == ["cat", ""]
        await stream.answer(calls)
        await asyncio.gather(*tasks)


async def test_calls_that_do_best_at_one_worker_say_so_alone_too(service: StreamService) -> None:
    async with sending(service) as sender:
        for text in ("cat", ""):
            await sender(b"1", LONG, text)
    assert [told.get("x-shoal-affinity") for told in service.unary_metadata] == ["cat", None]


async def test_with_a_second_call_in_flight_a_stream_is_opened(service: StreamService) -> None:
    service.gate.clear()
    async with sending(service) as sender:
        first = start(sender, 1)
        await service.came(1)
        assert service.asked == 0
        second = start(sender, 1, first=1)
        stream = await next_stream(sender, service)
        third = start(sender, 1, first=2)
        await stream.answer(await stream.take())
        assert await third[0] == b"2"
        service.gate.set()
        assert await asyncio.gather(*first, *second) == [b"0", b"1"]


async def test_while_the_first_stream_opens_a_bounded_number_goes_alone(service: StreamService) -> None:
    service.silent = True
    service.gate.clear()
    async with sending(service, replace(LIMITS, alone_while_opening=3)) as sender:
        tasks = start(sender, 10)
        await service.came(3)
        service.gate.set()
        await service.came(10)  # one by one, as others end
        assert await asyncio.gather(*tasks) == numbers(0, 10)


async def test_results_in_any_order(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 20)
        for call in reversed(await stream.take(20)):
            await stream.answer([call])
        assert await asyncio.gather(*tasks) == numbers(0, 20)


async def test_each_call_has_its_own_status(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 4)
        await stream.take(4)
        await stream.send(
            stream_pb2.CallItemResult(index=0, code=Code.NOT_FOUND, message="no such image"),
            stream_pb2.CallItemResult(index=1, code=Code.RESOURCE_EXHAUSTED, message="full", retry_after_us=250_000),
            stream_pb2.CallItemResult(index=2, code=Code.UNAVAILABLE, message="away"),
            stream_pb2.CallItemResult(index=3, response=b"yes"),
        )
        missing, full, away, good = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(missing, NotFound)
    assert isinstance(full, Overloaded)
    assert full.retry_after_seconds == 0.25
    assert (str(away), type(away), good) == ("away", Unavailable, b"yes")


async def test_a_result_that_nobody_asked_for_or_that_comes_twice_is_skipped(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 2)
        first, second = await stream.take(2)
        wrong = stream_pb2.CallItemResult(index=2, response=b"of a call that wasn't made yet")
        unknown = stream_pb2.CallItemResult(index=2**32 - 1, response=b"nobody's")
        await stream.send(wrong, unknown)
        await stream.answer([first, first])
        await stream.answer([first, second])
        assert await asyncio.gather(*tasks) == numbers(0, 2)
        late = start(sender, 1, first=2)
        await stream.answer(await stream.take())
        assert await late[0] == b"2"


async def test_a_cancelled_call_is_withdrawn_and_its_late_result_skipped(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 3)
        calls = await stream.take(3)
        tasks[1].cancel()
        assert await stream.left() == [1]
        await stream.answer(calls)
        assert await asyncio.gather(*tasks, return_exceptions=True) == [b"0", ANY_CANCELLED, b"2"]


class _Cancelled:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, asyncio.CancelledError)

    __hash__ = None  # type: ignore[assignment]


ANY_CANCELLED = _Cancelled()


async def test_a_call_cancelled_before_it_was_sent_is_never_sent(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 3)
        await asyncio.sleep(0)
        tasks[1].cancel()
        calls = await stream.take(2)
        assert [call.request for call in calls] == [b"0", b"2"]
        await stream.answer(calls)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert stream.withdrawn == []


async def test_a_storm_of_cancellations_leaves_room_for_others(service: StreamService) -> None:
    async with sending(service, replace(LIMITS, calls=50, streams=1)) as sender:
        stream = await open_stream(sender, service)
        for round_ in range(20):
            tasks = start(sender, 50, first=50 * round_)
            await stream.take(50)
            for task in tasks:
                task.cancel()
            await stream.left(50 * (round_ + 1))
        last = start(sender, 50)
        await stream.answer(await stream.take(50))
        assert await asyncio.gather(*last) == numbers(0, 50)
        assert sorted(stream.withdrawn) == [*range(1000)]


async def test_a_silent_stream_ends_no_later_than_the_calls_own_deadline(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        short, long = start(sender, 1, seconds=0.05) + start(sender, 1, first=1)
        calls = await stream.take(2)
        assert 0 < calls[0].timeout_us <= 50_000 < calls[1].timeout_us
        with pytest.raises(DeadlineExceeded):
            await short
        assert await stream.left() == [0]
        await stream.answer(calls)
        assert await long == b"1"


async def test_a_stream_that_dies_leaves_its_calls_to_be_sent_again(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 500)
        calls = await stream.take(500)
        await stream.answer(calls[:100])
        await tasks[99]
        stream.end(Code.UNAVAILABLE, "upstream reset")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes[:100] == numbers(0, 100)
        assert {(type(error), str(error)) for error in outcomes[100:]} == {
            (Unavailable, "the stream of calls ended: upstream reset")
        }
        again = start(sender, 2)
        other = await next_stream(sender, service)
        assert await asyncio.gather(*again) == numbers(0, 2)  # which went alone meanwhile
        assert other is not stream


@pytest.mark.parametrize("code", [Code.OK, Code.INTERNAL, Code.UNKNOWN, Code.CANCELLED, Code.DEADLINE_EXCEEDED])
async def test_an_end_that_says_nothing_of_its_calls_is_one_to_try_again_after(
    service: StreamService, code: Code
) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 2)
        await stream.take(2)
        stream.end(code)
        assert {type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)} == {Unavailable}


@pytest.mark.parametrize(
    ("code", "kind"), [(Code.UNAUTHENTICATED, Unauthenticated), (Code.RESOURCE_EXHAUSTED, Overloaded)]
)
async def test_a_stream_that_is_refused_later_tells_each_of_its_calls(
    service: StreamService, code: Code, kind: type[Exception]
) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 3)
        await stream.take(3)
        stream.end(code, "the key was revoked")
        for task in tasks:
            with pytest.raises(kind, match="the key was revoked"):
                await task


async def test_a_draining_stream_answers_what_it_has_and_others_go_to_a_new_one(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        await stream.answer(await _taken(stream, sender))  # a stream that was of use
        old = start(sender, 5)
        calls = await stream.take(5)
        await stream.send(draining=True)
        await stream.half_closed.wait()
        service.gate.clear()
        new = start(sender, 3, first=5)
        other = await next_stream(sender, service)
        later = start(sender, 3, first=8)
        await other.answer(await other.take(3))
        assert await asyncio.gather(*later) == numbers(8, 3)
        await stream.answer(calls)
        assert await asyncio.gather(*old) == numbers(0, 5)
        service.gate.set()
        assert await asyncio.gather(*new) == numbers(5, 3)
        stream.end()
        await stream.gone.wait()


async def _taken(stream: ServedStream, sender: Sender) -> list[stream_pb2.CallItem]:
    start(sender, 1, first=1_000)
    return await stream.take()


async def test_streams_that_drain_at_once_are_not_asked_for_in_a_circle(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        await stream.send(draining=True)
        await stream.half_closed.wait()
        assert await asyncio.gather(*start(sender, 50)) == numbers(0, 50)
        assert (service.asked, len(service.unary)) == (1, 50)


async def test_a_service_that_does_not_read_is_sent_no_more_than_fits(service: StreamService) -> None:
    service.reads.clear()
    async with sending(service, replace(LIMITS, streams=2, calls=10)) as sender:
        service.gate.clear()
        pair = start(sender, 2)
        first = await next_stream(sender, service)
        tasks = start(sender, 30, first=2)
        second = await next_stream(sender, service)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(sender._pending) == 10
        service.reads.set()
        await first.answer(await first.take(10))
        await first.answer(await first.take(10))
        await second.answer(await second.take(10))
        assert await asyncio.gather(*tasks) == numbers(2, 30)
        assert (service.asked, service.waiting) == (2, 0)
        service.gate.set()
        await asyncio.gather(*pair)


async def test_ten_thousand_at_once(service: StreamService) -> None:
    service.echo = True
    service.gate.clear()
    async with sending(service) as sender:
        tasks = start(sender, 10_000)
        await next_stream(sender, service)
        service.gate.set()
        assert await asyncio.gather(*tasks) == numbers(0, 10_000)
    assert len(service.unary) == LIMITS.alone_while_opening
    assert service.asked <= LIMITS.streams


async def test_messages_have_a_bounded_size(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = [asyncio.create_task(sender(bytes(60_000), LONG)) for _ in range(40)]
        await stream.answer(await stream.take(40))
        await asyncio.gather(*tasks)
        assert [len(message) for message in stream.messages] == [17, 17, 6]


@pytest.mark.parametrize("code", [Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNAUTHENTICATED])
async def test_a_service_without_streams_is_called_one_by_one(
    service: StreamService, code: Code, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "log", Seldom(logging.getLogger("test")))  # which has said nothing yet
    service.refuses = code
    async with sending(service, replace(LIMITS, alone_while_opening=2)) as sender:
        for _ in range(3):
            assert await asyncio.gather(*start(sender, 20)) == numbers(0, 20)
    assert (service.asked, len(service.unary)) == (1, 60)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (code in {Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT})
    assert all("calls go one by one, and streams are tried again in 600 s" in line for line in lines)


async def test_a_service_that_is_silent_to_streams_is_called_one_by_one(service: StreamService) -> None:
    service.silent = True
    limits = replace(LIMITS, silence_seconds=0.05, silent_again_seconds=0.0)
    async with sending(service, limits) as sender:
        service.gate.clear()
        tasks = start(sender, 100)
        await service.came(100)  # more than may go alone while a stream is opened that nobody doubts
        service.gate.set()
        assert await asyncio.gather(*tasks) == numbers(0, 100)


async def test_a_service_that_has_streams_later_is_asked_again(service: StreamService) -> None:
    service.refuses = Code.UNIMPLEMENTED
    async with sending(service, replace(LIMITS, refused_again_seconds=0.0)) as sender:
        await asyncio.gather(*start(sender, 2))
        await until(lambda: sender._opening is None)  # refused: only then is it later
        service.refuses = 0
        await open_stream(sender, service)


async def test_an_old_stream_is_replaced_and_answers_what_it_has(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 1)
        calls = await stream.take()
        (old,) = sender._streams
        old._replace_at = 0.0
        old._look()
        tasks += start(sender, 1, first=1)
        calls += await stream.take()  # it carries calls until the other is open
        other = await next_stream(sender, service)
        await stream.half_closed.wait()
        tasks += start(sender, 1, first=2)
        await other.answer(await other.take())
        await stream.answer(calls)
        assert await asyncio.gather(*tasks) == numbers(0, 3)


async def test_an_old_stream_stays_where_no_other_can_be_opened(service: StreamService) -> None:
    async with sending(service, replace(LIMITS, again_seconds=0.0)) as sender:
        stream = await open_stream(sender, service)
        service.refuses = Code.UNAVAILABLE
        tasks = start(sender, 1)
        calls = await stream.take()
        (old,) = sender._streams
        old._replace_at = 0.0
        old._look()
        await sender._opening.task
        assert (sender._streams, service.asked) == ([old], 2)
        old._replace_at = old._used + LONG
        await stream.answer(calls)
        assert await tasks[0] == b"0"


async def test_an_idle_stream_is_ended(service: StreamService) -> None:
    async with sending(service, replace(LIMITS, idle_seconds=0.02)) as sender:
        stream = await open_stream(sender, service)
        await stream.half_closed.wait()
        stream.end()
        await stream.gone.wait()
        assert await sender(b"0", LONG) == b"0"
    assert (service.unary, service.asked) == ([b"0"], 1)


async def test_an_idle_stream_that_the_service_never_ends_is_left(service: StreamService) -> None:
    async with sending(service, replace(LIMITS, idle_seconds=0.02)) as sender:
        stream = await open_stream(sender, service)
        await stream.gone.wait()
        assert stream.half_closed.is_set()
        assert not sender.busy


async def test_without_streams_each_call_goes_alone(service: StreamService) -> None:
    async with sending(service, streams=False) as sender:
        assert await asyncio.gather(*start(sender, 100)) == numbers(0, 100)
    assert (len(service.unary), service.asked) == (100, 0)


async def test_with_streams_alone_not_even_a_single_call_goes_alone(service: StreamService) -> None:
    service.echo = True
    async with sending(service, streams=True) as sender:
        assert await sender(b"0", LONG) == b"0"
        assert await sender(b"1", LONG) == b"1"
    assert (service.unary, service.asked) == ([], 1)


async def test_closing_ends_what_waits(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 5)
        await stream.take(5)
        await sender.close()
        for task in tasks:
            with pytest.raises(Cancelled, match="closed"):
                await task
        await stream.gone.wait()
        assert not sender.busy


async def test_closing_with_grace_lets_a_stream_end(service: StreamService) -> None:
    async with sending(service) as sender:
        stream = await open_stream(sender, service)
        tasks = start(sender, 5)
        calls = await stream.take(5)
        closing = asyncio.create_task(sender.close(LONG))
        await stream.half_closed.wait()
        await stream.answer(calls)
        stream.end()
        await closing
        assert await asyncio.gather(*tasks) == numbers(0, 5)
