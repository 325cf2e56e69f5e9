"""What the part that runs a pipeline is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.home import Home
    from shoal.service.spec import Service


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """One pipeline's name, service file and addresses."""

    service: Service
    home: Home
    name: str
    listen: Endpoint
    balancer: Endpoint
    """The router's listener for batching streams."""
    file: Path | None = None
    """Where the service file lies, for messages."""
    verify_identity: bool = False
    """Others than the router reach this process: it looks keys up itself."""
