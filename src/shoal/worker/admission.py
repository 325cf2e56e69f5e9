"""Whether a request may be served: its key, its model, its fields. Nothing is fetched before that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoal.batching.messages import priority_of
from shoal.errors import InvalidRequest
from shoal.observe.tracing import is_sampled
from shoal.pictures.reference import object_key
from shoal.worker.access import Memory
from shoal.worker.asked import deadline_of, read_request
from shoal.worker.heads.asked_region import checked_regions, of_each_region
from shoal.worker.parts import Parts
from shoal.worker.picture import Picture
from shoal.worker.spans import follow
from shoal.worker.stages import Stages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoal.batching.v1.batching_pb2 import BatchItem
    from shoal.explain.recent import Recent
    from shoal.modelconfig.model import ModelConfig
    from shoal.observe.tracing import Tracing
    from shoal.worker.access import Access
    from shoal.worker.heads.head import Head

SERVICE = "shoal.v1.Inference"
REGION_BYTES: Final = 900
"""Memory of what is kept of each further region of a request, with its region and its times."""


@dataclass(frozen=True, slots=True)
class Admission:
    """To one model."""

    config: ModelConfig
    head: Head
    access: Access
    recent: Recent[Stages]
    """Where what becomes of pictures is kept for a while."""
    tracing: Tracing | None = None
    """None: nothing is traced."""

    def check(self, method: str) -> None:
        """Raises InvalidRequest, with the right method in its text, unless ``method`` fits the model's task."""
        task = self.config.task
        if method != f"/{SERVICE}/{task.method}":
            raise InvalidRequest(f"model {self.config.name!r} is for {task.value}: call {task.method}")

    def admit(self, items: Iterable[BatchItem], now: float) -> Iterator[tuple[BatchItem, list[Picture] | Exception]]:
        """Checks requests before anything is fetched for them; each has its picture, one for each region, or why not.

        That is InvalidRequest, Unauthenticated or PermissionDenied, as its message says.
        """
        access = Memory(self.access, self.config.name)
        for item in items:
            try:
                yield item, self._admit(item, access, now)
            except Exception as error:
                yield item, error

    def _admit(self, item: BatchItem, access: Memory, now: float) -> list[Picture]:
        config = self.config
        request, grant = read_request(item, access, config.name)
        version = config.version
        if request.model_version not in {0, version}:
            raise InvalidRequest(f"model {config.name!r} serves version {version}, not {request.model_version}")
        self.head.check(request)
        regions = checked_regions(request)
        deadline = deadline_of(item, now)
        name, image_uuid = object_key(grant.prefix, request.image_uuid), request.image_uuid
        sent_as, priority = (item.queued_us, item.timeout_us), priority_of(item)
        owner, of_pipeline = item.owner, access.is_pipelines(item.identity)
        parts = Parts(config.task, len(regions)) if request.regions else None
        pictures = []
        for part, (each, region) in enumerate(zip(of_each_region(request), regions, strict=True)):
            stages = Stages(image_uuid, owner, config.name, version, priority, sent_as, now, region=region)
            pictures.append(
                Picture(
                    item, grant.owner, now, deadline, each, name, priority, stages, region, of_pipeline, parts, part
                )
            )
        self._remember([picture.stages for picture in pictures], item.traceparent)
        return pictures

    def _remember(self, stages: list[Stages], traceparent: str) -> None:
        """What becomes of a request's regions hangs on the first one's, as does its span."""
        first = stages[0]
        first.others = tuple(stages[1:])
        if self.tracing is not None and is_sampled(traceparent):
            follow(self.tracing.begin("worker", traceparent, first.arrived), stages)
        self.recent.add(first, REGION_BYTES * len(first.others))
