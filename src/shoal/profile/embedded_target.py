"""The embedded engine as a profile's target."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from shoal.engine.openvino import OpenVinoEngine
from shoal.profile.records import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shoal.engine.openvino import OpenVinoModel, OpenVinoSlot
    from shoal.modelconfig.model import ModelConfig
    from shoal.profile.inputs import Fill


class EmbeddedTarget:
    """Implements ``shoal.profile.target.Target``. Loads a model of the store in this process."""

    def __init__(self, config: ModelConfig, fill: Fill, cache: Path, largest_batch: int) -> None:
        """Reads the model's file for its checksum; nothing is loaded yet.

        Args:
            config: The model.
            fill: Gives the batches their content.
            cache: Of compiled models.
            largest_batch: The model is loaded for batches up to this size, whatever its configuration says.
        """
        self._config = config
        self._fill = fill
        self._cache = cache
        self._largest = largest_batch
        with config.path.open("rb") as file:
            self._checksum = hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def subject(self) -> Subject:
        """The model file, by its checksum, in this version of OpenVINO."""
        return Subject(
            model=self._config.name,
            version=self._config.version,
            engine="openvino",
            engine_version=version("openvino"),
            checksum=f"sha256:{self._checksum}",
            checksum_of="model file",
        )

    @property
    def instances(self) -> int:
        """The number in the model's ``instance_group``."""
        return self._config.batching.instance_count

    @asynccontextmanager
    async def loaded(self, instances: int) -> AsyncIterator[LoadedHere]:
        """Compiles the model, with so many instances, for the largest batch that is asked for."""
        batching = replace(
            self._config.batching,
            instance_count=instances,
            max_batch_size=self._largest,
            preferred_batch_size=(),
        )
        engine = OpenVinoEngine(cache=self._cache)
        try:
            yield LoadedHere(await engine.load(replace(self._config, batching=batching)), self._fill)
        finally:
            await engine.close()


class LoadedHere:
    """Implements ``shoal.profile.target.Loaded``."""

    def __init__(self, model: OpenVinoModel, fill: Fill) -> None:
        self._model = model
        self._fill = fill
        self._filled: set[OpenVinoSlot] = set()

    async def run(self, batch: int) -> None:
        """Runs one batch. The engine has three slots more than instances; who finds none waits for one."""
        slot = await self._model.acquire()
        try:
            if slot not in self._filled:
                self._fill(slot.input)
                self._filled.add(slot)
            await self._model.infer(slot, batch)
        finally:
            self._model.release(slot)

    async def executions(self) -> None:
        """None: a batch here is an execution, so nothing has to be counted."""
