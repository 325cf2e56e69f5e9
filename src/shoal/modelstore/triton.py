"""A running Triton's side of the model store: what it has loaded, and its model repository extension (v2, gRPC).

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from shoal.errors import ConfigurationError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from shoal.topology import Endpoint

READY = "READY"
_ASK_SECONDS = 10.0
_LOAD_SECONDS = 600.0
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of a model, as Triton's index has it."""

    version: int
    """0: none was ever loaded."""
    state: str
    """``READY``, ``UNAVAILABLE``, ``LOADING``, ``UNLOADING``; empty where it was never loaded."""
    reason: str


class TritonServer:
    """Asks and tells one server; ``connected`` makes it."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        # tritonclient takes 0.3 s to import: only who talks to a Triton pays for it.
        from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: PLC0415

        self._pb: Any = service_pb2
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self.address = address

    async def index(self) -> dict[str, list[Loaded]]:
        """Every model of its repository, with the versions that were loaded at some time.

        Raises:
            Unavailable: the server is away.
        """
        answer = await self._ask(self._stub.RepositoryIndex(self._pb.RepositoryIndexRequest(), timeout=_ASK_SECONDS))
        models: dict[str, list[Loaded]] = {}
        for found in answer.models:
            loaded = Loaded(int(found.version or 0), found.state, found.reason)
            models.setdefault(found.name, []).append(loaded)
        return models

    async def config(self, model: str) -> Any:  # noqa: ANN401 - a ModelConfig message
        """The configuration that it runs ``model`` with.

        Raises:
            NotFound: the model isn't loaded.
            Unavailable: the server is away.
        """
        request = self._pb.ModelConfigRequest(name=model)
        return (await self._ask(self._stub.ModelConfig(request, timeout=_ASK_SECONDS))).config

    async def load(self, model: str) -> None:
        """Loads what the repository holds of ``model`` now; versions that are no longer served go once it is ready.

        Raises:
            ConfigurationError: it can't be loaded, and what was loaded before still is; or the server isn't in explicit
                mode.
            Unavailable: the server is away.
        """
        request = self._pb.RepositoryModelLoadRequest(model_name=model)
        await self._tell(self._stub.RepositoryModelLoad(request, timeout=_LOAD_SECONDS), f"load {model}")

    async def unload(self, model: str) -> None:
        """Unloads all versions of ``model``; requests in flight are answered. Raises as ``load``."""
        request = self._pb.RepositoryModelUnloadRequest(model_name=model)
        await self._tell(self._stub.RepositoryModelUnload(request, timeout=_LOAD_SECONDS), f"unload {model}")

    async def _tell(self, call: Awaitable[Any], what: str) -> None:
        try:
            await self._ask(call)
        except _Refused as error:
            hint = "; start it with --model-control-mode=explicit" if "explicit" in str(error) else ""
            raise ConfigurationError(f"the Triton at {self.address} can't {what}: {error}{hint}") from None

    async def _ask(self, call: Awaitable[Any]) -> Any:  # noqa: ANN401 - any reply
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            details = (error.details() or error.code().name).strip()
            # An unknown model, and a load in the wrong mode, come as UNAVAILABLE too.
            if error.code() not in _AWAY or _speaks(details):
                raise _Refused(details) from None
            raise Unavailable(f"the Triton at {self.address} is away ({error.code().name})") from None


class _Refused(NotFound):
    """The server answered, with an error."""


def _speaks(details: str) -> bool:
    """Whether an error's text is the server's own rather than the channel's."""
    return any(word in details for word in ("unknown model", "explicit", "is not ready", "polling is enabled"))


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[TritonServer]:
    """A server at an address; it needn't be there yet."""
    options = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000)]
    async with grpc.aio.insecure_channel(str(endpoint), options=options) as channel:
        yield TritonServer(channel, str(endpoint))
