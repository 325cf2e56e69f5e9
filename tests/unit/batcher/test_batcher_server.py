from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batcher import asgi
from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.server import Batcher, Orders, open_channel
from shoal.errors import InvalidRequest, NotFound, Unavailable
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
    monkeypatch.setattr(asgi, "make_batcher", lambda: None)
    monkeypatch.setattr(logging.getLogger("shoal"), "level", logging.INFO)
    asgi._make()
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
