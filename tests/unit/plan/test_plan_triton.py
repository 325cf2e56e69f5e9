"""What of the Triton target needs no server; ``tests/integration/test_profile_triton.py`` has a real one."""

# ruff: noqa: N802 - the protocol's names

from __future__ import annotations

from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as v2

from shoal.engine.shared_memory import DEVICE
from shoal.errors import ConfigurationError, Internal, NotFound, Unavailable
from shoal.plan.triton import Asked, TritonTarget, with_instances

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Alter = Callable[[Any], None]


def configured() -> Any:
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=4)
    config.input.add(name="image", data_type=model_config_pb2.TYPE_UINT8, dims=[2, 2, 3])
    config.output.add(name="out", data_type=model_config_pb2.TYPE_FP32, dims=[1])
    config.instance_group.add(count=1)
    config.dynamic_batching.max_queue_delay_microseconds = 100
    return config


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as Triton does, without a model."""

    def __init__(self) -> None:
        self.config = configured()
        self.shares = True
        self.content = b"\0" * 4
        self.inferred: list[Any] = []
        self.registered: set[str] = set()
        self.busy = 0
        """So many times memory is still being read when it is to be unregistered."""
        self.offered: list[str] = []
        """Every region that came to be registered."""

    def ServerLive(self, request: Any, context: Any) -> Any:
        return v2.ServerLiveResponse(live=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return v2.ServerMetadataResponse(version="2.0")

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        row = v2.RepositoryIndexResponse.ModelIndex(name="m", version="3", state="READY")
        return v2.RepositoryIndexResponse(models=[row])

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled")

    def ModelConfig(self, request: Any, context: Any) -> Any:
        return v2.ModelConfigResponse(config=self.config)

    def ModelStatistics(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "built without statistics")

    def there(self) -> list[str]:
        """The regions that still exist."""
        return [name for name in self.offered if (DEVICE / name).exists()]

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        self.offered.append(request.name)
        if not self.shares:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "shared memory is off")
        self.registered.add(request.name)
        return v2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        return v2.SystemSharedMemoryStatusResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        if self.busy:
            self.busy -= 1
            context.abort(grpc.StatusCode.INTERNAL, f"Cannot unregister '{request.name}', it is currently in use.")
        self.registered.discard(request.name)
        return v2.SystemSharedMemoryUnregisterResponse()

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self.inferred.append(request)
        return v2.ModelInferResponse(raw_output_contents=[self.content])


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    made, running = Server(), grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(made, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield made, f"127.0.0.1:{port}"
    running.stop(None).wait()


async def test_batches_go_through_shared_memory_which_is_let_go_of(server: tuple[Server, str]) -> None:
    triton, url = server
    async with (
        TritonTarget.open(Asked(url, "m", None, 3, parameters={"network": "a"}), print) as target,
        target.loaded(1) as model,
    ):
        assert (target.batches, target.instances, target.subject.version) == ([1, 4], 1, 3)
        assert target.subject.transport == "shared memory"
        assert len(triton.registered) == len(triton.there()) == 3
        await model.run(4)
        assert await model.executions() is None
    (sent,) = triton.inferred
    assert list(sent.inputs[0].shape) == [4, 2, 2, 3]
    assert sent.inputs[0].parameters["shared_memory_byte_size"].int64_param == 48
    assert sent.parameters["network"].string_param == "a"
    assert not sent.raw_input_contents
    assert not triton.registered
    assert not triton.there()


async def test_memory_that_is_still_read_is_let_go_of_later(server: tuple[Server, str]) -> None:
    triton, url = server
    triton.busy = 3
    async with TritonTarget.open(Asked(url, "m", (2,), 2), print):
        assert len(triton.registered) == 2
    assert not triton.registered
    assert triton.busy == 0


async def test_a_server_that_shares_no_memory_gets_messages_and_that_is_said_once(server: tuple[Server, str]) -> None:
    triton, url = server
    triton.shares = False
    said: list[str] = []
    async with TritonTarget.open(Asked(url, "m", (2,), 3), said.append) as target, target.loaded(1) as model:
        assert target.subject.transport == "messages"
        await model.run(2)
        assert triton.offered
        assert not triton.there()
    assert len(triton.inferred[0].raw_input_contents[0]) == 24
    assert len(said) == 1
    assert "shared memory is off" in said[0]


async def test_a_server_that_is_not_to_be_steered_is_profiled_as_it_is(server: tuple[Server, str]) -> None:
    said: list[str] = []
    async with TritonTarget.open(Asked(server[1], "m", (2,), 1, steer=True), said.append) as target:
        assert target.possible((1, 2)) == (1,)
    assert "so what is loaded is profiled: 1 for m" in said[0]


async def test_a_model_that_answers_with_nothing_is_not_measured(server: tuple[Server, str]) -> None:
    server[0].content = b""
    async with TritonTarget.open(Asked(server[1], "m", (2,), 1), print) as target, target.loaded(1) as model:
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
        (open_shape, r"input 'image' has no fixed shape, \[-1, 2, 3\]; write input.dims"),
        (of_strings, "'image' is TYPE_STRING"),
        (of_singles, "--batch 2: max_batch_size of model 'm' is 1 at Triton"),
    ],
)
async def test_what_can_not_be_profiled_is_named(server: tuple[Server, str], alter: Alter, message: str) -> None:
    alter(server[0].config)
    with pytest.raises(ConfigurationError, match=message):
        async with TritonTarget.open(Asked(server[1], "m", (2,), 1), print):
            pass


async def test_an_unknown_model_and_no_server_are_told_apart(server: tuple[Server, str]) -> None:
    with pytest.raises(NotFound, match=r"'n' is not in the repository .*; there: m"):
        async with TritonTarget.open(Asked(server[1], "n", None, 1), print):
            pass
    with pytest.raises(Unavailable, match=r"no Triton answers at 127\.0\.0\.1:1"):
        async with TritonTarget.open(Asked("127.0.0.1:1", "m", None, 1), print):
            pass


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
