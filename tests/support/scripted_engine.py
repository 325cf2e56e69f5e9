"""A small engine for tests: it answers from the pixels it is given, when it is told to, and can fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shoal.engine import Inference
from shoal.engine.slots import ArraySlot
from shoal.errors import Internal
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Task, Tensor
from shoal.runtime.priority import Priority

BATCHING = BatchingSettings(max_batch_size=6, instance_count=1)
CONFIG = ModelConfig(
    name="colour",
    version=3,
    path=Path("colour/3/model.onnx"),
    task=Task.CLASSIFICATION,
    input=Tensor("image", "uint8", (8, 8, 3)),
    outputs=(Tensor("logits", "float32", (3,)),),
    batching=BATCHING,
    labels=("red", "green", "blue"),
    head="softmax",
)


@dataclass(eq=False)
class ScriptedSlot(ArraySlot):
    input: np.ndarray


@dataclass(eq=False)
class ScriptedModel:
    """Says which channel is brightest. Contract: ``tests/support/engine_contract.py``."""

    config: ModelConfig = CONFIG
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Unset: executions wait for it."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a batch is to be executed."""
    poison: int | None = None
    """A batch with a pixel of this value fails."""
    sizes: list[int] = field(default_factory=list)
    """Of the executed batches."""
    priorities: list[Priority] = field(default_factory=list)
    """Of the batches that asked for a slot."""
    in_use: int = 0
    trouble: str = ""
    closed: bool = False

    def __post_init__(self) -> None:
        self.go.set()

    async def acquire(self, priority: Priority = Priority.INTERACTIVE) -> ScriptedSlot:
        self.in_use += 1
        self.priorities.append(priority)
        shape = (self.config.batching.max_batch_size, *self.config.input.shape)
        return ScriptedSlot(np.zeros(shape, self.config.input.dtype))

    def release(self, slot: ScriptedSlot) -> None:
        self.in_use -= 1

    async def infer(self, slot: ScriptedSlot, size: int, timeout_microseconds: int = 0) -> Inference:
        self.sizes.append(size)
        self.asked.set()
        await self.go.wait()
        rows = slot.input[:size]
        if self.poison is not None and (rows == self.poison).any():
            raise Internal("poisoned")
        nothing = {each.name: np.zeros((size, *each.shape), each.dtype) for each in self.config.outputs}
        return Inference({**nothing, "logits": rows.astype(np.float32).mean(axis=(1, 2)) / 16}, 0.001)

    async def close(self) -> None:
        self.closed = True
        self.go.set()
