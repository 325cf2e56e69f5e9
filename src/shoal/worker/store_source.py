"""Models from a model store: a folder that is watched."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import ConfigurationError, Unavailable
from shoal.modelconfig import pbtxt
from shoal.modelconfig.fault import FaultReport
from shoal.modelstore import repository
from shoal.modelstore.publishing.mirror import last_synced
from shoal.runtime.watch import changes
from shoal.worker.readiness import Available
from shoal.worker.sources import Offer, Refusals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
    from pathlib import Path

    from shoal.modelconfig.fault import Fault
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.spec import Service

log = logging.getLogger(__name__)

_FOLDER_SECONDS: Final = 1.0
"""Between two looks whether the model store's folder is there."""


class StoreSource:
    """A model store's folder."""

    def __init__(self, store: Path, service: Service, pool: str) -> None:
        self._store = store
        self._service = service
        self._pool = pool
        self._told: set[str] = set()
        """Faults that were logged."""
        self._refused = Refusals()
        self.found = Available(str(store))

    async def offers(self) -> Mapping[str, Offer]:
        """The folder's models that are the pool's and can be served, by name.

        Raises:
            Unavailable: the folder can't be read: it may be a volume that is away.
        """
        return await asyncio.to_thread(self._scan)

    async def changes(self) -> AsyncGenerator[None]:
        """Yields now and after each change below the folder; until the folder is there, every second."""
        while not self._store.is_dir():  # nothing can be watched that isn't there
            yield
            await asyncio.sleep(_FOLDER_SECONDS)
        async with aclosing(changes(self._store, recursive=True)) as moments:
            async for _ in moments:
                yield

    def describe(self, config: ModelConfig) -> Any:  # a protobuf message
        """The configuration from which ``config`` was read. Raises ConfigurationError if it is gone."""
        report = FaultReport(config.name)
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

    def _look(self, there: Collection[str], models: Collection[str], faults: Iterable[Fault]) -> Available:
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
        return Available(place, empty, dict(self._refused))


def _identity(file: Path) -> tuple[int, ...]:
    """Differs once the file was replaced or written to; empty where it is gone."""
    try:
        status = file.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size
