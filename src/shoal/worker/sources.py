"""Where a worker learns which models to serve: from a model store, or from a Triton that has one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from shoal.errors import ConfigurationError, ShoalError, Unavailable
from shoal.modelconfig import keys, pbtxt
from shoal.modelconfig.fault import Report
from shoal.modelstore import reader, repository
from shoal.modelstore.publishing.mirror import last_synced
from shoal.runtime.watch import changes
from shoal.triton.steer import original
from shoal.worker.readiness import Found

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
    from pathlib import Path

    from shoal.modelconfig.fault import Fault
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.spec import Service
    from shoal.triton.client import TritonClient

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often a Triton is asked for its models: the protocol has no way to be told."""
RARELY_SECONDS: Final = 30.0
"""Likewise one that doesn't tell, in the end."""


class Offer(NamedTuple):
    """A model as it is now."""

    config: ModelConfig
    identity: tuple[int, ...] = ()
    """Of its file: differs once that was replaced or written to."""


class Source(Protocol):
    """Models for one pool."""

    @property
    def found(self) -> Found:
        """What was there at the last ``offers``, and what of it can't be served."""
        ...

    async def offers(self) -> Mapping[str, Offer]:
        """Those that can be served, by name; faults of the others are logged, each once.

        Raises:
            ShoalError: where they come from can't be read now.
        """
        ...

    def changes(self) -> AsyncGenerator[None]:
        """Yields now and whenever there may be something new."""
        ...


class Refusals(dict[str, str]):
    """Models that can't be served, and why; each reason is logged once, however often it is found."""

    def note(self, name: str, reason: str) -> None:
        """``name`` can't be served."""
        if self.get(name) != reason:
            log.warning("model %s is not served: %s", name if name.isprintable() else repr(name), reason)
        self[name] = reason

    def keep(self, names: Collection[str]) -> None:
        """The others are gone, or are served by now."""
        for name in self.keys() - set(names):
            del self[name]


class StoreSource:
    """A model store's folder."""

    def __init__(self, store: Path, service: Service, pool: str) -> None:
        self._store = store
        self._service = service
        self._pool = pool
        self._told: set[str] = set()
        """Faults that were logged."""
        self._refused = Refusals()
        self.found = Found(str(store))
        """See ``Source``."""

    async def offers(self) -> Mapping[str, Offer]:
        """See ``Source``. Raises Unavailable if the folder can't be read: it may be a volume that is away."""
        return await asyncio.to_thread(self._scan)

    async def changes(self) -> AsyncGenerator[None]:
        """See ``Source``."""
        while not self._store.is_dir():  # nothing can be watched that isn't there
            yield
            await asyncio.sleep(LOOK_SECONDS)
        async with aclosing(changes(self._store, recursive=True)) as moments:
            async for _ in moments:
                yield

    def describe(self, config: ModelConfig) -> Any:  # a protobuf message
        """The configuration from which ``config`` was read. Raises ConfigurationError if it is gone."""
        report = Report(config.name)
        message = pbtxt.load(self._store / config.name / pbtxt.FILE, report)
        if message is None:
            raise ConfigurationError("; ".join(map(str, report.errors)))
        return message

    def _scan(self) -> Mapping[str, Offer]:
        try:
            there = [path.name for path in self._store.iterdir()]
        except OSError as error:
            raise Unavailable(f"the model store {self._store} can't be read: {error.strerror}") from error
        models, faults = repository.scan(self._store)
        for text in sorted({str(fault) for fault in faults if fault.model in models} - self._told):
            log.warning("%s", text)
        self._told = set(map(str, faults))
        self.found = self._look(there, models, faults)
        names = self._service.models_of(self._pool, models)
        return {name: Offer(models[name], _identity(models[name].path)) for name in names}

    def _look(self, there: Collection[str], models: Collection[str], faults: Iterable[Fault]) -> Found:
        """What is in the folder, and what model-sync, if it keeps the folder, couldn't bring there."""
        synced = last_synced(self._store)
        place = f"{self._store}, which follows {synced.source}," if synced.source else str(self._store)
        reasons = {name: [reason] for name, reason in synced.refused.items() if name not in there}
        for fault in faults:
            if fault.model not in models:
                reasons.setdefault(fault.model, []).append(str(fault))
        mine = self._service.models_of(self._pool, reasons)
        for name in mine:
            self._refused.note(name, "; ".join(reasons[name]))
        self._refused.keep(mine)
        empty = not (models or reasons or synced.published)
        return Found(place, empty, dict(self._refused))


class _Foreign(ConfigurationError):
    """A model that says nothing of Shoal, and that the service file doesn't name."""


class TritonSource:
    """What a Triton has ready, or loads when it is asked to."""

    def __init__(self, client: TritonClient, service: Service, pool: str, look_seconds: float = LOOK_SECONDS) -> None:
        """``look_seconds``: how often the server is asked for its models."""
        self._look_seconds = look_seconds
        self._client = client
        self._service = service
        self._pool = pool
        self._messages: dict[str, Any] = {}
        self._offers: dict[str, Offer] = {}
        self._unlabelled: dict[str, str] = {}
        """Models whose labels the server doesn't tell, and why."""
        self._foreign = Refusals()
        """Models that nobody means to be served here."""
        self._refused = Refusals()
        self.found = Found(f"the Triton at {client.url}")
        """See ``Source``."""

    async def offers(self) -> Mapping[str, Offer]:
        """See ``Source``."""
        there = await self._client.versions()
        versions = self._mine(there)
        refused, foreign = [], []
        for name, version in versions.items():
            try:
                await self._look(name, version)
            except Unavailable:
                raise
            except _Foreign as error:
                foreign.append(name)
                self._foreign.note(name, str(error))
            except ShoalError as error:
                refused.append(name)
                self._refused.note(name, str(error))
            except Exception as error:  # whatever somebody else's server says of somebody else's model
                log.debug("model %s", name, exc_info=True)
                refused.append(name)
                self._refused.note(name, f"what the server says of it makes no sense: {error!r}")
        self._refused.keep(refused)
        self._foreign.keep(foreign)
        self._offers = {name: offer for name, offer in self._offers.items() if name in versions}
        self.found = Found(self.found.place, not there, dict(self._refused))
        return self._offers

    async def changes(self) -> AsyncGenerator[None]:
        """See ``Source``."""
        seen: Mapping[str, int] | None = None
        pause = self._look_seconds
        while True:
            try:
                versions = await self._versions()
                pause = self._look_seconds
            except Unavailable:  # the engine says so, and brings its models back
                versions, pause = seen or {}, self._look_seconds
            except ShoalError:  # likewise
                versions, pause = seen or {}, min(2 * pause, RARELY_SECONDS)
            if versions != seen:
                seen = versions
                yield
            await asyncio.sleep(pause)

    def describe(self, config: ModelConfig) -> Any:  # a protobuf message
        """The configuration from which ``config`` was read."""
        return self._messages[config.name]

    async def _versions(self) -> Mapping[str, int]:
        return self._mine(await self._client.versions())

    def _mine(self, versions: Mapping[str, int]) -> Mapping[str, int]:
        return {name: versions[name] for name in self._service.models_of(self._pool, sorted(versions))}

    async def _look(self, name: str, version: int) -> None:
        """Learns what there is to know of a model."""
        if not version:
            if name in self._offers:
                return  # the engine brings it back, with what it told Triton of it
            await self._client.load(name)
            version = (await self._client.versions()).get(name, 0)
        message = original(await self._client.config(name))
        known = self._offers.get(name)
        if known and known.config.version == version and self._messages[name] == message:
            return
        report = Report(name)
        # Somebody else's model is asked for nothing before it is known to be one for Shoal.
        if reader.from_server(message, version, (), report) is None:
            means_us = keys.TASK in message.parameters or name in self._service.exact_models(self._pool)
            raise (ConfigurationError if means_us else _Foreign)("; ".join(map(str, report.errors)))
        config = reader.from_server(message, version, await self._labels(name, message), report)
        if config is None:
            raise ConfigurationError("; ".join(map(str, report.errors)))
        self._messages[name] = message
        self._offers[name] = Offer(config)

    async def _labels(self, name: str, message: Any) -> tuple[str, ...]:  # a protobuf message
        """None where the server doesn't tell: the model is served without."""
        try:
            return await self._client.labels(name, message)
        except Unavailable:
            raise
        except ShoalError as error:
            if self._unlabelled.get(name) != str(error):
                log.warning("model %s is served without labels: %s", name, error)
            self._unlabelled[name] = str(error)
            return ()


def _identity(file: Path) -> tuple[int, ...]:
    """Differs once the file was replaced or written to; empty where it is gone."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
