"""What an item of a batch asks, and on whose behalf: read alike for a model and for a pipeline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.errors import InvalidRequest
from shoal.v1.inference_pb2 import ImageRequest
from shoal.worker.json_message import parse, quoted

if TYPE_CHECKING:
    from shoal.batching.v1.batching_pb2 import BatchItem
    from shoal.worker.access import Grant, Memory


def read_request(item: BatchItem, access: Memory, name: str) -> tuple[ImageRequest, Grant]:
    """The request, once its key and the name of the model or pipeline are found right.

    Raises:
        InvalidRequest: it is no ``ImageRequest``, or one for another than ``name``.
        Unauthenticated, PermissionDenied: as ``Access.grant``.
    """
    request = parse(ImageRequest, item.request, as_json=access.came_as_json(item.identity))
    grant = access.grant(item.owner, item.identity, request.api_key)
    if request.model_name != name:
        raise InvalidRequest(f"model_name {quoted(request.model_name)} differs from the x-model-name metadata {name!r}")
    return request, grant


def deadline_of(item: BatchItem, now: float) -> float:
    """Seconds of the clock that ``now`` is of; infinity without one."""
    return now + item.timeout_us / 1e6 if item.timeout_us else math.inf


def max_age_us_of(item: BatchItem, request: ImageRequest) -> int:
    """How long before now the store may have been asked; the wait in the batcher doesn't count. 0: it is asked now."""
    told: int = request.max_age_us
    return told and told + item.queued_us
