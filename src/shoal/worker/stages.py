"""Where one picture's time goes in the worker, kept for ``shoal explain`` after the picture itself is gone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from shoal.errors import Code
from shoal.explain.recent import MAX_TEXT
from shoal.explain.views import Answer, RegionView, WorkerVisit, stages
from shoal.explain.views import Way as Told
from shoal.worker.decode_choice import Way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.explain.recent import Recent
    from shoal.observe.tracing import Span
    from shoal.pictures.region import PictureRegion
    from shoal.runtime.priority import Priority


ASKED: Final = "asked"
HIT: Final = "hit"
MISS: Final = "miss"


@dataclass(eq=False, slots=True)
class Stages:
    """Times are seconds of ``time.monotonic``, and 0 until they come."""

    image_uuid: str
    key_id: str
    model: str
    version: int
    priority: Priority
    sent_as: tuple[int, int]
    """The item's ``queued_us`` and ``timeout_us``."""
    arrived: float
    fetched: float = 0.0
    looked_up: float = 0.0
    """In the model's result cache."""
    decoding: float = 0.0
    decoded: float = 0.0
    closed: float = 0.0
    """The batch was complete."""
    asked: float = 0.0
    """The engine, to run the batch."""
    started: float = 0.0
    computed: float = 0.0
    ended: float = 0.0
    """Its answer is made."""
    left: float = 0.0
    """Its answer goes to the batcher, with those of its batch-mates."""
    size: int = 0
    """Pictures in the last batch that the engine was asked to run with it."""
    executions: int = 0
    straggler: bool = False
    put_off: bool = False
    """Its batch had no row left for it."""
    on_device: bool = False
    """The model's device decoded it, as a part of ``computed``."""
    refused: bool = False
    """By the device, which couldn't decode it."""
    result_cache: str = ""
    """ASKED, HIT or MISS; empty: it wasn't asked, and mostly the model has none."""
    code: Code = Code.OK
    text: str = ""
    region: PictureRegion | None = None
    """What the model sees of the picture; None: all."""
    others: tuple[Stages, ...] = ()
    """The request's further regions, where it asks about several and this is the first."""
    span: RequestSpan | None = None
    """The request's, if that is traced."""
    batch_span: Span | None = None
    """Of the last batch that the engine was asked to run with it."""

    def ask(self, now: float, size: int) -> None:
        """The engine is asked to run it, with ``size`` pictures in all."""
        self.asked, self.size, self.executions = now, size, self.executions + 1

    def look_up(self, now: float, *, found: bool) -> None:
        """The result cache has answered."""
        self.looked_up, self.result_cache = now, HIT if found else MISS

    def end(self, code: Code, text: str, now: float) -> None:
        """Its answer is made."""
        self.code, self.text, self.ended = code, text[:MAX_TEXT], now

    def view(self, now: float) -> WorkerVisit:
        """What is told of the request; of several regions, what became of each, and when the last was answered."""
        parts = (self, *self.others)
        visit = WorkerVisit(
            model=self.model,
            model_version=self.version,
            key_id=self.key_id,
            seconds_ago=now - self.arrived,
            sent_as=self.sent_as,
            priority=self.priority,
            **max(parts, key=lambda part: part.ended or math.inf).way(now),
        )
        if not self.others:
            return visit
        regions = tuple(Told(**part.way(now)) for part in parts)
        alike = len({(each.code, each.message) for each in regions}) == 1
        told = {} if alike or not visit.code else {"code": Code.OK.name, "message": ""}
        return visit.model_copy(update={"region": None, "regions": regions, **told})

    def way(self, now: float) -> dict[str, Any]:
        """The fields of ``shoal.explain.views.Way``, of this region alone."""
        left = self.left or now
        spans = stages(self.arrived, self._marks(), self.ended or now)
        if self.ended:
            spans["send"] = left - self.ended
        return {
            "stage_seconds": spans,
            "total_seconds": left - self.arrived,
            "code": self.code.name if self.ended else "",
            "message": self.text,
            "region": RegionView(**self.region._asdict()) if self.region is not None else None,
            "batch_size": self.size,
            "executions": self.executions,
            "left_behind": self.straggler,
            "put_off": self.put_off,
            "decoded_by": self._decoder(),
            "device_refused": self.refused,
            "result_cache": self.result_cache,
        }

    def _marks(self) -> list[tuple[str, float]]:
        """The stages that it goes through, and when each ended."""
        lookup = [("lookup", self.looked_up)] if self.result_cache else []
        if self.result_cache == HIT:
            return [("fetch", self.fetched), *lookup, ("reply", self.ended)]
        return [
            ("fetch", self.fetched),
            *lookup,
            ("slot", self.decoding),
            ("decode", self.decoded),
            ("company", max(self.closed, self.decoded) if self.closed else 0.0),
            ("mates", self.asked),
            ("instance", self.started),
            ("compute", self.computed),
            ("reply", self.ended),
        ]

    def _decoder(self) -> str:
        if not self.decoded:
            return ""
        return Way.DEVICE.value if self.on_device else Way.CPU.value


@dataclass(eq=False, slots=True)
class RequestSpan:
    """The span of a request that is traced, which asks about one picture or about several regions of it."""

    span: Span
    parts: Sequence[Stages]
    """Of the picture, or of each region."""
    executions: int = 0
    """Batches that the engine was asked to run with any of them."""


def explain(recent: Recent[Stages], image_uuid: str) -> Answer:
    """What is remembered of a uuid in lower case."""
    now = monotonic()
    found = [stages for stages in recent.newest_first() if stages.image_uuid == image_uuid]
    return Answer(memory=recent.memory(now), worker=tuple(stages.view(now) for stages in found))
