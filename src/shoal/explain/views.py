"""What a part tells of a request: the JSON of ``GET /requests/<uuid>`` beside its metrics.

No message, key, presigned URL or object is in it, only the id of the caller's key. Times are durations, so that the
clocks of two hosts needn't agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterable


class View(BaseModel):
    """A part of another version may tell more or less."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Memory(View):
    """How far back a part remembers."""

    requests: int
    limit: int
    """The most that ``requests`` can be: the service file's ``observe.recent_requests``."""
    seconds: float | None = None
    """Since its oldest request came."""


class BatchView(View):
    """One batch, as the batcher sent it."""

    size: int
    """Requests, so far if it is open."""
    open_seconds: float
    closed_because: str = ""
    """``preferred``, ``delay``, ``objective``, ``enough``, ``bulk``, ``deadline``, ``drain`` or ``alone``.

    Empty while it is open.
    """
    max_batch_size: int = 0
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    latency_objective_microseconds: int = 0


class Visit(View):
    """One request's time in one part."""

    model: str
    key_id: str
    seconds_ago: float
    """When it came."""
    stage_seconds: dict[str, float]
    """In their order; they add up to ``total_seconds``. Without an answer the last one is still going on."""
    total_seconds: float
    code: str = ""
    """gRPC's name of the answer's code; empty while there is none."""
    message: str = ""
    """What the caller was told of an error."""
    sent_as: tuple[int, int] | None = None
    """``queued_us`` and ``timeout_us`` of the item that went from batcher to worker: which visits belong together."""


class BatcherVisit(Visit):
    """A request in the batcher. Stages: ``broken``, ``permit``, ``open``, ``closed``."""

    method: str
    timeout_seconds: float
    """What the caller gave it."""
    queued_ahead: int = 0
    """Requests of its queue that waited when it came."""
    broken_streams: int = 0
    priority: str = ""
    """``interactive`` or ``bulk``; empty: the part is older."""
    batch: BatchView | None = None
    """The one it was sent in last."""


class RegionView(View):
    """A part of a picture, as the request names it: shares of the upright picture."""

    x: float
    y: float
    width: float
    height: float
    padding: float = 0.0
    square: bool = False


class Way(View):
    """What became of a picture, or of a region of one, in a worker.

    Stages: ``fetch``, ``lookup`` (where the model has a result cache), ``slot``, ``decode``, ``company``, ``mates``,
    ``instance``, ``compute``, ``reply``, ``send``.
    """

    stage_seconds: dict[str, float]
    total_seconds: float
    code: str = ""
    message: str = ""
    region: RegionView | None = None
    """What the model saw of the picture; None: all, several regions, or the worker is older."""
    batch_size: int = 0
    """Pictures that the engine ran together with it, itself included; 0: it never got there."""
    executions: int = 0
    """More than 1: the engine failed on the whole batch, and each picture of it ran alone."""
    left_behind: bool = False
    """Its batch went without it, since its picture didn't come; or there was no row for it."""
    put_off: bool = False
    """There was no row for it, since requests of its batch asked about several regions."""
    decoded_by: str = ""
    """``device`` or ``cpu``; empty: it wasn't decoded, or the worker is older."""
    device_refused: bool = False
    """The device couldn't decode it, so the worker did."""
    result_cache: str = ""
    """``hit``: it has an earlier request's answer; ``miss``; ``asked``: that is looked up now. Empty: it wasn't, or the
    worker is older."""


class WorkerVisit(Visit, Way):
    """A request in a worker. Of several regions, stages and way are those of the one that was answered last."""

    model_version: int
    priority: str = ""
    """``interactive`` or ``bulk``; empty: an older worker doesn't tell."""
    regions: tuple[Way, ...] = ()
    """Where it asks about several: each, in the order of the request. Empty: it doesn't, or the worker is older."""


class Answer(View):
    """What one part remembers of a uuid, newest first; a part is a batcher or a worker."""

    memory: Memory
    batcher: tuple[BatcherVisit, ...] = ()
    worker: tuple[WorkerVisit, ...] = ()


class Glance(View):
    """One request, in a list of those that were slow or failed."""

    image_uuid: str = ""
    """Empty: its message names none."""
    model: str
    key_id: str
    seconds_ago: float
    """When it came."""
    total_seconds: float
    code: str = ""
    """gRPC's name of the answer's code; empty: there is none yet."""
    message: str = ""
    """What the caller was told of an error."""


class Glances(View):
    """Recent requests that are worth a look; newest, or slowest, first."""

    failed: tuple[Glance, ...] = ()
    slow: tuple[Glance, ...] = ()


def stages(began: float, marks: Iterable[tuple[str, float]], end: float) -> dict[str, float]:
    """Seconds a stage: each lasts from the mark before it to its own; the first without one (0) lasts until ``end``."""
    spans = {}
    for name, mark in marks:
        spans[name] = max(0.0, (mark or end) - began)
        if not mark:
            break
        began = max(began, mark)
    return spans
