"""What a worker is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.runtime.endpoint import Endpoint
    from shoal.service.home import Home
    from shoal.service.spec import Service


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """One worker's service file, pool and addresses."""

    service: Service
    home: Home
    pool: str
    listen: Endpoint
    store_endpoint: str | None = None
    """Where the managed object store listens."""
    upload_endpoint: str | None = None
    """Where callers bring pictures to it. None: there, too."""
    own_triton: str | None = None
    """``HOST:PORT`` of the Triton that was started for this worker."""
    peers: Endpoint | None = None
    """Where all workers of the pool are: a name that stands for each of their addresses."""
    cores: int | None = None
    """That it shall keep busy: others are on the same machine. None: all that it may use."""
    verify_identity: bool = False
    """Others than the router reach this worker, whose keys file is the router's: it looks keys up itself."""
