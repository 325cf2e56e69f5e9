"""The model-sync process: polls or is notified, says whether it is ready, and goes on whatever the store does.

``POST /notify``, beside ``/metrics``, has it look at once. A webhook is what MinIO, Ceph and (through SNS or
EventBridge) S3 can call when an object arrives, and nothing else has to be run for it. A call costs one LIST at most
a second, so it needs no key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from shoal.errors import ConfigurationError, ShoalError
from shoal.modelstore.publishing.lock import alone
from shoal.modelstore.publishing.mirror import Mirror, last_synced
from shoal.modelstore.publishing.remote import Remote
from shoal.modelstore.publishing.sync import Synchronizer
from shoal.observe import metrics
from shoal.runtime.health import Health
from shoal.runtime.signals import until_stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.spec import Service
    from shoal.triton.client import TritonClient

log = logging.getLogger(__name__)

SERVICE = "shoal.ModelSync"
_FIRST_PAUSE_SECONDS = 1.0
"""After the first failure in a row; each further one doubles it, up to ``poll_seconds``."""
_LEAST_PAUSE_SECONDS = 1.0
"""Between two looks, however often we are notified."""
_RELOAD_SECONDS = 2.0
"""How often the Triton is asked whether it still has its models: a restarted one has none."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """What model-sync is told at its start."""

    service: Service
    repository: Path
    pool: str | None = None
    """None: every model."""
    listen: Endpoint | None = None
    metrics: Endpoint | None = None
    triton: Endpoint | None = None
    remove: bool = False


class ModelSync:
    """One synchroniser and what drives it."""

    def __init__(self, options: SyncOptions) -> None:
        bucket = options.service.model_store.bucket
        if bucket is None:
            raise ConfigurationError("model_store.url: missing; model-sync needs the store that models are pushed to")
        self._options = options
        self._remote = Remote.open(bucket)
        self._mirror = Mirror(options.repository)
        self._notified = asyncio.Event()
        self._health = Health(SERVICE)
        self._ready = self._told = False

    async def once(self) -> int:
        """Synchronises one time. Returns the exit code: 1 if a model was refused."""
        with self._alone():
            async with self._synchronizer() as synchronizer:
                await synchronizer.synchronize()
        return 1 if synchronizer.refused else 0

    async def run(self, stop: asyncio.Event) -> int:
        """Synchronises until ``stop`` is set. Returns the exit code."""
        with self._alone():
            async with self._synchronizer() as synchronizer, self._listening():
                if self._mirror.complete:
                    await self._judge()
                following = [asyncio.create_task(self._follow_store(synchronizer))]
                if self._options.triton:
                    following.append(asyncio.create_task(self._follow_triton(synchronizer)))
                await until_stop(stop, *following)
                await self._health.say(serving=False)
                for task in following:
                    task.cancel()
                for outcome in await asyncio.gather(*following, return_exceptions=True):
                    if isinstance(outcome, Exception):
                        raise outcome
        return 0

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return alone(self._mirror.sets / "lock", "another model-sync")

    @contextlib.asynccontextmanager
    async def _synchronizer(self) -> AsyncIterator[Synchronizer]:
        options = self._options
        async with contextlib.AsyncExitStack() as stack:
            control = await stack.enter_async_context(_client(options.triton)) if options.triton else None
            yield Synchronizer(
                self._remote,
                self._mirror,
                selects=self._selected,
                control=control,
                remove=options.remove,
                most=options.service.model_store.max_model_bytes,
            )

    def _selected(self, models: Iterable[str]) -> Iterable[str]:
        pool = self._options.pool
        return models if pool is None else self._options.service.models_of(pool, models)

    async def _follow_store(self, synchronizer: Synchronizer) -> None:
        longest = self._options.service.model_store.poll_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._notified.clear()
            try:
                await synchronizer.synchronize()
            except (ShoalError, OSError) as error:
                log.warning("what is here stays; looking again within %.0f s: %s", pause, error)
                metrics.SYNC_LOOKS.labels("failed").inc()
                await self._rest(pause)
                pause = min(2 * pause, max(longest, _FIRST_PAUSE_SECONDS))
            else:
                metrics.SYNC_LOOKS.labels("done").inc()
                await self._judge()
                pause = _FIRST_PAUSE_SECONDS
                await self._rest(longest)

    async def _judge(self) -> None:
        """Ready with what is published; where nothing is, for any pool, the place is hardly the right one."""
        synced = last_synced(self._mirror.repository)
        ready = self._ready or bool(synced.published or self._mirror.models())
        if not (ready or self._told):
            self._told = True
            log.error("not ready: nothing is published at %s; 'shoal model push' publishes models", synced.source)
        self._ready = ready
        await self._health.say(serving=ready)

    async def _rest(self, seconds: float) -> None:
        """Waits, not quite as long each time, so that many pods don't ask in step; a notification ends it."""
        await asyncio.sleep(min(_LEAST_PAUSE_SECONDS, seconds))
        with contextlib.suppress(TimeoutError):
            left = random.uniform(0.8, 1) * seconds - _LEAST_PAUSE_SECONDS  # not a secret
            await asyncio.wait_for(self._notified.wait(), max(left, 0))

    async def _follow_triton(self, synchronizer: Synchronizer) -> None:
        away = False
        while True:
            await asyncio.sleep(_RELOAD_SECONDS)
            try:
                await synchronizer.reload()
            except ShoalError as error:
                if not away:
                    log.warning("%s", error)
                away = True
            else:
                away = False

    # What is seen from outside.

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._health.listening(self._options.listen))
            if self._options.metrics:
                await stack.enter_async_context(self._http_server(self._options.metrics))
            yield

    @contextlib.asynccontextmanager
    async def _http_server(self, listen: Endpoint) -> AsyncIterator[None]:
        app = web.Application(client_max_size=2**20)
        app.router.add_get("/metrics", _metrics)
        app.router.add_post("/notify", self._notify)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, listen.host, listen.port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(f"can't listen on {listen}: {error.strerror}") from error
        try:
            yield
        finally:
            await runner.cleanup()

    async def _notify(self, _: web.Request) -> web.Response:
        self._notified.set()
        return web.Response(status=202)


def _client(triton: Endpoint) -> TritonClient:
    # tritonclient takes 0.3 s to import: only who talks to a Triton pays for it.
    from shoal.triton.client import TritonClient

    return TritonClient(str(triton))


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(
        body=metrics.text(metrics.MODEL_SYNC), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
