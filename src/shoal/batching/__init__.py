"""Batching for any unary gRPC service: a worker's side of it, in a few names.

``Server`` takes functions over whole batches, ``run`` serves them until SIGTERM; ``shoal serve batcher`` is what
callers talk to. The chapter is docs/batch-your-own-service.md.

May use: batching/v1, errors, modelconfig, observe, runtime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.batching.function import Call, Requests
    from shoal.batching.server import Server, run
    from shoal.modelconfig.batching import BatchingSettings

__all__ = ["BatchingSettings", "Call", "Requests", "Server", "run"]

_HOMES = {
    "BatchingSettings": "shoal.modelconfig.batching",
    "Call": "shoal.batching.function",
    "Requests": "shoal.batching.function",
    "Server": "shoal.batching.server",
    "run": "shoal.batching.server",
}


def __getattr__(name: str) -> object:
    """Imports a name at its first use: the batcher takes the protocol from here, and has no need of a server."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
