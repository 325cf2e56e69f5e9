"""What all queues of one batcher process have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.batcher.meter import Meters
    from shoal.batcher.quarantine import Quarantine
    from shoal.batcher.request import Request
    from shoal.explain.recent import Recent
    from shoal.observe.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Common:
    """One of it a process."""

    name: str
    """Names this process to workers."""
    open: Callable[..., Any]
    """Opens a batching stream to the load balancer; see ``batch_stream.opener``."""
    recent: Recent[Request]
    """The last requests, for whoever asks what became of one."""
    meters: Meters
    quarantine: Quarantine
    tracing: Tracing | None = None
    """None: nothing is traced."""
