"""A v2 server that loads what a repository holds when it is told to, and runs nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from shoal.modelstore import pbtxt, reader
from shoal.modelstore.fault import Report
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class ScriptedServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers what the model repository extension and ModelConfig ask."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.running: dict[str, tuple[Any, tuple[int, ...]]] = {}
        """Model to configuration and versions; tests alter them."""
        self.failed: dict[str, str] = {}
        self.explicit = True

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        answer = service_pb2.RepositoryIndexResponse()
        for name, (_, versions) in self.running.items():
            for version in versions:
                answer.models.add(name=name, version=str(version), state="READY")
        for name, reason in self.failed.items():
            answer.models.add(name=name, version="1", state="UNAVAILABLE", reason=reason)
        return answer

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        if request.name not in self.running:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, f"Request for unknown model: '{request.name}' is not found"
            )
        return service_pb2.ModelConfigResponse(config=self.running[request.name][0])

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        if not self.explicit:
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "explicit model load / unload is not allowed if polling is enabled"
            )
        folder = self.repository / request.model_name
        report = Report(request.model_name)
        model = reader.inspect(folder, report)
        if model is None or report.errors:
            await context.abort(
                grpc.StatusCode.INTERNAL, f"failed to load '{request.model_name}', no version is available"
            )
        assert model
        self.running[request.model_name] = (pbtxt.load(folder / pbtxt.FILE, report), model.versions)
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.running.pop(request.model_name, None)
        return service_pb2.RepositoryModelUnloadResponse()


@asynccontextmanager
async def scripted_triton(repository: Path) -> AsyncIterator[tuple[ScriptedServer, Endpoint]]:
    """The server, listening on a free port."""
    server = grpc.aio.server()
    servicer = ScriptedServer(repository)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, Endpoint("127.0.0.1", port)
    finally:
        await server.stop(grace=None)
