"""Whether a picture may be analyzed, and on whose behalf: as a worker decides for a model, before anything is asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from shoal.batching.messages import priority_of
from shoal.errors import InvalidRequest
from shoal.pipeline.analysis import Asked
from shoal.pipeline.calls import Caller
from shoal.pipeline.steps import Mask
from shoal.service.identity import Identity
from shoal.worker.access import Memory
from shoal.worker.asked import deadline_of, max_age_us_of, read_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoal.batching.v1.batching_pb2 import BatchItem
    from shoal.v1 import inference_pb2 as pb
    from shoal.worker.access import Access, Grant

METHOD = "/shoal.v1.Inference/Analyze"
_OF_STEPS = ("model_version", "top_k", "score_threshold", "regions")
"""Fields of a request that a pipeline has no use for: its steps say."""
_REMEMBERED: Final = 1024
"""Identities that were written lately: all pictures of a caller bring the same one."""


@dataclass(frozen=True, slots=True)
class Admission:
    """To one pipeline."""

    name: str
    access: Access

    def check(self, method: str) -> None:
        """Raises InvalidRequest, with the right method in its text, for any other than Analyze."""
        if method != METHOD:
            raise InvalidRequest(f"{self.name!r} is a pipeline: call Analyze")

    def admit(self, items: Iterable[BatchItem], now: float) -> Iterator[tuple[BatchItem, Asked | Exception]]:
        """What each item asks, or why it may not: InvalidRequest, Unauthenticated or PermissionDenied."""
        access = Memory(self.access, self.name)
        for item in items:
            try:
                yield item, self._admit(item, access, now)
            except Exception as error:
                yield item, error

    def _admit(self, item: BatchItem, access: Memory, now: float) -> Asked:
        request, grant = read_request(item, access, self.name)
        self._check_fields(request)
        region = request.region if request.HasField("region") else None
        mask = Mask(request.mask_form, request.mask_size)
        deadline, max_age_us = deadline_of(item, now), max_age_us_of(item, request)
        return Asked(request.image_uuid, self._caller(item, grant), deadline, mask, region, max_age_us)

    def _check_fields(self, request: pb.ImageRequest) -> None:
        told = {field.name for field, _ in request.ListFields()}
        if wrong := [name for name in _OF_STEPS if name in told]:
            raise InvalidRequest(
                f"{', '.join(wrong)}: {self.name!r} is a pipeline, whose steps have their own settings"
            )

    def _caller(self, item: BatchItem, grant: Grant) -> Caller:
        identity = _identity(self.name, item.identity, item.owner, grant, self.access.ring.proof)
        return Caller(grant.owner, item.owner, identity, priority_of(item), item.traceparent)


@lru_cache(_REMEMBERED)
def _identity(pipeline: str, shown: str, key_id: str, grant: Grant, proof: str) -> str:
    """Of a pipeline on a caller's behalf. An older router tells the key's id and no more."""
    caller = Identity.parse(shown) or Identity(key_id, grant.owner, grant.prefix, "-")
    return caller.by_pipeline(pipeline, grant.prefix, proof).write()
