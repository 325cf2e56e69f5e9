"""Where a worker learns which models to serve: from a model store, or from a Triton that has one."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from shoal.errors import ConfigurationError, NotFound, Unavailable
from shoal.modelstore import pbtxt, reader, repository
from shoal.modelstore.fault import Report, Severity
from shoal.modelstore.mirror import last_synced
from shoal.triton.steer import original
from shoal.watch import changes
from shoal.worker.readiness import Found

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
    from pathlib import Path

    from shoal.modelstore.config import ModelConfig
    from shoal.modelstore.fault import Fault
    from shoal.spec import Service
    from shoal.triton.client import TritonClient

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How often a Triton is asked for its models: the protocol has no way to be told."""


class Offer(NamedTuple):
    """A model as it is now."""

    config: ModelConfig
    identity: tuple[int, ...] = ()
    """Of its file: differs once that was replaced or written to."""


class Source(Protocol):
    """Models for one pool."""

    @property
    def found(self) -> Found:
        """What was there at the last look."""
        ...

    async def offers(self) -> Mapping[str, Offer]:
        """Those that can be served, by name; faults of the others are logged. Raises Unavailable."""
        ...

    def changes(self) -> AsyncGenerator[None]:
        """Yields now and whenever there may be something new."""
        ...


class StoreSource:
    """A model store's folder."""

    def __init__(self, store: Path, service: Service, pool: str) -> None:
        self._store = store
        self._service = service
        self._pool = pool
        self._faults: frozenset[str] = frozenset()
        self.found = Found(str(store))

    async def offers(self) -> Mapping[str, Offer]:
        """See ``Source``. Raises Unavailable if the folder can't be read: it may be a volume that is away."""
        return await asyncio.to_thread(self._scan)

    async def changes(self) -> AsyncGenerator[None]:
        """See ``Source``."""
        while not self._store.is_dir():  # nothing can be watched that isn't there
            yield
            await asyncio.sleep(_LOOK_SECONDS)
        async with aclosing(changes(self._store, recursive=True)) as moments:
            async for _ in moments:
                yield

    def describe(self, config: ModelConfig) -> Any:  # noqa: ANN401 - a protobuf message
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
        for text in sorted({str(fault) for fault in faults} - self._faults):
            log.warning("%s", text)
        self._faults = frozenset(map(str, faults))
        self.found = self._look(there, models, faults)
        names = self._service.models_of(self._pool, models)
        return {name: Offer(models[name], _identity(models[name].path)) for name in names}

    def _look(self, there: Collection[str], models: Collection[str], faults: Iterable[Fault]) -> Found:
        """What is in the folder, and what model-sync, if it keeps the folder, couldn't bring there."""
        synced = last_synced(self._store)
        place = f"{self._store}, which follows {synced.source}," if synced.source else str(self._store)
        troubles = {name: reason for name, reason in synced.refused.items() if name not in there}
        troubles |= {fault.model: str(fault) for fault in faults if fault.severity is Severity.ERROR}
        mine = self._service.models_of(self._pool, [name for name in troubles if name not in models])
        empty = not (models or troubles or synced.published)
        return Found(place, empty, {name: troubles[name] for name in mine})


class TritonSource:
    """What a Triton has ready, or loads when it is asked to."""

    def __init__(self, client: TritonClient, service: Service, pool: str) -> None:
        self._client = client
        self._service = service
        self._pool = pool
        self._messages: dict[str, Any] = {}
        self._offers: dict[str, Offer] = {}
        self._refused: dict[str, str] = {}
        self.found = Found(f"the Triton at {client.url}")

    async def offers(self) -> Mapping[str, Offer]:
        """See ``Source``."""
        there = await self._client.versions()
        versions = self._mine(there)
        for name, version in versions.items():
            try:
                await self._look(name, version)
            except (ConfigurationError, NotFound) as error:
                self._refuse(name, str(error))
        self._offers = {name: offer for name, offer in self._offers.items() if name in versions}
        self._refused = {name: reason for name, reason in self._refused.items() if name in versions}
        self.found = Found(self.found.place, not there, dict(self._refused))
        return self._offers

    async def changes(self) -> AsyncGenerator[None]:
        """See ``Source``."""
        seen: Mapping[str, int] | None = None
        while True:
            try:
                versions = await self._versions()
            except Unavailable:  # the engine says so, and brings its models back
                versions = seen or {}
            if versions != seen:
                seen = versions
                yield
            await asyncio.sleep(_LOOK_SECONDS)

    def describe(self, config: ModelConfig) -> Any:  # noqa: ANN401 - a protobuf message
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
        labels = await self._client.labels(name, message)
        config = reader.from_server(message, version, labels, report)
        if config is None:
            raise ConfigurationError("; ".join(map(str, report.errors)))
        self._messages[name] = message
        self._offers[name] = Offer(config)
        self._refused.pop(name, None)

    def _refuse(self, name: str, reason: str) -> None:
        """Logs a reason once, however often it is found."""
        if self._refused.get(name) != reason:
            log.warning("model %s is not served: %s", name, reason)
        self._refused[name] = reason


def _identity(file: Path) -> tuple[int, ...]:
    """Differs once the file was replaced or written to; empty where it is gone."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
