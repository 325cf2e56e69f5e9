"""One served model: what its batches need, put together once."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from shoal.batching.meter import BatchMeter
from shoal.errors import Code, InvalidRequest
from shoal.observe import metrics
from shoal.pictures.objectstore import object_key
from shoal.v1 import inference_pb2
from shoal.worker.batch import PictureBatch
from shoal.worker.picture import Picture
from shoal.worker.stages import Stages

if TYPE_CHECKING:
    import asyncio

    from shoal.batching.v1 import batching_pb2
    from shoal.engine import LoadedModel
    from shoal.explain.recent import Recent
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.pictures.decode import Decoder
    from shoal.worker.access import Access
    from shoal.worker.decoders.decoding import Decoding
    from shoal.worker.fetch_picture import Fetcher
    from shoal.worker.heads.choice import Head

SERVICE = "shoal.v1.Inference"


class Meter(BatchMeter):
    """And the metrics of its pictures."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._fetch = metrics.WORKER_FETCH.labels(model)
        self._fetch_bytes = metrics.WORKER_FETCH_BYTES.labels(model)
        self._fetches = {code: metrics.WORKER_FETCHES.labels(model, code.name) for code in Code}
        self._decode = metrics.WORKER_DECODE.labels(model)
        self._tensor_bytes = metrics.WORKER_TENSOR_BYTES.labels(model)

    def fetched(self, seconds: float, size: int) -> None:
        """One picture has come."""
        self._fetches[Code.OK].inc()
        self._fetch.observe(seconds)
        self._fetch_bytes.observe(size)

    def not_fetched(self, code: Code) -> None:
        """One picture didn't come."""
        self._fetches[code].inc()

    def decoded(self, seconds: float, size: int) -> None:
        """One picture is in its slot, where it takes ``size`` bytes."""
        self._decode.observe(seconds)
        self._tensor_bytes.inc(size)


@dataclass(frozen=True, slots=True)
class PictureModel:
    """See ``shoal.batching.service.Handler``."""

    loaded: LoadedModel[Any]
    decoder: Decoder
    head: Head
    fetcher: Fetcher
    access: Access
    decoding: Decoding
    """Where pictures are decoded."""
    meter: Meter
    recent: Recent[Stages]
    """Where what became of pictures is kept for a while."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False, repr=False)

    def own(self, task: asyncio.Task[None]) -> None:
        """Keeps a task whose batch was abandoned until it has ended: an event loop holds its tasks weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def row_bytes(self) -> int:
        """Of one picture in a slot."""
        return math.prod(self.decoder.input.shape) * np.dtype(self.decoder.input.dtype).itemsize

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.config.name

    @property
    def settings(self) -> BatchingSettings:
        """What batchers are told."""
        return self.loaded.config.batching

    def check(self, method: str) -> None:
        """Raises InvalidRequest, with the right method in its text, unless ``method`` fits the model's task."""
        task = self.loaded.config.task
        if method != f"/{SERVICE}/{task.method}":
            raise InvalidRequest(f"model {self.name!r} is for {task.value}: call {task.method}")

    def begin(self, method: str) -> PictureBatch:  # noqa: ARG002 - a checked one: there is one a model
        """A batch of calls of ``method``."""
        return PictureBatch(self)

    def admit(self, item: batching_pb2.BatchItem, now: float) -> Picture:
        """Checks a request before anything is fetched for it.

        Raises:
            InvalidRequest, Unauthenticated, PermissionDenied: as its message says.
        """
        request = _parse(item.request)
        grant = self.access.grant(item.owner, item.identity, request.api_key, self.name)
        if request.model_name != self.name:
            raise InvalidRequest(
                f"model_name {_quoted(request.model_name)} differs from the x-model-name metadata {self.name!r}"
            )
        version = self.loaded.config.version
        if request.model_version not in {0, version}:
            raise InvalidRequest(f"model {self.name!r} serves version {version}, not {request.model_version}")
        self.head.check(request)
        deadline = now + item.timeout_us / 1e6 if item.timeout_us else float("inf")
        name = object_key(grant.prefix, request.image_uuid)
        sent_as = item.queued_us, item.timeout_us
        stages = Stages(request.image_uuid, item.owner, self.name, version, sent_as, now)
        self.recent.add(stages)
        return Picture(item, grant.owner, now, deadline, request, name, stages)


def _parse(message: bytes) -> inference_pb2.ImageRequest:
    try:
        return inference_pb2.ImageRequest.FromString(message)
    except DecodeError:
        raise InvalidRequest("the message is not a shoal.v1.ImageRequest") from None


def _quoted(text: str, limit: int = 64) -> str:
    return json.dumps(text[:limit] + ("…" if len(text) > limit else ""), ensure_ascii=False)
