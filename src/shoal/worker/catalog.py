"""The models that a worker serves, kept in line with the model store; a broken one leaves the others alone."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.errors import ConfigurationError
from shoal.modelstore import repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from shoal.batching.service import BatchingService
    from shoal.batching.stream import Handler
    from shoal.engine import Engine, LoadedModel
    from shoal.modelstore.config import ModelConfig
    from shoal.spec import ModelOverride, Service

    Assemble = Callable[[LoadedModel[Any]], Handler]
    Prepare = Callable[[ModelConfig], Assemble]

log = logging.getLogger(__name__)


class _Served(NamedTuple):
    config: ModelConfig
    file: tuple[int, ...]
    """The model's file as it was loaded; see ``_identity``."""
    loaded: LoadedModel[Any]


class Catalog:
    """What one pool serves of a store.

    Args:
        store: The model store.
        service: Says which models are the pool's, and what it does otherwise than their config.pbtxt.
        pool: The pool's name.
        engine: Loads models.
        batching: Serves them.
        prepare: Makes, before a model is loaded, what its batches need, and answers what puts both together. Raises
            ConfigurationError for a model that can't be served.
    """

    def __init__(
        self, store: Path, service: Service, pool: str, *, engine: Engine, batching: BatchingService, prepare: Prepare
    ) -> None:
        self._store = store
        self._service = service
        self._pool = pool
        self._engine = engine
        self._batching = batching
        self._prepare = prepare
        self._served: dict[str, _Served] = {}
        self._turn = asyncio.Lock()

    @property
    def names(self) -> Iterable[str]:
        """The models that are served now."""
        return self._served.keys()

    async def refresh(self) -> None:
        """Loads what is new or was replaced, and unloads what is gone; one caller at a time."""
        async with self._turn:
            wanted = await asyncio.to_thread(self._wanted)
            for name in self._served.keys() - wanted.keys():
                await self._batching.remove(name)
                await self._served.pop(name).loaded.close()
            for name, (config, file) in wanted.items():
                present = self._served.get(name)
                if present is None or (present.config, present.file) != (config, file):
                    await self._load(config, file)

    def _wanted(self) -> Mapping[str, tuple[ModelConfig, tuple[int, ...]]]:
        models, faults = repository.scan(self._store)
        for fault in faults:
            log.warning("%s", fault)
        names = self._service.models_of(self._pool, models)
        return {
            name: (overridden(models[name], self._service.override(name)), _identity(models[name].path))
            for name in names
        }

    async def _load(self, config: ModelConfig, file: tuple[int, ...]) -> None:
        try:
            assemble = self._prepare(config)
            loaded = await self._engine.load(config)
        except ConfigurationError as error:
            log.error("model %s is not served: %s", config.name, error)  # noqa: TRY400 - the message is the whole story
            return
        await self._batching.put(config.name, assemble(loaded))
        if old := self._served.get(config.name):
            await old.loaded.close()
        self._served[config.name] = _Served(config, file, loaded)
        log.info("model %s version %d is loaded", config.name, config.version)


def overridden(config: ModelConfig, override: ModelOverride) -> ModelConfig:
    """``config`` with what the service file says otherwise."""
    changed = {
        field.name: value
        for field in dataclasses.fields(config.batching)
        if (value := getattr(override, field.name, None)) is not None
    }
    if "preferred_batch_size" in changed:
        changed["preferred_batch_size"] = tuple(changed["preferred_batch_size"])
    return dataclasses.replace(config, batching=dataclasses.replace(config.batching, **changed))


def _identity(file: Path) -> tuple[int, ...]:
    """Differs once the file was replaced or written to; empty where it is gone."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
