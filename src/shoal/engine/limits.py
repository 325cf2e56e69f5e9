"""What one model may ask of a worker that serves others, too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig, Tensor

MAX_PICTURES_BYTES: Final = 2**30
"""Pictures of a model's largest batch, together. A worker has room for a batch an instance, and for three more."""
JPEG_BYTES: Final = 256 * 2**10
"""Room for a JPEG, in the mean of a batch: those of a megapixel mostly have less."""
LARGE_JPEG_BYTES: Final = 2**20
"""The same where there is memory for it: of 12 megapixels."""
MAX_ANSWERS_BYTES: Final = 2**32
"""Answers to a model's largest batch, together."""
MAX_INSTANCES: Final = 256
"""Batches that one model executes at once in one worker."""


def row_bytes(tensor: Tensor) -> int:
    """Bytes of ``tensor`` for one picture; 0 where its shape varies."""
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize if min(tensor.shape, default=1) > 0 else 0


def picture_bytes(config: ModelConfig) -> int:
    """Bytes for one picture in a slot, pixels or, where the model takes those, a JPEG."""
    return max(row_bytes(config.input), JPEG_BYTES if config.encoded else 0)


def excess(config: ModelConfig) -> tuple[str, str] | None:
    """The field of config.pbtxt that asks for too much, and how much that is; None: none does."""
    batching = config.batching
    parts = (
        ("input", "picture", picture_bytes(config), MAX_PICTURES_BYTES),
        ("output", "answer", sum(map(row_bytes, config.outputs)), MAX_ANSWERS_BYTES),
    )
    for kind, what, size, limit in parts:
        if size > limit:
            return f"{kind}.dims", f"one {what} takes {size:,} bytes; {limit:,} is the most"
        if size * batching.max_batch_size > limit:
            return "max_batch_size", (
                f"is {batching.max_batch_size:,}, and one {what} takes {size:,} bytes; those of a batch may take "
                f"{limit:,}, so {limit // size:,} is the most"
            )
    if batching.instance_count > MAX_INSTANCES:
        return "instance_group.count", f"is {batching.instance_count:,} in all; {MAX_INSTANCES} is the most"
    return None


def check_size(config: ModelConfig) -> None:
    """Raises ConfigurationError where ``config`` asks for more than a worker gives one model."""
    if found := excess(config):
        field, reason = found
        raise ConfigurationError(f"model {config.name!r}: {field} {reason}")
