from __future__ import annotations

import asyncio

import pytest

from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.server import Batcher, open_channel
from shoal.errors import Unavailable
from support.scripted_batches import ScriptedHandler, scripted_worker

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
