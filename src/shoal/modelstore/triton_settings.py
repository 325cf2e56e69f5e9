"""What `model add` writes into a config.pbtxt for Triton alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class InstanceKind(StrEnum):
    """Where the instances of a model run."""

    AUTO = "auto"
    """On every GPU if there is one and the backend can, else on the CPU."""
    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions are served: the ``latest`` so many, unless ``specific`` ones are named or ``every`` is set."""

    latest: int = 1
    specific: tuple[int, ...] = ()
    every: bool = False


@dataclass(frozen=True, slots=True)
class Warmup:
    """Requests that Triton runs before a model is ready."""

    samples: tuple[str | Path, ...] = ()
    """``zero``, ``random``, or a picture's file."""
    batch_sizes: tuple[int, ...] = ()
    """Each sample once with each of these; empty: ``max_batch_size``."""
    count: int = 1
    """How often each is run."""


@dataclass(frozen=True, slots=True)
class TritonSettings:
    """Fields of config.pbtxt that Shoal itself has no use for."""

    instance_kind: InstanceKind = InstanceKind.AUTO
    gpus: tuple[int, ...] = ()
    """Each gets ``count`` instances; empty: Triton chooses."""
    version_policy: VersionPolicy = VersionPolicy()
    warmup: Warmup = Warmup()
