"""What of the Triton target needs no real one; ``tests/integration/test_profile_triton.py`` has that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.grpc import model_config_pb2

from shoal.engine.triton.shared_memory import DEVICE
from shoal.errors import ConfigurationError, Internal, NotFound, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from shoal.profile.triton_target import Asked, TritonTarget, with_instances
from support.fake_triton import FakeTriton, fake_triton
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    Alter = Callable[[Any], None]

BATCHING = BatchingSettings(max_batch_size=4, max_queue_delay_microseconds=100)
PICTURE_BYTES = 32 * 32 * 3


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[FakeTriton, str]]:
    add_tiny_classifier(tmp_path, "m", version=3, batching=BATCHING)
    async with fake_triton(tmp_path) as (fake, url):
        fake.load("m")
        yield fake, url


def there(fake: FakeTriton) -> list[str]:
    """The regions that still exist."""
    return [name for name in fake.offered if (DEVICE / name).exists()]


async def test_batches_go_through_shared_memory_which_is_let_go_of(served: tuple[FakeTriton, str]) -> None:
    fake, url = served
    async with (
        TritonTarget.open(Asked(url, "m", None, 3, parameters={"network": "a"}), print) as target,
        target.loaded(1) as model,
    ):
        assert (target.batches, target.instances, target.subject.version) == ([1, 4], 1, 3)
        assert target.subject.transport == "shared memory"
        assert len(fake.regions) == len(there(fake)) == 3
        await model.run(4)
        assert await model.executions() is None
    (sent,) = fake.requests
    assert list(sent.inputs[0].shape) == [4, 32, 32, 3]
    assert sent.inputs[0].parameters["shared_memory_byte_size"].int64_param == 4 * PICTURE_BYTES
    assert sent.parameters["network"].string_param == "a"
    assert not sent.raw_input_contents
    assert not fake.regions
    assert not there(fake)


async def test_memory_that_is_still_read_is_let_go_of_later(served: tuple[FakeTriton, str]) -> None:
    fake, url = served

    async def end_reading() -> None:
        await fake.refused.wait()
        fake.used.clear()

    async with asyncio.TaskGroup() as reading, TritonTarget.open(Asked(url, "m", (2,), 2), print):
        assert len(fake.regions) == 2
        fake.used = set(fake.regions)
        reading.create_task(end_reading())
    assert not fake.regions


async def test_a_server_that_shares_no_memory_gets_messages_and_that_is_said_once(
    served: tuple[FakeTriton, str],
) -> None:
    fake, url = served
    fake.shares = False
    said: list[str] = []
    async with TritonTarget.open(Asked(url, "m", (2,), 3), said.append) as target, target.loaded(1) as model:
        assert target.subject.transport == "messages"
        await model.run(2)
        assert fake.offered
        assert not there(fake)
    assert len(fake.requests[0].raw_input_contents[0]) == 2 * PICTURE_BYTES
    assert len(said) == 1
    assert "shared memory from clients is disabled" in said[0]


async def test_a_server_that_is_not_to_be_steered_is_profiled_as_it_is(served: tuple[FakeTriton, str]) -> None:
    fake, url = served
    fake.steered = False
    said: list[str] = []
    async with TritonTarget.open(Asked(url, "m", (2,), 1, steer=True), said.append) as target:
        assert target.possible((1, 2)) == (1,)
    assert "so what is loaded is profiled: 1 for m" in said[0]


async def test_a_model_that_answers_with_nothing_is_not_measured(served: tuple[FakeTriton, str]) -> None:
    fake, url = served
    fake.answers = False
    async with TritonTarget.open(Asked(url, "m", (2,), 1), print) as target, target.loaded(1) as model:
        with pytest.raises(Internal, match="an output came back empty"):
            await model.run(2)


def no_input(config: Any) -> None:
    del config.input[:]


def open_shape(config: Any) -> None:
    config.input[0].dims[0] = -1


def of_strings(config: Any) -> None:
    config.input[0].data_type = model_config_pb2.TYPE_STRING


def of_singles(config: Any) -> None:
    config.max_batch_size = 1


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (no_input, "names no input"),
        (open_shape, r"input 'image' has no fixed shape, \[-1, 32, 3\]; write input.dims"),
        (of_strings, "'image' is TYPE_STRING"),
        (of_singles, "--batch 2: max_batch_size of model 'm' is 1 at Triton"),
    ],
)
async def test_what_can_not_be_profiled_is_named(served: tuple[FakeTriton, str], alter: Alter, message: str) -> None:
    fake, url = served
    alter(fake.models["m"].config)
    with pytest.raises(ConfigurationError, match=message):
        async with TritonTarget.open(Asked(url, "m", (2,), 1), print):
            pass


async def test_an_unknown_model_and_no_server_are_told_apart(served: tuple[FakeTriton, str]) -> None:
    with pytest.raises(NotFound, match=r"'n' is not in the repository .*; there: m"):
        async with TritonTarget.open(Asked(served[1], "n", None, 1), print):
            pass
    with pytest.raises(Unavailable, match=r"no Triton answers at 127\.0\.0\.1:1"):
        async with TritonTarget.open(Asked("127.0.0.1:1", "m", None, 1), print):
            pass


def configured() -> Any:
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=4)
    config.instance_group.add(count=1)
    config.dynamic_batching.max_queue_delay_microseconds = 100
    return config


def test_other_instances_come_without_a_batcher_of_tritons() -> None:
    changed = with_instances(configured(), 3)
    assert changed.instance_group[0].count == 3
    assert changed.WhichOneof("scheduling_choice") is None


def test_several_groups_or_gpus_are_left_to_their_owner() -> None:
    for gpus in ([], [0, 1]):
        config = configured()
        config.instance_group.add(count=1, gpus=gpus)
        with pytest.raises(ConfigurationError, match="in several groups or on several GPUs"):
            with_instances(config, 2)
