"""The models that a worker serves, kept in line with their source; a broken one leaves the others alone."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.errors import ConfigurationError
from shoal.worker.sources import Offer

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from shoal.batching.service import BatchingService
    from shoal.batching.stream import Handler
    from shoal.engine import Engine, LoadedModel
    from shoal.modelstore.config import ModelConfig
    from shoal.spec import ModelOverride, Service
    from shoal.worker.readiness import Found
    from shoal.worker.sources import Source

    Assemble = Callable[[LoadedModel[Any]], Handler]
    Prepare = Callable[[ModelConfig], Assemble]

log = logging.getLogger(__name__)


class _Served(NamedTuple):
    offer: Offer
    """As it was loaded."""
    loaded: LoadedModel[Any]


class Catalog:
    """What one pool serves.

    Args:
        source: Says what there is.
        service: Says what the pool does otherwise than the models' own settings.
        engine: Loads models.
        batching: Serves them.
        prepare: Makes, before a model is loaded, what its batches need, and answers what puts both together. Raises
            ConfigurationError for a model that can't be served.
    """

    def __init__(
        self, source: Source, service: Service, *, engine: Engine, batching: BatchingService, prepare: Prepare
    ) -> None:
        self._source = source
        self._service = service
        self._engine = engine
        self._batching = batching
        self._prepare = prepare
        self._served: dict[str, _Served] = {}
        self._refused: dict[str, str] = {}
        """The models that the engine, or a head, wouldn't take as they are: why."""
        self._turn = asyncio.Lock()

    @property
    def names(self) -> AbstractSet[str]:
        """The models that are served now."""
        return self._served.keys()

    @property
    def refused(self) -> bool:
        """Whether a model that reads well couldn't be loaded when it was tried last."""
        return bool(self._refused)

    @property
    def found(self) -> Found:
        """What is there, and why which of it isn't served as it is."""
        there = self._source.found
        return dataclasses.replace(there, troubles={**(there.troubles or {}), **self._refused})

    async def refresh(self) -> None:
        """Loads what is new or was replaced, and unloads what is gone; one caller at a time.

        Raises:
            Unavailable: the engine is away; call again later. What is loaded stays.
        """
        async with self._turn:
            offers = await self._source.offers()
            self._refused = {name: reason for name, reason in self._refused.items() if name in offers}
            # One that is there and can't be read any more stays as it was loaded.
            for name in self._served.keys() - offers.keys() - (self._source.found.troubles or {}).keys():
                await self._batching.remove(name)
                await self._served.pop(name).loaded.close()
            for name, (config, identity) in offers.items():
                wanted = Offer(overridden(config, self._service.override(name)), identity)
                present = self._served.get(name)
                if present is None or present.offer != wanted:
                    await self._load(wanted)
                else:
                    self._refused.pop(name, None)

    async def _load(self, offer: Offer) -> None:
        config = offer.config
        try:
            assemble = self._prepare(config)
            loaded = await self._engine.load(config)
        except ConfigurationError as error:
            self._refuse(config, str(error))
            return
        self._refused.pop(config.name, None)
        await self._batching.put(config.name, assemble(loaded))
        if old := self._served.get(config.name):
            await old.loaded.close()
        self._served[config.name] = _Served(offer, loaded)
        log.info("model %s version %d is loaded", config.name, config.version)

    def _refuse(self, config: ModelConfig, reason: str) -> None:
        """Logs a reason once, however often it is found."""
        if self._refused.get(config.name) != reason:
            log.error("model %s is not served: %s", config.name, reason)
        self._refused[config.name] = reason


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
