"""What a worker says of itself: to health, to the other workers of its pool, in the log and in its report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shoal.batching.peers import ask_all
from shoal.service.worker_report import ServedModel, WorkerReport
from shoal.worker import readiness
from shoal.worker.models import described

if TYPE_CHECKING:
    from shoal.batching.host import Host
    from shoal.batching.peers import Proof
    from shoal.worker.catalog import Catalog
    from shoal.worker.options import WorkerOptions

log = logging.getLogger(__name__)


class WorkerStatus:
    """Whether the worker is ready (``readiness`` has the rule), and whether it takes batches.

    It takes them as soon as it serves a model, ready or not: of what it has, it may carry its share.
    """

    def __init__(self, host: Host, catalog: Catalog, options: WorkerOptions, proof: Proof) -> None:
        self.ready = False
        """Whether it was, at some time."""
        self._host = host
        self._catalog = catalog
        self._options = options
        self._proof = proof
        self._named = options.service.named_models(options.pool)
        self._others: readiness.Others | None = None
        self._judged = False
        self._engine_there = True
        self._away = ""
        """Why models couldn't be tried last."""
        self._reasons: tuple[str, ...] = ()

    async def judge(self) -> None:
        """Every model was tried: looks at what came of it, and says so."""
        found, served = self._catalog.found, frozenset(self._catalog.names)
        if not self.ready:
            await self._ask_others()
            lines = readiness.missing(served=served, named=self._named, found=found, others=self._others)
            self.ready = not lines
            self._tell(lines)
        if not self.ready:
            self._catalog.unsettle()
        self._judged, self._away = True, ""
        if self.ready:
            self._reasons = readiness.unserved(found, served)
        await self._say()

    async def away(self, reason: str) -> None:
        """Models can't be tried: the engine, or the store, is away."""
        if self._judged:
            if reason != self._away:
                log.warning("models can't be loaded now: %s", reason)
            if not self.ready:
                await self.judge()  # of those that are served already, others may have shown that they are enough
            self._away = reason
            return
        self._tell((reason,))
        if self._options.service.pools[self._options.pool].engine != "triton":
            await self._say()

    async def engine(self, *, available: bool) -> None:
        """The engine has gone, or is back."""
        self._engine_there = available
        await self._say()

    async def _ask_others(self) -> None:
        """Each time anew: those who are ready may come later than we do."""
        if self._options.peers is not None:
            seen = await ask_all(self._options.peers)
            self._others = readiness.others(seen, self._others, self._options.service, self._options.pool)

    def _tell(self, reasons: tuple[str, ...]) -> None:
        """Logs what is new."""
        pool = self._options.pool
        if self.ready:
            served = ", ".join(sorted(self._catalog.names)) or "no model"
            log.info("pool %s serves %s on %s", pool, served, self._options.listen)
        elif reasons != self._reasons:
            log.error("pool %s isn't ready: %s", pool, "; ".join(reasons))
        self._reasons = reasons

    async def _say(self) -> None:
        served = tuple(sorted(self._catalog.names))
        serving = self._engine_there and (self.ready or bool(served))
        configs = self._catalog.configs
        self._proof.set(served, ready=self.ready, described=map(described, configs.values()))
        known = {name: ServedModel(version=one.version, task=one.task) for name, one in configs.items()}
        troubles = dict(self._catalog.failed)
        report = WorkerReport(ready=self.ready, models=served, reasons=self._reasons, served=known, troubles=troubles)
        try:
            report.save(self._options.home, self._options.listen)
        except OSError as error:  # a full disk is no reason not to serve
            log.warning("'shoal status' isn't told of this: %s", error)
        await self._host.health.say(serving=serving, ready=self._engine_there and self.ready)
