"""The process that runs one pipeline: asks what its models are, serves batching streams, and drains."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import grpc

from shoal.batching import wire
from shoal.batching.host import DRAIN_SECONDS, Host
from shoal.batching.service import BatchingService
from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Task
from shoal.pipeline import check
from shoal.pipeline.admission import Admission
from shoal.pipeline.analysis import Running
from shoal.pipeline.calls import StreamCalls
from shoal.pipeline.check import Known
from shoal.pipeline.description import rpc_handler
from shoal.pipeline.handler import PipelineHandler
from shoal.pipeline.meter import Meter
from shoal.pipeline.steps import first_step
from shoal.pipeline.times import Times
from shoal.runtime import garbage, rpc
from shoal.runtime.signals import until_stop
from shoal.service import read_section
from shoal.service.api_keys import load_keys, watch_keys
from shoal.service.pipelines import placed
from shoal.v1 import inference_pb2 as pb
from shoal.worker.access import Access, NewestKeys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.pipeline.options import PipelineOptions

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 1.0
"""Until a model that nobody serves yet is asked for again."""
_ANSWER_SECONDS: Final = 5.0


class PipelineProcess:
    """One pipeline."""

    def __init__(self, options: PipelineOptions) -> None:
        self._options = options
        self._pipeline = options.service.pipelines[options.name]
        keys = options.home.keys_file(options.service)
        self._keys = keys
        self._access = Access(load_keys(keys), NewestKeys(keys) if options.verify_identity else None)
        self._batching = BatchingService()
        self._ready = False
        described = rpc_handler(options.name, lambda: self._ready)
        self._host = Host(self._batching, ["shoal.v1.Inference"], [described], stop_seconds=DRAIN_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set, then answers what it has.

        Raises:
            ConfigurationError: the pipeline can't be right with the models that there are.
        """
        calls = StreamCalls(self._options.balancer)
        await self._host.start(self._options.listen)
        works = [asyncio.create_task(work) for work in (self._follow_keys(), self._serve(calls, stop))]
        try:
            await until_stop(stop, *works)
            for work in works:
                if work.done():
                    work.result()  # it only ends by an error, or after ``stop``
            await self._host.drain()
        finally:
            for work in works:
                work.cancel()
            await asyncio.gather(*works, return_exceptions=True)
            await calls.close()

    async def _serve(self, calls: StreamCalls, stop: asyncio.Event) -> None:
        name = self._options.name
        known = await self._models(calls.channel)
        self._check(known)
        first = first_step(self._pipeline, known)
        running = Running(name, first, calls, Times(first), Meter(name, first.all()))
        settings = self._pipeline
        handler = PipelineHandler(
            running, Admission(name, self._access), settings.max_pictures, processes=settings.replicas
        )
        await self._batching.put(name, handler)
        self._ready = True
        garbage.settle()
        await self._host.health.say(serving=True)
        steps = ", ".join(each.name for each in first.all())
        log.info("pipeline %s serves on %s: %s", name, self._options.listen, steps)
        await stop.wait()

    async def _models(self, channel: grpc.aio.Channel) -> Mapping[str, Known]:
        """What the workers say of the pipeline's models; waits until each is served."""
        known: dict[str, Known] = {}
        told = ""
        wanted = sorted({each.step.model for each in placed(self._options.name, self._pipeline)})
        while missing := [model for model in wanted if model not in known]:
            reasons = [reason for model in missing if (reason := await self._ask(channel, model, known))]
            if reasons:
                if (trouble := "; ".join(reasons)) != told:
                    log.error("pipeline %s isn't ready: %s", self._options.name, trouble)
                told = trouble
                await asyncio.sleep(ASK_SECONDS)
        return known

    async def _ask(self, channel: grpc.aio.Channel, model: str, known: dict[str, Known]) -> str:
        """Asks for a model; why there is no answer yet, or nothing."""
        get = channel.unary_unary(
            "/shoal.v1.Models/Get",
            request_serializer=pb.ModelRequest.SerializeToString,
            response_deserializer=pb.Model.FromString,
        )
        try:
            call = get(pb.ModelRequest(name=model), timeout=_ANSWER_SECONDS, metadata=((wire.MODEL, model),))
            found = await rpc.answered(call)
        except grpc.aio.AioRpcError as error:
            return f"model {model!r}: {error.details() or error.code().name}"
        known[model] = Known(Task(found.task), tuple(found.labels), found.max_batch_size)
        return ""

    def _check(self, known: Mapping[str, Known]) -> None:
        found = check.faults(self._options.name, self._pipeline, known)
        if lines := read_section.with_lines(self._options.file, found):
            raise ConfigurationError("\n".join(lines))

    async def _follow_keys(self) -> None:
        async for ring in watch_keys(self._keys):
            self._access.ring = ring
