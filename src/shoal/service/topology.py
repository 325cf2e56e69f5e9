"""Where each part listens: what differs between a laptop and a cluster, kept out of the service file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from shoal.errors import ConfigurationError
from shoal.runtime import intake
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

SHARED_BATCHER = "shared"
"""The batcher that serves every model without batchers of its own."""


Role: TypeAlias = Literal["batcher", "worker", "triton", "store"]


class TellingPart(BaseModel):
    """A part's process, or all of them behind one DNS name, where it tells of itself. A store only answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    group: str
    """A batcher's group, a worker's or a Triton's pool."""
    metrics: Endpoint


class Topology(BaseModel):
    """The addresses of every part of one running service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    public: Endpoint
    """The router's listener for clients."""
    balancer: Endpoint
    """The router's listener for batching streams: the load balancer before the workers."""
    metrics: Endpoint | None = None
    """Where the router's metrics, ``/ready`` and ``/alive`` are served. None: nowhere."""
    store: Endpoint | None = None
    """Where the managed object store listens. None: it is elsewhere."""
    uploads: Endpoint | None = None
    """The router's listener for uploads to that store, which bounds their size. None: there is none."""
    batchers: dict[str, list[Endpoint]]
    """Batcher group (``SHARED_BATCHER`` or a model's name) to its processes."""
    pools: dict[str, list[Endpoint]]
    """Pool name to its workers' processes."""
    pipelines: dict[str, list[Endpoint]] = {}
    """Pipeline to its processes."""

    telling: dict[str, TellingPart] = {}
    """By name: whom the console asks. Empty: it knows of none."""

    def batcher_of(self, model: str) -> str:
        """The batcher group that queues ``model``."""
        return model if model in self.batchers else SHARED_BATCHER

    @classmethod
    def load(cls, path: Path) -> Topology:
        """Reads a topology that ``save`` wrote."""
        try:
            return cls.model_validate_json(intake.read(path))
        except (OSError, ValidationError) as error:
            raise ConfigurationError(f"{path}: not a topology: {error}") from error

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        replace_file(path, json.dumps(self.model_dump(), indent=2), mode=None)
