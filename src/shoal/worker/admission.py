"""Whether a request may be served: its key, its model, its fields. Nothing is fetched before that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from shoal.batching.messages import priority_of
from shoal.errors import InvalidRequest
from shoal.pictures.reference import object_key
from shoal.v1 import inference_pb2
from shoal.worker.picture import Picture
from shoal.worker.stages import Stages

if TYPE_CHECKING:
    from shoal.batching.v1 import batching_pb2
    from shoal.explain.recent import Recent
    from shoal.modelconfig.model import ModelConfig
    from shoal.worker.access import Access
    from shoal.worker.heads.head import Head

SERVICE = "shoal.v1.Inference"


@dataclass(frozen=True, slots=True)
class Admission:
    """To one model."""

    config: ModelConfig
    head: Head
    access: Access
    recent: Recent[Stages]
    """Where what becomes of pictures is kept for a while."""

    def check(self, method: str) -> None:
        """Raises InvalidRequest, with the right method in its text, unless ``method`` fits the model's task."""
        task = self.config.task
        if method != f"/{SERVICE}/{task.method}":
            raise InvalidRequest(f"model {self.config.name!r} is for {task.value}: call {task.method}")

    def admit(self, item: batching_pb2.BatchItem, now: float) -> Picture:
        """Checks a request before anything is fetched for it.

        Raises:
            InvalidRequest, Unauthenticated, PermissionDenied: as its message says.
        """
        request = _parse(item.request)
        grant = self.access.grant(item.owner, item.identity, request.api_key, self.config.name)
        if request.model_name != self.config.name:
            raise InvalidRequest(
                f"model_name {_quoted(request.model_name)} differs from the x-model-name metadata {self.config.name!r}"
            )
        version = self.config.version
        if request.model_version not in {0, version}:
            raise InvalidRequest(f"model {self.config.name!r} serves version {version}, not {request.model_version}")
        self.head.check(request)
        deadline = now + item.timeout_us / 1e6 if item.timeout_us else float("inf")
        name = object_key(grant.prefix, request.image_uuid)
        sent_as, priority = (item.queued_us, item.timeout_us), priority_of(item)
        stages = Stages(request.image_uuid, item.owner, self.config.name, version, priority, sent_as, now)
        self.recent.add(stages)
        return Picture(item, grant.owner, now, deadline, request, name, priority, stages)


def _parse(message: bytes) -> inference_pb2.ImageRequest:
    try:
        return inference_pb2.ImageRequest.FromString(message)
    except DecodeError:
        raise InvalidRequest("the message is not a shoal.v1.ImageRequest") from None


def _quoted(text: str, limit: int = 64) -> str:
    return json.dumps(text[:limit] + ("…" if len(text) > limit else ""), ensure_ascii=False)
