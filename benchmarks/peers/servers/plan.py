"""What a peer's server is told: a file that the harness writes and the server's processes read."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig

VARIABLE = "PEER_PLAN"
"""The environment variable that names the file; processes that a server spawns inherit it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run a peer on these cores."""

    name: str
    processes: int = 2
    """That infer."""
    threads: int = 1
    """Of OpenVINO, in each of them."""
    streams: int = 1
    """Of OpenVINO, in each of them: inferences at once."""
    batch_size: int = 8
    """At most."""
    wait_ms: int = 5
    """For a batch to fill; Shoal's model has 5, too."""
    options: dict[str, Any] = field(default_factory=dict)
    """The peer's own."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a server needs."""

    model: ModelConfig
    decoder: str
    """``shown`` or ``shoal``."""
    precision: str
    """OpenVINO's ``INFERENCE_PRECISION_HINT``."""
    cache: str
    """Where OpenVINO keeps compiled models."""
    choice: Choice
    port: int
    scratch: str
    """A folder for whatever the server writes."""

    def write(self, path: Path) -> None:
        """For the server."""
        path.write_bytes(pickle.dumps(self))

    @classmethod
    def read(cls) -> Plan:
        """In the server."""
        found = pickle.loads(Path(os.environ[VARIABLE]).read_bytes())
        assert isinstance(found, cls)
        return found
