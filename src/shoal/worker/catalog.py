"""The models that a worker serves, kept in line with their source; a broken one leaves the others alone."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from shoal.engine import probe
from shoal.errors import ConfigurationError, ShoalError, Unavailable
from shoal.modelstore import fitting
from shoal.worker.sources import Offer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from shoal.batching.served_stream import Handler
    from shoal.batching.service import BatchingService
    from shoal.engine import Engine, LoadedModel
    from shoal.engine.probe import Samples
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.spec import ModelOverride, Service
    from shoal.worker.readiness import Available
    from shoal.worker.sources import Source

    Assemble = Callable[[LoadedModel[Any]], Handler]
    Prepare = Callable[[ModelConfig], Assemble]

log = logging.getLogger(__name__)


FIRST_PAUSE_SECONDS: Final = 1.0
"""The first pause before what failed is tried again."""
LONGEST_PAUSE_SECONDS: Final = 60.0
"""Each pause is twice the one before it, up to this."""


class _Served(NamedTuple):
    offer: Offer
    loaded: LoadedModel[Any]
    alone_because: str
    """Why it takes batches of 1 whatever its configuration says; empty: it takes those."""


class _Failed(NamedTuple):
    offer: Offer
    reason: str
    final: bool
    """Trying this offer again would end the same way."""


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
        self._failed: dict[str, _Failed] = {}
        self._turn = asyncio.Lock()
        self._unsettled = asyncio.Event()
        """Something failed."""

    @property
    def names(self) -> AbstractSet[str]:
        """The models that are served now."""
        return self._served.keys()

    @property
    def configs(self) -> Mapping[str, ModelConfig]:
        """The configurations of the models that are served now."""
        return {name: served.offer.config for name, served in self._served.items()}

    @property
    def failed(self) -> Mapping[str, str]:
        """What is there for this pool and can't be served as it is: name to reason.

        A model may be in ``names`` as well: its earlier version is still served, or its engine has lost it.
        """
        lost = {name: served.loaded.trouble for name, served in self._served.items() if served.loaded.trouble}
        return {**self._source.found.troubles, **{name: failed.reason for name, failed in self._failed.items()}, **lost}

    @property
    def found(self) -> Available:
        """What is there, and why which of it isn't served as it is."""
        return dataclasses.replace(self._source.found, troubles=self.failed)

    @property
    def alone(self) -> Mapping[str, str]:
        """Models that are served with batches of 1 against their configuration: name to reason."""
        return {name: served.alone_because for name, served in self._served.items() if served.alone_because}

    async def refresh(self) -> None:
        """Loads what is new or was replaced, and unloads what is gone; one caller at a time.

        Raises:
            Unavailable: the engine is away; call again later. What is loaded stays.
            ShoalError: it can't be known what there is. Likewise.
        """
        async with self._turn:
            offers = await self._source.offers()
            # One that is there and can't be read any more stays as it was loaded.
            for name in self._served.keys() - offers.keys() - self._source.found.troubles.keys():
                await self._batching.remove(name)
                await self._served.pop(name).loaded.close()
            for name in self._failed.keys() - offers.keys():
                del self._failed[name]
            wanted = [
                Offer(overridden(config, self._service.override(name)), identity)
                for name, (config, identity) in offers.items()
            ]
            try:
                await self._load_all([offer for offer in wanted if not self._is_settled(offer)])
            finally:
                if self._failed or self._source.found.troubles:
                    self._unsettled.set()
                else:
                    self._unsettled.clear()

    def unsettle(self) -> None:
        """What is served isn't enough: ``keep_trying`` has another look."""
        self._unsettled.set()

    async def keep_trying(
        self, look: Callable[[], Awaitable[object]], first_pause: float = FIRST_PAUSE_SECONDS
    ) -> None:
        """Tries again what failed for a reason that may pass. Runs until cancelled.

        Args:
            look: Refreshes.
            first_pause: In seconds; where nothing changes, they grow.
        """
        pause, before = first_pause, ""
        while True:
            await self._unsettled.wait()
            await asyncio.sleep(pause)
            await look()
            now = repr(sorted(self.failed.items()))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS) if now == before else first_pause
            before = now

    def _is_settled(self, wanted: Offer) -> bool:
        """Whether it is served already, or can't be however often it is tried."""
        present, failed = self._served.get(wanted.config.name), self._failed.get(wanted.config.name)
        if present is not None and present.offer == wanted:
            self._failed.pop(wanted.config.name, None)
            return True
        return failed is not None and failed.final and failed.offer == wanted

    async def _load_all(self, offers: Sequence[Offer]) -> None:
        """One model's fault is no other's. Raises Unavailable where all of them met an engine that is away."""
        away: list[Unavailable] = []
        for offer in offers:
            try:
                await self._load(offer)
                self._failed.pop(offer.config.name, None)
            except Unavailable as error:
                away.append(error)
                self._fail(offer, error)
            except Exception as error:  # such as memory that can't be had
                self._fail(offer, error)
        if away and len(away) == len(offers):
            raise away[0]

    def _fail(self, offer: Offer, error: Exception) -> None:
        name = offer.config.name
        reason = str(error) if isinstance(error, ShoalError) else f"it can't be loaded: {error!r}"
        before = self._failed.get(name)
        if before is None or before.reason != reason:
            told = log.error if isinstance(error, ShoalError) else log.exception
            told("model %s is not served: %s", name, reason)
        self._failed[name] = _Failed(offer, reason, final=isinstance(error, _Final))

    async def _load(self, offer: Offer) -> None:
        config = offer.config
        try:
            assemble = self._prepare(config)
        except ConfigurationError as error:
            raise _Final(str(error)) from error
        loaded, samples, alone_because = await probe.load(self._engine, config)
        try:
            handler = _put_together(loaded, samples, config, assemble)
        except BaseException:
            await loaded.close()
            raise
        await self._batching.put(config.name, handler)
        if old := self._served.get(config.name):
            await old.loaded.close()
        self._served[config.name] = _Served(offer, loaded, alone_because)
        log.info("model %s version %d is loaded", config.name, config.version)
        if alone_because and config.batching.max_batch_size > 1:
            log.warning("model %s is served with batches of 1: %s", config.name, alone_because)


def _put_together(loaded: LoadedModel[Any], samples: Samples, config: ModelConfig, assemble: Assemble) -> Handler:
    """What serves the model. Raises _Final for one whose ``samples`` its head can't read."""
    if reason := fitting.misfit(config, samples):
        raise _Final(f"{config.path}: {reason}")
    return assemble(loaded)


class _Final(ConfigurationError):
    """Another try would end the same way."""


def overridden(config: ModelConfig, override: ModelOverride) -> ModelConfig:
    """``config`` with what the service file says otherwise."""
    changed = {
        field.name: value
        for field in dataclasses.fields(config.batching)
        if (value := getattr(override, field.name, None)) is not None
    }
    if "preferred_batch_size" in changed:
        changed["preferred_batch_size"] = tuple(changed["preferred_batch_size"])
    if override.latency_objective_ms is not None:
        changed["latency_objective_microseconds"] = max(1, round(1000 * override.latency_objective_ms))
    return dataclasses.replace(config, batching=dataclasses.replace(config.batching, **changed))
