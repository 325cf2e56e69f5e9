"""What stands behind a worker: the engine of its pool, and where that engine's models come from."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.worker.store_source import StoreSource
from shoal.worker.triton_source import TritonSource

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.engine import Engine
    from shoal.engine.triton.engine import TritonEngine
    from shoal.service.spec import Service
    from shoal.worker.sources import Source


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backing:
    """An engine and its models."""

    engine: Engine
    source: Source
    triton: TritonEngine | None = None
    """The engine, if it is one that can be away."""

    async def ready(self) -> None:
        """Waits until the engine can load models."""
        if self.triton is not None:
            if not await self.triton.client.live():
                log.info("waiting for the Triton at %s", self.triton.client.url)
            await self.triton.client.until_ready()


def choose(service: Service, pool: str, store: Path, cache: Path, own_triton: str | None, cores: int) -> Backing:
    """The backing of ``pool``; nothing is started or called yet.

    Args:
        service: Says which engine.
        pool: Of this worker.
        store: The model store.
        cache: For what the engine compiles.
        own_triton: The Triton that was started for this worker on the same store, ``HOST:PORT``.
        cores: For an engine within this process.
    """
    settings = service.pools[pool]
    from_store = StoreSource(store, service, pool)
    if settings.engine == "openvino":
        from shoal.engine.openvino import OpenVinoEngine  # each engine's library is large

        engine_here = OpenVinoEngine(cache=cache / "openvino", threads=cores, precision=settings.inference_precision)
        return Backing(engine_here, from_store)
    from shoal.engine.triton.engine import TritonEngine
    from shoal.triton.client import TritonClient

    if settings.triton_url is None:
        client = TritonClient(own_triton or "localhost:8001")
        engine = TritonEngine(client, from_store.describe, exclusive=True, processes=settings.worker_processes)
        return Backing(engine, from_store, engine)
    client = TritonClient(settings.triton_url)
    from_server = TritonSource(client, service, pool)
    engine = TritonEngine(client, from_server.describe, processes=settings.worker_processes)
    return Backing(engine, from_server, engine)
