"""The worker process: opens the store, loads the models of its pool, serves batching streams, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.batching.host import Host
from shoal.batching.peers import Proof
from shoal.batching.service import BatchingService
from shoal.errors import ShoalError
from shoal.observe import metrics
from shoal.observe.tracing import Tracing
from shoal.pictures.decode import Decoder
from shoal.pictures.objectstore import open_configured
from shoal.pictures.read_header import read_header
from shoal.runtime import garbage
from shoal.runtime.threads import Threads, usable_cores
from shoal.service.api_keys import load_keys, watch_keys
from shoal.v1 import inference_pb2
from shoal.worker.access import Access, NewestKeys
from shoal.worker.admission import Admission
from shoal.worker.backing import choose
from shoal.worker.catalog import Catalog
from shoal.worker.decode_choice import DecodeChoice
from shoal.worker.decoders.decoder_pool import DecoderPool, Limits
from shoal.worker.decoding import Decoding
from shoal.worker.device_rows import decodes_itself
from shoal.worker.fetch_picture import Fetcher
from shoal.worker.handler import PictureHandler
from shoal.worker.heads.head import make_head
from shoal.worker.meter import Meter
from shoal.worker.models import ModelsService
from shoal.worker.picture_cache import PictureCache, cache_bytes
from shoal.worker.picture_door import PictureDoor
from shoal.worker.picture_intake import PictureIntake
from shoal.worker.picture_model import PictureModel
from shoal.worker.process_limits import ProcessLimits
from shoal.worker.readiness import origin
from shoal.worker.result_cache import ResultCache
from shoal.worker.result_cache_meter import ResultCacheMeter
from shoal.worker.status import WorkerStatus
from shoal.worker.uploads import UploadsService

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.engine import LoadedModel
    from shoal.explain.recent import Recent
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.spec import Pool, Service
    from shoal.worker.options import WorkerOptions
    from shoal.worker.stages import Stages

log = logging.getLogger(__name__)

AWAY_SECONDS = 1.0
"""Until an engine that is away is asked again to load models."""
_SERVICES = tuple(service.full_name for service in inference_pb2.DESCRIPTOR.services_by_name.values())


class Worker:
    """All models of one pool on one engine; one of the pool's ``worker_processes``, with its share of the limits."""

    def __init__(self, options: WorkerOptions, recent: Recent[Stages]) -> None:
        """Prepares; what becomes of pictures is kept in ``recent``."""
        self._options = options
        self._recent = recent
        traced = options.service.observe.tracing
        self._tracing = Tracing.to(traced.otlp_endpoint, "worker", str(options.listen)) if traced else None
        self._settings: Pool = options.service.pools[options.pool]
        cores = options.cores or usable_cores()
        self._limits = ProcessLimits.of(self._settings, cores)
        kept_bytes = self._limits.picture_cache_bytes
        self._picture_cache = PictureCache(kept_bytes) if kept_bytes else None
        metrics.WORKER_PICTURE_CACHE_BYTES.set_function(lambda: cache_bytes(self._picture_cache))
        self._fetcher = self._open_fetcher()
        metrics.WORKER_FETCHED_BYTES.set_function(lambda: self._fetcher.held_bytes)
        keys = options.home.keys_file(options.service)
        self._access = Access(load_keys(keys), NewestKeys(keys) if options.verify_identity else None)
        metrics.WORKER_DECODE_THREADS.set(self._limits.decode_threads)
        self._threads = Threads(self._limits.decode_threads, "decode")
        self._pool = DecoderPool(
            self._limits.decode_processes,
            Limits(self._settings.max_decode_cpu_seconds, self._settings.max_decode_memory_bytes),
        )
        self._decoding = Decoding(self._threads, self._pool, self._picture_cache)
        self._choice = DecodeChoice(self._settings.decode, self._limits.decode_threads)
        self._backing = choose(
            options.service,
            options.pool,
            options.home.model_store(options.service),
            options.home.cache,
            options.own_triton,
            cores,
        )
        self._batching = BatchingService(self._settings.worker_processes)
        self._catalog = Catalog(
            self._backing.source,
            options.service,
            engine=self._backing.engine,
            batching=self._batching,
            prepare=self._prepare,
        )
        upload_store = open_configured(options.service, options.home, options.upload_endpoint or options.store_endpoint)
        uploads = UploadsService(upload_store, options.service.object_store, self._access)
        pictures = PictureIntake(
            open_configured(options.service, options.home, options.store_endpoint),
            options.service.object_store.max_image_bytes,
            _header_check(options.service),
        )
        metrics.WORKER_INTAKE_BYTES.set_function(lambda: pictures.held_bytes)
        door = PictureDoor(pictures, self._access)
        proof = Proof(origin(options.service, options.pool))
        models = ModelsService(lambda: self._catalog.configs)
        services = (uploads, door, models, proof)
        self._host = Host(self._batching, _SERVICES, [each.rpc_handler() for each in services])
        self._status = WorkerStatus(self._host, self._catalog, options, proof)

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, then drains."""
        self._pool.start()
        await self._host.start(self._options.listen)
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(work) for work in (self._follow_keys(), self._begin())]
            await stop.wait()
            for task in following:
                task.cancel()
        await self._host.drain()
        await self._backing.engine.close()
        self._threads.close()
        await self._pool.close()
        if self._tracing is not None:
            await self._tracing.close()

    def _open_fetcher(self) -> Fetcher:
        options, limits = self._options, self._options.service.object_store
        return Fetcher(
            open_configured(options.service, options.home, options.store_endpoint),
            concurrency=self._limits.fetch_concurrency,
            max_bytes=limits.max_image_bytes,
            budget_bytes=self._limits.fetched_bytes,
            timeout_seconds=limits.fetch_timeout_seconds,
            cache=self._picture_cache,
        )

    def _prepare(self, config: ModelConfig) -> Callable[[LoadedModel[Any]], PictureHandler]:
        """What a model's batches need beside the loaded model itself; see ``Catalog``."""
        limits = self._settings
        decoder = Decoder(
            config,
            max_pixels=limits.max_image_pixels,
            max_scans=limits.max_image_scans,
            decoding=limits.decoding,
            jpeg_strictness=limits.jpeg_strictness,
        )
        head, meter = make_head(config), Meter(config.name)
        choice = self._choice if decodes_itself(config, limits) else None

        def handler(loaded: LoadedModel[Any]) -> PictureHandler:
            admission = Admission(loaded.config, head, self._access, self._recent, self._tracing)
            processes, said = self._settings.worker_processes, self._options.service.override(config.name)
            cache = ResultCache.of(said, processes, ResultCacheMeter(config.name))
            parts = loaded, admission, decoder, head, self._fetcher, self._decoding, meter, processes, choice, cache
            return PictureHandler(PictureModel(*parts))

        return handler

    async def _follow_keys(self) -> None:
        async for ring in watch_keys(self._options.home.keys_file(self._options.service)):
            self._access.ring = ring

    async def _begin(self) -> None:
        """Loads the models, says so, and keeps up with what becomes of models and engine."""
        await self._backing.ready()
        async with contextlib.aclosing(self._backing.source.changes()) as moments:
            await anext(moments)  # the present state
            await self._refresh()
            garbage.settle()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_engine())
                group.create_task(self._catalog.keep_trying(self._look))
                async for _ in moments:
                    await self._refresh()

    async def _refresh(self) -> None:
        """Looks until what models come from is there."""
        while not await self._look():  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(AWAY_SECONDS)

    async def _look(self) -> bool:
        """Brings the models in line and says what came of it; whether what they come from was there."""
        try:
            await self._catalog.refresh()
        except ShoalError as error:
            await self._status.away(str(error))
            return False
        await self._status.judge()
        return True

    async def _follow_engine(self) -> None:
        """Batches go elsewhere while the engine is away."""
        if self._backing.triton is not None:
            async for available in self._backing.triton.availability():
                if available:
                    await self._refresh()
                await self._status.engine(available=available)


def _header_check(service: Service) -> Callable[[bytes], object]:
    """Of pictures that come in here, whose model may be another pool's: by the largest limits of all."""
    pools = service.pools.values()
    return partial(
        read_header,
        max_pixels=max(pool.max_image_pixels for pool in pools),
        max_scans=max(pool.max_image_scans for pool in pools),
    )
