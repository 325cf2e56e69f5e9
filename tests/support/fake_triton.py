"""A small server of the v2 gRPC protocol over a model store: it runs the ONNX files with OpenVINO, and fails when told.

Contract: ``support.engine_contract``, which the real one is held to as well.
"""

# ruff: noqa: N802 - the protocol's names

from __future__ import annotations

import asyncio
import mmap
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import numpy as np
import openvino
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as v2

from shoal.engine.triton.shared_memory import DEVICE
from shoal.modelstore.versions import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_NUMPY = {"UINT8": np.uint8, "FP32": np.float32}
_NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"
_PROTOCOL = {np.dtype(np.float32): "FP32"}


class Running(NamedTuple):
    config: Any
    versions: tuple[int, ...]
    run: openvino.CompiledModel
    """The highest one."""


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """What a Triton knows; ``forget`` makes it one that was just started."""

    repository: Path
    shares: bool = True
    """Whether clients may register memory."""
    steered: bool = True
    """Whether models may be loaded."""
    unknown: grpc.StatusCode = grpc.StatusCode.NOT_FOUND
    """What a model that isn't ready comes with; while it loads or unloads, a Triton says UNAVAILABLE."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Unset: inferences wait for it."""
    troubles: deque[tuple[grpc.StatusCode, str]] = field(default_factory=deque)
    """What the next inferences end with, one each."""
    index_troubles: deque[tuple[grpc.StatusCode, str]] = field(default_factory=deque)
    """What the next questions for the models end with, one each."""
    foreign: dict[str, Any] = field(default_factory=dict)
    """Models of somebody else, which are ready and aren't in the repository: name to configuration, or None."""
    foreign_version: str = "1"
    """Of all of them."""
    classification: list[bytes] | None = None
    """What it answers whoever asks for classes; None: those that there are."""
    answers: bool = True
    """False: outputs come back with nothing in them."""
    requests: list[Any] = field(default_factory=list)
    """Every inference that came."""
    models: dict[str, Running] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    """Every model that it was told to load, each time."""
    refuses: dict[str, str] = field(default_factory=dict)
    """Models that it won't load, and why."""
    failed: dict[str, str] = field(default_factory=dict)
    """Models that couldn't be loaded, and why."""
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    offered: list[str] = field(default_factory=list)
    """Every region that came to be registered."""
    used: set[str] = field(default_factory=set)
    """Regions that a request still uses whose caller is gone."""
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it kept one of them."""

    def __post_init__(self) -> None:
        self.go.set()

    def forget(self) -> None:
        self.models.clear()
        self.regions.clear()

    def load(self, name: str, config: Any = None) -> None:
        folder = self.repository / name
        message = config or text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        present = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        versions = tuple(served(message.version_policy, present))
        compiled = openvino.Core().compile_model(folder / str(versions[-1]) / "model.onnx", "CPU")
        self.models[name] = Running(message, versions, compiled)

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return v2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return v2.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return v2.ServerMetadataResponse(version="2.0")

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "built without statistics")

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        if self.index_troubles:
            await context.abort(*self.index_troubles.popleft())
        answer = v2.RepositoryIndexResponse()
        for name in self.foreign:
            answer.models.add(name=name, version=self.foreign_version, state="READY")
        for folder in self.repository.iterdir():
            if reason := self.failed.get(folder.name):
                answer.models.add(name=folder.name, version="1", state="UNAVAILABLE", reason=reason)
            elif running := self.models.get(folder.name):
                for version in running.versions:
                    answer.models.add(name=folder.name, version=str(version), state="READY")
            else:
                answer.models.add(name=folder.name)
        return answer

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        await self._may_steer(context)
        self.loads.append(request.model_name)
        if reason := self.refuses.get(request.model_name):
            await context.abort(grpc.StatusCode.INTERNAL, f"failed to load '{request.model_name}': {reason}")
        text = request.parameters["config"].string_param
        try:
            self.load(request.model_name, json_format.Parse(text, model_config_pb2.ModelConfig()) if text else None)
        except (OSError, IndexError, RuntimeError) as error:
            await context.abort(grpc.StatusCode.INTERNAL, f"failed to load '{request.model_name}': {error}")
        return v2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        await self._may_steer(context)
        self.models.pop(request.model_name, None)
        return v2.RepositoryModelUnloadResponse()

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        if name := next((name for name in self.foreign if name == request.name), None):
            if self.foreign[name] is None:
                await context.abort(grpc.StatusCode.UNKNOWN, "\N{SNOWMAN}")
            return v2.ModelConfigResponse(config=self.foreign[name])
        return v2.ModelConfigResponse(config=(await self._find(request.name, context)).config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.troubles:
            await context.abort(*self.troubles.popleft())
        model = await self._find(request.model_name, context)
        await self.go.wait()
        (tensor,) = request.inputs
        rows = await self._content(tensor, request, context)
        if tensor.shape[0] > model.config.max_batch_size:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the batch is too large")
        answer = v2.ModelInferResponse(model_name=request.model_name, model_version=str(model.versions[-1]))
        outputs = model.run(np.frombuffer(rows, _NUMPY[tensor.datatype]).reshape(tensor.shape))
        for wanted in request.outputs:
            self._add(answer, model, wanted, np.ascontiguousarray(outputs[wanted.name]))
        return answer

    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        self.offered.append(request.name)
        if not self.shares:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "shared memory from clients is disabled")
        if request.name in self.regions:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"shared memory region '{request.name}' already there")
        self.regions[request.name] = _mapped(DEVICE / request.key.lstrip("/"), request.byte_size)
        return v2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        if request.name in self.used:
            self.refused.set()
            await context.abort(
                grpc.StatusCode.INTERNAL, f"Cannot unregister '{request.name}', it is currently in use."
            )
        self.regions.pop(request.name, None)
        return v2.SystemSharedMemoryUnregisterResponse()

    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        answer = v2.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            answer.regions[name].name = name
        return answer

    async def _may_steer(self, context: Any) -> None:
        if not self.steered:
            await context.abort(grpc.StatusCode.UNAVAILABLE, _NOT_EXPLICIT)

    async def _find(self, name: str, context: Any) -> Running:
        if name not in self.models:
            await context.abort(self.unknown, f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    async def _content(self, tensor: Any, request: Any, context: Any) -> bytes:
        name = tensor.parameters["shared_memory_region"].string_param
        if not name:
            return bytes(request.raw_input_contents[0])
        if name not in self.regions:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        return self.regions[name][: tensor.parameters["shared_memory_byte_size"].int64_param].tobytes()

    def _add(self, answer: Any, model: Running, wanted: Any, value: np.ndarray) -> None:
        if wanted.parameters["classification"].int64_param:
            answer.outputs.add(name=wanted.name, datatype="BYTES", shape=value.shape)
            told = [self._classes(model, value)] if self.classification is None else self.classification
            answer.raw_output_contents.extend(told)
            return
        answer.outputs.add(name=wanted.name, datatype=_PROTOCOL[value.dtype], shape=value.shape)
        content = value.tobytes() if self.answers else b""
        if name := wanted.parameters["shared_memory_region"].string_param:
            self.regions[name][: len(content)] = np.frombuffer(content, np.uint8)
            content = b""
        answer.raw_output_contents.append(content)

    def _classes(self, model: Running, value: np.ndarray) -> bytes:
        """The classification extension's ``value:index[:label]``, best first."""
        folder = self.repository / model.config.name
        labels = (folder / "labels.txt").read_text().splitlines()
        values = value.ravel()
        rows = [
            ":".join([f"{values[index]:f}", str(index), *labels[index : index + 1]]).encode()
            for index in np.argsort(-values)
        ]
        return b"".join(len(row).to_bytes(4, "little") + row for row in rows)


def _mapped(path: Path, size: int) -> np.ndarray:
    with path.open("r+b") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)


@asynccontextmanager
async def fake_triton(repository: Path, port: int = 0) -> AsyncIterator[tuple[FakeTriton, str]]:
    """A fake over ``repository`` on a free port, and its ``HOST:PORT``."""
    fake = FakeTriton(repository)
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield fake, f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)
