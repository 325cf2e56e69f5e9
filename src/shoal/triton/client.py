"""The v2 gRPC protocol of one server, and the control API that comes with it.

``load`` and ``unload`` steer what an ``explicit`` server has; ``index`` and ``config`` say what that is; ``infer``,
``register`` and ``unregister`` are for the engine. The protocol:
https://github.com/kserve/open-inference-protocol and Triton's extensions to it,
https://github.com/triton-inference-server/server/tree/main/docs/protocol.
"""

from __future__ import annotations

import asyncio
import math
import struct
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

import grpc
from tritonclient.grpc import service_pb2 as v2
from tritonclient.grpc import service_pb2_grpc

from shoal.errors import ConfigurationError, NotFound, Unavailable
from shoal.modelconfig import encoded, pbtxt
from shoal.runtime import rpc

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from shoal.errors import ShoalError

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A restarted server is found at once: its start takes a second or two, the usual back-off grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # What one attempt to connect may take, whatever its name: on a busy machine a server greets late.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_ANSWER_SECONDS: Final = 5.0
"""What a server that is there may take for anything but loading and inference."""
_LOAD_SECONDS: Final = 600.0
_UNREGISTER_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
_MOST_LABELS: Final = 100_000
AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""The codes of a server that is away. A few refusals come with them too, and are told by their texts."""
_UNKNOWN: Final = "unknown model"
_IN_USE: Final = "in use"
_NOT_ALLOWED: Final = "is not allowed"
"""In the answer of a server that polls its repository, or loads all of it at its start."""


class Away(Unavailable):
    """The server doesn't answer. The text has its address, for whoever runs it."""


class NotSteered(ConfigurationError):
    """The server loads and unloads nothing on demand: its control mode is ``none`` or ``poll``."""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """One version of a model, as the server's index has it."""

    version: int
    """0: none was ever loaded."""
    state: str
    """``READY``, ``UNAVAILABLE``, ``LOADING``, ``UNLOADING``; empty where it was never loaded."""
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self.state == "READY"


class TritonClient:
    """Calls one server, which needn't be there yet. Belongs to the running event loop.

    Every method raises Away where the server is away. What it refuses is a ConfigurationError with its reason.
    """

    def __init__(self, url: str) -> None:
        """``url``: ``HOST:PORT``."""
        self.url = url
        rpc.keep_queue()
        self._channel = grpc.aio.insecure_channel(url, options=_OPTIONS)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def live(self) -> bool:
        """Whether the server answers."""
        try:
            return bool((await rpc.answered(self._stub.ServerLive(v2.ServerLiveRequest(), timeout=1.0))).live)
        except grpc.aio.AioRpcError:
            return False

    async def until_ready(self) -> None:
        """Waits for the server; one that loads at its start all that it has is ready after that."""
        while True:
            try:
                if (await rpc.answered(self._stub.ServerReady(v2.ServerReadyRequest(), timeout=1.0))).ready:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(_POLL_SECONDS)

    async def index(self) -> Mapping[str, Sequence[LoadedVersion]]:
        """Every model of its repository, with the versions that were loaded at some time."""
        answer = await self._ask(self._stub.RepositoryIndex, v2.RepositoryIndexRequest(), "list its models")
        models: dict[str, list[LoadedVersion]] = {}
        for row in answer.models:
            version = int(row.version) if row.version.isdecimal() else 0
            models.setdefault(row.name, []).append(LoadedVersion(version, row.state, row.reason))
        return models

    async def versions(self) -> Mapping[str, int]:
        """The models of its repository: name to the highest version that is ready, 0 for none."""
        return {
            name: max((one.version for one in versions if one.ready), default=0)
            for name, versions in (await self.index()).items()
        }

    async def load(self, model: str, config: str = "") -> None:
        """Loads what the repository holds of a model now; returns once it is ready, and what it replaces goes.

        Args:
            model: Its name in the repository.
            config: JSON of an ``inference.ModelConfig`` to take in place of its config.pbtxt.

        Raises:
            ConfigurationError: it can't be loaded; the server's reason is in the text. What was loaded stays.
            NotSteered: the server loads nothing on demand.
        """
        request = v2.RepositoryModelLoadRequest(model_name=model)
        if config:
            request.parameters["config"].string_param = config
        await self._ask(self._stub.RepositoryModelLoad, request, f"load {model}", _LOAD_SECONDS)

    async def unload(self, model: str) -> None:
        """Unloads all versions of a model, and of an ensemble its steps; what runs is finished. Raises as ``load``."""
        request = v2.RepositoryModelUnloadRequest(model_name=model)
        request.parameters["unload_dependents"].bool_param = True
        await self._ask(self._stub.RepositoryModelUnload, request, f"unload {model}", _LOAD_SECONDS)

    async def config(self, model: str) -> Any:  # tritonclient ships no types
        """The ``inference.ModelConfig`` message that a model runs with.

        Raises:
            NotFound: it isn't ready.
        """
        request = v2.ModelConfigRequest(name=model)
        return (await self._ask(self._stub.ModelConfig, request, f"tell the configuration of {model}")).config

    async def labels(self, model: str, config: Any) -> tuple[str, ...]:  # a protobuf message
        """The labels of the first output that has a label file; none where its size varies.

        Label files don't come with a configuration, but a server that is asked for classes answers with their labels
        (the classification extension): so this runs one black picture and asks for every class.

        Raises:
            ConfigurationError: the server doesn't tell them.
        """
        output = next((each for each in config.output if each.label_filename), None)
        if output is None or len(pictures := encoded.pictures(config)) != 1:
            return ()
        if min(output.dims, default=0) < 1 or math.prod(output.dims) > _MOST_LABELS:
            return ()
        (picture,) = pictures
        batch = [1] if config.max_batch_size else []
        request = v2.ModelInferRequest(model_name=model)
        request.inputs.add(name=picture.name, datatype=pbtxt.datatype(picture), shape=[*batch, *picture.dims])
        request.raw_input_contents.append(bytes(pbtxt.bytes_of(picture)))
        request.outputs.add(name=output.name).parameters["classification"].int64_param = math.prod(output.dims)
        answer = await self._ask(self._stub.ModelInfer, request, f"run {model}", _LOAD_SECONDS)
        try:
            return _labels(answer.raw_output_contents[0])
        except (IndexError, ValueError, struct.error) as error:
            raise ConfigurationError(f"the labels of {model} at the Triton at {self.url} make no sense") from error

    async def version(self) -> str:
        """What the server calls its version, such as ``2.51.0``."""
        return str((await self._ask(self._stub.ServerMetadata, v2.ServerMetadataRequest(), "tell its version")).version)

    async def executions(self, model: str, version: int) -> tuple[int, int]:
        """Executions of a model's version since it was loaded, and images in them.

        Raises:
            ConfigurationError: the server doesn't count.
        """
        request = v2.ModelStatisticsRequest(name=model, version=str(version))
        rows = (await self._ask(self._stub.ModelStatistics, request, f"count what {model} does")).model_stats
        if len(rows) != 1:
            raise ConfigurationError(f"the Triton at {self.url} has {len(rows)} counts of {model} version {version}")
        return rows[0].execution_count, rows[0].inference_count

    async def infer(self, request: Any) -> Any:  # protobuf messages
        """Sends a ``ModelInferRequest``. Raises grpc's own error: only the caller knows what is to be done."""
        return await rpc.answered(self._stub.ModelInfer(request))

    async def register(self, name: str, size: int) -> None:
        """Makes the POSIX shared memory ``name`` known, ``size`` bytes from its begin.

        Raises:
            ConfigurationError: the server can't or won't use it.
        """
        request = v2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=size)
        try:
            await self._ask(self._stub.SystemSharedMemoryRegister, request, "use shared memory")
        except ConfigurationError:
            if name not in await self.registered():  # its answer to an earlier try was lost
                raise

    async def unregister(self, names: Collection[str], seconds: float = _UNREGISTER_SECONDS) -> Collection[str]:
        """Makes the server let go of shared memory, which its maker may have unlinked; of unknown one too.

        It refuses while a request uses the memory, as one does whose caller is gone; so it is asked again for
        ``seconds``. A server that is away has forgotten.

        Returns:
            What it still has. That memory isn't freed before the server lets go of it, or ends.
        """
        until = monotonic() + seconds
        while names := [name for name in names if not await self._try_unregister(name)]:
            if monotonic() >= until:
                break
            await asyncio.sleep(_POLL_SECONDS)
        return names

    async def registered(self) -> set[str]:
        """The names of the shared memory that the server knows."""
        request = v2.SystemSharedMemoryStatusRequest()
        answer = await self._ask(self._stub.SystemSharedMemoryStatus, request, "list shared memory")
        return set(answer.regions)

    async def _try_unregister(self, name: str) -> bool:
        request = v2.SystemSharedMemoryUnregisterRequest(name=name)
        try:
            await self._ask(self._stub.SystemSharedMemoryUnregister, request, "let go of shared memory")
        except ConfigurationError as error:
            return _IN_USE not in str(error)
        except Away:
            pass  # it is gone, and with it what it knew
        return True

    def away(self, error: grpc.aio.AioRpcError) -> Away:
        """What to raise where ``error`` says that the server is away."""
        return Away(f"the Triton at {self.url} is away ({error.code().name}); try again")

    async def close(self) -> None:
        """Ends all calls."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, method: Any, request: Any, work: str, seconds: float = _ANSWER_SECONDS) -> Any:
        try:
            return await rpc.answered(method(request, timeout=seconds))
        except grpc.aio.AioRpcError as error:
            raise self._failure(error, work) from error

    def _failure(self, error: grpc.aio.AioRpcError, work: str) -> ShoalError:
        """What to raise for a call that failed; ``work``: what the server was to do."""
        reason = (error.details() or error.code().name).strip()
        refusal = f"the Triton at {self.url} can't {work}: {reason}"
        # An unknown model, and a load in the wrong mode, may come with the code of a server that is away.
        if _UNKNOWN in reason:
            return NotFound(refusal)
        if _NOT_ALLOWED in reason:
            return NotSteered(f"{refusal}; start it with --model-control-mode=explicit")
        return self.away(error) if error.code() in AWAY else ConfigurationError(refusal)


def _labels(packed: bytes) -> tuple[str, ...]:
    """The labels in order, of ``value:index:label`` in any; a class that has none gets an empty one.

    Raises ValueError for an index that is none, or too large.
    """
    rows = [row.split(":", 2) for row in _strings(packed)]
    labels = {int(row[1]): row[2] for row in rows if len(row) == 3}
    if max(labels, default=0) >= _MOST_LABELS:
        raise ValueError(f"class {max(labels)}")
    return tuple(labels.get(index, "") for index in range(max(labels, default=-1) + 1))


def _strings(packed: bytes) -> Iterator[str]:
    """A BYTES tensor: each string behind its length, four bytes, little-endian."""
    position = 0
    while position < len(packed):
        (length,) = struct.unpack_from("<I", packed, position)
        position += 4 + length
        yield packed[position - length : position].decode(errors="replace")
