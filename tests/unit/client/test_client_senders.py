from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from shoal.client.caller import KeyCaller
from shoal.client.channel import InferenceMethod, open_channel
from shoal.client.senders import Senders
from shoal.runtime.priority import Priority
from shoal.v1 import inference_pb2 as pb
from support.stream_service import StreamService, serving_streams

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Classify = InferenceMethod[pb.ClassifyReply]

KEY = KeyCaller("secret")


@pytest.fixture
async def service() -> AsyncIterator[StreamService]:
    async with serving_streams() as running:
        yield running


@pytest.fixture
async def classify(service: StreamService) -> AsyncIterator[Classify]:
    channel = open_channel(service.target, None)
    yield InferenceMethod(channel, "Classify", pb.ClassifyReply)
    await channel.close()


async def test_caller_model_and_priority_have_a_sender_each(classify: Classify) -> None:
    senders = Senders(time.monotonic)
    interactive, bulk = Priority
    first = senders.of(KEY, classify, "cats", interactive)
    assert senders.of(KEY, classify, "cats", interactive) is first
    assert senders.of(KEY, classify, "dogs", interactive) is not first
    assert senders.of(KEY, classify, "cats", bulk) is not first
    assert senders.of(KeyCaller("another"), classify, "cats", interactive) is not first
    await senders.close(0)


async def test_calls_carry_model_key_and_a_priority_that_is_not_the_usual_one(
    service: StreamService, classify: Classify
) -> None:
    senders = Senders(time.monotonic)
    for priority in Priority:
        await senders.of(KEY, classify, "cats", priority)(b"", 60)
    assert senders.sent == {"alone": 2, "by_stream": 0}
    await senders.close(0)
    told = [{name: value for name, value in one.items() if name.startswith("x-")} for one in service.unary_metadata]
    usual = {"x-model-name": "cats", "x-api-key": "secret"}
    assert told == [usual, usual | {"x-priority": "bulk"}]


async def test_whoever_names_many_models_fills_no_memory(service: StreamService, classify: Classify) -> None:
    senders = Senders(time.monotonic)
    service.gate.clear()
    busy = asyncio.create_task(senders.of(KEY, classify, "busy", Priority.BULK)(b"", 60))
    await service.came(1)
    kept = senders.of(KEY, classify, "busy", Priority.BULK)
    for number in range(1000):
        senders.of(KEY, classify, f"none-{number}", Priority.BULK)
        assert len(senders._made) <= 65
    assert senders.sent == {"alone": 1, "by_stream": 0}
    assert senders.of(KEY, classify, "busy", Priority.BULK) is kept
    service.gate.set()
    await busy
    await senders.close(0)
