from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batcher import envoy_door
from shoal.batcher.core import Batcher, Orders, open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.errors import InvalidRequest, NotFound, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from shoal.service.api_keys import Key
from shoal.service.identity import HEADER, Identity
from support.scripted_batches import ScriptedHandler, scripted_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


METHOD = "/shoal.v1.Inference/Classify"
HEADERS = {"x-model-name": "m"}


async def test_a_draining_batcher_answers_what_it_has_and_refuses_what_comes() -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker:
        batcher = Batcher(Dispatcher(open_channel(worker.target), "test"))
        healthy = batcher.health
        call = asyncio.ensure_future(batcher.call(METHOD, HEADERS, b"x", 5.0))
        await handler.arrived.get()
        batcher.drain()
        assert batcher.health != healthy
        with pytest.raises(Unavailable):
            await batcher.call(METHOD, HEADERS, b"y", 5.0)
        handler.go.set()
        assert await call == b"x"
        await batcher.dispatcher.close()


def test_orders_travel_through_the_environment() -> None:
    orders = Orders("b", "ipv4:1.2.3.4:5", workers=True, models=("m", "n"), max_message_bytes=7, metrics="[::1]:9")
    assert Orders.read(orders.write()) == orders
    assert Orders.read(Orders("b", "t", log_level="debug").write()).log_level == "debug"


def test_the_log_level_reaches_the_batcher_inside_envoy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Orders("b", "t", log_level="error").write().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(envoy_door, "make_batcher", lambda: None)
    monkeypatch.setattr(logging.getLogger("shoal"), "level", logging.INFO)
    envoy_door._make()
    assert logging.getLogger("shoal").level == logging.ERROR


@contextlib.asynccontextmanager
async def batcher(target: str, **options: Any) -> AsyncIterator[Batcher]:
    made = Batcher(Dispatcher(open_channel(target), "test"), **options)
    try:
        yield made
    finally:
        await made.dispatcher.close()


async def test_who_names_no_model_means_the_first() -> None:
    handlers = {"m": ScriptedHandler(), "n": ScriptedHandler()}
    for handler in handlers.values():
        handler.go.set()
    async with scripted_worker(handlers) as worker, batcher(worker.target, models=("m", "n")) as made:
        await made.call(METHOD, {}, b"x", 5.0)
        await made.call(METHOD, {"x-model-name": "n"}, b"y", 5.0)
        with pytest.raises(NotFound, match="no model 'o'"):
            await made.call(METHOD, {"x-model-name": "o"}, b"z", 5.0)
    requests = {name: [item.request for batch in h.batches for item in batch] for name, h in handlers.items()}
    assert requests == {"m": [b"x"], "n": [b"y"]}


async def test_a_unary_call_names_what_it_has_in_common_with_others_and_too_long_a_name_is_none(
    affinities: list[str],
) -> None:
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, batcher(worker.target) as made:
        for named in ({"x-shoal-affinity": "cat"}, {"x-shoal-affinity": "c" * 64}, {"x-shoal-affinity": "c" * 65}, {}):
            await made.call(METHOD, HEADERS | named, b"x", 5.0)
    assert affinities == ["cat", "c" * 64, "", ""]


async def test_a_message_has_a_bound() -> None:
    async with scripted_worker({}) as worker, batcher(worker.target, models=("m",), max_message_bytes=3) as made:
        with pytest.raises(InvalidRequest, match="larger than 3 bytes"):
            await made.call(METHOD, {}, b"1234", 5.0)


VALID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (VALID, VALID),
        (VALID.upper(), ""),
        (VALID + "-extra", ""),
        (VALID[:-1], ""),
        (VALID + "\n", ""),
        (VALID.replace("00-", "ff-", 1), ""),
        ("00-" + "0" * 32 + VALID[35:], ""),
        ("a" * 15_000, ""),
        ("é" * 55, ""),
        ("", ""),
    ],
)
async def test_what_is_no_trace_context_is_dropped_at_the_door(sent: str, told: str) -> None:
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, batcher(worker.target) as made:
        assert await made.call(METHOD, HEADERS | {"traceparent": sent}, b"x", 5.0) == b"x"
    assert handler.batches[0][0].traceparent == told


async def test_an_owner_has_a_bound() -> None:
    async with scripted_worker({}) as worker, batcher(worker.target) as made:
        with pytest.raises(InvalidRequest, match="x-client-id"):
            await made.call(METHOD, HEADERS | {"x-client-id": "x" * 2000}, b"x", 5.0)


async def test_all_that_is_remembered_is_counted() -> None:
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker:
        dispatcher = Dispatcher(open_channel(worker.target), "test", 100)
        made = Batcher(dispatcher)
        await made.call(METHOD, HEADERS | {"x-client-id": "o" * 1000, "traceparent": VALID}, b"x" * 500, 5.0)
        assert dispatcher.recent._bytes == 500 + 1000 + len(VALID) + len(METHOD) + len("m")
        await dispatcher.close()


ALICE, ALICES_OTHER, BOB = (
    Key(id=key_id, key=key_id * 8, owner=owner)
    for key_id, owner in (("key-1", "alice"), ("key-2", "alice"), ("key-3", "bob"))
)


def headers_of(key: Key) -> dict[str, str]:
    return HEADERS | {"x-client-id": key.id, HEADER: Identity.of(key).write()}


async def test_keys_of_one_owner_share_and_travel_under_their_own_ids() -> None:
    handler = ScriptedHandler(BatchingSettings(max_batch_size=1))
    async with scripted_worker({"m": handler}) as worker, batcher(worker.target) as made:
        first = [asyncio.ensure_future(made.call(METHOD, headers_of(ALICE), b"first", 5.0)) for _ in range(3)]
        for _ in range(2):
            await handler.arrived.get()
        waiting = [ALICES_OTHER, ALICE, ALICES_OTHER, BOB]
        calls = [asyncio.ensure_future(made.call(METHOD, headers_of(key), key.id.encode(), 5.0)) for key in waiting]
        await asyncio.sleep(0)
        handler.go.set()
        await asyncio.gather(*first, *calls)
    items = [item for batch in handler.batches for item in batch]
    turns = [item.request.decode() for item in items if item.request != b"first"]
    assert turns.index("key-3") <= 1, turns
    for item in items:
        key = {key.id: key for key in (ALICE, ALICES_OTHER, BOB)}[item.owner]
        assert Identity.parse(item.identity) == Identity.of(key)


async def test_what_no_router_verified_is_an_owner_as_it_stands() -> None:
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, batcher(worker.target) as made:
        for client, text in (("key-1", ""), ("somebody?v=0", "a-secret-of-some-length"), ("", "key-1?v=2")):
            await made.call(METHOD, HEADERS | {"x-client-id": client, HEADER: text}, b"x", 5.0)
    items = [item for batch in handler.batches for item in batch]
    assert [(item.owner, item.identity) for item in items] == [("key-1", ""), ("somebody?v=0", ""), ("", "")]


async def test_no_record_of_a_request_shows_what_the_router_verified() -> None:
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker:
        made = Batcher(Dispatcher(open_channel(worker.target), "test", remembered=10))
        await made.call(METHOD, headers_of(ALICE), b"x", 5.0)
        (request,) = made.dispatcher.recent.newest_first()
        await made.dispatcher.close()
    assert request.view(request.ended).key_id == "key-1"
    shown = repr(request) + request.view(request.ended).model_dump_json()
    assert Identity.of(ALICE).digest not in shown
